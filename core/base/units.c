/* Times and sizes as people write them.
 *
 * Pure text to number and back, in integers: "0.1s" is exactly 100 ms. Strict, because a mistyped
 * time-out that is half understood is worse than one that is refused. */
#include "penstock/base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { BILLION = 1000000000 };

static const uint64_t TIME_MAX_MS = UINT64_C(10) * 365 * 24 * 3600 * 1000;

/* A decimal number, before its unit is known. */
struct decimal {
    uint64_t whole;
    uint64_t billionths; /* digits beyond the ninth are ignored */
    bool has_fraction;
    bool
        too_big; /* `whole` would not fit; only an error once the rest is known to be well-formed */
    const char *rest;
};

struct unit {
    const char *suffix;
    uint64_t factor;
    bool whole_only; /* no fraction may stand before it */
};

static const struct unit time_units[] = {
    {"", 1000, false},     {"ms", 1, false},       {"s", 1000, false}, {"m", 60000, false},
    {"h", 3600000, false}, {"d", 86400000, false}, {NULL, 0, false},
};

static const struct unit size_units[] = {
    {"", 1, true},           {"b", 1, true},           {"k", 1u << 10, false},
    {"kb", 1u << 10, false}, {"kib", 1u << 10, false}, {"m", 1u << 20, false},
    {"mb", 1u << 20, false}, {"mib", 1u << 20, false}, {"g", 1u << 30, false},
    {"gb", 1u << 30, false}, {"gib", 1u << 30, false}, {NULL, 0, false},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *read_whole(const char *text, struct decimal *d)
{
    for (; is_digit(*text); text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (d->whole > (UINT64_MAX - digit) / 10)
            d->too_big = true;
        else
            d->whole = d->whole * 10 + digit;
    }
    return text;
}

static const char *read_fraction(const char *text, struct decimal *d)
{
    d->has_fraction = true;
    for (uint64_t place = BILLION / 10; is_digit(*text); text++, place /= 10)
        d->billionths += (uint64_t)(*text - '0') * place;
    return text;
}

/* 0, or -EINVAL when the text does not begin with digits, or with digits around a point. */
static int read_decimal(const char *text, struct decimal *d)
{
    *d = (struct decimal){0};
    if (!text || !is_digit(*text))
        return -EINVAL;
    d->rest = read_whole(text, d);
    if (*d->rest != '.')
        return 0;
    if (!is_digit(d->rest[1]))
        return -EINVAL;
    d->rest = read_fraction(d->rest + 1, d);
    return 0;
}

/* Rounded to the nearest, but never down to 0: that often means "off" or "unlimited". */
static int scale(const struct decimal *d, uint64_t factor, uint64_t *out)
{
    uint64_t part = (d->billionths * factor + BILLION / 2) / BILLION;
    if (d->too_big || d->whole > (UINT64_MAX - part) / factor)
        return -ERANGE;
    *out = d->whole * factor + part;
    if (*out == 0 && d->billionths > 0)
        *out = 1;
    return 0;
}

static int parse_with_unit(const char *text, const struct unit *units,
                           int (*compare)(const char *, const char *), uint64_t *out)
{
    struct decimal d;
    int err = read_decimal(text, &d);
    if (err)
        return err;
    while (units->suffix && compare(d.rest, units->suffix) != 0)
        units++;
    if (!units->suffix || (d.has_fraction && units->whole_only))
        return -EINVAL;
    return scale(&d, units->factor, out);
}

int units_parse_time_ms(const char *text, uint64_t *out_ms)
{
    uint64_t ms;
    int err = parse_with_unit(text, time_units, strcmp, &ms);
    if (err)
        return err;
    if (ms > TIME_MAX_MS)
        return -ERANGE;
    *out_ms = ms;
    return 0;
}

int units_parse_size(const char *text, uint64_t *out_bytes)
{
    return parse_with_unit(text, size_units, strcasecmp, out_bytes);
}

int units_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    struct decimal d;
    int err = read_decimal(text, &d);
    if (err)
        return err;
    if (d.has_fraction || *d.rest != '\0')
        return -EINVAL;
    if (d.too_big || d.whole < min || d.whole > max)
        return -ERANGE;
    *out = d.whole;
    return 0;
}

/* value / factor with one decimal place, none when it is 0. */
static const char *format_tenths(uint64_t tenths, const char *suffix, char *buf, size_t cap)
{
    if (tenths % 10 == 0)
        snprintf(buf, cap, "%" PRIu64 "%s", tenths / 10, suffix);
    else
        snprintf(buf, cap, "%" PRIu64 ".%u%s", tenths / 10, (unsigned)(tenths % 10), suffix);
    return buf;
}

static uint64_t to_tenths(uint64_t value, uint64_t factor)
{
    return value / factor * 10 + (value % factor * 10 + factor / 2) / factor;
}

const char *units_format_size(uint64_t bytes, char *buf, size_t cap)
{
    static const char *const suffixes[] = {"", "K", "M", "G"};
    unsigned unit = 0;
    /* Compared after rounding: one byte short of 1M is "1M", not "1024K". */
    while (unit < 3 &&
           (bytes >> (10 * unit) >= 1024 || to_tenths(bytes, UINT64_C(1) << (10 * unit)) >= 10240))
        unit++;
    return format_tenths(to_tenths(bytes, UINT64_C(1) << (10 * unit)), suffixes[unit], buf, cap);
}

const char *units_format_time(uint64_t ms, char *buf, size_t cap)
{
    static const struct unit units[] = {
        {"d", 86400000, false}, {"h", 3600000, false}, {"m", 60000, false}, {"s", 1000, false}};
    if (ms < 1000) {
        snprintf(buf, cap, "%ums", (unsigned)ms);
        return buf;
    }
    /* The largest unit that says it exactly; else seconds. */
    unsigned i = 0;
    while (i < 3 && (ms < units[i].factor || ms % units[i].factor % (units[i].factor / 10) != 0))
        i++;
    return format_tenths(to_tenths(ms, units[i].factor), units[i].suffix, buf, cap);
}
