/* Items in shards; each shard has a lock, a table, and an order of last use. The counts of items
 * and bytes are the store's, so that its limits hold exactly. */
#include "penstock/proxy/store.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "penstock/base/keyed.h"

enum {
    SHARDS = 16,
    ONE_SHARD_BELOW = 1024, /* items: so few keep one exact order of use */
    SWEEP_CHAINS = 2,       /* looked at for items past their time, with each new one */
};

struct item {
    struct keyed node; /* first */
    uint64_t expires_ms;
    struct store_value value; /* a string is a block of its own */
    char key[];
};

struct shard {
    uv_mutex_t lock;
    struct keyed_table table;
};

struct store {
    const struct hash_key *hash;
    atomic_ullong max_items, max_bytes;
    atomic_ullong items, bytes, evicted;
    size_t n_shards;
    struct shard shards[];
};

/* A key's place, with its shard locked. */
struct place {
    struct shard *shard;
    struct item *item; /* NULL: nothing there, or past its time */
    struct store_key key;
    uint64_t hash;
};

const char *store_word(enum store_result result)
{
    static const char *const words[] = {
#define X(name, word) [STORE_##name] = word,
        STORE_RESULTS(X)
#undef X
    };
    return words[result];
}

/* ---- life ---- */

struct store *store_new(const struct store_limits *limits, const struct hash_key *hash)
{
    size_t n = limits->items < ONE_SHARD_BELOW ? 1 : SHARDS;
    struct store *s = calloc(1, sizeof *s + n * sizeof s->shards[0]);
    if (!s)
        return NULL;
    s->hash = hash;
    atomic_init(&s->max_items, limits->items);
    atomic_init(&s->max_bytes, limits->bytes);
    for (; s->n_shards < n; s->n_shards++) {
        struct shard *shard = &s->shards[s->n_shards];
        keyed_init(&shard->table);
        if (uv_mutex_init(&shard->lock)) {
            store_free(s);
            return NULL;
        }
    }
    return s;
}

static uint64_t string_bytes(const struct store_value *v)
{
    return v->type == STORE_STRING ? v->string.n : 0;
}

static void free_value(struct store *s, struct store_value *v)
{
    if (v->type != STORE_STRING)
        return;
    atomic_fetch_sub(&s->bytes, v->string.n);
    free((void *)v->string.bytes);
}

/* The shard is locked. */
static void remove_item(struct store *s, struct shard *shard, struct item *item)
{
    keyed_remove(&shard->table, &item->node);
    atomic_fetch_sub(&s->items, 1);
    atomic_fetch_sub(&s->bytes, sizeof *item + item->node.key_len);
    free_value(s, &item->value);
    free(item);
}

void store_free(struct store *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_shards; i++) {
        struct shard *shard = &s->shards[i];
        for (struct keyed *k; (k = keyed_oldest(&shard->table));)
            remove_item(s, shard, (struct item *)k);
        keyed_deinit(&shard->table);
        uv_mutex_destroy(&shard->lock);
    }
    free(s);
}

/* ---- room ---- */

static bool is_over(struct store *s)
{
    return atomic_load(&s->items) > atomic_load(&s->max_items) ||
           atomic_load(&s->bytes) > atomic_load(&s->max_bytes);
}

/* While the store is over its limits, drops the longest unused of the locked shard, but not `keep`.
 */
static void evict(struct store *s, struct shard *shard, const struct item *keep)
{
    while (is_over(s)) {
        struct item *oldest = (struct item *)keyed_oldest(&shard->table);
        if (!oldest || oldest == keep)
            return;
        remove_item(s, shard, oldest);
        atomic_fetch_add(&s->evicted, 1);
    }
}

/* The same in all shards, `first` last: what has just been set there may be all it holds. */
static void evict_anywhere(struct store *s, const struct shard *first)
{
    size_t at = (size_t)(first - s->shards);
    for (size_t i = 1; i <= s->n_shards && is_over(s); i++) {
        struct shard *shard = &s->shards[(at + i) % s->n_shards];
        uv_mutex_lock(&shard->lock);
        evict(s, shard, NULL);
        uv_mutex_unlock(&shard->lock);
    }
}

static bool is_past(const struct item *item, uint64_t now_ms)
{
    return item->expires_ms && item->expires_ms <= now_ms;
}

/* Items past their time would push out others before it comes to them in the order of use. */
static void sweep(struct store *s, struct shard *shard, uint64_t now_ms)
{
    for (int i = 0; i < SWEEP_CHAINS; i++)
        for (struct keyed *k = keyed_next_chain(&shard->table), *next; k; k = next) {
            next = k->next;
            if (is_past((struct item *)k, now_ms))
                remove_item(s, shard, (struct item *)k);
        }
}

void store_set_limits(struct store *s, const struct store_limits *limits)
{
    atomic_store(&s->max_items, limits->items);
    atomic_store(&s->max_bytes, limits->bytes);
    evict_anywhere(s, s->shards);
}

/* ---- places ---- */

static struct shard *shard_of(struct store *s, uint64_t hash)
{
    return &s->shards[(hash >> 48) % s->n_shards];
}

