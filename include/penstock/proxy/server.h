/* The whole process: listeners, workers, signals, stop and drain. Lives on the main thread. */
#ifndef PENSTOCK_PROXY_SERVER_H
#define PENSTOCK_PROXY_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "penstock/base/list.h"
#include "penstock/proxy/version.h"

struct config;
struct config_listener;
struct handover;
struct listener;
struct server;
struct shared;
struct stats;

/* Makes a server of a loaded version, whose content it takes over, also on failure. What it counts
 * is among the metrics of `shared`, which outlives it, until server_free(). Returns 0 or a negative
 * errno. */
int server_new(struct version *version, struct shared *shared, struct server **out);

/* Opens every listening socket; checks descriptors against max_conns. 0, or an error with a message
 * in `why` that names the listener: nothing is open then. */
int server_bind(struct server *s, char *why, size_t why_cap);

/* Starts the workers, logs one "listening on" line a listener, notifies systemd, and serves until
 * TERM or INT and the end of the drain (a second signal ends it at once). Returns 0 after a clean
 * stop, or a negative error. HUP loads another version with `loader`, which outlives the call; the
 * present one stays in force when that fails. */
int server_run(struct server *s, const struct version_loader *loader);

/* How this process was started, for its successor, and what is to be done when it is one. */
struct server_origin {
    const char *path; /* of the program; NULL: not known */
    char *const *argv;
    void (*on_main)(void *arg); /* it has taken over from the process before; NULL: nothing */
    void *arg;
};
/* Before server_run(), which otherwise upgrades nothing. `origin` outlives the server. */
void server_set_origin(struct server *s, const struct server_origin *origin);
/* Has another process taken over from this one? */
bool server_is_replaced(const struct server *s);
/* This process takes over from another; before server_bind(). `h` outlives the server. */
void server_set_handover(struct server *s, struct handover *h);

/* Closes and frees everything. TERM, INT, HUP, USR1 and USR2 are blocked on this thread from then
 * on: the process is about to end. */
void server_free(struct server *s);

/* --- For who looks after a server that runs, on the main thread (core/admin) --- */

/* The main thread's loop: it runs from server_run() to server_free(), which closes the handles that
 * are left in it. */
uv_loop_t *server_loop(struct server *s);

struct server_status {
    bool open;     /* every listener has begun to accept */
    bool draining; /* no new connections any more */
    unsigned version, workers;
    uint32_t conns, max_conns;
    unsigned long long served; /* connections so far */
    uint64_t uptime_ms;
};
void server_get_status(const struct server *s, struct server_status *out);

/* What it has counted since its start. */
struct stats *server_stats(struct server *s);

/* Whether the option (of the process, as on the command line) holds from the start to the end: a
 * reload says nothing about it. */
bool server_keeps(const char *option);
/* The configuration in force, for config_hold(). */
struct config *server_config(struct server *s);

/* Those of the version in force. */
size_t server_n_listeners(const struct server *s);
const struct listener *server_listener(const struct server *s, size_t i,
                                       const struct config_listener **config);

/* Worker i of status.workers; for worker_post(). */
struct worker *server_worker(struct server *s, unsigned i);

/* A listener beside those of the configuration, which goes over in an upgrade, too. */
struct server_guest {
    struct listener *listener;         /* with its socket in fds[0] */
    void (*on_handed_over)(void *arg); /* another process accepts there now; do so no more */
    bool (*is_busy)(
        void *arg); /* some client is still to be answered: do not end by yourself yet */
    void *arg;
};
/* One at most, which outlives server_run(). */
void server_set_guest(struct server *s, const struct server_guest *guest);
/* The guest may not be busy any more. */
void server_guest_left(struct server *s);

/* Who waits for a reload, a drain or an upgrade; embedded in its owner. Who waits for a reload may
 * leave by list_remove(&node); else it must be there until done() or the end of server_run(). */
struct server_waiter {
    struct list node;
    /* The version in force now is `number` (an upgrade: the process that has taken over); `err` is
     * 0, or a negative error with its message in `why`, and everything is what it was. */
    void (*done)(struct server_waiter *waiter, int err, unsigned number, const char *why);
};
/* Loads another version, as HUP does. waiter->done() follows, maybe at once. Those who ask while
 * one is under way share the one that follows. `by` is for the log; static storage. */
void server_reload_wait(struct server *s, const char *by, struct server_waiter *waiter);
/* Starts the program again and hands it the listening sockets; this process drains once the new one
 * accepts on all, as after TERM, and goes on if it does not come up. Waits for a reload that is
 * under way. waiter->done() follows, maybe at once, unless it is NULL: -ECANCELED when the new
 * process did not come up, -EBUSY when there cannot be one now, -ESHUTDOWN while stopping. */
void server_upgrade(struct server *s, const char *by, struct server_waiter *waiter);

/* Drains the listeners called `name`: takes the clients in their backlogs, then closes their
 * sockets. Connections go on; unless `over_ms` is UINT64_MAX, those open now end at moments by
 * chance within that time (conn_end_within()). It holds over reloads, until it is up again.
 * waiter->done() follows once no worker accepts any more, maybe at once: 0, also when it was
 * drained already, or -ENOENT, -EBUSY while one is under way, -ESHUTDOWN, -ENOMEM. */
void server_drain_listener(struct server *s, const char *name, uint64_t over_ms,
                           struct server_waiter *waiter);
/* Opens the sockets of drained listeners again: of all that are called `name`, or of none when one
 * cannot be opened, with its message. Their connections may stay. */
void server_up_listener(struct server *s, const char *name, struct server_waiter *waiter);

#endif
