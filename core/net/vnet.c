/* The virtual network: pairs of ends with bounded queues between them, and ports. Which names and
 * failures there are is vnet_names.c's business. */
#include "penstock/net/vnet.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/buf.h"
#include "vnet_priv.h"

/* Stands for a descriptor: open, but none that a system call would take for its own. */
enum { NO_FD = INT_MAX };

/* One end of a connection; `other` is NULL once that one was closed. */
struct vnet_end {
    struct list ready;   /* in net->ready while `events` are to be delivered */
    struct list waiting; /* in port->backlog until accepted */
    struct vnet *net;
    struct vnet_end *other;
    struct stream *stream; /* NULL until accepted */
    struct buf in;         /* received, not read yet */
    size_t window_bytes;   /* most that `in` takes */
    struct addr address;   /* the client's, of an accepted end */
    unsigned events;
    int err;         /* pending error, positive errno */
    bool connecting; /* nothing is known yet */
    bool fin;        /* the other side has ended */
    bool rst;        /* the connection was reset */
    bool shut;       /* this side has ended */
    bool blocked;    /* a write fell short: tell when there is room */
    bool doomed;     /* to be reset as soon as it has been told that it is connected */
};

static void raise_events(struct vnet_end *e, unsigned events)
{
    e->events |= events;
    if (e->stream && list_is_empty(&e->ready))
        list_push(&e->net->ready, &e->ready);
}

static void fail(struct vnet_end *e, int err)
{
    e->rst = true;
    e->err = err;
    raise_events(e, POLLER_IN | POLLER_OUT | POLLER_END | POLLER_ERROR);
}

/* ---- the stream's operations ---- */

static ssize_t end_read(struct stream *s, void *buf, size_t n)
{
    struct vnet_end *e = s->impl;
    size_t there = buf_len(&e->in);
    if (there) {
        n = n < there ? n : there;
        memcpy(buf, buf_bytes(&e->in), n);
        buf_consume(&e->in, n);
        if (e->other && e->other->blocked) {
            e->other->blocked = false;
            raise_events(e->other, POLLER_OUT);
        }
        return (ssize_t)n;
    }
    if (e->err) {
        int err = e->err;
        e->err = 0;
        return -err;
    }
    return e->fin || e->rst ? 0 : -EAGAIN;
}

static ssize_t end_peek(struct stream *s, void *buf, size_t n)
{
    const struct vnet_end *e = s->impl;
    size_t there = buf_len(&e->in);
    if (!there)
        return e->err ? -e->err : e->fin || e->rst ? 0 : -EAGAIN;
    n = n < there ? n : there;
    memcpy(buf, buf_bytes(&e->in), n);
    return (ssize_t)n;
}

static ssize_t end_write(struct stream *s, const void *buf, size_t n)
{
    struct vnet_end *e = s->impl;
    if (e->connecting)
        return -EAGAIN;
    if (e->rst && e->err) {
        int err = e->err;
        e->err = 0;
        return -err;
    }
    if (e->shut || e->rst)
        return -EPIPE;
    if (!e->other) { /* sent into the void; the answer is a reset */
        fail(e, ECONNRESET);
        return (ssize_t)n;
    }
    size_t queued = buf_len(&e->other->in), window = e->other->window_bytes;
    size_t room = window > queued ? window - queued : 0, put = n < room ? n : room;
    e->blocked = put < n;
    if (!put)
        return -EAGAIN;
    if (buf_append(&e->other->in, buf, put))
        return -ENOMEM;
    raise_events(e->other, POLLER_IN);
    return (ssize_t)put;
}

static void send_fin(struct vnet_end *e)
{
    if (!e->other || e->shut)
        return;
    e->other->fin = true;
    raise_events(e->other, POLLER_IN | POLLER_END);
}

static int end_shutdown(struct stream *s)
{
    struct vnet_end *e = s->impl;
    if (e->rst || e->connecting)
        return -ENOTCONN;
    send_fin(e);
    e->shut = true;
    return 0;
}

static int end_error(struct stream *s)
{
    struct vnet_end *e = s->impl;
    int err = e->err;
    e->err = 0;
    return -err;
}