/* Locks the key's shard. */
static struct place enter(struct store *s, struct store_key key, uint64_t now_ms)
{
    struct place p = {.key = key, .hash = hash_bytes(s->hash, key.bytes, key.n)};
    p.shard = shard_of(s, p.hash);
    uv_mutex_lock(&p.shard->lock);
    p.item = (struct item *)keyed_find(&p.shard->table, p.hash, key.bytes, key.n);
    if (p.item && is_past(p.item, now_ms)) {
        remove_item(s, p.shard, p.item);
        p.item = NULL;
    }
    if (p.item)
        keyed_touch(&p.shard->table, &p.item->node);
    return p;
}

/* Unlocks it, and keeps to the limits. */
static void leave(struct store *s, struct place *p)
{
    if (p->item)
        evict(s, p->shard, p->item);
    uv_mutex_unlock(&p->shard->lock);
    if (is_over(s)) /* that item is alone in its shard */
        evict_anywhere(s, p->shard);
}

static enum store_result set_value(struct store *s, struct item *item, const struct store_value *v)
{
    struct store_value copy = *v;
    if (v->type == STORE_STRING) {
        char *bytes = malloc(v->string.n ? v->string.n : 1);
        if (!bytes)
            return STORE_NO_MEMORY;
        memcpy(bytes, v->string.bytes, v->string.n);
        copy.string.bytes = bytes;
        atomic_fetch_add(&s->bytes, v->string.n);
    }
    free_value(s, &item->value);
    item->value = copy;
    return STORE_OK;
}

static struct item *add_item(struct store *s, struct place *p, uint64_t now_ms)
{
    sweep(s, p->shard, now_ms);
    struct item *item = calloc(1, sizeof *item + p->key.n);
    if (!item)
        return NULL;
    memcpy(item->key, p->key.bytes, p->key.n);
    item->node.key = item->key;
    item->node.key_len = p->key.n;
    item->node.hash = p->hash;
    if (keyed_add(&p->shard->table, &item->node)) {
        free(item);
        return NULL;
    }
    atomic_fetch_add(&s->items, 1);
    atomic_fetch_add(&s->bytes, sizeof *item + p->key.n);
    return item;
}

static void drop(struct store *s, struct place *p)
{
    if (p->item)
        remove_item(s, p->shard, p->item);
    p->item = NULL;
}

/* Makes the place hold the value, as long as it did, for ever if it held none. */
static enum store_result put(struct store *s, struct place *p, const struct store_value *v,
                             uint64_t now_ms)
{
    if (v->type == STORE_NONE) {
        drop(s, p);
        return STORE_OK;
    }
    bool is_new = !p->item;
    if (is_new)
        p->item = add_item(s, p, now_ms);
    if (!p->item)
        return STORE_NO_MEMORY;
    enum store_result result = set_value(s, p->item, v);
    if (result != STORE_OK && is_new)
        drop(s, p);
    return result;
}

static void set_time(struct place *p, uint64_t ttl_ms, uint64_t now_ms)
{
    if (p->item)
        p->item->expires_ms = ttl_ms ? now_ms + ttl_ms : 0;
}

static bool fits(struct store_key key, const struct store_value *v)
{
    return key.n <= STORE_KEY_MAX && string_bytes(v) <= STORE_VALUE_MAX;
}

static const struct store_value none = {.type = STORE_NONE};

/* ---- what can be done ---- */

static void copy_out(const struct store_value *v, struct store_room room, struct store_value *out)
{
    *out = *v;
    if (v->type != STORE_STRING)
        return;
    bool has_room = v->string.n <= room.cap;
    if (has_room && v->string.n)
        memcpy(room.bytes, v->string.bytes, v->string.n);
    out->string.bytes = has_room ? room.bytes : NULL;
}

enum store_result store_get(struct store *s, struct store_key key, uint64_t now_ms,
                            struct store_room room, struct store_value *out)
{
    *out = none;
    if (!fits(key, &none))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    if (p.item)
        copy_out(&p.item->value, room, out);
    leave(s, &p);
    return STORE_OK;
}

enum store_result store_set(struct store *s, struct store_key key, const struct store_value *value,
                            uint64_t ttl_ms, uint64_t now_ms)
{
    if (!fits(key, value))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = put(s, &p, value, now_ms);
    if (result == STORE_OK)
        set_time(&p, ttl_ms, now_ms);
    leave(s, &p);
    return result;
}

enum store_result store_add(struct store *s, struct store_key key, const struct store_value *value,
                            uint64_t ttl_ms, uint64_t now_ms)
{
    if (!fits(key, value))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = STORE_EXISTS;
    if (!p.item) {
        result = put(s, &p, value, now_ms);
        set_time(&p, ttl_ms, now_ms);
    }
    leave(s, &p);
    return result;
}

