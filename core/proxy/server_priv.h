/* What the files of the server share and nobody else needs. All on the main thread. */
#ifndef PENSTOCK_PROXY_SERVER_PRIV_H
#define PENSTOCK_PROXY_SERVER_PRIV_H

#include "penstock/proxy/listener.h"
#include "penstock/proxy/server.h"
#include "penstock/proxy/watch.h"
#include "penstock/proxy/watchdog.h"
#include "penstock/proxy/worker.h"

enum { SERVER_SIGNALS = 5 };

struct handover;
struct upgrade;

/* One for each listener of a configuration, in its order; one reference each. */
struct listeners {
    struct listener **items;
    size_t n;
};

struct server {
    struct version version; /* in force; its policies are the workers' */
    unsigned number;        /* of that version, from 1 */
    struct server_counts counts;
    struct shared *shared;
    struct listeners listeners;
    unsigned long long limited_before; /* times that listeners which are gone reached a limit */
    struct worker *workers;
    uint32_t n_workers; /* that are initialised */
    uv_loop_t loop;
    uv_signal_t signals[SERVER_SIGNALS];
    uv_timer_t drain;      /* the end of patience after TERM */
    struct watchdog *dogs; /* one a worker */
    uv_timer_t look;       /* of the dogs */
    uv_async_t ended;      /* a worker's thread is about to end */
    atomic_uint n_ended;
    enum worker_order order;
    /* server_reload.c */
    const struct version_loader *loader;
    uv_async_t changed;    /* a worker has changed */
    atomic_uint n_changed; /* workers that have made the present change */
    size_t *from;          /* of the present change, NULL when none is under way */
    unsigned wanted;       /* reloads that were asked for meanwhile */
    struct list waiting;   /* struct server_waiter of the next reload */
    struct list attending; /* of the present one */
    const char *wanted_by; /* by what; static storage */
    uint64_t began_ns;
    uint64_t started_ns;
    bool open;                         /* the first change is done: every listener accepts */
    size_t n_added, n_kept, n_removed; /* listeners of the present change */
    struct watch watch;
    /* server_drain.c */
    struct list drains; /* struct server_drain, under way */
    uv_async_t drained; /* workers have done what one asks for */
    /* server_service.c */
    uv_timer_t pulse;  /* WATCHDOG=1 */
    uv_timer_t status; /* STATUS= */
    char told[64];     /* the status that was told last */
    bool quiet;        /* another process is the one that it looks at */
    /* server_upgrade.c */
    const struct server_origin *origin; /* NULL: nobody has told */
    const struct server_guest *guest;   /* NULL: none */
    struct upgrade *upgrade;            /* under way; NULL: none */
    uv_timer_t upgrading;               /* its patience */
    bool replaced;                      /* another process has taken over */
    bool told_to_stop;                  /* TERM or INT has come */
    /* server_successor.c */
    struct handover *handover; /* this process takes over; NULL: no, or it is done */
    uv_poll_t before;          /* what the process before says, once we are up */
};

/* Makes `v` the version in force, or leaves everything as it was: opens the sockets that are new,
 * keeps those of `old` with the same address, and gives a change to every worker. 0, or a negative
 * error with a message in `why`. Takes over the policies of `v`. */
int server_change(struct server *s, struct version *v, const struct listeners *old, char *why,
                  size_t why_cap);
void server_close_listeners(struct server *s);
void server_log_listening(const struct listener *l, const struct config_listener *config);

/* worker.on_changed; on the worker's thread. */
void server_worker_changed(void *arg);
/* Opens the handles that reloads need. 0 or a negative errno. */
int server_open_reload(struct server *s);
/* Loads a new version, now or once the present change is done. */
void server_reload(struct server *s, const char *by);
/* The reloads that have waited for an upgrade. */
void server_reload_wanted(struct server *s);
/* It stops: nobody waits for a reload in vain. */
void server_fail_waiters(struct server *s);

/* Opens the handle by which workers tell that a listener is drained. 0 or a negative errno. */
int server_open_drains(struct server *s);
/* Forgets those under way: the workers have ended. */
void server_close_drains(struct server *s);

/* No new connections; open ones have the drain's time. */
void server_drain(struct server *s);
/* Another process may have copies of our descriptors, or has them no more. */
void server_set_copied(struct server *s, bool copied);
/* Another process has taken over: like server_drain(). */
void server_leave(struct server *s);

/* server_upgrade.c: a reload is over, so an upgrade that has waited for it may begin. */
void server_upgrade_go_on(struct server *s);
/* Workers have given their sockets, maybe. */
void server_upgrade_taken(struct server *s);
/* It stops: the new process, unless it has taken over, stops, too. */
void server_upgrade_stop(struct server *s);
/* Once the workers have ended. */
void server_upgrade_free(struct server *s);

/* server_successor.c: every listener accepts: tells the process before, if there is one. */
void server_is_up(struct server *s);

/* notify_service(), unless another process is the one that is looked at. */
void server_notify(const struct server *s, const char *state);
/* Opens the handles by which the service manager is told. */
void server_open_service(struct server *s);
/* Tells it how many connections there are, when that has changed. */
void server_tell_status(struct server *s);

#endif
