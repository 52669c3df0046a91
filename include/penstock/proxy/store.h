/* A store: values by key, shared by all workers, bounded. A table in shards with a lock each; when
 * it is full, the longest unused goes (in a store of 1024 items or more: of the shard that grew).
 * Every call is atomic. Time is the caller's, monotonic. */
#ifndef PENSTOCK_PROXY_STORE_H
#define PENSTOCK_PROXY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/hash.h"

struct store;

enum {
    STORE_KEY_MAX = 1024,
    STORE_VALUE_MAX = 1 << 20,
    STORE_ITEMS = 100000, /* unless it is told otherwise */
    STORE_BYTES = 256 << 20,
};

struct store_limits {
    uint64_t items; /* at least 1 */
    uint64_t bytes; /* of keys, values and their records; at least twice STORE_VALUE_MAX */
};

struct store_key {
    const char *bytes;
    size_t n;
};

enum store_type { STORE_NONE, STORE_NUMBER, STORE_BOOLEAN, STORE_STRING };

struct store_value {
    enum store_type type;
    union {
        double number;
        bool boolean;
        struct {
            const char *bytes;
            size_t n;
        } string;
    };
};

/* Where store_get() puts the bytes of a string. */
struct store_room {
    char *bytes;
    size_t cap;
};

/* X(NAME, word): what a call comes to; the words are a contract with scripts. */
#define STORE_RESULTS(X)                                                                           \
    X(OK, "ok")                                                                                    \
    X(EXISTS, "exists")                                                                            \
    X(CHANGED, "changed")                                                                          \
    X(NOT_FOUND, "not_found")                                                                      \
    X(NOT_A_NUMBER, "not_a_number")                                                                \
    X(TOO_LONG, "too_long")                                                                        \
    X(NO_MEMORY, "limit")

enum store_result {
#define X(name, word) STORE_##name,
    STORE_RESULTS(X)
#undef X
};

const char *store_word(enum store_result result);

/* An empty store, NULL when out of memory. `hash` must outlive it. */
struct store *store_new(const struct store_limits *limits, const struct hash_key *hash);
void store_free(struct store *s);
/* Other limits; what is over them goes. The number of shards stays. */
void store_set_limits(struct store *s, const struct store_limits *limits);

/* All of the following: STORE_TOO_LONG for a key or value over the limit, ttl_ms 0 means for ever,
 * a value of type STORE_NONE stands for "not there". */

/* The value, STORE_NONE when there is none. A string is copied to room.bytes; when it is longer
 * than room.cap, string.bytes is NULL and string.n the room it takes. */
enum store_result store_get(struct store *s, struct store_key key, uint64_t now_ms,
                            struct store_room room, struct store_value *out);
/* STORE_NONE deletes. */
enum store_result store_set(struct store *s, struct store_key key, const struct store_value *value,
                            uint64_t ttl_ms, uint64_t now_ms);
/* Sets it only where nothing is, else STORE_EXISTS. */
enum store_result store_add(struct store *s, struct store_key key, const struct store_value *value,
                            uint64_t ttl_ms, uint64_t now_ms);

struct store_incr {
    double by;
    bool has_init;
    double init;     /* what is counted from when there is nothing */
    uint64_t ttl_ms; /* then; the time of what is there stays as it is */
};
/* Adds to a number; *out is the new one. STORE_NOT_FOUND without init, STORE_NOT_A_NUMBER. */
enum store_result store_incr(struct store *s, struct store_key key, const struct store_incr *incr,
                             uint64_t now_ms, double *out);

struct store_change {
    struct store_value from, to;
};
/* Sets `to` when the value is exactly `from`, else STORE_CHANGED. Its time stays as it is. */
enum store_result store_cas(struct store *s, struct store_key key,
                            const struct store_change *change, uint64_t now_ms);
/* STORE_NOT_FOUND when there was nothing. */
enum store_result store_del(struct store *s, struct store_key key, uint64_t now_ms);
/* Milliseconds left in *out, UINT64_MAX for ever. STORE_NOT_FOUND. */
enum store_result store_ttl(struct store *s, struct store_key key, uint64_t now_ms, uint64_t *out);

/* An item as it is shown; valid during the call. */
struct store_item {
    struct store_key key;
    struct store_value value;
    uint64_t ttl_ms; /* milliseconds left, UINT64_MAX for ever */
};
typedef void store_visit_fn(void *arg, const struct store_item *item);
/* Shows the item of that key, which does not count as a use of it. `visit` must not come back here.
 * STORE_NOT_FOUND. */
enum store_result store_look(struct store *s, struct store_key key, uint64_t now_ms,
                             store_visit_fn *visit, void *arg);

/* How far a walk through a store has come. {0} is its beginning. */
struct store_cursor {
    size_t shard;
    uint64_t at;
};
/* Shows the items of up to `n_chains` chains of the table, which have about one each, and moves on;
 * false at the end of the store. From {0} to there whatever was there all the time is shown, once
 * or, where the table has grown meanwhile, also twice. A shard is locked during the call; `visit`
 * must not come back here. */
bool store_walk(struct store *s, struct store_cursor *cursor, size_t n_chains, uint64_t now_ms,
                store_visit_fn *visit, void *arg);

/* The limits it has, and the bytes that it holds. */
struct store_limits store_get_limits(struct store *s);
uint64_t store_bytes(struct store *s);
/* Items that take room; some may be past their time. */
uint64_t store_len(struct store *s);
/* Items that had to go before their time, since the start. */
uint64_t store_evicted(struct store *s);

#endif
