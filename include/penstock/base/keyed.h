/* Records found by a string of bytes, and kept in the order of their last use. Intrusive: the node
 * lives in the record, which owns the key's bytes. No lock, no time; the owner has both. */
#ifndef PENSTOCK_BASE_KEYED_H
#define PENSTOCK_BASE_KEYED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/list.h"

struct keyed {
    struct keyed *next; /* in the chain of its slot */
    struct list used;   /* in keyed_table.used */
    uint64_t hash;
    const char *key;
    size_t key_len;
};

struct keyed_table {
    struct keyed **slots; /* NULL until the first record */
    size_t n_slots;       /* a power of two */
    size_t n;
    size_t hand;      /* keyed_next_chain(): the slot it comes to next */
    struct list used; /* struct keyed, the longest unused first */
};

/* An empty table; allocates nothing. */
void keyed_init(struct keyed_table *t);
/* Frees the table, not the records. */
void keyed_deinit(struct keyed_table *t);

/* The record with this key, NULL without. Is no use of it: keyed_touch(). */
struct keyed *keyed_find(const struct keyed_table *t, uint64_t hash, const char *key, size_t len);
/* Adds a record whose hash, key and key_len are set and not there yet, as the last used. Returns
 * 0 or -ENOMEM. */
int keyed_add(struct keyed_table *t, struct keyed *k);
void keyed_remove(struct keyed_table *t, struct keyed *k);
/* Makes it the last used. */
void keyed_touch(struct keyed_table *t, struct keyed *k);
/* The longest unused, NULL when there is none. */
struct keyed *keyed_oldest(const struct keyed_table *t);
/* The records of a slot, below n_slots; the lowest bits of their hashes say so. */
struct keyed *keyed_chain(const struct keyed_table *t, size_t slot);
/* One chain after the other, for ever: the way to look at all records a little at a time. NULL for
 * an empty one. */
struct keyed *keyed_next_chain(struct keyed_table *t);

#endif
