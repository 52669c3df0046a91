/* The clients and upstreams of a world: they send, read and end as a spec tells them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testbed.h"

/* ---- what the trace shows of bytes ---- */

enum { SHOWN_BYTES = 60 };

/* Quoted, escaped, cut. Returns `out`, which has room for 4 * SHOWN_BYTES + 8. */
static const char *show(const char *bytes, size_t n, char *out)
{
    char *to = out;
    *to++ = '"';
    for (size_t i = 0; i < n && i < SHOWN_BYTES; i++) {
        unsigned char c = (unsigned char)bytes[i];
        const char *escape = c == '\r' ? "\\r" : c == '\n' ? "\\n" : c == '"' ? "\\\"" : NULL;
        if (escape)
            to += sprintf(to, "%s", escape);
        else if (c < 0x20 || c > 0x7e || c == '\\')
            to += sprintf(to, "\\x%02x", c);
        else
            *to++ = (char)c;
    }
    sprintf(to, "\"%s", n > SHOWN_BYTES ? "…" : "");
    return out;
}

static void trace_bytes(struct peer *p, const char *verb, const char *bytes, size_t n)
{
    char text[4 * SHOWN_BYTES + 8];
    world_trace(p->world, "%s %s %zu: %s", p->name, verb, n, show(bytes, n, text));
}

/* ---- one peer ---- */

static void note_end(struct peer *p)
{
    p->end = p->stream.err ? PEER_RST : PEER_FIN;
    world_trace(p->world, "%s sees %s", p->name, p->end == PEER_RST ? "a reset" : "the end");
}

static void take(struct peer *p)
{
    while (!p->stopped && p->stream.readable && !p->stream.eof) {
        char *room = buf_reserve(&p->in, VNET_WINDOW_BYTES);
        ssize_t n = room ? stream_read(&p->stream, room, VNET_WINDOW_BYTES) : -ENOMEM;
        if (n == -ENOMEM)
            return;
        if (n <= 0)
            continue;
        trace_bytes(p, "receives", room, (size_t)n);
        buf_commit(&p->in, (size_t)n);
    }
    if (p->stream.eof && p->end == PEER_OPEN)
        note_end(p);
}

static void give(struct peer *p)
{
    while (buf_len(&p->out) && p->stream.writable) {
        ssize_t n = stream_write(&p->stream, buf_bytes(&p->out), buf_len(&p->out));
        if (n < 0) { /* nobody will take the rest */
            buf_deinit(&p->out);
            return;
        }
        buf_consume(&p->out, (size_t)n);
    }
    if (p->finishing && !buf_len(&p->out) && !p->stream.shut) {
        stream_shutdown(&p->stream);
        world_trace(p->world, "%s ends", p->name);
    }
}

static void on_peer(struct poller_entry *entry, unsigned events)
{
    struct peer *p = container_of(entry, struct peer, stream.entry);
    stream_note_events(&p->stream, events);
    take(p);
    if (stream_is_open(&p->stream))
        give(p);
}

static struct peer *peer_new(struct world *w)
{
    struct peer *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->world = w;
    stream_init(&p->stream, on_peer);
    buf_init(&p->out);
    buf_init(&p->in);
    list_push(&w->peers, &p->node);
    return p;
}

static void peer_free(struct peer *p)
{
    stream_abort(&p->stream);
    list_remove(&p->node);
    buf_deinit(&p->out);
    buf_deinit(&p->in);
    free(p);
}

struct peer *peer_connect(struct world *w, size_t listener, const struct addr *from,
                          size_t window_bytes)
{
    char text[ADDR_TEXT_MAX];
    struct peer *p = peer_new(w);
    if (!p)
        return NULL;
    snprintf(p->name, sizeof p->name, "client %s", addr_format(from, text, sizeof text));
    if (vnet_connect_port(w->worker.acceptors[listener]->port, &p->stream, from)) {
        peer_free(p);
        return NULL;
    }
    vnet_set_window(&p->stream, window_bytes);
    world_trace(w, "%s connects", p->name);
    world_settle(w);
    return p;
}

int peer_send(struct peer *p, const char *bytes, size_t n)
{
    if (buf_append(&p->out, bytes, n))
        return -ENOMEM;
    trace_bytes(p, "sends", bytes, n);
    give(p);
    return world_settle(p->world);
}

int peer_finish(struct peer *p)
{
    p->finishing = true;
    give(p);
    return world_settle(p->world);
}

int peer_reset(struct peer *p)
{
    world_trace(p->world, "%s resets", p->name);
    buf_deinit(&p->out);
    p->finishing = true;
    stream_abort(&p->stream);
    return world_settle(p->world);
}

int peer_read(struct peer *p, bool on)
{
    p->stopped = !on;
    if (stream_is_open(&p->stream))
        take(p);
    return world_settle(p->world);
}

/* ---- upstreams ---- */

static struct peer *add_peer(struct service *s)
{
    struct peer **peers = realloc(s->peers, (s->n_peers + 1) * sizeof(struct peer *));
    if (!peers)
        return NULL;
    s->peers = peers;
    struct peer *p = peer_new(s->world);
    if (p)
        s->peers[s->n_peers++] = p;
    return p;
}

static void on_service(struct poller_entry *entry, unsigned events)
{
    struct service *s = container_of(entry, struct service, entry);
    struct addr client;
    (void)events;
    struct peer *p = add_peer(s);
    if (!p) {
        vnet_watch(s->port, false);
        return;
    }
    snprintf(p->name, sizeof p->name, "upstream %.90s #%zu", s->address, s->n_peers);
    vnet_accept(s->port, &p->stream, &client);
}

int service_open(struct world *w, const char *address, size_t window_bytes, struct service **out)
{
    size_t size = strlen(address) + 1;
    struct service *s = calloc(1, sizeof *s + size);
    if (!s)
        return -ENOMEM;
    memcpy(s->address, address, size);
    s->world = w;
    s->entry.on_event = on_service;
    int err = vnet_listen(w->vnet, address, window_bytes, &s->entry, &s->port);
    if (err) {
        free(s);
        return err;
    }
    list_push(&w->services, &s->node);
    *out = s;
    return 0;
}

void peers_close(struct world *w)
{
    list_for_each (node, tmp, &w->peers)
        peer_free(container_of(node, struct peer, node));
    list_for_each (service, next, &w->services) {
        struct service *s = container_of(service, struct service, node);
        vnet_port_close(s->port);
        list_remove(&s->node);
        free(s->peers);
        free(s);
    }
}
