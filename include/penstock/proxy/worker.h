/* One worker: a thread, its loop, its acceptors, its connections, its generations of policies.
 * Workers share the counters, each listener's table of clients and rate, the counts of target lists
 * and configurations, and the log. */
#ifndef PENSTOCK_PROXY_WORKER_H
#define PENSTOCK_PROXY_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "penstock/base/list.h"
#include "penstock/net/loop.h"
#include "penstock/proxy/acceptor.h"
#include "penstock/proxy/policy.h"
#include "penstock/proxy/stats.h"

struct resolver;
struct vnet;

/* What all workers count in; owned by the server. */
struct server_counts {
    atomic_ullong ids;   /* connection ids given out */
    atomic_uint conns;   /* connections now */
    uint32_t max_conns;  /* 0: no limit */
    unsigned max_pipes;  /* of each worker */
    atomic_bool copied;  /* another process may have copies of our descriptors: poller.copied */
    struct stats *stats; /* of the server; NULL: nobody asks for what is counted */
};

/* One version of configuration and policies in one worker. New connections get the newest; an older
 * one goes with its last connection. */
struct generation {
    struct list node;            /* in worker->generations */
    struct worker *worker;       /* once it is in force */
    struct loop_task idle_task;  /* its policies have nothing to do any more */
    struct config *config;       /* one reference */
    struct policy_set *policies; /* NULL without */
    size_t n_conns;              /* connections with memory */
    size_t n_leaving;            /* acceptors that are being drained, and still accept for it */
    unsigned number;             /* of the version, from 1 */
};

/* What the main thread can ask of a worker; a later one includes the earlier. */
enum worker_order { WORKER_SERVE, WORKER_DRAIN, WORKER_END };

/* A change to another version, prepared on the main thread so that it cannot fail half-way. */
struct worker_change {
    struct list node; /* in worker->changes */
    struct generation *generation;
    struct acceptor *
        *acceptors;     /* one a listener of the new configuration; NULL where `from` has one
                         */
    const size_t *from; /* for each of them: its number in the old configuration, or SIZE_MAX; the
                           server's, until the change is done */
};

/* Something that another thread wants to be done by a worker; embedded in its owner. */
struct worker_task {
    struct list node; /* in worker->tasks */
    /* On the worker's thread, between batches of events. `w` is NULL, and the thread any, when the
     * worker has ended. The task is nobody else's from then on. */
    void (*run)(struct worker_task *task, struct worker *w);
};

struct worker {
    struct loop loop;
    uv_thread_t thread;
    uv_async_t wake;  /* an order or a change has come */
    atomic_int order; /* enum worker_order */
    enum worker_order obeyed;
    atomic_bool asked; /* for a sign of life, which has not come yet */
    atomic_bool over;  /* the thread serves no more */
    struct server_counts *counts;
    struct worker_stats *stats;      /* NULL: nobody asks */
    struct listener_stats uncounted; /* what nobody asks for is counted here */
    struct resolver *resolver;
    struct list generations;     /* newest first; at least one while it serves */
    struct acceptor **acceptors; /* one a listener of the newest generation */
    size_t n_acceptors;
    unsigned n_finishing; /* acceptors that take their last clients: it stops */
    struct list leaving;  /* acceptors of listeners that the newest generation has no more */
    bool changing;        /* a change is in force, and done once those have left */
    struct list conns; /* every connection with memory, closed ones with a waiting hook included */
    size_t n_conns;
    uv_mutex_t lock;
    struct list changes;           /* struct worker_change, oldest first; under the lock */
    struct list tasks;             /* struct worker_task, oldest first; under the lock */
    bool refuses_tasks;            /* it takes no more of them; under the lock */
    void (*on_changed)(void *arg); /* called on the worker's thread when a change is done */
    void (*on_ended)(void *arg);   /* called on the worker's thread as its last act */
    void *arg;
    unsigned index;
    bool started;
};

/* Prepares on the main thread. Returns 0 or a negative errno; nothing left on failure. */
int worker_init(struct worker *w, unsigned index, const struct config *config,
                struct server_counts *counts);
/* The same with a virtual network and a clock that begins at `start_ms`; worker_open() and the
 * loop's loop_settle() take the place of worker_start(). */
int worker_init_virtual(struct worker *w, const struct config *config, struct server_counts *counts,
                        struct vnet *vnet, uint64_t start_ms);
/* Takes over a change, the first before worker_start(). From the main thread. */
void worker_change(struct worker *w, struct worker_change *change);
/* Starts the thread, which begins with the changes it was given. Returns 0 or a negative errno. */
int worker_start(struct worker *w);
/* Makes the changes it was given, on this thread. */
void worker_open(struct worker *w);
/* Ends every connection with reason SHUTDOWN, close hooks that wait included. */
void worker_end_conns(struct worker *w);
/* From any thread. */
void worker_command(struct worker *w, enum worker_order order);
/* Asks for a sign of life. From the main thread. */
void worker_ask(struct worker *w);
/* Has it given one since worker_ask(), or nothing more to do? From the main thread. */
bool worker_has_answered(const struct worker *w);
/* Has `task` run, once, whatever becomes of the worker. From any thread. */
void worker_post(struct worker *w, struct worker_task *task);
/* Waits for the thread (if it was started) and frees all. Returns 0, or an error when handles were
 * left open. */
int worker_deinit(struct worker *w);

/* A change for worker `w` to `config`, of which it takes a reference, with room for its acceptors,
 * and with `policies` (may be NULL). NULL when out of memory. */
struct worker_change *worker_change_new(struct config *config, struct policy_set *policies,
                                        unsigned number, const size_t *from);
/* Frees one that was not given to a worker, its acceptors and policies too. */
void worker_change_free(struct worker_change *change);

/* The newest generation. */
static inline struct generation *worker_generation(const struct worker *w)
{
    return container_of(w->generations.next, struct generation, node);
}
/* Where a listener of that name counts in this worker. Not for each connection. */
struct listener_stats *worker_listener_stats(struct worker *w, const char *name);
/* A connection's slot is free again: paused acceptors may go on. */
void worker_slot_freed(struct worker *w);
/* The memory of a connection of `generation` is gone. */
void worker_conn_freed(struct worker *w, struct generation *generation);

#endif
