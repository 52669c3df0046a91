/* Buckets in shards with a lock each. A bucket has a lock of its own (rate_shared.c), since relays
 * draw from it without coming here; it is taken inside the shard's. */
#include "penstock/proxy/buckets.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "penstock/base/keyed.h"

enum {
    SHARDS = 16,
    ONE_SHARD_BELOW = 1024, /* keys: so few are forgotten in one exact order */
};
/* Looking for full buckets is a walk through the shard: not more often than this. */
static const uint64_t WALK_NS = 50000000;

struct bucket {
    struct keyed node; /* first */
    struct rate_shared *rate;
    char key[];
};

struct shard {
    uv_mutex_t lock;
    struct keyed_table table;
    uint64_t walk_ns; /* before that a walk would find nothing */
};

struct buckets {
    const struct hash_key *hash;
    uv_mutex_t lock; /* of `limits`; taken inside a shard's */
    struct buckets_limits limits;
    atomic_ullong forgotten, n;
    size_t n_shards;
    struct shard shards[];
};

struct buckets *buckets_new(const struct buckets_limits *limits, const struct hash_key *hash)
{
    size_t n = limits->keys < ONE_SHARD_BELOW ? 1 : SHARDS;
    struct buckets *b = calloc(1, sizeof *b + n * sizeof b->shards[0]);
    if (!b)
        return NULL;
    if (uv_mutex_init(&b->lock)) {
        free(b);
        return NULL;
    }
    b->hash = hash;
    b->limits = *limits;
    for (; b->n_shards < n; b->n_shards++) {
        struct shard *shard = &b->shards[b->n_shards];
        keyed_init(&shard->table);
        if (uv_mutex_init(&shard->lock)) {
            buckets_free(b);
            return NULL;
        }
    }
    return b;
}

static void forget(struct buckets *b, struct shard *shard, struct bucket *bucket)
{
    keyed_remove(&shard->table, &bucket->node);
    atomic_fetch_sub(&b->n, 1);
    rate_shared_drop(bucket->rate);
    free(bucket);
}

void buckets_free(struct buckets *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_shards; i++) {
        struct shard *shard = &b->shards[i];
        for (struct keyed *k; (k = keyed_oldest(&shard->table));)
            forget(b, shard, (struct bucket *)k);
        keyed_deinit(&shard->table);
        uv_mutex_destroy(&shard->lock);
    }
    uv_mutex_destroy(&b->lock);
    free(b);
}

struct buckets_limits buckets_get_limits(struct buckets *b)
{
    uv_mutex_lock(&b->lock);
    struct buckets_limits limits = b->limits;
    uv_mutex_unlock(&b->lock);
    return limits;
}

void buckets_set_limits(struct buckets *b, const struct buckets_limits *limits, uint64_t now_ns)
{
    uv_mutex_lock(&b->lock);
    bool same = b->limits.rate.per_second == limits->rate.per_second &&
                b->limits.rate.burst == limits->rate.burst && b->limits.keys == limits->keys;
    b->limits = *limits;
    uv_mutex_unlock(&b->lock);
    if (same) /* a script may say so for each connection */
        return;
    for (size_t i = 0; i < b->n_shards; i++) {
        struct shard *shard = &b->shards[i];
        uv_mutex_lock(&shard->lock);
        list_for_each (node, next, &shard->table.used)
            rate_shared_set(((struct bucket *)container_of(node, struct keyed, used))->rate,
                            &limits->rate, now_ns);
        shard->walk_ns = 0;
        uv_mutex_unlock(&shard->lock);
    }
}

/* ---- room ---- */

/* Forgets every bucket of the shard that is full and not drawn from. */
static void forget_full(struct buckets *b, struct shard *shard, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;
    list_for_each (node, next, &shard->table.used) {
        struct bucket *bucket = (struct bucket *)container_of(node, struct keyed, used);
        if (!rate_shared_is_alone(bucket->rate)) /* nobody gets at it while the shard is locked */
            continue;
        uint64_t full_ns = rate_shared_full_ns(bucket->rate, now_ns);
        if (full_ns <= now_ns)
            forget(b, shard, bucket);
        else if (full_ns < next_ns)
            next_ns = full_ns;
    }
    shard->walk_ns = next_ns > now_ns + WALK_NS ? next_ns : now_ns + WALK_NS;
}

/* The longest unused that nobody draws from. */
static struct bucket *oldest_alone(struct shard *shard)
{
    list_for_each (node, next, &shard->table.used) {
        struct bucket *bucket = (struct bucket *)container_of(node, struct keyed, used);
        if (rate_shared_is_alone(bucket->rate))
            return bucket;
    }
    return NULL;
}

/* Room for one more bucket in the shard; it grows when all are drawn from. */
static void make_room(struct buckets *b, struct shard *shard, uint64_t keys, uint64_t now_ns)
{
    uint64_t most = (keys + b->n_shards - 1) / b->n_shards;
    if (shard->table.n < most)
        return;
    if (now_ns >= shard->walk_ns)
        forget_full(b, shard, now_ns);
    while (shard->table.n >= most) {
        struct bucket *bucket = oldest_alone(shard);
        if (!bucket)
            return;
        forget(b, shard, bucket);
        atomic_fetch_add(&b->forgotten, 1);
    }
}

/* ---- use ---- */

static struct bucket *add(struct buckets *b, struct shard *shard, struct buckets_key key,
                          uint64_t hash, uint64_t now_ns)
{
    struct buckets_limits limits = buckets_get_limits(b);
    make_room(b, shard, limits.keys, now_ns);
    struct bucket *bucket = calloc(1, sizeof *bucket + key.n);
    if (!bucket)
        return NULL;
    memcpy(bucket->key, key.bytes, key.n);
    bucket->node.key = bucket->key;
    bucket->node.key_len = key.n;
    bucket->node.hash = hash;
    bucket->rate = rate_shared_new(&limits.rate, now_ns);
    if (!bucket->rate || keyed_add(&shard->table, &bucket->node)) {
        rate_shared_drop(bucket->rate);
        free(bucket);
        return NULL;
    }
    atomic_fetch_add(&b->n, 1);
    return bucket;
}

struct rate_shared *buckets_key(struct buckets *b, struct buckets_key key, uint64_t now_ns)
{
    uint64_t hash = hash_bytes(b->hash, key.bytes, key.n);
    struct shard *shard = &b->shards[(hash >> 48) % b->n_shards];
    uv_mutex_lock(&shard->lock);
    struct bucket *bucket = (struct bucket *)keyed_find(&shard->table, hash, key.bytes, key.n);
    if (bucket)
        keyed_touch(&shard->table, &bucket->node);
    else
        bucket = add(b, shard, key, hash, now_ns);
    struct rate_shared *rate = bucket ? rate_shared_hold(bucket->rate) : NULL;
    uv_mutex_unlock(&shard->lock);
    return rate;
}

double buckets_take(struct buckets *b, struct buckets_key key, double n, uint64_t now_ns)
{
    struct rate_shared *rate = buckets_key(b, key, now_ns);
    if (!rate)
        return 0;
    double wait = rate_shared_take(rate, n, now_ns);
    rate_shared_drop(rate);
    return wait;
}

uint64_t buckets_forgotten(struct buckets *b)
{
    return atomic_load(&b->forgotten);
}

uint64_t buckets_len(struct buckets *b)
{
    return atomic_load(&b->n);
}
