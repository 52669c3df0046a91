/* Telling UTF-8 from other bytes. */
#ifndef PENSTOCK_BASE_UTF8_H
#define PENSTOCK_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* A byte that is not the first of its sequence. */
static inline bool utf8_is_continuation(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* Length of the UTF-8 sequence at s, of at least one and at most n bytes (RFC 3629: no overlong
 * forms, no surrogates); 0 when it is none. */
size_t utf8_len(const unsigned char *s, size_t n);

#endif
