/* A network that is not there: streams, listening addresses and names in memory, for specs.
 *
 * It serves one loop (loop_options.vnet), on its thread. What connects over it takes no time and
 * loses nothing; a byte that was written has arrived. Each end has a receive window, so a reader
 * that does not read holds its writer back. Events are delivered by loop_settle() as a poller
 * delivers those of sockets: edge-triggered for streams, level-triggered for ports. */
#ifndef PENSTOCK_NET_VNET_H
#define PENSTOCK_NET_VNET_H

#include <stdbool.h>
#include <stddef.h>

#include "penstock/base/addr.h"
#include "penstock/net/stream.h"

struct vnet;
struct vnet_port;

enum { VNET_WINDOW_BYTES = 64 * 1024 };

/* What can be ordered to fail, and with which word. X(NAME, word) */
#define VNET_FAULTS(X)                                                                             \
    X(REFUSED, "refused")                                                                          \
    X(TIMEOUT, "timeout")                                                                          \
    X(UNREACHABLE, "unreachable")                                                                  \
    X(RESET, "reset")

enum vnet_fault {
#define X(name, word) VNET_##name,
    VNET_FAULTS(X)
#undef X
        VNET_FAULT_COUNT
};

/* How a name can fail to resolve. X(NAME, word, what the resolver says) */
#define VNET_NAME_FAULTS(X)                                                                        \
    X(NXDOMAIN, "nxdomain", "Domain name not found")                                               \
    X(SERVFAIL, "servfail", "DNS server returned general failure")                                 \
    X(SILENCE, "timeout", "Timeout while contacting DNS servers")

enum vnet_name_fault {
    VNET_NAME_GOOD,
#define X(name, word, why) VNET_NAME_##name,
    VNET_NAME_FAULTS(X)
#undef X
        VNET_NAME_FAULT_COUNT
};

/* Who wants to know what happens. Neither function may use the net. */
struct vnet_observer {
    /* A stream was to be connected to `address`. 0: it is; or a negative errno, -ETIMEDOUT when
     * there will be no answer. */
    void (*on_connect)(void *arg, const char *address, int err);
    /* Somebody has taken the accepted stream, whose other end is `peer`, as a client. */
    void (*on_taken)(void *arg, const struct stream *peer);
    void *arg;
};

/* Returns NULL when out of memory. The observer is copied. */
struct vnet *vnet_new(const struct vnet_observer *observer);
/* Every stream and port is closed by then. */
void vnet_free(struct vnet *net);

/* Opens a port. `address` is "ip:port", "name:port" or "unix:/path"; a name need not be known yet.
 * While clients wait and the port is watched (it is at first), entry->on_event() is called with
 * POLLER_IN. Each accepted stream gets the receive window `window_bytes`. Returns 0, -EADDRINUSE or
 * -ENOMEM. */
int vnet_listen(struct vnet *net, const char *address, size_t window_bytes,
                struct poller_entry *entry, struct vnet_port **out);
void vnet_watch(struct vnet_port *port, bool on);
/* Takes the client that has waited longest into `s`, an initialised stream that may be moved on
 * with stream_move(). *client gets its address. Returns 0 or -EAGAIN. */
int vnet_accept(struct vnet_port *port, struct stream *s, struct addr *client);
/* Clients that still wait are reset. */
void vnet_port_close(struct vnet_port *port);

/* Connects `s`, as connect(2) on a non-blocking socket: POLLER_OUT follows, or POLLER_ERROR with an
 * error for stream_error(), or nothing at all. `to` may be AF_INET, AF_INET6 or AF_UNIX. Returns 0
 * or -ENOMEM. */
int vnet_connect(struct vnet *net, struct stream *s, const struct sockaddr *to, socklen_t len);
/* Connects `s` to `port` as a client from the address `from`. Returns 0 or -ENOMEM. */
int vnet_connect_port(struct vnet_port *port, struct stream *s, const struct addr *from);
/* Sets the receive window of the open virtual stream `s`. */
void vnet_set_window(struct stream *s, size_t bytes);

/* Calls back for what has happened since the last call. Returns false when that was nothing. */
bool vnet_dispatch(struct vnet *net);
/* Nothing has happened that vnet_dispatch() would tell. */
bool vnet_is_idle(const struct vnet *net);

/* ---- names and faults (vnet_names.c) ---- */

/* The next `times` connections to `address` (as for vnet_listen) fail; 0: all of them, from now on.
 * A later order replaces an earlier one for the same address. Returns 0 or -ENOMEM. */
int vnet_fail(struct vnet *net, const char *address, enum vnet_fault fault, unsigned times);
/* Says what `name` resolves to: n addresses, or a failure. Returns 0 or -ENOMEM. */
int vnet_set_name(struct vnet *net, const char *name, const struct addr *addrs, size_t n,
                  enum vnet_name_fault fault);
/* Looks `name` up. A name that is not set but part of a port's or a fault's address gets an address
 * of its own (198.18.0.0/15). Returns 0 with *addrs (valid until the next vnet_set_name(), ports 0)
 * and *n, of which some may be of another family; PS_EDNS with the resolver's words in *why
 * (static); or -EAGAIN when no answer will come. */
int vnet_resolve(struct vnet *net, const char *name, const struct addr **addrs, size_t *n,
                 const char **why);

#endif
