/* One endpoint: system calls on a socket, or what is in their place, and what they said last.
 * Decides nothing. */
#include "penstock/net/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#include "penstock/net/capture.h"

void stream_init(struct stream *s, void (*on_event)(struct poller_entry *entry, unsigned events))
{
    /* A fresh socket takes bytes; whether it has some, the first event tells. */
    *s = (struct stream){.entry = {.on_event = on_event, .fd = -1}, .writable = true};
}

int stream_error(struct stream *s)
{
    int err = 0;
    socklen_t len = sizeof err;
    if (s->ops)
        return s->ops->error(s);
    if (getsockopt(s->entry.fd, SOL_SOCKET, SO_ERROR, &err, &len))
        return -errno;
    return -err;
}

/* Reading the error clears it, and recv() then tells an end instead of an error: keep it. */
static void take_error(struct stream *s)
{
    int err = stream_error(s);
    if (err && !s->err)
        s->err = err;
}

void stream_note_events(struct stream *s, unsigned events)
{
    if (s->ops && s->ops->events) {
        s->ops->events(s, events);
        take_error(s);
    }
    if (events & POLLER_ERROR)
        take_error(s);
    if (events & (POLLER_IN | POLLER_END | POLLER_ERROR | POLLER_URGENT))
        s->readable = true;
    if ((events & (POLLER_OUT | POLLER_END | POLLER_ERROR)) || (s->ops && s->ops->staged))
        s->writable = !stream_staged(s);
    if (events & (POLLER_END | POLLER_ERROR | POLLER_URGENT))
        s->read_on = true;
    if (events & POLLER_URGENT)
        s->urgent = true;
}

static ssize_t failed(struct stream *s, ssize_t err)
{
    if (!s->err)
        s->err = (int)err;
    return err;
}

static ssize_t plain_read(const struct stream *s, void *buf, size_t n, int flags)
{
    ssize_t got;
    do
        got = recv(s->entry.fd, buf, n, flags);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

/* Notes what a read or a peek has told. */
static ssize_t received(struct stream *s, ssize_t got)
{
    if (got > 0)
        return got;
    s->readable = false;
    if (got == 0) {
        s->eof = true;
        return 0;
    }
    if (got == -EAGAIN || got == -EWOULDBLOCK)
        return -EAGAIN;
    s->eof = true;
    return failed(s, got);
}

void stream_capture(struct stream *s, struct capture *c)
{
    capture_free(s->capture);
    s->capture = c;
}

static void capture_read(struct stream *s, const void *bytes, ssize_t got)
{
    if (got > 0 && !capture_received(s->capture, bytes, (size_t)got))
        stream_capture(s, NULL);
    else if (s->eof)
        capture_peer_ended(s->capture, s->err);
}

ssize_t stream_read(struct stream *s, void *buf, size_t n)
{
    ssize_t got = received(s, s->ops ? s->ops->read(s, buf, n) : plain_read(s, buf, n, 0));
    if (s->capture)
        capture_read(s, buf, got);
    /* Less than asked for: drained, and the next byte makes a new edge. An end, an error or an
     * urgent mark cuts reads short too, and has made its edge already. */
    if (got > 0 && (size_t)got < n && !s->read_on)
        s->readable = false;
    return got;
}

ssize_t stream_peek(struct stream *s, void *buf, size_t n)
{
    return received(s, s->ops ? s->ops->peek(s, buf, n) : plain_read(s, buf, n, MSG_PEEK));
}

static ssize_t plain_write(const struct stream *s, const void *buf, size_t n)
{
    ssize_t put;
    do
        put = send(s->entry.fd, buf, n, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

ssize_t stream_write(struct stream *s, const void *buf, size_t n)
{
    ssize_t put = s->ops ? s->ops->write(s, buf, n) : plain_write(s, buf, n);
    if (put < 0 && put != -EAGAIN && put != -EWOULDBLOCK) {
        /* What it sent before it went away may still be waiting to be read. */
        s->readable = s->read_on = true;
        return failed(s, put);
    }
    if (put < 0)
        put = 0;
    if (put && s->capture && !capture_sent(s->capture, buf, (size_t)put))
        stream_capture(s, NULL);
    if ((size_t)put < n || stream_staged(s))
        s->writable = false;
    return put;
}

static int plain_shutdown(const struct stream *s)
{
    return shutdown(s->entry.fd, SHUT_WR) ? -errno : 0;
}

int stream_shutdown(struct stream *s)
{
    s->shut = true;
    if (s->capture)
        capture_own_ended(s->capture, false);
    int err = s->ops ? s->ops->shutdown(s) : plain_shutdown(s);
    if (!err)
        return 0;
    take_error(s);
    if (!s->err) /* ENOTCONN: it was reset, and somebody has read the error */
        s->err = err == -ENOTCONN ? -ECONNRESET : err;
    return s->err;
}

int stream_move(struct stream *from, struct stream *to, struct poller *p)
{
    to->capture = from->capture;
    from->capture = NULL;
    if (!from->ops)
        return poller_move_edge(p, &from->entry, &to->entry);
    to->ops = from->ops;
    to->impl = from->impl;
    to->entry.fd = from->entry.fd;
    from->entry.fd = -1;
    return to->ops->moved(to, &to->entry, p);
}

size_t stream_unsent(const struct stream *s)
{
    if (s->ops)
        return stream_is_open(s) ? s->ops->unsent(s) : 0;
#ifdef SIOCOUTQ
    int n;
    if (stream_is_open(s) && ioctl(s->entry.fd, SIOCOUTQ, &n) == 0 && n > 0)
        return (size_t)n;
#endif
    return 0;
}

int stream_set_nodelay(struct stream *s, bool on)
{
    int value = on;
    if (setsockopt(s->entry.fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0)
        return 0;
    return errno == EOPNOTSUPP || errno == ENOPROTOOPT ? 0
                                                       : -errno; /* a UNIX socket has no delay */
}

/* It ends with the stream. */
static void end_capture(struct stream *s, bool aborted)
{
    if (!s->capture)
        return;
    capture_own_ended(s->capture, aborted);
    stream_capture(s, NULL);
}

void stream_close(struct stream *s)
{
    end_capture(s, false);
    if (s->ops && stream_is_open(s))
        s->ops->close(s, false);
    else
        poller_close(&s->entry);
}

void stream_abort(struct stream *s)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    end_capture(s, true);
    if (!stream_is_open(s))
        return;
    if (s->ops) {
        s->ops->close(s, true);
        return;
    }
    setsockopt(s->entry.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    poller_close(&s->entry);
}
