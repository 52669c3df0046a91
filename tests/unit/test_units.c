/* Times and sizes (base/units.h). */
#include "penstock/base/units.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { UNTOUCHED = 987654321 };

struct row {
    const char *text;
    uint64_t value;
};

#define EACH(row, rows)                                                                            \
    for (const struct row *row = (rows); row < (rows) + sizeof(rows) / sizeof((rows)[0]); row++)

static void times_parse_with_every_unit(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", 0},
        {"5", 5000},
        {"2.5", 2500},
        {"200ms", 200},
        {"5s", 5000},
        {"2m", 120000},
        {"1h", 3600000},
        {"1d", 86400000},
        {"0.1s", 100},
        {"1.5h", 5400000},
        {"007", 7000},
        {"0.001", 1},
        {"0.5d", 43200000},
        {"0ms", 0},
        {"0.0s", 0},
        {"0.2999999999999s", 300},
        {"3650d", UINT64_C(315360000000)},
    };
    EACH(row, rows)
    {
        uint64_t ms = UNTOUCHED;
        assert_int_equal(units_parse_time_ms(row->text, &ms), 0);
        assert_int_equal(ms, row->value);
    }
}

static void a_tiny_time_is_not_rounded_to_never(void **state)
{
    (void)state;
    uint64_t ms = 0;
    assert_int_equal(units_parse_time_ms("0.0001s", &ms), 0);
    assert_int_equal(ms, 1);
    assert_int_equal(units_parse_time_ms("0.4ms", &ms), 0);
    assert_int_equal(ms, 1);
}

static const char *const not_numbers[] = {
    "",
    " 5",
    "5 ",
    "1e3",
    "nan",
    "0x10",
    "-1",
    "+1",
    "inf",
    ".5",
    "5.",
    "1.s",
    "1..2",
    "1,5",
    "5x",
    "ms",
    "s",
    "5 s",
    "5sm",
    "5\n",
    ".",
    "5ss",
    "٣",
    "1.2.3",
    "\xff",
    "-",
    "--1",
    "1e",
    "0b1",
    "1_000",
    "99999999999999999999999x",
};

static void what_is_no_time_is_refused_and_nothing_is_stored(void **state)
{
    (void)state;
    static const char *const more[] = {"5MS", "5S", "5M", "5w", "5us", "5min", "5k"};
    uint64_t ms = UNTOUCHED;
    for (size_t i = 0; i < sizeof not_numbers / sizeof not_numbers[0]; i++)
        assert_int_equal(units_parse_time_ms(not_numbers[i], &ms), -EINVAL);
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        assert_int_equal(units_parse_time_ms(more[i], &ms), -EINVAL);
    assert_int_equal(units_parse_time_ms(NULL, &ms), -EINVAL);
    assert_int_equal(ms, UNTOUCHED);
}

static void a_time_over_ten_years_is_out_of_range(void **state)
{
    (void)state;
    static const char *const texts[] = {"3651d",
                                        "3650.1d",
                                        "315360001",
                                        "99999999999999999999999",
                                        "18446744073709551615d",
                                        "18446744073709551616"};
    uint64_t ms = UNTOUCHED;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_int_equal(units_parse_time_ms(texts[i], &ms), -ERANGE);
    assert_int_equal(ms, UNTOUCHED);
}

static void sizes_parse_with_every_unit(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", 0},
        {"4096", 4096},
        {"4096B", 4096},
        {"64K", 65536},
        {"64k", 65536},
        {"64KB", 65536},
        {"64KiB", 65536},
        {"64kib", 65536},
        {"1M", 1048576},
        {"1.5M", 1572864},
        {"1G", 1073741824},
        {"0.5K", 512},
        {"1.5g", 1610612736},
        {"18446744073709551615", UINT64_MAX},
    };
    EACH(row, rows)
    {
        uint64_t bytes = UNTOUCHED;
        assert_int_equal(units_parse_size(row->text, &bytes), 0);
        assert_int_equal(bytes, row->value);
    }
}

