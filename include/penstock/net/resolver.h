/* Names to addresses without blocking: c-ares (/etc/hosts, A and AAAA), a cache by TTL, and the
 * last good answer while the name servers fail. One resolver a loop, used on its thread only. */
#ifndef PENSTOCK_NET_RESOLVER_H
#define PENSTOCK_NET_RESOLVER_H

#include <stddef.h>

#include "penstock/base/addr.h"
#include "penstock/base/count.h"
#include "penstock/net/loop.h"

struct resolver;
struct resolver_query;

/* X(NAME, word) */
#define RESOLVER_RESULTS(X)                                                                        \
    X(FOUND, "found")                                                                              \
    X(MISSING, "missing")                                                                          \
    X(FAILED, "failed")

/* How a question to the name servers ended. */
enum resolver_result {
#define X(name, word) RESOLVER_##name,
    RESOLVER_RESULTS(X)
#undef X
        RESOLVER_RESULT_COUNT
};

/* `err` is 0 with n >= 1 addresses (port 0, valid during the call), or PS_EDNS with `why` as text.
 */
typedef void resolver_done_fn(struct resolver_query *query, int err, const struct addr *addrs,
                              size_t n, const char *why);

/* One question; embedded in who asks, zeroed before its first use. */
struct resolver_query {
    struct list node;
    resolver_done_fn *done;
    bool waiting;
};

/* `servers` is "ip[:port],…" or NULL for the system's (/etc/resolv.conf, read again when it
 * changes). Returns 0 or a negative errno (-EINVAL: servers cannot be parsed). */
int resolver_new(struct loop *loop, const char *servers, struct resolver **out);
/* Ends all questions without calling back. */
void resolver_free(struct resolver *r);
/* Counts the ends of questions to the servers from now on in `results`, RESOLVER_RESULT_COUNT of
 * them, which outlive the resolver. */
void resolver_count_in(struct resolver *r, struct count *results);

/* Asks for the IPv4 (AF_INET) or IPv6 (AF_INET6) addresses of `name`. Calls done once, possibly
 * before it returns, unless cancelled. */
void resolver_lookup(struct resolver *r, struct resolver_query *query, const char *name, int family,
                     resolver_done_fn *done);
/* Harmless when nothing waits. */
void resolver_cancel(struct resolver_query *query);
/* None of the addresses of `name` could be reached: ask anew at the next lookup, whatever the TTL
 * says. The old answer is kept for the case that the servers fail. */
void resolver_doubt(struct resolver *r, const char *name);

#endif
