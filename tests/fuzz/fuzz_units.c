/* Times, sizes and numbers: an error touches nothing, a value is within its bounds, and what is
 * printed for people can be read again. */
#include "fuzz.h"

#include <errno.h>

#include "penstock/base/units.h"

static const uint64_t UNTOUCHED = UINT64_C(0x0123456789abcdef);
static const uint64_t TEN_YEARS_MS = UINT64_C(10) * 365 * 24 * 3600 * 1000;

static void check_result(int err, uint64_t value)
{
    MUST(err == 0 || err == -EINVAL || err == -ERANGE);
    MUST(err == 0 || value == UNTOUCHED);
}

/* |a - b| is at most a twentieth of a: one decimal place is printed. */
static void check_close(uint64_t a, uint64_t b)
{
    uint64_t off = a > b ? a - b : b - a;
    MUST(off <= a / 20);
}

static void check_time(const char *text)
{
    uint64_t ms = UNTOUCHED, again;
    char buf[32];
    int err = units_parse_time_ms(text, &ms);
    check_result(err, ms);
    if (err)
        return;
    MUST(ms <= TEN_YEARS_MS);
    MUST(units_format_time(ms, buf, sizeof buf) == buf);
    MUST(units_parse_time_ms(buf, &again) == 0 || ms > TEN_YEARS_MS / 20 * 19);
    check_close(ms, again);
}

static void check_size(const char *text)
{
    uint64_t bytes = UNTOUCHED, again;
    char buf[32];
    int err = units_parse_size(text, &bytes);
    check_result(err, bytes);
    if (err)
        return;
    MUST(units_format_size(bytes, buf, sizeof buf) == buf);
    int err_again = units_parse_size(buf, &again);
    MUST(err_again == 0 || (err_again == -ERANGE && bytes > UINT64_MAX / 20 * 19));
    if (err_again == 0)
        check_close(bytes, again);
}

static void check_uint(const char *text)
{
    uint64_t n = UNTOUCHED;
    int err = units_parse_uint(text, 10, 65535, &n);
    check_result(err, n);
    if (err)
        return;
    MUST(n >= 10 && n <= 65535);
    MUST(n == strtoull(text, NULL, 10));
}

/* Any number can be printed, into any room. */
static void check_format(const uint8_t *data, size_t size)
{
    uint64_t n = 0;
    memcpy(&n, data, size < sizeof n ? size : sizeof n);
    size_t cap = 1 + (size_t)(n % 8);
    char *buf = malloc(cap);
    MUST(buf);
    MUST(strlen(units_format_size(n, buf, cap)) < cap);
    MUST(strlen(units_format_time(n, buf, cap)) < cap);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    check_time(text);
    check_size(text);
    check_uint(text);
    check_format(data, size);
    free(text);
    return 0;
}
