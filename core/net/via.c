/* The chain of proxies. One question, one answer at a time; an answer is looked at before it is
 * taken from the socket, so that what the other end sends right behind it stays there. */
#include "via.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/net/tls.h"
#include "penstock/proto/http_connect.h"
#include "penstock/proto/socks5.h"

enum { AUTHORITY_MAX = 300 };

/* Which state may follow which: a chain begins with its first hop, and each hop leads to the next.
 */
static const uint8_t legal[] = {
#define BIT(state) (1u << VIA_##state)
    [VIA_IDLE] = BIT(TLS) | BIT(METHOD) | BIT(TUNNEL) | BIT(HEADER),
    [VIA_METHOD] = BIT(LOGIN) | BIT(REPLY),
    [VIA_LOGIN] = BIT(REPLY),
    [VIA_REPLY] = BIT(TLS) | BIT(METHOD) | BIT(TUNNEL) | BIT(HEADER),
    [VIA_TUNNEL] = BIT(TLS) | BIT(METHOD) | BIT(TUNNEL) | BIT(HEADER),
    [VIA_HEADER] = BIT(TLS) | BIT(DONE),
    [VIA_TLS] = BIT(METHOD) | BIT(TUNNEL) | BIT(DONE),
    [VIA_DONE] = 0,
#undef BIT
};

static void set_state(struct via *v, enum via_state state)
{
    PENSTOCK_REQUIRE(legal[v->state] & (1u << state));
    v->state = (uint8_t)state;
}

void via_init(struct via *v)
{
    *v = (struct via){.state = VIA_IDLE};
    buf_init(&v->out);
    buf_init(&v->in);
    buf_init(&v->header);
}

void via_stop(struct via *v)
{
    buf_deinit(&v->out);
    buf_deinit(&v->in);
    buf_deinit(&v->header);
    v->target = NULL;
    v->hop = 0;
    v->beyond = v->shaking = false;
    v->state = VIA_IDLE;
}

bool via_is_needed(const struct target *t)
{
    const struct target_options *o = t->options;
    return o && (o->n_hops || o->proxy != TARGET_PROXY_NONE || o->tls);
}

static bool all_hops_done(const struct via *v)
{
    return v->hop == v->target->options->n_hops;
}

static const struct hop *hop_of(const struct via *v)
{
    return &v->target->options->hops[v->hop];
}

/* ---- what goes wrong ---- */

void via_blame(struct via *v, const struct target *t, const char *text)
{
    v->why[0] = '\0';
    /* Nobody has been spoken with: it is the first one. All have answered: not their fault. */
    if (v->hop == target_n_hops(t))
        return;
    const struct hop *h = &t->options->hops[v->hop];
    snprintf(v->why, sizeof v->why, "%s %s: %s", hop_scheme(h), h->endpoint.text, text);
}

__attribute__((format(printf, 3, 4))) static int fail(struct via *v, int err, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    via_blame(v, v->target, text);
    return err;
}

/* ---- what we say ---- */

static int say(struct via *v, const void *bytes, size_t n, enum via_state next)
{
    set_state(v, next);
    return buf_append(&v->out, bytes, n);
}

/* Where the hop that is spoken with shall connect to. */
static const struct endpoint *beyond(const struct via *v)
{
    const struct target_options *o = v->target->options;
    return v->hop + 1 < o->n_hops ? &o->hops[v->hop + 1].endpoint : &v->target->endpoint;
}

static int say_greeting(struct via *v)
{
    uint8_t bytes[SOCKS5_REQUEST_MAX];
    return say(v, bytes, socks5_build_greeting(hop_of(v)->user, bytes), VIA_METHOD);
}

static int say_login(struct via *v)
{
    uint8_t bytes[SOCKS5_REQUEST_MAX];
    const struct hop *h = hop_of(v);
    return say(v, bytes, socks5_build_login(h->user, h->password, bytes), VIA_LOGIN);
}

static int say_connect(struct via *v)
{
    uint8_t bytes[SOCKS5_REQUEST_MAX];
    const struct endpoint *e = beyond(v);
    const char *name = e->kind == ENDPOINT_NAME ? e->host : NULL;
    return say(v, bytes, socks5_build_connect(&e->ip, name, e->port, bytes), VIA_REPLY);
}

