/* Bytes as text: base64 (RFC 4648). */
#ifndef PENSTOCK_BASE_BASE64_H
#define PENSTOCK_BASE_BASE64_H

#include <stddef.h>

/* Characters that `n` bytes become. */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Writes BASE64_LEN(n) characters and a zero to `out`. */
void base64_encode(const void *bytes, size_t n, char *out);

#endif
