/* A proxy on the way, as people write it: scheme, login, host, port. A login is never repeated in a
 * message: messages end up in logs. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/net/target.h"
#include "penstock/proto/http_connect.h"
#include "penstock/proto/socks5.h"

enum { HOST_MAX = 300 };

static const struct scheme {
    const char *name, *prefix, *port;
    enum hop_kind kind;
    bool tls;
} schemes[] = {
    {"socks5", "socks5://", "1080", HOP_SOCKS5, false},
    {"http", "http://", "3128", HOP_HTTP, false},
    {"socks5+tls", "socks5+tls://", "1080", HOP_SOCKS5, true},
    {"https", "https://", "443", HOP_HTTP, true},
};
enum { N_SCHEMES = sizeof schemes / sizeof schemes[0] };

static const struct scheme *scheme_of(const struct hop *h)
{
    size_t i = 0;
    while (i + 1 < N_SCHEMES && (schemes[i].kind != h->kind || schemes[i].tls != h->tls))
        i++;
    return &schemes[i];
}

const char *hop_scheme(const struct hop *h)
{
    return scheme_of(h)->name;
}

/* One hop_parse() under way. */
struct parse {
    struct hop *out;
    char *why;
    size_t why_cap;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parse *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->why, p->why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

/* ---- the login ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes n bytes into a text of its own; NULL with *err set when that cannot be. */
static char *decode(const char *s, size_t n, int *err)
{
    char *text = malloc(n + 1), *at = text;
    *err = text ? 0 : -ENOMEM;
    for (size_t i = 0; text && i < n; i++) {
        int c = (unsigned char)s[i];
        if (c == '%' && n - i > 2 && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
            c = hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]);
            i += 2;
        } else if (c == '%') {
            c = 0;
        }
        if (c == 0) {
            *err = -EINVAL;
            free(text);
            return NULL;
        }
        *at++ = (char)c;
    }
    if (text)
        *at = '\0';
    return text;
}

static int check_login(struct parse *p)
{
    const struct hop *h = p->out;
    size_t user = strlen(h->user), password = strlen(h->password);
    if (user > SOCKS5_LOGIN_MAX || password > SOCKS5_LOGIN_MAX)
        return refuse(p, "a user or password of a proxy has at most %d bytes", SOCKS5_LOGIN_MAX);
    if (h->kind == HOP_SOCKS5 && (!user || !password))
        return refuse(p, "a login of SOCKS5 has a user and a password, neither of them empty: "
                         "write socks5://user:password@host:1080");
    if (h->kind == HOP_HTTP && strchr(h->user, ':'))
        return refuse(p, "a user of an HTTP proxy cannot have a colon in it");
    return 0;
}

static int parse_login(struct parse *p, const char *s, size_t n)
{
    const char *colon = memchr(s, ':', n);
    size_t user_len = colon ? (size_t)(colon - s) : n;
    int err = 0;
    if (!colon)
        return refuse(p, "the login before the @ lacks a password: write %suser:password@host:%s",
                      scheme_of(p->out)->prefix, scheme_of(p->out)->port);
    p->out->user = decode(s, user_len, &err);
    if (!err)
        p->out->password = decode(colon + 1, n - user_len - 1, &err);
    if (err == -EINVAL)
        return refuse(p, "the login before the @ has a %% that no two hexadecimal digits follow, "
                         "or a zero byte: write %%25 for a %%");
    return err ? err : check_login(p);
}

/* ---- host and port ---- */

static bool has_port(const char *host)
{
    const char *after = host[0] == '[' ? strchr(host, ']') : host;
    return after && strchr(after, ':');
}

static int parse_host(struct parse *p, const char *host, size_t n)
{
    struct hop *h = p->out;
    char text[HOST_MAX + sizeof ":65535"], why[256];
    if (n && host[n - 1] == '/') /* as in the variables that name proxies */
        n--;
    if (n == 0 || n > HOST_MAX)
        return refuse(p, "the proxy has no host, or too long a one: write %shost:%s",
                      scheme_of(h)->prefix, scheme_of(h)->port);
    memcpy(text, host, n);
    text[n] = '\0';
    if (!has_port(text))
        snprintf(text + n, sizeof text - n, ":%s", scheme_of(h)->port);
    if (strstr(text, "://") || strncmp(text, "unix:", 5) == 0 || text[0] == ':')
        return refuse(p, "a proxy is reached over TCP: write %shost:%s", scheme_of(h)->prefix,
                      scheme_of(h)->port);
    int err = endpoint_parse(text, ENDPOINT_DIAL, &h->endpoint, why, sizeof why);
    if (err)
        return err == -ENOMEM ? err : refuse(p, "%s", why);
    if (h->endpoint.port != h->endpoint.port_last)
        return refuse(p, "a proxy has one port, not a range: write %shost:%s", scheme_of(h)->prefix,
                      scheme_of(h)->port);
    return 0;
}

/* ---- the whole ---- */

static int refuse_scheme(struct parse *p, const char *text)
{
    const char *end = strstr(text, "://");
    if (strncmp(text, "tls://", 6) == 0)
        return refuse(p,
                      "a proxy behind TLS is written socks5+tls://host:1080 or https://host:443");
    if (strncmp(text, "socks5h://", 10) == 0)
        return refuse(p, "socks5h:// is what socks5:// does here: write socks5://host:1080");
    if (!end)
        return refuse(p, "a proxy is written socks5://host:1080 or http://host:3128");
    return refuse(p, "a proxy is written socks5://host:1080 or http://host:3128, not %.*s",
                  (int)(end - text < 20 ? end - text + 3 : 20), text);
}

static int parse(struct parse *p, const char *text)
{
    for (size_t i = 0; i < N_SCHEMES; i++) {
        size_t len = strlen(schemes[i].prefix);
        if (strncmp(text, schemes[i].prefix, len) != 0)
            continue;
        p->out->kind = schemes[i].kind;
        p->out->tls = schemes[i].tls;
        const char *rest = text + len, *at = strrchr(rest, '@'), *host = at ? at + 1 : rest;
        int err = at ? parse_login(p, rest, (size_t)(at - rest)) : 0;
        return err ? err : parse_host(p, host, strlen(host));
    }
    return refuse_scheme(p, text);
}

int hop_parse(const char *text, struct hop *out, char *why, size_t why_cap)
{
    struct parse p = {out, why, why_cap};
    *out = (struct hop){0};
    int err = parse(&p, text);
    if (err == -ENOMEM)
        refuse(&p, "%s", err_text(err));
    if (err)
        hop_deinit(out);
    return err;
}

void hop_deinit(struct hop *h)
{
    endpoint_deinit(&h->endpoint);
    free(h->user);
    free(h->password);
    account_drop(h->account);
    *h = (struct hop){0};
}

const char *hop_format(const struct hop *h, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s%s", scheme_of(h)->prefix, h->endpoint.text);
    return buf;
}
