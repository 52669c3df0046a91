/* A listener in one worker: accepts within its limits. Used on the worker's thread, but where it is
 * said. */
#ifndef PENSTOCK_PROXY_ACCEPTOR_H
#define PENSTOCK_PROXY_ACCEPTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "penstock/net/loop.h"
#include "penstock/net/poller.h"
#include "penstock/net/timers.h"
#include "penstock/proxy/listener.h"

struct generation;
struct listener_stats;
struct vnet_port;
struct worker;

/* Level-triggered, one accept a wake-up. */
struct acceptor {
    struct poller_entry entry;
    unsigned socket;                      /* its number in listener->fds */
    struct acceptor *also;                /* further sockets of the listener, on which is done what
                                             is done on this one; NULL: none */
    struct vnet_port *port;               /* of a virtual network, else NULL */
    struct listener *listener;            /* one reference */
    const struct config_listener *config; /* NULL before it is started */
    struct generation *generation;        /* whose configuration that is: its connections' */
    struct worker *worker;
    struct list node;     /* in worker->leaving, or on no list */
    struct timer grace;   /* while it is drained: handshakes under way */
    uint64_t close_by_ms; /* then it is closed, also when there is no room for all who wait */
    void (*on_drained)(struct acceptor *a, void *arg); /* NULL: it is not being drained */
    void *drained_arg;
    struct listener_stats *stats; /* of its name, in this worker; NULL before it is started */
    struct loop_task free_task;
    struct timer retry; /* when a pause ends by itself */
    bool paused;
    uint64_t hit_ms; /* last time a limit was hit: a series of hits is logged and counted once */
};

/* An acceptor that does not accept yet, with a descriptor of its own: on the main thread. NULL with
 * a negative errno in *err. */
struct acceptor *acceptor_new(struct listener *l, struct worker *w, int *err);
/* Starts accepting, for connections of `g`: from now on on the worker's thread. Returns 0 or a
 * negative errno. */
int acceptor_start(struct acceptor *a, struct generation *g, const struct config_listener *config);
/* A later configuration of the same address. */
void acceptor_use(struct acceptor *a, struct generation *g, const struct config_listener *config);
/* Accepts for a moment more, while clients that begin to connect are not let in: those whose
 * handshake is under way, whom closing would cut, and up to `patience_ms` longer those for whom a
 * limit has no room yet. Then closes its socket and calls `on_drained`, which may be at once, and
 * before that when acceptor_drain() or acceptor_close() is called once more. */
void acceptor_drain(struct acceptor *a, uint64_t patience_ms,
                    void (*on_drained)(struct acceptor *a, void *arg), void *arg);
/* Takes what is in the backlog, as far as there is room and unless another process does
 * (listener_hand_over()), and closes its socket. */
void acceptor_close(struct acceptor *a);
/* The same if there is room for all who wait; else false, and it is as it was. */
bool acceptor_try_close(struct acceptor *a);
/* Accepts again from `fd`, a copy of listener->fds[socket], which it takes over, also on failure.
 * Returns 0 or a negative errno. */
int acceptor_reopen(struct acceptor *a, int fd, unsigned socket);
/* Frees one that was never started, on the main thread; or a drained one, to which an event of this
 * batch may still point: its memory goes at the end of the batch. */
void acceptor_free(struct acceptor *a);
/* A connection of this worker has ended: there may be room again. */
void acceptor_resume(struct acceptor *a);

#endif
