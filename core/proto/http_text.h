/* Characters of HTTP/1.x, for the codecs that read it. */
#ifndef PENSTOCK_CORE_PROTO_HTTP_TEXT_H
#define PENSTOCK_CORE_PROTO_HTTP_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool http_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool http_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* tchar, RFC 9110 section 5.6.2 */
static inline bool http_is_token(char c)
{
    return http_is_letter(c) || http_is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* What a field's value may have: no controls but the tab. */
static inline bool http_is_text(char c)
{
    return (unsigned char)c >= ' ' ? c != 0x7f : c == '\t';
}

#endif
