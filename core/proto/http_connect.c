/* CONNECT and its answer. */
#include "penstock/proto/http_connect.h"

#include <stdio.h>

#include "http_text.h"
#include "penstock/base/base64.h"
#include "penstock/base/err.h"

enum {
    BASE64_MAX = BASE64_LEN(2 * HTTP_CONNECT_LOGIN_MAX + 1),
    STATUS_AT = 9, /* behind "HTTP/1.1 " */
};

static const struct status {
    unsigned number;
    int err;
    const char *text;
} statuses[] = {
    {400, PS_EREFUSED, "it does not understand the request"},
    {401, PS_EDENIED, "it asks for a user and a password"},
    {403, PS_EDENIED, "not allowed by its rules"},
    {404, PS_EUNREACHABLE, "it does not find the host"},
    {405, PS_EDENIED, "it does not know CONNECT"},
    {407, PS_EDENIED, "it asks for another user or password"},
    {429, PS_EREFUSED, "too many requests"},
    {500, PS_EREFUSED, "it has failed"},
    {501, PS_EDENIED, "it does not know CONNECT"},
    {502, PS_EUNREACHABLE, "it cannot reach the host"},
    {503, PS_EUNREACHABLE, "it cannot serve this now"},
    {504, PS_ETIMEOUT, "the host does not answer it"},
};

static const struct status *find_status(unsigned number)
{
    static const struct status other = {0, PS_EREFUSED, "it opens no tunnel"};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].number == number)
            return &statuses[i];
    return &other;
}

int http_connect_err(unsigned status)
{
    return find_status(status)->err;
}

const char *http_connect_text(unsigned status)
{
    return find_status(status)->text;
}

bool http_connect_is_of_host(unsigned status)
{
    return status == 404 || status == 502 || status == 504;
}

/* ---- the request ---- */

size_t http_connect_build(const char *authority, const char *user, const char *password, char *out)
{
    char login[2 * HTTP_CONNECT_LOGIN_MAX + 2], base64[BASE64_MAX + 1] = "";
    if (user) {
        PENSTOCK_REQUIRE(strlen(user) <= HTTP_CONNECT_LOGIN_MAX &&
                         strlen(password) <= HTTP_CONNECT_LOGIN_MAX);
        int len = snprintf(login, sizeof login, "%s:%s", user, password);
        base64_encode(login, (size_t)len, base64);
    }
    int n = snprintf(out, HTTP_CONNECT_REQUEST_MAX, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n",
                     authority, authority, user ? "Proxy-Authorization: Basic " : "", base64,
                     user ? "\r\n" : "");
    PENSTOCK_REQUIRE(n > 0 && n < HTTP_CONNECT_REQUEST_MAX);
    return (size_t)n;
}

/* ---- the answer ---- */

/* Whether byte `at` of the status line may be `c`: 'd' in the pattern is a digit. */
static bool fits_status_line(size_t at, char c)
{
    static const char pattern[] = "HTTP/1.d ddd";
    if (at >= sizeof pattern - 1)
        return http_is_text(c) && (at > sizeof pattern - 1 || c == ' ');
    return pattern[at] == 'd' ? http_is_digit(c) : c == pattern[at];
}

/* A line of the head without its end; lines are counted from 0. */
static bool fits(size_t line, const char *s, size_t len)
{
    if (line == 0)
        return len >= STATUS_AT + 3 && s[STATUS_AT] >= '1' && s[STATUS_AT] <= '5';
    size_t name = 0;
    while (name < len && http_is_token(s[name]))
        name++;
    return name && name < len && s[name] == ':';
}

static unsigned read_status(const char *answer)
{
    const char *s = answer + STATUS_AT;
    return (unsigned)((s[0] - '0') * 100 + (s[1] - '0') * 10 + (s[2] - '0'));
}

ssize_t http_connect_parse(const void *bytes, size_t n, unsigned *status)
{
    const char *s = bytes;
    size_t line = 0, start = 0, most = n < HTTP_CONNECT_ANSWER_MAX ? n : HTTP_CONNECT_ANSWER_MAX;
    for (size_t at = 0; at < most; at++) {
        char c = s[at];
        if (c != '\r') {
            if (line == 0 ? !fits_status_line(at, c) : !http_is_text(c))
                return PROTO_BAD;
            continue;
        }
        if ((at > start || line == 0) && !fits(line, s + start, at - start))
            return PROTO_BAD;
        if (at + 1 == most)
            break;
        if (s[++at] != '\n')
            return PROTO_BAD;
        if (at - 1 == start) {
            *status = read_status(s);
            return (ssize_t)at + 1;
        }
        line++;
        start = at + 1;
    }
    return n < HTTP_CONNECT_ANSWER_MAX ? PROTO_MORE : PROTO_BAD;
}
