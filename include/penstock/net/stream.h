/* One endpoint of a connection: a non-blocking stream socket, registered once with the poller, or
 * something else that moves bytes in its place (struct stream_ops). Owned by the connection it is
 * embedded in. TLS is such a thing (tls.h): it moves its bytes over another stream. */
#ifndef PENSTOCK_NET_STREAM_H
#define PENSTOCK_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "penstock/net/poller.h"

struct capture;
struct stream;

/* What takes the place of a socket's system calls. None of them calls back or touches the flags of
 * the stream, but for `read_on`; errors are negative errnos or codes of err.h. */
struct stream_ops {
    /* The poller has told `events` of it; they go into the flags afterwards. NULL: nothing to do.
     */
    void (*events)(struct stream *s, unsigned events);
    /* As recv(2) and send(2): a count, 0 at the end (read only), -EAGAIN, or another error. A read
     * that gives less than was asked for means that there is no more now, unless the stream's
     * `read_on` is set; a write that takes less will be followed by a POLLER_OUT event. */
    ssize_t (*read)(struct stream *s, void *buf, size_t n);
    ssize_t (*write)(struct stream *s, const void *buf, size_t n);
    /* As recv(2) with MSG_PEEK: what it gives is read again later. */
    ssize_t (*peek)(struct stream *s, void *buf, size_t n);
    /* Bytes that were taken by write() or belong to a shutdown(), and wait for the socket; NULL:
     * there are never any. */
    size_t (*staged)(const struct stream *s);
    /* As shutdown(2) for writing, behind what is staged. Returns 0 or an error. */
    int (*shutdown)(struct stream *s);
    /* The pending error, cleared by this call; 0 when there is none. */
    int (*error)(struct stream *s);
    /* Bytes written but not taken by the other side yet; what is staged included. */
    size_t (*unsent)(const struct stream *s);
    /* Ends it, by an abort when `abort` is set, frees what s->impl points to, and leaves
     * s->entry.fd at -1. Only called while the stream is open. */
    void (*close)(struct stream *s, bool abort);
    /* `s` has taken ops and impl over from another stream: events go to `entry` from now on.
     * Returns 0 or an error. */
    int (*moved)(struct stream *s, struct poller_entry *entry, struct poller *p);
    /* Is a write(2) or splice(2) to the descriptor the same as write() here, now? NULL: never. */
    bool (*takes_splice)(const struct stream *s);
    /* It has to say goodbye: a close alone would look like an abort to the other side. */
    bool says_goodbye;
};

struct stream {
    struct poller_entry entry;    /* fd (-1: closed), callback of the owner */
    const struct stream_ops *ops; /* NULL: a plain socket */
    void *impl;                   /* of ops */
    struct capture *capture;      /* of what is read and written here; NULL: none */
    int err; /* first error the socket reported, negative errno; an EOF after it is an abort, not an
                end */
    bool readable; /* a read may give something */
    bool writable; /* a write may take something */
    bool read_on;  /* a short read does not mean drained (an end, an error, urgent data, a UNIX
                      socket) */
    bool urgent;   /* the peer has used urgent data: splice stops at its mark, so copy */
    bool eof;      /* nothing more will be read: the end, or, with err set, an abort */
    bool shut;     /* we have shut it for writing */
};

/* A stream without a socket. `on_event` is called by the poller. */
void stream_init(struct stream *s, void (*on_event)(struct poller_entry *entry, unsigned events));
static inline bool stream_is_open(const struct stream *s)
{
    return s->entry.fd >= 0;
}
/* Takes the poller's events into the flags above, and a pending error into `err`: what was received
 * before it can still be read, but the end that follows is an abort. */
void stream_note_events(struct stream *s, unsigned events);

/* Reads up to n bytes. Returns the count (> 0); 0 with s->eof set at the end; -EAGAIN (readable
 * cleared); or a negative errno, kept in s->err, with s->eof set. A short count clears `readable`
 * too, unless `read_on` is set. */
ssize_t stream_read(struct stream *s, void *buf, size_t n);
/* The same, but what was read stays in the socket for the next read; clears `readable` only when
 * there is nothing. */
ssize_t stream_peek(struct stream *s, void *buf, size_t n);
/* Writes up to n bytes. Returns the count (0: blocked, `writable` cleared) or a negative errno,
 * kept in s->err. */
ssize_t stream_write(struct stream *s, const void *buf, size_t n);
/* Ends our side (FIN) after what was written. Returns 0 or a negative errno, kept in s->err. */
int stream_shutdown(struct stream *s);
/* Reads and clears the pending error of the socket. Returns it, a negative errno, or 0. */
int stream_error(struct stream *s);
/* Hands the open endpoint of `from`, registered edge-triggered with `p`, over to `to`, which keeps
 * its callback; `from` is closed then. Returns 0 or a negative errno. */
int stream_move(struct stream *from, struct stream *to, struct poller *p);
/* Bytes written, or of a shutdown, that the socket has not taken yet. While there are any it is not
 * writable, and a close would lose them. */
static inline size_t stream_staged(const struct stream *s)
{
    return s->ops && s->ops->staged && stream_is_open(s) ? s->ops->staged(s) : 0;
}
/* May bytes be spliced into its descriptor? */
static inline bool stream_takes_splice(const struct stream *s)
{
    return !s->ops || (s->ops->takes_splice && s->ops->takes_splice(s));
}
/* Captures from here on, in the place of what captured before; takes `c` over. NULL: no more. */
void stream_capture(struct stream *s, struct capture *c);
/* Must it be shut down before it is closed, for the other side to see an end? */
static inline bool stream_says_goodbye(const struct stream *s)
{
    return s->ops && s->ops->says_goodbye && !s->shut;
}
/* Bytes written but not yet acknowledged by the other host; 0 when the system cannot tell. */
size_t stream_unsent(const struct stream *s);
/* TCP_NODELAY; harmless on a UNIX socket. Returns 0 or a negative errno. */
int stream_set_nodelay(struct stream *s, bool on);
/* Closes: FIN after what was written. */
void stream_close(struct stream *s);
/* Aborts: RST, what was not sent is thrown away. */
void stream_abort(struct stream *s);

#endif
