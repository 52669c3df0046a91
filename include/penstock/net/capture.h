/* The bytes of one stream as the TCP conversation that they were, or would have been: in TLS what
 * was encrypted, of a UNIX socket what went over it. They are written to a file that Wireshark
 * opens. Used on one thread; files are shared by all. */
#ifndef PENSTOCK_NET_CAPTURE_H
#define PENSTOCK_NET_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/addr.h"

struct capture;
struct capture_file;

/* Opens the file for appending, or takes another reference when it is open already; `max_bytes`
 * (0: none) bounds it together with the older half, which is kept as PATH.1. It is made with mode
 * 0600. Returns 0 and a reference in *out; -EEXIST when there is a file that is no capture; -EINVAL
 * when it is no regular file; or another negative errno. Waits for the disk only when it is not
 * open yet. Any thread. */
int capture_file_open(const char *path, uint64_t max_bytes, struct capture_file **out);
/* It is closed once all is written and the last reference is gone. NULL is ignored. Any thread. */
void capture_file_drop(struct capture_file *f);
/* Writes what is queued in all files, for at most wait_ms. For the end of the process, when no
 * stream is left. */
void captures_stop(unsigned wait_ms);

struct capture_options {
    struct capture_file *file;     /* the capture takes a reference of its own */
    uint64_t *left_bytes;          /* how much may still be captured; of several captures together;
                                      outlives them; NULL: all */
    const struct addr *peer, *own; /* IPv4 or IPv6 */
    const char *comment;           /* of the first packet; NULL: none */
    size_t unseen_bytes;           /* to the peer, that will go past the capture */
    bool upstream;                 /* the peer was dialled; else it is a client */
};

/* Begins a conversation, by its handshake. Returns it, owned by the caller; NULL when out of
 * memory. */
struct capture *capture_new(const struct capture_options *options);
/* Bytes that came from the peer or went to it. False when that was the last that may be captured:
 * capture_free() it. */
bool capture_received(struct capture *c, const void *bytes, size_t n);
bool capture_sent(struct capture *c, const void *bytes, size_t n);
/* The peer has ended its side: `aborted`, the connection. */
void capture_peer_ended(struct capture *c, bool aborted);
/* We have. */
void capture_own_ended(struct capture *c, bool aborted);
/* Says nothing more. */
void capture_free(struct capture *c);

#endif