static int say_tunnel(struct via *v)
{
    char bytes[HTTP_CONNECT_REQUEST_MAX];
    const struct hop *h = hop_of(v);
    return say(v, bytes, http_connect_build(beyond(v)->text, h->user, h->password, bytes),
               VIA_TUNNEL);
}

static int greet(struct via *v)
{
    return hop_of(v)->kind == HOP_SOCKS5 ? say_greeting(v) : say_tunnel(v);
}

/* Begins with the hop v->hop, or with what comes behind all. */
static int begin_hop(struct via *v)
{
    if (all_hops_done(v)) {
        set_state(v, VIA_HEADER);
        buf_deinit(&v->out);
        v->out = v->header;
        buf_init(&v->header);
        return 0;
    }
    if (!hop_of(v)->tls || v->plain)
        return greet(v);
    set_state(v, VIA_TLS);
    return 0;
}

static int greet_next(struct via *v)
{
    v->hop++;
    return begin_hop(v);
}

/* ---- what we hear: each reads one answer, and goes on when it is whole ---- */

static int on_bad(struct via *v)
{
    return fail(v, PS_EREFUSED, "its answer is not %s",
                hop_of(v)->kind == HOP_SOCKS5 ? "SOCKS5" : "HTTP");
}

static int hear_method(struct via *v, const char *bytes, size_t n, ssize_t *used)
{
    enum socks5_method method;
    bool login = hop_of(v)->user;
    *used = socks5_parse_method(bytes, n, login, &method);
    if (*used <= 0)
        return 0;
    if (method == SOCKS5_NONE)
        return fail(v, PS_EDENIED,
                    login ? "it takes no login by user and password"
                          : "it asks for a login: write socks5://user:password@…");
    return method == SOCKS5_LOGIN ? say_login(v) : say_connect(v);
}

static int hear_login(struct via *v, const char *bytes, size_t n, ssize_t *used)
{
    bool ok;
    *used = socks5_parse_login(bytes, n, &ok);
    if (*used <= 0)
        return 0;
    return ok ? say_connect(v) : fail(v, PS_EDENIED, "wrong user or password");
}

static int hear_reply(struct via *v, const char *bytes, size_t n, ssize_t *used)
{
    uint8_t reply;
    *used = socks5_parse_reply(bytes, n, &reply);
    if (*used <= 0)
        return 0;
    v->beyond = socks5_reply_is_of_host(reply);
    return reply ? fail(v, socks5_reply_err(reply), "%s", socks5_reply_text(reply)) : greet_next(v);
}

static int hear_tunnel(struct via *v, const char *bytes, size_t n, ssize_t *used)
{
    unsigned status;
    *used = http_connect_parse(bytes, n, &status);
    if (*used <= 0)
        return 0;
    v->beyond = http_connect_is_of_host(status);
    if (status == 101 || status >= 300)
        return fail(v, http_connect_err(status), "%u, %s", status, http_connect_text(status));
    return status < 200 ? 0 : greet_next(v); /* an interim answer: another one follows */
}

static int (*const hear[])(struct via *v, const char *bytes, size_t n, ssize_t *used) = {
    [VIA_METHOD] = hear_method,
    [VIA_LOGIN] = hear_login,
    [VIA_REPLY] = hear_reply,
    [VIA_TUNNEL] = hear_tunnel,
};

/* Takes n bytes that are known to be there from the socket. */
static void take(struct stream *s, size_t n)
{
    char bytes[HTTP_CONNECT_ANSWER_MAX];
    while (n) {
        ssize_t got = stream_read(s, bytes, n < sizeof bytes ? n : sizeof bytes);
        if (got <= 0)
            return;
        n -= (size_t)got;
    }
}

/* Looks at what is there, behind the part of the answer that was taken before. */
static int receive(struct via *v, struct stream *s)
{
    size_t before = buf_len(&v->in);
    char *room = buf_reserve(&v->in, HTTP_CONNECT_ANSWER_MAX);
    if (!room)
        return -ENOMEM;
    ssize_t n = stream_peek(s, room, HTTP_CONNECT_ANSWER_MAX);
    if (n == -EAGAIN)
        return -EINPROGRESS;
    if (n < 0)
        return fail(v, (int)n, "%s", err_text(err_from_errno((int)n)));
    if (n == 0)
        return fail(v, PS_ERESET, "it closes the connection instead of answering");
    buf_commit(&v->in, (size_t)n);
    ssize_t used = 0;
    int err = hear[v->state](v, buf_bytes(&v->in), buf_len(&v->in), &used);
    if (used == PROTO_BAD)
        return on_bad(v);
    take(s, used == PROTO_MORE ? (size_t)n : (size_t)used - before);
    if (used != PROTO_MORE)
        buf_consume(&v->in, buf_len(&v->in));
    return err;
}

