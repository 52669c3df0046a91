/* A listening address: one struct listener for all workers, one struct acceptor for each worker of
 * it. */
#ifndef PENSTOCK_PROXY_LISTENER_H
#define PENSTOCK_PROXY_LISTENER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "penstock/base/addr.h"
#include "penstock/net/dial.h"
#include "penstock/net/poller.h"
#include "penstock/net/rate.h"
#include "penstock/net/timers.h"
#include "penstock/proxy/config.h"

struct clients;
struct vnet_port;
struct worker;

/* Shared by all workers; counters are atomic, the rate has its lock. */
struct listener {
    const struct config_listener *config;
    struct addr address;            /* as bound, with the real port; AF_UNIX for a path */
    char text[256];                 /* "127.0.0.1:8080", "unix:/run/x" */
    const char *name;               /* config->name, or text */
    struct dial_socket dial_socket; /* socket options towards the upstream */
    int *fds; /* one a worker (SO_REUSEPORT), or one for all (UNIX); -1 when closed */
    unsigned n_fds;
    struct clients *clients; /* NULL without a limit per client */
    atomic_ullong refused;   /* clients over the limit per client */
    uv_mutex_t rate_lock;
    struct rate rate;
    atomic_ullong seq; /* connections accepted so far */
    atomic_uint conns; /* connections now */
    atomic_ullong
        limited;    /* times a limit was reached: a series of pauses, or one client refused */
    dev_t path_dev; /* a UNIX socket that we made: removed at the end, while it is still this one */
    ino_t path_ino; /* 0: none */
};

/* Opens the sockets of `config` for `workers` threads. Returns 0, or a negative errno with a
 * message in `why` and nothing left open. */
int listener_open(struct listener *l, const struct config_listener *config, unsigned workers,
                  char *why, size_t why_cap);
/* The same without a socket, for a worker whose loop has a virtual network; the bind address needs
 * a numeric address. Returns 0 or -ENOMEM. */
int listener_open_virtual(struct listener *l, const struct config_listener *config,
                          uint64_t now_ns);
/* Every worker has its own copy of the sockets by now (acceptor_start): close ours, so that the
 * workers' last close ends the listening. */
void listener_release(struct listener *l);
void listener_close(struct listener *l);

/* One listener in one worker. Level-triggered, one accept a wake-up. */
struct acceptor {
    struct poller_entry entry;
    struct vnet_port *port; /* of a virtual network, else NULL */
    struct listener *listener;
    struct worker *worker;
    struct timer retry; /* when a pause ends by itself */
    bool paused;
    uint64_t hit_ms; /* last time a limit was hit: a series of hits is logged and counted once */
};

/* Returns 0 or a negative errno. */
int acceptor_start(struct acceptor *a, struct listener *l, struct worker *w);
/* Takes what is in the backlog, then stops accepting. */
void acceptor_drain(struct acceptor *a);
/* At the worker's end: no timer and no virtual port is left. */
void acceptor_stop(struct acceptor *a);
/* A connection of this worker has ended: there may be room again. */
void acceptor_resume(struct acceptor *a);

#endif
