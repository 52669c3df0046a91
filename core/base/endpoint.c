/* What users write for an address, and what they are told when it is wrong.
 *
 * Parses text only: nothing is resolved or opened here. Every refusal says what would be right,
 * because this is the first thing anybody types. */
#include "penstock/base/addr.h"

#include "penstock/base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_LEN = 253, LABEL_MAX_LEN = 63, QUOTE_MAX = 160, TEXT_MAX = 300, FD_NAME_MAX = 255 };

/* One endpoint_parse() under way. */
struct parse {
    enum endpoint_use use;
    struct endpoint *out;
    char *why;
    size_t why_cap;
    const char *host; /* not terminated; empty for "8080" and ":8080" */
    size_t host_len;
    const char *ports; /* "80" or "80-90", NULL when none is given */
    bool bracketed;    /* the host stood in [] */
};

__attribute__((format(printf, 2, 3))) static int refuse(struct parse *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (p->why_cap > 0)
        vsnprintf(p->why, p->why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

/* Text that is safe inside a message: printable ASCII, cut when long. */
struct quoted {
    char text[QUOTE_MAX];
};

static struct quoted quote(const char *s, size_t len)
{
    struct quoted q;
    size_t at = 0, i = 0;
    for (; i < len && at + sizeof "\\xff..." < sizeof q.text; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            q.text[at++] = '\\';
        if (c >= ' ' && c <= '~')
            q.text[at++] = (char)c;
        else
            at += (size_t)snprintf(q.text + at, sizeof q.text - at, "\\x%02x", c);
    }
    snprintf(q.text + at, sizeof q.text - at, "%s", i < len ? "..." : "");
    return q;
}
#define QUOTE(s, len) (quote((s), (len)).text)
#define QUOTE_TEXT(s) QUOTE((s), strlen(s))

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool host_is(const struct parse *p, const char *word)
{
    return p->host_len == strlen(word) && strncasecmp(p->host, word, p->host_len) == 0;
}

static const char *example_port(const struct parse *p)
{
    return p->use == ENDPOINT_LISTEN ? "8080" : "5432";
}

/* ---- ports ---- */

static int parse_port(struct parse *p, const char *text, size_t len, uint16_t *out)
{
    char digits[sizeof "65535"] = "";
    uint64_t number = 0;
    unsigned min = p->use == ENDPOINT_LISTEN ? 0 : 1;
    if (len < sizeof digits) /* else it stays empty, which is no number */
        memcpy(digits, text, len);
    if (units_parse_uint(digits, min, 65535, &number))
        return refuse(p, "\"%s\" is not a port: use %u to 65535", QUOTE(text, len), min);
    *out = (uint16_t)number;
    return 0;
}

static int parse_ports(struct parse *p)
{
    const char *dash = strchr(p->ports, '-');
    struct endpoint *e = p->out;
    size_t len = dash ? (size_t)(dash - p->ports) : strlen(p->ports);
    int err = parse_port(p, p->ports, len, &e->port);
    e->port_last = e->port;
    if (err || !dash)
        return err;
    err = parse_port(p, dash + 1, strlen(dash + 1), &e->port_last);
    if (err)
        return err;
    if (e->port > e->port_last)
        return refuse(p, "\"%s\" runs backwards: write %u-%u", QUOTE_TEXT(p->ports), e->port_last,
                      e->port);
    if (e->port == 0 && e->port_last != 0)
        return refuse(p, "\"%s\" starts at 0: a range starts at 1 or more", QUOTE_TEXT(p->ports));
    return 0;
}

/* ---- hosts ---- */

/* Only a scheme tells such a host from the other forms. */
static bool needs_scheme(const char *host)
{
    return host && (!strcmp(host, "fd") || !strcmp(host, "unix"));
}

/* The canonical text for logs, and the host where there is one; takes nothing on failure. */
static int set_text(struct endpoint *e, const char *host)
{
    char text[TEXT_MAX], ip[ADDR_TEXT_MAX], range[8] = "";
    if (e->port_last != e->port)
        snprintf(range, sizeof range, "-%u", e->port_last);
    if (e->kind == ENDPOINT_IP)
        snprintf(text, sizeof text, "%s%s", addr_format(&e->ip, ip, sizeof ip), range);
    else if (e->kind == ENDPOINT_UNIX)
        snprintf(text, sizeof text, "unix:%s", host);
    else if (e->kind == ENDPOINT_FD && host)
        snprintf(text, sizeof text, "fd:%s", host);
    else if (e->kind == ENDPOINT_FD)
        snprintf(text, sizeof text, "fd:%d", e->fd);
    else
        snprintf(text, sizeof text, "%s%s:%u%s", needs_scheme(host) ? "tcp://" : "", host, e->port,
                 range);

    e->text = strdup(text);
    if (host)
        e->host = strdup(host);
    if (e->text && (!host || e->host))
        return 0;
    endpoint_deinit(e);
    return -ENOMEM;
}

/* "256.1.1.1" and "10.0.0" are mistyped addresses: a top-level domain is never a number. */
static bool looks_numeric(const char *name)
{
    const char *last = strrchr(name, '.');
    last = last ? last + 1 : name;
    return *last != '\0' && last[strspn(last, "0123456789")] == '\0';
}

/* Labels of 1 to 63 letters, digits, '-' or '_'; the last one may end in a dot. */
static bool is_name(const char *name)
{
    size_t len = strlen(name), label = 0;
    if (len > 0 && name[len - 1] == '.')
        len--;
    if (len == 0 || len > NAME_MAX_LEN)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (c == '.' && label == 0)
            return false;
        label = c == '.' ? 0 : label + 1;
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool other = (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (label > LABEL_MAX_LEN || !(letter || other))
            return false;
    }
    return label > 0;
}

static int check_name(struct parse *p, const char *name)
{
    if (!is_name(name))
        return refuse(p, "\"%s\" is not a host name: use letters, digits, '-', '_' and '.'",
                      QUOTE(p->host, p->host_len));
    if (looks_numeric(name))
        return refuse(p, "\"%s\" is not an IP address: write four numbers from 0 to 255", name);
    return 0;
}

/* Fills `ip` for the hosts that stand for an address; false when the host is none of them. */
static bool known_host(struct parse *p)
{
    struct endpoint *e = p->out;
    const char *ip = NULL;
    bool listen = p->use == ENDPOINT_LISTEN;
    if (p->host_len == 0)
        ip = listen && !e->bare_port ? "0.0.0.0" : "127.0.0.1";
    else if (listen && host_is(p, "*"))
        ip = "0.0.0.0";
    else if (listen && host_is(p, "localhost"))
        ip = "127.0.0.1";
    return ip && addr_parse_ip(ip, &e->ip) == 0;
}

static int parse_bracketed(struct parse *p, const char *host)
{
    struct addr *ip = &p->out->ip;
    const char *zone = strchr(host, '%');
    if (addr_parse_ip(host, ip) == 0 && ip->sa.sa_family == AF_INET6)
        return 0;
    if (ip->sa.sa_family == AF_INET)
        return refuse(p, "\"[%s]\" needs no brackets: write %s:%s", host, host,
                      p->ports ? QUOTE_TEXT(p->ports) : example_port(p));
    if (zone)
        return refuse(p, "\"%s\" is not a link-local IPv6 address with an interface of this host",
                      QUOTE_TEXT(host));
    return refuse(p, "\"%s\" is not an IPv6 address: write [::1]:%s", QUOTE_TEXT(host),
                  example_port(p));
}

static int refuse_star(struct parse *p)
{
    return refuse(p, "\"*\" is no place to connect to: write 127.0.0.1:%s, or a name",
                  example_port(p));
}

/* Finds out what the host is and fills the endpoint, but for its ports. `name` is where a host name
 * is left. */
static int parse_host(struct parse *p, char name[NAME_MAX_LEN + 2])
{
    struct endpoint *e = p->out;
    if (p->host_len > NAME_MAX_LEN + 1)
        return refuse(p, "a host name of %zu characters is too long: at most %d are allowed",
                      p->host_len, NAME_MAX_LEN);
    memcpy(name, p->host, p->host_len);
    name[p->host_len] = '\0';
    e->kind = ENDPOINT_IP;
    if (p->bracketed)
        return parse_bracketed(p, name);
    if (known_host(p) || addr_parse_ip(name, &e->ip) == 0)
        return 0;
    if (host_is(p, "*"))
        return refuse_star(p);
    e->kind = ENDPOINT_NAME;
    return check_name(p, name);
}

static int refuse_missing_port(struct parse *p, const char *name)
{
    if (p->out->kind == ENDPOINT_NAME && p->use == ENDPOINT_LISTEN)
        return refuse(p, "\"%s\" is no place to listen: write a port, as in 8080 or 127.0.0.1:8080",
                      name);
    return refuse(
        p, p->bracketed ? "\"[%s]\" has no port: write [%s]:%s" : "\"%s\" has no port: write %s:%s",
        name, name, example_port(p));
}

static int parse_host_and_ports(struct parse *p)
{
    char name[NAME_MAX_LEN + 2];
    int err = parse_host(p, name);
    if (err)
        return err;
    if (!p->ports || *p->ports == '\0')
        return p->host_len > 0 ? refuse_missing_port(p, name)
                               : refuse(p, "a port is missing: write :%s", example_port(p));
    err = parse_ports(p);
    if (err)
        return err;
    if (p->out->kind == ENDPOINT_NAME && p->use == ENDPOINT_LISTEN)
        return refuse(p, "\"%s\" is a name: listen on an address, as in 127.0.0.1:%s", name,
                      p->ports);
    addr_set_port(&p->out->ip, p->out->port);
    return set_text(p->out, p->out->kind == ENDPOINT_NAME ? name : NULL);
}

/* ---- the whole ---- */

/* "::1:8080" may mean two things: show the way to write the likelier one. */
static int refuse_colons(struct parse *p, const char *text)
{
    struct addr ip;
    char host[ADDR_TEXT_MAX] = "";
    const char *colon = strrchr(text, ':');
    if ((size_t)(colon - text) < sizeof host)
        memcpy(host, text, (size_t)(colon - text));
    if (addr_parse_ip(host, &ip) == 0)
        return refuse(p, "\"%s\" is an IPv6 address without brackets: write [%s]:%s",
                      QUOTE_TEXT(text), QUOTE_TEXT(host),
                      colon[1] ? QUOTE_TEXT(colon + 1) : example_port(p));
    if (addr_parse_ip(text, &ip) == 0)
        return refuse(p, "\"%s\" is an IPv6 address without brackets: write [%s]:%s",
                      QUOTE_TEXT(text), QUOTE_TEXT(text), example_port(p));
    return refuse(p, "\"%s\" has too many colons: write host:port, or [address]:port for IPv6",
                  QUOTE_TEXT(text));
}

static int split_bracketed(struct parse *p, const char *text)
{
    const char *end = strchr(text, ']');
    if (!end)
        return refuse(p, "\"%s\" lacks a closing bracket: write [::1]:%s", QUOTE_TEXT(text),
                      example_port(p));
    p->bracketed = true;
    p->host = text + 1;
    p->host_len = (size_t)(end - p->host);
    if (end[1] == ':')
        p->ports = end + 2;
    else if (end[1] != '\0')
        return refuse(p, "\"%s\" has something between the bracket and the port: write [::1]:%s",
                      QUOTE_TEXT(text), example_port(p));
    return 0;
}

static int split(struct parse *p, const char *text)
{
    const char *colon = strchr(text, ':');
    p->host = text;
    if (text[0] == '[')
        return split_bracketed(p, text);
    if (text[0] >= '0' && text[0] <= '9' && text[strspn(text, "0123456789-")] == '\0') {
        p->out->bare_port = p->use == ENDPOINT_LISTEN;
        p->ports = text;
        return 0;
    }
    if (colon && strchr(colon + 1, ':'))
        return refuse_colons(p, text);
    p->host_len = colon ? (size_t)(colon - text) : strlen(text);
    p->ports = colon ? colon + 1 : NULL;
    return 0;
}

static int parse_unix(struct parse *p, const char *path)
{
    struct sockaddr_un un;
    if (path[0] == '\0' || strcmp(path, "@") == 0)
        return refuse(p, "the UNIX socket has no %s: write unix:%s", path[0] ? "name" : "path",
                      path[0] ? "@penstock" : "/run/penstock.sock");
    if (addr_unix(path, &un) == 0) {
        refuse(p, "a UNIX socket path of %zu bytes is too long: at most %zu fit", strlen(path),
               sizeof un.sun_path - 1);
        return -ENAMETOOLONG;
    }
    p->out->kind = ENDPOINT_UNIX;
    return set_text(p->out, path);
}

/* What systemd allows (FileDescriptorName=), but for what would be hard to write in a list. */
static bool is_fd_name(const char *name)
{
    static const char more[] = "0123456789._-@";
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    size_t n = 0;
    while (name[n] && (strchr(letters, name[n]) || (n && strchr(more, name[n]))))
        n++;
    return n > 0 && n <= FD_NAME_MAX && name[n] == '\0';
}

static int parse_fd(struct parse *p, const char *number)
{
    uint64_t fd;
    if (p->use != ENDPOINT_LISTEN)
        return refuse(p, "fd:%s is a place to listen, not one to connect to: write host:port",
                      QUOTE_TEXT(number));
    p->out->kind = ENDPOINT_FD;
    if (is_fd_name(number)) {
        p->out->fd = -1;
        return set_text(p->out, number);
    }
    if (units_parse_uint(number, 3, 65535, &fd))
        return refuse(p,
                      "\"fd:%s\" is no inherited descriptor: write fd:3, a higher number, or the "
                      "name that systemd gives it, fd:web",
                      QUOTE_TEXT(number));
    p->out->fd = (int)fd;
    return set_text(p->out, NULL);
}

static int parse_tcp(struct parse *p, const char *text)
{
    const char *scheme = strstr(text, "://");
    if (has_prefix(text, "tls://"))
        return refuse(p,
                      p->use == ENDPOINT_LISTEN
                          ? "\"%s\": a place to listen has no tls://; write %s, and --tls-cert for "
                            "TLS with clients"
                          : "\"%s\": tls:// is for destinations; write %s here",
                      QUOTE_TEXT(text), text[6] ? QUOTE_TEXT(text + 6) : "8443");
    if (scheme)
        return refuse(p, "\"%s\" is not understood: write host:port or tcp://host:port",
                      QUOTE(text, (size_t)(scheme - text) + 3));
    if (text[0] == '/' || has_prefix(text, "./"))
        return refuse(p, "\"%s\" looks like a path: write unix:%s", QUOTE_TEXT(text),
                      QUOTE_TEXT(text));
    if (text[0] == '\0')
        return refuse(p, "the address is empty: write %s",
                      p->use == ENDPOINT_LISTEN ? "8080 or 127.0.0.1:8080" : "host:port");
    int err = split(p, text);
    return err ? err : parse_host_and_ports(p);
}

int endpoint_parse(const char *text, enum endpoint_use use, struct endpoint *out, char *why,
                   size_t why_cap)
{
    struct parse p = {.use = use, .out = out, .why = why, .why_cap = why_cap};
    int err;
    *out = (struct endpoint){0};
    if (has_prefix(text, "unix:"))
        err = parse_unix(&p, text + strlen("unix:"));
    else if (has_prefix(text, "fd:"))
        err = parse_fd(&p, text + strlen("fd:"));
    else
        err = parse_tcp(&p, has_prefix(text, "tcp://") ? text + strlen("tcp://") : text);
    if (err == -ENOMEM)
        refuse(&p, "out of memory");
    if (err)
        *out = (struct endpoint){0};
    return err;
}

int endpoint_copy(struct endpoint *out, const struct endpoint *from, uint16_t port)
{
    *out = *from;
    out->host = out->text = NULL;
    if (from->kind == ENDPOINT_IP || from->kind == ENDPOINT_NAME)
        out->port = out->port_last = port;
    addr_set_port(&out->ip, out->port);
    return set_text(out, from->host);
}

void endpoint_deinit(struct endpoint *e)
{
    free(e->host);
    free(e->text);
    *e = (struct endpoint){0};
}