static int flush(struct via *v, struct stream *s)
{
    while (buf_len(&v->out)) {
        ssize_t n = stream_write(s, buf_bytes(&v->out), buf_len(&v->out));
        if (n == 0)
            return -EINPROGRESS;
        if (n < 0 && v->state == VIA_HEADER)
            return (int)n;
        if (n < 0)
            return fail(v, (int)n, "%s", err_text(err_from_errno((int)n)));
        buf_consume(&v->out, (size_t)n);
    }
    return 0;
}

/* ---- the PROXY header ---- */

/* As the kernel writes it, an abstract name ("@name") too; one of 108 bytes has no end. */
static void set_path(char out[PROXY_UNIX_MAX], const char *path)
{
    size_t n = path ? strlen(path) : 0;
    if (n)
        memcpy(out, path, n < PROXY_UNIX_MAX ? n : PROXY_UNIX_MAX);
    if (out[0] == '@')
        out[0] = '\0';
}

static int say_header(struct via *v, const struct dial_proxy *from)
{
    const struct target_options *o = v->target->options;
    uint8_t bytes[PROXY_BUILD_MAX];
    struct proxy_header h = {
        .local = from->client.sa.sa_family == AF_UNSPEC, .from = from->client, .to = from->local};
    set_path(h.from_path, from->client_path);
    set_path(h.to_path, from->local_path);
    size_t n = o->proxy == TARGET_PROXY_V1 ? proxy_build_v1(&h, (char *)bytes)
                                           : proxy_build_v2(&h, o->tlvs, o->n_tlvs, bytes);
    return buf_append(&v->header, bytes, n);
}

/* ---- TLS ---- */

static int begin_tls(struct via *v, struct stream *s)
{
    const struct target_options *o = v->target->options;
    char ip[ADDR_TEXT_MAX];
    bool of_hop = !all_hops_done(v);
    const char *name =
        of_hop ? hop_tls_name(hop_of(v), ip, sizeof ip) : target_tls_name(v->target, ip, sizeof ip);
    return tls_connect(s, v->loop, of_hop ? o->via_tls : o->tls, name);
}

static int tls_failed(struct via *v, struct stream *s)
{
    const char *why = tls_why(s);
    int err = s->err == PS_ETLS ? PS_ETLS : err_from_errno(s->err);
    if (!all_hops_done(v))
        return fail(v, err, "TLS failed: %s", why);
    v->tls_why = why;
    v->tls_advice = tls_advice(s);
    return err;
}

/* One handshake, begun and carried on. */
static int shake_hands(struct via *v, struct stream *s)
{
    int err = v->shaking ? 0 : begin_tls(v, s);
    if (err)
        return err;
    v->shaking = true;
    switch (tls_step(s)) {
    case TLS_FAILED:
        return tls_failed(v, s);
    case TLS_OPEN:
        break;
    default:
        return -EINPROGRESS;
    }
    v->shaking = false;
    if (!all_hops_done(v))
        return greet(v);
    set_state(v, VIA_DONE);
    return 0;
}

/* The PROXY header is sent, before any TLS with the upstream. */
static void end_header(struct via *v)
{
    set_state(v, v->target->options->tls && !v->plain ? VIA_TLS : VIA_DONE);
}

/* ---- the whole ---- */

int via_start(struct via *v, struct loop *loop, const struct target *t,
              const struct dial_proxy *from)
{
    via_stop(v);
    v->why[0] = '\0';
    v->tls_why = v->tls_advice = NULL;
    v->loop = loop;
    v->plain = loop->options.vnet;
    v->target = t;
    if (t->options->proxy != TARGET_PROXY_NONE && say_header(v, from))
        return -ENOMEM;
    return begin_hop(v);
}

int via_step(struct via *v, struct stream *s)
{
    for (;;) {
        int err = flush(v, s);
        if (err)
            return err;
        if (v->state == VIA_DONE)
            return 0;
        if (v->state == VIA_HEADER)
            end_header(v);
        else
            err = v->state == VIA_TLS ? shake_hands(v, s) : receive(v, s);
        if (err)
            return err;
    }
}
