/* What a connection has captured: its sides, each as soon as it is there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "conn_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/capture.h"

enum { PORT_OURS = 1, PORTS_OF_CLIENTS = 60000 };

struct conn_capture {
    struct capture_file *file;
    uint64_t left_bytes; /* of `first_bytes` */
    bool limited;
    bool client, upstream; /* sides that are wanted and not begun yet */
};

/* A UNIX socket, or a peer that only a proxy knows, gets an address that says nothing; ports tell
 * conversations apart. */
static void stand_in(struct addr *a, uint64_t port)
{
    if (addr_len(a))
        return;
    *a = (struct addr){.in = {.sin_family = AF_INET}};
    a->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    addr_set_port(a, (uint16_t)port);
}

static struct addr own_address(const struct stream *s)
{
    union {
        struct addr addr;
        struct sockaddr_storage any;
    } own = {0};
    socklen_t len = sizeof own;
    if (getsockname(s->entry.fd, &own.addr.sa, &len))
        own.addr.sa.sa_family = AF_UNSPEC;
    return own.addr;
}

static size_t in_pipe(const struct relay *r)
{
    return r->pipe ? r->pipe->held_bytes : 0;
}

/* What a hook has looked at stays to be relayed: it belongs to what comes from now on. */
static void catch_up(struct stream *s, const struct relay *from)
{
    size_t n = buf_len(&from->unread);
    if (n && !capture_received(s->capture, buf_bytes(&from->unread), n))
        stream_capture(s, NULL);
    if (s->eof && s->capture)
        capture_peer_ended(s->capture, s->err);
    if (s->shut && s->capture)
        capture_own_ended(s->capture, false);
}

static void begin(struct conn *c, enum conn_side side)
{
    struct conn_capture *capture = c->capture;
    bool upstream = side == SIDE_UPSTREAM;
    struct stream *s = upstream ? &c->upstream : &c->client;
    struct addr peer = upstream ? c->upstream_addr : c->client_addr, own = own_address(s);
    char comment[400], text[ADDR_TEXT_MAX];
    if (!upstream && c->proxy && c->proxy->told && addr_len(&c->proxy->to))
        own = c->proxy->to;
    if (upstream)
        snprintf(comment, sizeof comment, "connection %llu of %s: to its upstream %.300s",
                 (unsigned long long)c->id, conn_listener_name(c),
                 c->targets->items[c->target].endpoint.text);
    else
        snprintf(comment, sizeof comment, "connection %llu of %s: its client %s",
                 (unsigned long long)c->id, conn_listener_name(c),
                 addr_format(&c->client_addr, text, sizeof text));
    stand_in(&peer, upstream ? PORT_OURS : 1024 + c->id % PORTS_OF_CLIENTS);
    stand_in(&own, upstream ? 1024 + c->id % PORTS_OF_CLIENTS : PORT_OURS);
    struct capture *made = capture_new(&(struct capture_options){
        .file = capture->file,
        .left_bytes = capture->limited ? &capture->left_bytes : NULL,
        .peer = &peer,
        .own = &own,
        .comment = comment,
        .unseen_bytes = in_pipe(upstream ? &c->up : &c->down),
        .upstream = upstream,
    });
    if (!made) {
        log_line(LOG_WARN, c->id, "%s: no capture: out of memory", conn_listener_name(c));
        return;
    }
    stream_capture(s, made);
    catch_up(s, upstream ? &c->down : &c->up);
}

/* Its client is known, and speaks in plain. */
static bool client_is_there(const struct conn *c)
{
    return c->state != CONN_ACCEPT && c->state != CONN_PROXY && c->state != CONN_TLS &&
           stream_is_open(&c->client);
}

void conn_capture_begin(struct conn *c)
{
    struct conn_capture *capture = c->capture;
    if (!capture)
        return;
    if (capture->client && client_is_there(c)) {
        capture->client = false;
        begin(c, SIDE_CLIENT);
    }
    if (capture->upstream && c->connected_ns && stream_is_open(&c->upstream)) {
        capture->upstream = false;
        begin(c, SIDE_UPSTREAM);
    }
}

void conn_capture_end(struct conn *c)
{
    stream_capture(&c->client, NULL);
    stream_capture(&c->upstream, NULL);
    if (c->capture)
        capture_file_drop(c->capture->file);
    free(c->capture);
    c->capture = NULL;
}

int conn_capture(struct conn *c, const struct conn_capture_options *o)
{
    if (conn_loop(c)->options.vnet) /* a test leaves no files */
        return 0;
    struct conn_capture *capture = calloc(1, sizeof *capture);
    int err = capture ? capture_file_open(o->path, o->max_bytes, &capture->file) : -ENOMEM;
    if (err) {
        free(capture);
        return err;
    }
    conn_capture_end(c); /* after that: the file may be the same */
    capture->left_bytes = o->first_bytes;
    capture->limited = o->first_bytes != 0;
    capture->client = o->client;
    capture->upstream = o->upstream;
    c->capture = capture;
    conn_capture_begin(c);
    return 0;
}
