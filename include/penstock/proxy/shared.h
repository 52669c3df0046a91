/* What scripts share over all workers, by name: stores, buckets, pools, metrics. One for the
 * process, owned by the server; it outlives every VM, so what is in it survives a reload.
 * Everything is made at first use and stays to the end; any thread. */
#ifndef PENSTOCK_PROXY_SHARED_H
#define PENSTOCK_PROXY_SHARED_H

#include <stdint.h>

#include "penstock/net/tls_ctx.h"
#include "penstock/proxy/buckets.h"
#include "penstock/proxy/metrics.h"
#include "penstock/proxy/pool.h"
#include "penstock/proxy/store.h"

struct shared;

/* Of each kind: names made from a client's bytes must not fill the memory. */
enum { SHARED_NAMES_MAX = 1000 };

/* NULL when out of memory. */
struct shared *shared_new(void);
void shared_free(struct shared *s);

/* The store or buckets of that name; when it is there, it takes these limits. For a store NULL
 * leaves them as they are. Returns 0, -ENOMEM, or PS_ELIMIT when there are SHARED_NAMES_MAX
 * others. */
int shared_store(struct shared *s, const char *name, const struct store_limits *limits,
                 struct store **out);
int shared_buckets(struct shared *s, const char *name, const struct buckets_limits *limits,
                   uint64_t now_ns, struct buckets **out);
/* The pool of that name. Its servers are there as long as somebody holds them. */
int shared_pool(struct shared *s, const char *name, struct pool **out);

/* The one that is there, or NULL. */
struct pool *shared_find_pool(struct shared *s, const char *name);

struct store *shared_find_store(struct shared *s, const char *name);

/* Shows each, in the order of their making. `visit` must not come back here. */
void shared_visit_stores(struct shared *s,
                         void (*visit)(void *arg, const char *name, struct store *store),
                         void *arg);
void shared_visit_buckets(struct shared *s,
                          void (*visit)(void *arg, const char *name, struct buckets *b), void *arg);
/* pool_visit() of each pool, in the order of their making. */
void shared_visit_pools(struct shared *s, uint64_t now_ms,
                        void (*visit)(void *arg, const struct pool_view *view), void *arg);

/* The keys of TLS session tickets. */
struct tls_tickets *shared_tickets(struct shared *s);
/* All metrics. */
struct metrics *shared_metrics(struct shared *s);

#endif
