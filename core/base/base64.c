/* Three bytes are four characters; the last ones are filled with "=". */
#include "penstock/base/base64.h"

#include <stdint.h>

void base64_encode(const void *bytes, size_t n, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *b = bytes;
    for (; n; n = n > 3 ? n - 3 : 0, b += 3) {
        uint32_t bits = (uint32_t)b[0] << 16;
        if (n > 1)
            bits |= (uint32_t)b[1] << 8;
        if (n > 2)
            bits |= b[2];
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = n > 1 ? digits[bits >> 6 & 63] : '=';
        *out++ = n > 2 ? digits[bits & 63] : '=';
    }
    *out = '\0';
}