static size_t end_unsent(const struct stream *s)
{
    (void)s; /* what was written has arrived */
    return 0;
}

/* As the kernel does: bytes that nobody has read make a close an abort. */
static void close_end(struct vnet_end *e, bool abort)
{
    if (e->other && (abort || buf_len(&e->in)))
        fail(e->other, ECONNRESET);
    else
        send_fin(e);
    if (e->other)
        e->other->other = NULL;
    list_remove(&e->ready);
    list_remove(&e->waiting);
    buf_deinit(&e->in);
    free(e);
}

static void end_close(struct stream *s, bool abort)
{
    close_end(s->impl, abort);
    s->impl = NULL;
    s->entry.fd = -1;
}

static int end_moved(struct stream *s, struct poller_entry *entry, struct poller *p)
{
    struct vnet_end *e = s->impl;
    (void)p;
    e->stream = container_of(entry, struct stream, entry);
    if (e->address.sa.sa_family && e->other && e->net->observer.on_taken)
        e->net->observer.on_taken(e->net->observer.arg, e->other->stream);
    return 0;
}

static const struct stream_ops ops = {
    .read = end_read,
    .peek = end_peek,
    .write = end_write,
    .shutdown = end_shutdown,
    .error = end_error,
    .unsent = end_unsent,
    .close = end_close,
    .moved = end_moved,
};

/* ---- ends ---- */

static struct vnet_end *new_end(struct vnet *net, size_t window_bytes)
{
    struct vnet_end *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->net = net;
    e->window_bytes = window_bytes;
    buf_init(&e->in);
    list_init(&e->ready);
    list_init(&e->waiting);
    return e;
}

static void attach(struct vnet_end *e, struct stream *s)
{
    e->stream = s;
    s->ops = &ops;
    s->impl = e;
    s->entry.fd = NO_FD;
}

/* `e`, which is attached, meets a new end in the backlog of `port`. */
static int meet(struct vnet_end *e, struct vnet_port *port, const struct addr *from)
{
    struct vnet_end *far = new_end(e->net, port->window_bytes);
    if (!far)
        return -ENOMEM;
    far->other = e;
    far->address = *from;
    e->other = far;
    list_push(&port->backlog, &far->waiting);
    raise_events(far, POLLER_OUT);
    raise_events(e, POLLER_OUT);
    return 0;
}

int vnet_connect_port(struct vnet_port *port, struct stream *s, const struct addr *from)
{
    struct vnet_end *e = new_end(port->net, VNET_WINDOW_BYTES);
    if (!e)
        return -ENOMEM;
    attach(e, s);
    int err = meet(e, port, from);
    if (err)
        stream_abort(s);
    return err;
}

static const char *address_text(const struct sockaddr *to, socklen_t len, char *buf, size_t cap)
{
    struct addr a = {0};
    if (to->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)to;
        bool abstract = !un->sun_path[0];
        int n = (int)(len - offsetof(struct sockaddr_un, sun_path)) - abstract;
        snprintf(buf, cap, "unix:%s%.*s", abstract ? "@" : "", n, un->sun_path + abstract);
        return buf;
    }
    memcpy(&a, to, len < sizeof a ? len : sizeof a);
    return addr_format(&a, buf, cap);
}

static struct vnet_port *find_port(struct vnet *net, const char *text)
{
    list_for_each (node, tmp, &net->ports) {
        struct vnet_port *port = container_of(node, struct vnet_port, node);
        if (vnet_address_is(net, port->address, text))
            return port;
    }
    return NULL;
}

/* What becomes of an attempt: 0, or an errno; ETIMEDOUT stands for silence. */
static int attempt(struct vnet_end *e, enum vnet_fault fault, struct vnet_port *port)
{
    static const struct addr somewhere = {.sa.sa_family = AF_UNIX};
    switch (fault) {
    case VNET_TIMEOUT:
        return ETIMEDOUT;
    case VNET_UNREACHABLE:
        return EHOSTUNREACH;
    case VNET_RESET:
        e->doomed = true;
        raise_events(e, POLLER_OUT);
        return 0;
    case VNET_FAULT_COUNT:
        return port ? -meet(e, port, &somewhere) : ECONNREFUSED;
    default:
        return ECONNREFUSED;
    }
}