static enum store_result count_up(struct store *s, struct place *p, const struct store_incr *incr,
                                  uint64_t now_ms)
{
    if (p->item && p->item->value.type != STORE_NUMBER)
        return STORE_NOT_A_NUMBER;
    if (p->item) {
        p->item->value.number += incr->by;
        return STORE_OK;
    }
    if (!incr->has_init)
        return STORE_NOT_FOUND;
    struct store_value v = {.type = STORE_NUMBER, .number = incr->init + incr->by};
    enum store_result result = put(s, p, &v, now_ms);
    set_time(p, incr->ttl_ms, now_ms);
    return result;
}

enum store_result store_incr(struct store *s, struct store_key key, const struct store_incr *incr,
                             uint64_t now_ms, double *out)
{
    if (!fits(key, &none))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = count_up(s, &p, incr, now_ms);
    if (result == STORE_OK)
        *out = p.item->value.number;
    leave(s, &p);
    return result;
}

static bool equal(const struct store_value *a, const struct store_value *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case STORE_NUMBER:
        return a->number == b->number;
    case STORE_BOOLEAN:
        return a->boolean == b->boolean;
    case STORE_STRING:
        return a->string.n == b->string.n &&
               memcmp(a->string.bytes, b->string.bytes, a->string.n) == 0;
    default:
        return true;
    }
}

enum store_result store_cas(struct store *s, struct store_key key,
                            const struct store_change *change, uint64_t now_ms)
{
    if (!fits(key, &change->to))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = STORE_CHANGED;
    if (equal(p.item ? &p.item->value : &none, &change->from))
        result = put(s, &p, &change->to, now_ms);
    leave(s, &p);
    return result;
}

enum store_result store_del(struct store *s, struct store_key key, uint64_t now_ms)
{
    if (!fits(key, &none))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = p.item ? STORE_OK : STORE_NOT_FOUND;
    drop(s, &p);
    leave(s, &p);
    return result;
}

enum store_result store_ttl(struct store *s, struct store_key key, uint64_t now_ms, uint64_t *out)
{
    if (!fits(key, &none))
        return STORE_TOO_LONG;
    struct place p = enter(s, key, now_ms);
    enum store_result result = p.item ? STORE_OK : STORE_NOT_FOUND;
    if (p.item)
        *out = p.item->expires_ms ? p.item->expires_ms - now_ms : UINT64_MAX;
    leave(s, &p);
    return result;
}

/* ---- shown ---- */

static void show(const struct item *item, uint64_t now_ms, store_visit_fn *visit, void *arg)
{
    struct store_item shown = {
        .key = {item->key, item->node.key_len},
        .value = item->value,
        .ttl_ms = item->expires_ms ? item->expires_ms - now_ms : UINT64_MAX,
    };
    if (!is_past(item, now_ms))
        visit(arg, &shown);
}

enum store_result store_look(struct store *s, struct store_key key, uint64_t now_ms,
                             store_visit_fn *visit, void *arg)
{
    if (!fits(key, &none))
        return STORE_TOO_LONG;
    uint64_t hash = hash_bytes(s->hash, key.bytes, key.n);
    struct shard *shard = shard_of(s, hash);
    uv_mutex_lock(&shard->lock);
    const struct item *item =
        (const struct item *)keyed_find(&shard->table, hash, key.bytes, key.n);
    bool there = item && !is_past(item, now_ms);
    if (there)
        show(item, now_ms, visit, arg);
    uv_mutex_unlock(&shard->lock);
    return there ? STORE_OK : STORE_NOT_FOUND;
}

static uint64_t reverse(uint64_t x)
{
    uint64_t r = 0;
    for (int i = 0; i < 64; i++, x >>= 1)
        r = r << 1 | (x & 1);
    return r;
}

/* The slot after `at`, 0 after the last: counted with the highest bit of the mask as the lowest. A
 * table that doubles meanwhile has split what was passed into slots that are passed, too. */
static uint64_t next_slot(uint64_t at, uint64_t mask)
{
    return reverse(reverse(at | ~mask) + 1);
}

bool store_walk(struct store *s, struct store_cursor *cursor, size_t n_chains, uint64_t now_ms,
                store_visit_fn *visit, void *arg)
{
    if (cursor->shard >= s->n_shards)
        return false;
    struct shard *shard = &s->shards[cursor->shard];
    const struct keyed_table *t = &shard->table;
    uv_mutex_lock(&shard->lock);
    do {
        size_t mask = t->n_slots - 1; /* no slots, no chain */
        const struct keyed *k = t->n_slots ? keyed_chain(t, cursor->at & mask) : NULL;
        for (; k; k = k->next)
            show((const struct item *)k, now_ms, visit, arg);
        cursor->at = t->n_slots ? next_slot(cursor->at, mask) : 0;
    } while (cursor->at && --n_chains);
    uv_mutex_unlock(&shard->lock);
    cursor->shard += cursor->at == 0;
    return cursor->shard < s->n_shards;
}

struct store_limits store_get_limits(struct store *s)
{
    return (struct store_limits){atomic_load(&s->max_items), atomic_load(&s->max_bytes)};
}

uint64_t store_bytes(struct store *s)
{
    return atomic_load(&s->bytes);
}

uint64_t store_len(struct store *s)
{
    return atomic_load(&s->items);
}

uint64_t store_evicted(struct store *s)
{
    return atomic_load(&s->evicted);
}
