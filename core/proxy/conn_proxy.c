/* The PROXY header in front of a connection: read exactly to its end, and what it tells. Who sends
 * one is for the listener's configuration to say. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conn_priv.h"
#include "penstock/base/buf.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/proto/proxy_protocol.h"
#include "penstock/proxy/clients.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/stats.h"
#include "penstock/proxy/worker.h"

/* ---- what it says ---- */

const struct conn_proxy *conn_proxy(const struct conn *c)
{
    return c->proxy && c->proxy->version ? c->proxy : NULL;
}

void conn_free_proxy(struct conn *c)
{
    if (c->proxy)
        buf_deinit(&c->proxy->in);
    free(c->proxy);
    c->proxy = NULL;
}

/* Appends a path of the wire, filled with zeros, as penstock writes them: "@name" is abstract. */
static const char *put_path(char **at, const char wire[PROXY_UNIX_MAX])
{
    char *path = *at;
    bool abstract = !wire[0] && wire[1];
    memcpy(path, wire, PROXY_UNIX_MAX);
    path[PROXY_UNIX_MAX] = '\0';
    if (abstract)
        path[0] = '@';
    *at += strlen(path) + 1;
    return path;
}

/* A record of its own size, without the buffer that the header was read into. */
static struct conn_proxy *make_record(const struct proxy_header *h, const struct addr *peer)
{
    bool unix_paths = h->from.sa.sa_family == AF_UNIX;
    size_t room = h->tlvs_len + (unix_paths ? 2 * (PROXY_UNIX_MAX + 1) : 0);
    struct conn_proxy *p = calloc(1, sizeof *p + room);
    if (!p)
        return NULL;
    p->peer = *peer;
    p->to = h->to;
    p->version = (uint8_t)h->version;
    p->told = h->from.sa.sa_family != AF_UNSPEC;
    p->tlvs_len = (uint16_t)h->tlvs_len;
    if (h->tlvs_len)
        memcpy(p->memory, h->tlvs, h->tlvs_len);
    if (unix_paths) {
        char *at = (char *)p->memory + h->tlvs_len;
        p->from_path = put_path(&at, h->from_path);
        p->to_path = put_path(&at, h->to_path);
    }
    return p;
}

/* ---- refusing ---- */

static void tell_refused(const struct conn *c, const char *why)
{
    char client[ADDR_TEXT_MAX];
    unsigned long long n = atomic_fetch_add(&c->listener->proxy_refused, 1) + 1;
    if (c->worker->counts->stats)
        stats_count_proxy_refused(c->worker->counts->stats, conn_listener_name(c), why);
    if ((n & (n - 1)) == 0) /* 1, 2, 4, 8, …: told, without a flood */
        log_line(LOG_WARN, c->id, "%s: PROXY header of %s: %s (%llu refused so far)",
                 conn_listener_name(c), addr_format(&c->client_addr, client, sizeof client), why,
                 n);
}

static void refuse(struct conn *c, const char *why)
{
    tell_refused(c, why);
    conn_reset(c, REASON_PROXY, SIDE_CLIENT, why);
}

void conn_proxy_is_late(struct conn *c)
{
    tell_refused(c, "late");
}

/* ---- reading ---- */

/* The connection is that of the client that was told: it is counted now, not when its proxy came.
 */
static bool take_client(struct conn *c, const struct proxy_header *h)
{
    const struct config_limits *limits = &c->config->limits;
    if (h->from.sa.sa_family != AF_UNSPEC)
        c->client_addr = h->from;
    c->counted =
        limits->per_ip && clients_enter(c->listener->clients, &c->client_addr, limits->per_ip);
    if (c->counted || !limits->per_ip)
        return true;
    count_add(&c->stats->limited, 1);
    listener_refused_client(c->listener, c->config, &c->client_addr);
    conn_reset(c, REASON_LIMIT, SIDE_CLIENT, "per_ip");
    return false;
}

/* The header is whole. */
static void finish(struct conn *c, const struct proxy_header *h)
{
    struct conn_proxy *p = make_record(h, &c->client_addr);
    if (!p) {
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    conn_free_proxy(c); /* the options of `h` were in there */
    c->proxy = p;
    if (take_client(c, h))
        conn_start_tls(c);
}

/* Takes n bytes that are known to be there from the socket. */
static bool take(struct stream *s, size_t n)
{
    char bytes[PROXY_HEADER_MAX];
    while (n) {
        ssize_t got = stream_read(s, bytes, n < sizeof bytes ? n : sizeof bytes);
        if (got <= 0)
            return false;
        n -= (size_t)got;
    }
    return true;
}

/* Looks at what is there, and takes what belongs to the header. Returns true when there may be more
 * to look at. */
static bool receive(struct conn *c, struct buf *in)
{
    struct proxy_header h;
    char bytes[PROXY_HEADER_MAX];
    size_t before = buf_len(in);
    ssize_t n = stream_peek(&c->client, bytes, sizeof bytes - before);
    if (n == -EAGAIN)
        return false;
    if (n < 0)
        conn_reset(c, REASON_RESET, SIDE_CLIENT, "proxy_header");
    else if (n == 0)
        refuse(c, before ? "cut" : "missing");
    else if (buf_append(in, bytes, (size_t)n))
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
    if (c->ending)
        return false;
    ssize_t used = proxy_parse(buf_bytes(in), buf_len(in), &h);
    if (used == PROTO_BAD)
        refuse(c, proxy_fault_word(h.fault));
    else if (!take(&c->client, used == PROTO_MORE ? (size_t)n : (size_t)used - before))
        conn_reset(c, REASON_RESET, SIDE_CLIENT, "proxy_header");
    else if (used != PROTO_MORE)
        finish(c, &h);
    return used == PROTO_MORE && !c->ending;
}

/* Nothing is kept of a connection that has sent nothing yet. */
void conn_read_proxy(struct conn *c)
{
    if (c->client.err) {
        conn_reset(c, REASON_RESET, SIDE_CLIENT, "proxy_header");
        return;
    }
    if (!c->client.readable)
        return;
    if (!c->proxy)
        c->proxy = calloc(1, sizeof *c->proxy);
    if (!c->proxy) {
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    while (receive(c, &c->proxy->in))
        ;
}

bool conn_awaits_proxy(const struct conn *c)
{
    return c->state == CONN_PROXY || (c->state == CONN_ACCEPT && conn_expects_proxy(c));
}

bool conn_expects_proxy(const struct conn *c)
{
    const struct config_accept_proxy *accept = &c->config->accept_proxy;
    return accept->from &&
           (accept->others == OTHERS_DENY || networks_has(accept->from, &c->client_addr));
}

void conn_start_proxy(struct conn *c)
{
    conn_set_state(c, CONN_PROXY);
    if (!networks_has(c->config->accept_proxy.from, &c->client_addr)) {
        refuse(c, "not_listed");
        return;
    }
    c->relay_ms = conn_loop(c)->now_ms;
    conn_watch(c);
    conn_read_proxy(c); /* it may have come while the accept hook waited */
}
