/* Token buckets by key, shared by all workers: one rate for each client address, user, or whatever
 * the key says. Bounded: a full bucket is like one that was never used, so these are forgotten
 * first; one that a connection draws from is not forgotten at all. */
#ifndef PENSTOCK_PROXY_BUCKETS_H
#define PENSTOCK_PROXY_BUCKETS_H

#include <stddef.h>
#include <stdint.h>

#include "penstock/base/hash.h"
#include "penstock/net/rate_shared.h"

struct buckets;

enum { BUCKETS_KEY_MAX = 1024 };

struct buckets_limits {
    struct rate_limits rate; /* of each bucket */
    uint64_t keys;           /* buckets remembered, at least 1 */
};

struct buckets_key {
    const char *bytes;
    size_t n; /* at most BUCKETS_KEY_MAX */
};

/* NULL when out of memory. `hash` must outlive it. */
struct buckets *buckets_new(const struct buckets_limits *limits, const struct hash_key *hash);
/* Buckets that are drawn from live on. */
void buckets_free(struct buckets *b);
/* Other limits from now on, for the buckets there are, too. */
void buckets_set_limits(struct buckets *b, const struct buckets_limits *limits, uint64_t now_ns);

/* The key's bucket, full when it is new. The caller drops it. NULL when out of memory. */
struct rate_shared *buckets_key(struct buckets *b, struct buckets_key key, uint64_t now_ns);

/* As rate_shared_take() on the key's bucket; 0 when memory is out: nobody is held up for that. */
double buckets_take(struct buckets *b, struct buckets_key key, double n, uint64_t now_ns);

struct buckets_limits buckets_get_limits(struct buckets *b);
/* Buckets that had to be forgotten before they were full again, since the start. */
uint64_t buckets_forgotten(struct buckets *b);
/* Buckets remembered now. */
uint64_t buckets_len(struct buckets *b);

#endif
