/* One worker: a thread, its loop, its acceptors, its connections, its policies. Workers share the
 * counters, each listener's table of clients and rate, the counts of target lists, and the log. */
#ifndef PENSTOCK_PROXY_WORKER_H
#define PENSTOCK_PROXY_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "penstock/base/list.h"
#include "penstock/net/loop.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/policy.h"

struct resolver;
struct vnet;

/* What all workers count in; owned by the server. */
struct server_counts {
    atomic_ullong ids;  /* connection ids given out */
    atomic_uint conns;  /* connections now */
    uint32_t max_conns; /* 0: no limit */
    unsigned max_pipes; /* of each worker */
};

/* What the main thread can ask of a worker; a later one includes the earlier. */
enum worker_order { WORKER_SERVE, WORKER_DRAIN, WORKER_END };

struct worker {
    struct loop loop;
    uv_thread_t thread;
    uv_async_t wake;  /* an order has come */
    atomic_int order; /* enum worker_order */
    enum worker_order obeyed;
    const struct config *config;
    struct server_counts *counts;
    struct resolver *resolver;
    struct policy_set *policies; /* NULL without */
    struct acceptor *acceptors;  /* one a listener */
    size_t n_acceptors;
    struct list conns; /* every connection with memory, closed ones with a waiting hook included */
    size_t n_conns;
    void (*on_ended)(void *arg); /* called on the worker's thread as its last act */
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
/* Starts accepting on `listeners`. Returns 0 or a negative errno; worker_deinit() undoes it. */
int worker_open(struct worker *w, struct listener *listeners, size_t n);
/* Ends every connection with reason SHUTDOWN, close hooks that wait included. */
void worker_end_conns(struct worker *w);
/* Starts accepting on `listeners` and the thread. Returns 0 or a negative errno. */
int worker_start(struct worker *w, struct listener *listeners, size_t n, void (*on_ended)(void *),
                 void *arg);
/* From any thread. */
void worker_command(struct worker *w, enum worker_order order);
/* Waits for the thread (if it was started) and frees all. Returns 0, or an error when handles were
 * left open. */
int worker_deinit(struct worker *w);

/* A connection's slot is free again: paused acceptors may go on. */
void worker_slot_freed(struct worker *w);
/* A connection's memory is gone. */
void worker_conn_freed(struct worker *w);

#endif
