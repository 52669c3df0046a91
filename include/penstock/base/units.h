/* Times and sizes as people write them. */
#ifndef PENSTOCK_BASE_UNITS_H
#define PENSTOCK_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Parses a time: "5" and "2.5" are seconds; "200ms", "5s", "2m", "1h", "1d" carry their unit.
 * Result in milliseconds in *out_ms. Returns 0, or -EINVAL (not a time, negative, trailing text) or
 * -ERANGE (over 10 years); *out_ms is untouched on error. */
int units_parse_time_ms(const char *text, uint64_t *out_ms);

/* Parses a size: "4096", "64K", "1M", "1G" (powers of 1024; lower case too; an optional "B" or "iB"
 * may follow; fractions such as "1.5M" are allowed with a unit). Result in bytes. Returns 0,
 * -EINVAL or -ERANGE as above. */
int units_parse_size(const char *text, uint64_t *out_bytes);

/* Parses a whole decimal number in [min, max], nothing else allowed. Returns 0, -EINVAL or -ERANGE.
 */
int units_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* Formats for people: "64K", "1.5M", "250ms", "1h". Returns `buf`. */
const char *units_format_size(uint64_t bytes, char *buf, size_t cap);
const char *units_format_time(uint64_t ms, char *buf, size_t cap);

#endif
