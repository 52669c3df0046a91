/* What penstock counts of itself, for the metrics of docs/metrics.md.
 *
 * Everything is a plain number of the one thread that counts it (base/count.h), found once, when a
 * listener or a worker starts; sums over workers are made when somebody asks. One for the process,
 * owned by the server, so that a reload changes nothing of it: a listener that goes and comes again
 * goes on counting under its name. */
#ifndef PENSTOCK_PROXY_STATS_H
#define PENSTOCK_PROXY_STATS_H

#include <stdbool.h>

#include "penstock/base/count.h"
#include "penstock/base/lag.h"
#include "penstock/net/resolver.h"
#include "penstock/proxy/metrics.h"
#include "penstock/proxy/policy.h"
#include "penstock/proxy/reason.h"

struct config;
struct shared;
struct stats;

/* Results beside the reasons of reason.h. */
enum { DIAL_OK = REASON_COUNT, DIAL_CANCELLED, DIAL_RESULT_COUNT };

/* How a client's TLS handshake ended. X(NAME, word, resumed) */
#define HANDSHAKE_RESULTS(X)                                                                       \
    X(FULL, "ok", "false")                                                                         \
    X(RESUMED, "ok", "true")                                                                       \
    X(FAILED, "failed", "false")                                                                   \
    X(TIMEOUT, "timeout", "false")                                                                 \
    X(LIMIT, "limit", "false")

enum handshake_result {
#define X(name, word, resumed) SHAKEN_##name,
    HANDSHAKE_RESULTS(X)
#undef X
        HANDSHAKE_RESULT_COUNT
};

enum { DURATION_BOUNDS = 14 };

/* A histogram of durations. */
struct duration {
    struct count buckets[DURATION_BOUNDS + 1]; /* the last: longer than all bounds */
    struct count ns;                           /* the sum */
};

/* Of a listener in one worker. */
struct listener_stats {
    struct count opened;
    struct count closed[REASON_COUNT];
    struct count bytes[2]; /* by enum relay_direction */
    struct count limited;
    struct count dials[DIAL_RESULT_COUNT]; /* by enum close_reason, DIAL_OK or DIAL_CANCELLED */
    struct count handshakes[HANDSHAKE_RESULT_COUNT];
    struct duration connect, first_byte, handshake; /* short ones */
    struct duration life;                           /* long ones */
};

/* Of a worker. */
struct worker_stats {
    struct count dns[RESOLVER_RESULT_COUNT];
    struct policy_stats policies;
    struct lag lag;
};

/* Metrics of `n_workers` threads, with the pools of `shared`, among whose metrics they are listed
 * from now on until stats_free(). NULL when out of memory. */
struct stats *stats_new(struct shared *shared, unsigned n_workers);
/* Once no thread counts any more. NULL is nothing. */
void stats_free(struct stats *s);

/* Those of a worker, and of a listener of that name in it; as long as `s`. From any thread, not for
 * each connection. NULL when out of memory; beyond METRICS_SERIES_MAX listeners further ones share
 * the name "other". */
struct worker_stats *stats_worker(struct stats *s, unsigned worker);
struct listener_stats *stats_listener(struct stats *s, const char *name, unsigned worker);

/* Shows each listener, also of former configurations, with the sums over workers. On any thread;
 * `visit` must not come back here. */
void stats_each_listener(struct stats *s,
                         void (*visit)(void *arg, const char *name, const struct listener_stats *l),
                         void *arg);
/* Sums over workers. */
uint64_t stats_dns(const struct stats *s, enum resolver_result result);
struct call_sums {
    uint64_t calls, errors, ns;
};
struct call_sums stats_calls(const struct stats *s, enum policy_call call);
uint64_t stats_reloads(const struct stats *s, bool success);
/* The word of a reason, of DIAL_OK or DIAL_CANCELLED; NULL for what no dial can come to
 * (reason_from_err()). Of a resolver's result; of a call, as metrics have it. Static storage. */
const char *stats_dial_word(size_t result);
const char *stats_dns_word(enum resolver_result result);
const char *stats_call_word(enum policy_call call);
/* Descriptors that are open; 0 when nobody tells. */
unsigned long stats_descriptors(void);

/* By the thread that counts: a duration of connect, first_byte or handshake; one of life. */
void duration_add_short(struct duration *d, uint64_t ns);
void duration_add_long(struct duration *d, uint64_t ns);

/* These are the certificates in force: those of its listeners, which are called names[i], and of
 * their targets. A listener that has the same file twice is told of once. From any thread. */
void stats_take_certificates(struct stats *s, const struct config *c, const char *const *names);

/* A reload has ended. On the main thread. */
void stats_count_reload(struct stats *s, bool success);

/* A connection of the listener was ended for its PROXY header. From any thread. */
void stats_count_proxy_refused(struct stats *s, const char *listener, const char *why);

#endif
