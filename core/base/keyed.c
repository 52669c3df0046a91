/* A chained hash table that doubles, and a list through all of its records. */
#include "penstock/base/keyed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SLOTS = 16 };

void keyed_init(struct keyed_table *t)
{
    *t = (struct keyed_table){0};
    list_init(&t->used);
}

void keyed_deinit(struct keyed_table *t)
{
    free(t->slots);
    keyed_init(t);
}

static struct keyed **slot_of(const struct keyed_table *t, uint64_t hash)
{
    return &t->slots[hash & (t->n_slots - 1)];
}

struct keyed *keyed_find(const struct keyed_table *t, uint64_t hash, const char *key, size_t len)
{
    if (!t->n)
        return NULL;
    struct keyed *k = *slot_of(t, hash);
    while (k && (k->hash != hash || k->key_len != len || memcmp(k->key, key, len) != 0))
        k = k->next;
    return k;
}

static int grow(struct keyed_table *t)
{
    size_t n_old = t->n_slots, n = n_old ? 2 * n_old : FIRST_SLOTS;
    struct keyed **old = t->slots, **slots = calloc(n, sizeof(struct keyed *));
    if (!slots)
        return n_old ? 0 : -ENOMEM; /* longer chains, no harm */
    t->slots = slots;
    t->n_slots = n;
    for (size_t i = 0; i < n_old; i++)
        while (old[i]) {
            struct keyed *k = old[i], **slot = slot_of(t, k->hash);
            old[i] = k->next;
            k->next = *slot;
            *slot = k;
        }
    free(old);
    return 0;
}

int keyed_add(struct keyed_table *t, struct keyed *k)
{
    if (t->n >= t->n_slots) {
        int err = grow(t);
        if (err)
            return err;
    }
    struct keyed **slot = slot_of(t, k->hash);
    k->next = *slot;
    *slot = k;
    list_push(&t->used, &k->used);
    t->n++;
    return 0;
}

void keyed_remove(struct keyed_table *t, struct keyed *k)
{
    struct keyed **p = slot_of(t, k->hash);
    while (*p != k)
        p = &(*p)->next;
    *p = k->next;
    list_remove(&k->used);
    t->n--;
}

void keyed_touch(struct keyed_table *t, struct keyed *k)
{
    list_remove(&k->used);
    list_push(&t->used, &k->used);
}

struct keyed *keyed_oldest(const struct keyed_table *t)
{
    return list_is_empty(&t->used) ? NULL : container_of(t->used.next, struct keyed, used);
}

struct keyed *keyed_chain(const struct keyed_table *t, size_t slot)
{
    return t->slots[slot];
}

struct keyed *keyed_next_chain(struct keyed_table *t)
{
    if (!t->n_slots)
        return NULL;
    t->hand = (t->hand + 1) & (t->n_slots - 1);
    return t->slots[t->hand];
}
