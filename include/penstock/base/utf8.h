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

/* Is the character of n bytes at s, of which utf8_len() has told, one that a terminal obeys? ASCII
 * and C1 controls, and the marks that change the order of what is shown (U+200E, U+200F, U+202A to
 * U+202E, U+2066 to U+2069). */
static inline bool utf8_is_control(const unsigned char *s, size_t n)
{
    if (n == 1)
        return s[0] < ' ' || s[0] == 0x7f;
    if (n == 2)
        return s[0] == 0xc2 && s[1] < 0xa0;
    if (n != 3 || s[0] != 0xe2)
        return false;
    return (s[1] == 0x80 && (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xaa && s[2] <= 0xae))) ||
           (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

/* Length of the UTF-8 sequence at s, of at least one and at most n bytes (RFC 3629: no overlong
 * forms, no surrogates); 0 when it is none. */
size_t utf8_len(const unsigned char *s, size_t n);

#endif
