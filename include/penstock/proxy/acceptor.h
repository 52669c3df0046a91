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

struct listener_stats;
struct vnet_port;
struct worker;

/* Level-triggered, one accept a wake-up. */
struct acceptor {
    struct poller_entry entry;
    struct vnet_port *port;               /* of a virtual network, else NULL */
    struct listener *listener;            /* one reference */
    const struct config_listener *config; /* of the newest generation; NULL before it is started */
    struct worker *worker;
    struct listener_stats *stats; /* of its name, in this worker; NULL before it is started */
    struct loop_task free_task;
    struct timer retry; /* when a pause ends by itself */
    bool paused;
    uint64_t hit_ms; /* last time a limit was hit: a series of hits is logged and counted once */
};

/* An acceptor that does not accept yet, with a descriptor of its own: on the main thread. NULL with
 * a negative errno in *err. */
struct acceptor *acceptor_new(struct listener *l, struct worker *w, int *err);
/* Starts accepting: from now on on the worker's thread. Returns 0 or a negative errno. */
int acceptor_start(struct acceptor *a, const struct config_listener *config);
/* A later configuration of the same address. */
void acceptor_use(struct acceptor *a, const struct config_listener *config);
/* Takes what is in the backlog, then stops accepting. Clients that begin to connect meanwhile are
 * not let into the backlog, which closing would cut. */
void acceptor_drain(struct acceptor *a);
/* Accepts again after acceptor_drain(), from `fd`, which it takes over, also on failure. Returns 0
 * or a negative errno. */
int acceptor_reopen(struct acceptor *a, int fd);
/* Frees one that was never started, on the main thread; or a drained one, to which an event of this
 * batch may still point: its memory goes at the end of the batch. */
void acceptor_free(struct acceptor *a);
/* A connection of this worker has ended: there may be room again. */
void acceptor_resume(struct acceptor *a);

#endif