static void what_is_no_size_is_refused_and_nothing_is_stored(void **state)
{
    (void)state;
    static const char *const more[] = {"1.5", "1.5B", "1iB", "1KBB", "1Ki",
                                       "1T",  "1 K",  "K",   "1ms"};
    uint64_t bytes = UNTOUCHED;
    for (size_t i = 0; i < sizeof not_numbers / sizeof not_numbers[0]; i++)
        assert_int_equal(units_parse_size(not_numbers[i], &bytes), -EINVAL);
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        assert_int_equal(units_parse_size(more[i], &bytes), -EINVAL);
    assert_int_equal(bytes, UNTOUCHED);
}

static void a_size_that_overflows_is_out_of_range(void **state)
{
    (void)state;
    uint64_t bytes = UNTOUCHED;
    assert_int_equal(units_parse_size("18446744073709551616", &bytes), -ERANGE);
    assert_int_equal(units_parse_size("18014398509481984K", &bytes), -ERANGE);
    assert_int_equal(units_parse_size("99999999999G", &bytes), -ERANGE);
    assert_int_equal(bytes, UNTOUCHED);
}

static void whole_numbers_parse_within_their_limits(void **state)
{
    (void)state;
    uint64_t n = UNTOUCHED;
    assert_int_equal(units_parse_uint("1", 1, 65535, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(units_parse_uint("65535", 1, 65535, &n), 0);
    assert_int_equal(n, 65535);
    assert_int_equal(units_parse_uint("18446744073709551615", 0, UINT64_MAX, &n), 0);
    assert_true(n == UINT64_MAX);
}

static void what_is_no_whole_number_is_refused_and_nothing_is_stored(void **state)
{
    (void)state;
    uint64_t n = UNTOUCHED;
    for (size_t i = 0; i < sizeof not_numbers / sizeof not_numbers[0]; i++)
        assert_int_equal(units_parse_uint(not_numbers[i], 0, UINT64_MAX, &n), -EINVAL);
    assert_int_equal(units_parse_uint("1.0", 0, 9, &n), -EINVAL);
    assert_int_equal(units_parse_uint("0", 1, 9, &n), -ERANGE);
    assert_int_equal(units_parse_uint("10", 1, 9, &n), -ERANGE);
    assert_int_equal(units_parse_uint("18446744073709551616", 0, UINT64_MAX, &n), -ERANGE);
    assert_int_equal(n, UNTOUCHED);
}

static void sizes_read_well(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", 0},           {"1", 1},
        {"1023", 1023},     {"1K", 1024},
        {"1.5K", 1536},     {"64K", 65536},
        {"1.5M", 1572864},  {"1M", 1048575},
        {"1G", 1073741824}, {"17179869184G", UINT64_MAX},
    };
    char buf[32];
    EACH(row, rows)
    assert_string_equal(units_format_size(row->value, buf, sizeof buf), row->text);
}

static void times_read_well(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0ms", 0},     {"250ms", 250},  {"999ms", 999},  {"1s", 1000},        {"2.5s", 2500},
        {"65s", 65000}, {"1.5m", 90000}, {"1h", 3600000}, {"1.5d", 129600000}, {"123.5s", 123456},
    };
    char buf[32];
    EACH(row, rows)
    assert_string_equal(units_format_time(row->value, buf, sizeof buf), row->text);
}

static void a_short_buffer_is_not_overrun(void **state)
{
    (void)state;
    char buf[4] = "zzz";
    assert_string_equal(units_format_size(UINT64_MAX, buf, 3), "17");
    assert_int_equal(buf[3], 0);
    assert_string_equal(units_format_time(UINT64_MAX, buf, 2), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_parse_with_every_unit),
        cmocka_unit_test(a_tiny_time_is_not_rounded_to_never),
        cmocka_unit_test(what_is_no_time_is_refused_and_nothing_is_stored),
        cmocka_unit_test(a_time_over_ten_years_is_out_of_range),
        cmocka_unit_test(sizes_parse_with_every_unit),
        cmocka_unit_test(what_is_no_size_is_refused_and_nothing_is_stored),
        cmocka_unit_test(a_size_that_overflows_is_out_of_range),
        cmocka_unit_test(whole_numbers_parse_within_their_limits),
        cmocka_unit_test(what_is_no_whole_number_is_refused_and_nothing_is_stored),
        cmocka_unit_test(sizes_read_well),
        cmocka_unit_test(times_read_well),
        cmocka_unit_test(a_short_buffer_is_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
