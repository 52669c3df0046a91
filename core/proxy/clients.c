/* Connections by client address: a chained hash table behind one lock. An address with no
 * connection has no entry. */
#include "penstock/proxy/clients.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct client {
    struct client *next;
    struct addr_key key;
    uint32_t conns;
};

struct clients {
    uv_mutex_t lock;
    struct client **buckets;
    size_t n_buckets; /* a power of two */
    size_t n;
};

enum { FIRST_SIZE = 256 };

struct clients *clients_new(void)
{
    struct clients *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->n_buckets = FIRST_SIZE;
    t->buckets = calloc(t->n_buckets, sizeof(struct client *));
    if (!t->buckets || uv_mutex_init(&t->lock)) {
        free(t->buckets);
        free(t);
        return NULL;
    }
    return t;
}

void clients_free(struct clients *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_buckets; i++)
        while (t->buckets[i]) {
            struct client *c = t->buckets[i];
            t->buckets[i] = c->next;
            free(c);
        }
    uv_mutex_destroy(&t->lock);
    free(t->buckets);
    free(t);
}

/* FNV-1a. Flooding one chain takes as many open connections as the chain is long: the limits bound
 * it. */
static size_t hash(const struct addr_key *key)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof key->bytes; i++)
        h = (h ^ key->bytes[i]) * 1099511628211u;
    return (size_t)(h ^ (h >> 32));
}

static struct client **find(struct clients *t, const struct addr_key *key)
{
    struct client **p = &t->buckets[hash(key) & (t->n_buckets - 1)];
    while (*p && memcmp(&(*p)->key, key, sizeof *key) != 0)
        p = &(*p)->next;
    return p;
}

static void grow(struct clients *t)
{
    size_t n = t->n_buckets * 2;
    struct client **old = t->buckets, **buckets = calloc(n, sizeof(struct client *));
    if (!buckets)
        return; /* longer chains, no harm */
    size_t n_old = t->n_buckets;
    t->buckets = buckets;
    t->n_buckets = n;
    for (size_t i = 0; i < n_old; i++)
        while (old[i]) {
            struct client *c = old[i];
            old[i] = c->next;
            struct client **p = &buckets[hash(&c->key) & (n - 1)];
            c->next = *p;
            *p = c;
        }
    free(old);
}

static bool enter(struct clients *t, const struct addr_key *key, uint32_t limit)
{
    if (!limit)
        return false; /* and no entry that nobody would remove */
    struct client **p = find(t, key);
    if (!*p) {
        *p = calloc(1, sizeof **p);
        if (!*p)
            return false;
        (*p)->key = *key;
        t->n++;
    }
    if ((*p)->conns >= limit)
        return false;
    (*p)->conns++;
    if (t->n > t->n_buckets)
        grow(t);
    return true;
}

bool clients_enter(struct clients *t, const struct addr *client, uint32_t limit)
{
    struct addr_key key = addr_client_key(client);
    uv_mutex_lock(&t->lock);
    bool entered = enter(t, &key, limit);
    uv_mutex_unlock(&t->lock);
    return entered;
}

void clients_leave(struct clients *t, const struct addr *client)
{
    struct addr_key key = addr_client_key(client);
    uv_mutex_lock(&t->lock);
    struct client **p = find(t, &key), *c = *p;
    if (c && --c->conns == 0) {
        *p = c->next;
        t->n--;
        free(c);
    }
    uv_mutex_unlock(&t->lock);
}
