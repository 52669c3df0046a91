/* The head of an HTTP/1.x request, as far as it says which host is meant. One pass over the bytes,
 * so that what cannot be HTTP is refused at the byte that shows it. */
#include "penstock/proto/http_host.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "http_text.h"

enum { METHOD_MAX = 20 };

struct span {
    const char *s;
    size_t len;
};

struct scan {
    const char *at, *end;
};

/* Each step below moves `at` over what it knows and returns 1, PROTO_MORE or PROTO_BAD. */

static int expect(struct scan *s, const char *word)
{
    for (; *word; word++, s->at++) {
        if (s->at == s->end)
            return PROTO_MORE;
        if (*s->at != *word)
            return PROTO_BAD;
    }
    return 1;
}

/* Characters that `fits` up to `stop`, which is passed; between 1 and `max` of them. */
static int upto(struct scan *s, char stop, bool (*fits)(char c), size_t max, struct span *out)
{
    for (out->s = s->at; s->at < s->end; s->at++) {
        out->len = (size_t)(s->at - out->s);
        if (*s->at == stop) {
            s->at++;
            return out->len ? 1 : PROTO_BAD;
        }
        if (!fits(*s->at) || out->len == max)
            return PROTO_BAD;
    }
    return PROTO_MORE;
}

/* Every method that is registered is one of these; so a server's greeting ends here. */
static bool is_method(char c)
{
    return (c >= 'A' && c <= 'Z') || c == '-';
}

static bool is_target(char c)
{
    return (unsigned char)c > ' ' && c != 0x7f;
}

/* ---- the host ---- */

static bool is_port(struct span port)
{
    unsigned number = 0;
    for (size_t i = 0; i < port.len; i++) {
        if (!http_is_digit(port.s[i]) || number > 65535)
            return false;
        number = number * 10 + (unsigned)(port.s[i] - '0');
    }
    return number <= 65535;
}

static bool copy_lower(struct span name, struct http_host *out)
{
    if (name.len == 0 || name.len > HTTP_HOST_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.s[i];
        if (!http_is_letter(c) && !http_is_digit(c) && !strchr("-_.:", c))
            return false;
        out->name[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    out->name[name.len] = '\0';
    return true;
}

static bool read_ip6(struct span ip, struct http_host *out)
{
    struct in6_addr in6;
    return copy_lower(ip, out) && inet_pton(AF_INET6, out->name, &in6) == 1;
}

static bool read_name(struct span name, struct http_host *out)
{
    if (name.len > 1 && name.s[name.len - 1] == '.')
        name.len--;
    return copy_lower(name, out) && out->name[0] != '.' && !strstr(out->name, "..") &&
           !strchr(out->name, ':');
}

/* host [":" port] */
static bool read_authority(struct span a, struct http_host *out)
{
    bool bracketed = a.len && a.s[0] == '[';
    const char *end = a.s + a.len;
    const char *stop = memchr(a.s, bracketed ? ']' : ':', a.len);
    if (bracketed && !stop)
        return false;
    struct span name = {a.s, (size_t)((stop ? stop : end) - a.s)};
    const char *colon = bracketed ? stop + 1 : stop;
    if (colon && colon < end) {
        if (*colon != ':' || !is_port((struct span){colon + 1, (size_t)(end - colon - 1)}))
            return false;
    }
    if (bracketed)
        return read_ip6((struct span){name.s + 1, name.len - 1}, out);
    return read_name(name, out);
}

static bool is_word(struct span a, const char *word)
{
    return a.len == strlen(word) && memcmp(a.s, word, a.len) == 0;
}

/* "scheme://authority…": cuts *target down to the authority. */
static bool cut_absolute(struct span *target)
{
    size_t at = 0;
    while (at < target->len && http_is_letter(target->s[at]))
        at++;
    if (at == 0 || target->len - at < 3 || memcmp(target->s + at, "://", 3) != 0)
        return false;
    target->s += at + 3;
    target->len -= at + 3;
    at = 0;
    while (at < target->len && !strchr("/?#", target->s[at]))
        at++;
    target->len = at;
    return true;
}

/* Takes the host that the target names, if it names one: *named tells. */
static bool read_target(struct span method, struct span target, struct http_host *out, bool *named)
{
    *named = true;
    if (is_word(method, "CONNECT"))
        return memchr(target.s, ':', target.len) && read_authority(target, out);
    *named = false;
    if (target.s[0] == '/' || (is_word(target, "*") && is_word(method, "OPTIONS")))
        return true;
    *named = true;
    return cut_absolute(&target) && read_authority(target, out);
}

/* ---- the head ---- */

static int read_request_line(struct scan *s, struct http_host *out, bool *named)
{
    struct span method = {0}, target = {0};
    int step = upto(s, ' ', is_method, METHOD_MAX, &method);
    if (step == 1)
        step = upto(s, ' ', is_target, HTTP_HEAD_MAX, &target);
    if (step == 1 && !read_target(method, target, out, named))
        step = PROTO_BAD;
    if (step == 1)
        step = expect(s, "HTTP/1.");
    if (step != 1)
        return step;
    if (s->at == s->end)
        return PROTO_MORE;
    return http_is_digit(*s->at++) ? expect(s, "\r\n") : PROTO_BAD;
}

static int read_field(struct scan *s, struct span *name, struct span *value)
{
    int step = upto(s, ':', http_is_token, HTTP_HEAD_MAX, name);
    if (step != 1)
        return step;
    for (value->s = s->at; s->at < s->end && *s->at != '\r'; s->at++)
        if (!http_is_text(*s->at))
            return PROTO_BAD;
    value->len = (size_t)(s->at - value->s);
    while (value->len && strchr(" \t", value->s[0]))
        value->s++, value->len--;
    while (value->len && strchr(" \t", value->s[value->len - 1]))
        value->len--;
    return expect(s, "\r\n");
}

static int read_fields(struct scan *s, struct http_host *out, bool named)
{
    struct http_host said = {""};
    struct span name = {0}, value = {0};
    for (;;) {
        if (s->at == s->end)
            return PROTO_MORE;
        if (*s->at == '\r')
            break;
        int step = read_field(s, &name, &value);
        if (step != 1)
            return step;
        if (name.len != 4 || strncasecmp(name.s, "Host", 4) != 0)
            continue;
        if (said.name[0] || !read_authority(value, &said))
            return PROTO_BAD;
    }
    if (!said.name[0])
        return PROTO_BAD;
    if (!named)
        *out = said;
    return expect(s, "\r\n");
}

ssize_t http_host_parse(const void *bytes, size_t n, struct http_host *out)
{
    struct scan s = {bytes, (const char *)bytes + (n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX)};
    bool named = false;
    *out = (struct http_host){""};
    int step = read_request_line(&s, out, &named);
    if (step == 1)
        step = read_fields(&s, out, named);
    if (step == PROTO_MORE && n >= HTTP_HEAD_MAX)
        return PROTO_BAD;
    return step == 1 ? s.at - (const char *)bytes : step;
}