int vnet_connect(struct vnet *net, struct stream *s, const struct sockaddr *to, socklen_t len)
{
    char text[sizeof(struct sockaddr_un) + 8];
    address_text(to, len, text, sizeof text);
    struct vnet_end *e = new_end(net, VNET_WINDOW_BYTES);
    if (!e)
        return -ENOMEM;
    attach(e, s);
    int err = attempt(e, vnet_take_fault(net, text), find_port(net, text));
    e->connecting = err != 0;
    if (err && err != ETIMEDOUT)
        fail(e, err);
    if (net->observer.on_connect)
        net->observer.on_connect(net->observer.arg, text, -err);
    return 0;
}

void vnet_set_window(struct stream *s, size_t bytes)
{
    struct vnet_end *e = s->impl;
    e->window_bytes = bytes;
}

/* ---- ports ---- */

int vnet_listen(struct vnet *net, const char *address, size_t window_bytes,
                struct poller_entry *entry, struct vnet_port **out)
{
    size_t size = strlen(address) + 1;
    list_for_each (node, tmp, &net->ports)
        if (!strcmp(container_of(node, struct vnet_port, node)->address, address))
            return -EADDRINUSE;
    struct vnet_port *port = calloc(1, sizeof *port + size);
    if (!port)
        return -ENOMEM;
    memcpy(port->address, address, size);
    port->net = net;
    port->entry = entry;
    port->window_bytes = window_bytes;
    port->watched = true;
    list_init(&port->backlog);
    list_push(&net->ports, &port->node);
    entry->fd = NO_FD;
    *out = port;
    return 0;
}

void vnet_watch(struct vnet_port *port, bool on)
{
    port->watched = on;
}

int vnet_accept(struct vnet_port *port, struct stream *s, struct addr *client)
{
    if (list_is_empty(&port->backlog))
        return -EAGAIN;
    struct vnet_end *e = container_of(port->backlog.next, struct vnet_end, waiting);
    list_remove(&e->waiting);
    attach(e, s);
    *client = e->address;
    raise_events(e, 0); /* what came while it waited */
    return 0;
}

void vnet_port_close(struct vnet_port *port)
{
    list_for_each (node, tmp, &port->backlog)
        close_end(container_of(node, struct vnet_end, waiting), true);
    port->entry->fd = -1;
    list_remove(&port->node);
    free(port);
}

/* ---- the net ---- */

struct vnet *vnet_new(const struct vnet_observer *observer)
{
    struct vnet *net = calloc(1, sizeof *net);
    if (!net)
        return NULL;
    if (observer)
        net->observer = *observer;
    list_init(&net->ready);
    list_init(&net->ports);
    list_init(&net->faults);
    list_init(&net->names);
    return net;
}

void vnet_free(struct vnet *net)
{
    vnet_free_names(net);
    free(net);
}

/* The first port with something to accept, NULL without one. */
static struct vnet_port *waiting_port(const struct vnet *net)
{
    list_for_each (node, tmp, &net->ports) {
        struct vnet_port *port = container_of(node, struct vnet_port, node);
        if (port->watched && !list_is_empty(&port->backlog))
            return port;
    }
    return NULL;
}

bool vnet_is_idle(const struct vnet *net)
{
    return list_is_empty(&net->ready) && !waiting_port(net);
}

static void deliver(struct vnet_end *e)
{
    unsigned events = e->events;
    e->events = 0;
    if (e->doomed) {
        e->doomed = false;
        fail(e, ECONNRESET);
    }
    e->stream->entry.on_event(&e->stream->entry, events);
}

bool vnet_dispatch(struct vnet *net)
{
    struct list now;
    struct vnet_port *port = waiting_port(net);
    bool any = port != NULL;
    if (port)
        port->entry->on_event(port->entry, POLLER_IN);
    list_take(&now, &net->ready); /* an end that is closed meanwhile leaves this list by itself */
    while (!list_is_empty(&now)) {
        struct vnet_end *e = container_of(now.next, struct vnet_end, ready);
        list_remove(&e->ready);
        any = true;
        deliver(e);
    }
    return any;
}
