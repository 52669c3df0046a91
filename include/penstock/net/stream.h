/* One endpoint of a connection: a non-blocking stream socket, registered once with the poller.
 * Owned by the connection it is embedded in. */
#ifndef PENSTOCK_NET_STREAM_H
#define PENSTOCK_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "penstock/net/poller.h"

struct stream {
    struct poller_entry entry; /* fd, callback of the owner */
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
/* Writes up to n bytes. Returns the count (0: blocked, `writable` cleared) or a negative errno,
 * kept in s->err. */
ssize_t stream_write(struct stream *s, const void *buf, size_t n);
/* Ends our side (FIN) after what was written. Returns 0 or a negative errno, kept in s->err. */
int stream_shutdown(struct stream *s);
/* Bytes written but not yet acknowledged by the other host; 0 when the system cannot tell. */
size_t stream_unsent(const struct stream *s);
/* TCP_NODELAY; harmless on a UNIX socket. Returns 0 or a negative errno. */
int stream_set_nodelay(struct stream *s, bool on);
/* Closes: FIN after what was written. */
void stream_close(struct stream *s);
/* Aborts: RST, what was not sent is thrown away. */
void stream_abort(struct stream *s);

#endif
