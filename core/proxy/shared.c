/* Names and what they stand for. Looked up when a script names one, not when it uses it: a list
 * will do. */
#include "penstock/proxy/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "penstock/base/err.h"
#include "penstock/base/list.h"

struct named {
    struct list node;
    void *it; /* struct store, buckets or pool */
    char name[];
};

struct shared {
    uv_mutex_t lock; /* of the lists */
    struct list stores, buckets, pools;
    struct hash_key hash;
    struct metrics *metrics;
    struct tls_tickets *tickets;
};

struct shared *shared_new(void)
{
    struct shared *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    if (uv_random(NULL, NULL, &s->hash, sizeof s->hash, 0, NULL) || uv_mutex_init(&s->lock))
        goto fail_lock;
    list_init(&s->stores);
    list_init(&s->buckets);
    list_init(&s->pools);
    s->metrics = metrics_new(&s->hash);
    if (!s->metrics)
        goto fail_metrics;
    s->tickets = tls_tickets_new();
    if (!s->tickets)
        goto fail_tickets;
    return s;

fail_tickets:
    metrics_free(s->metrics);
fail_metrics:
    uv_mutex_destroy(&s->lock);
fail_lock:
    free(s);
    return NULL;
}

void shared_free(struct shared *s)
{
    if (!s)
        return;
    list_for_each (node, next, &s->stores) {
        struct named *n = container_of(node, struct named, node);
        store_free(n->it);
        free(n);
    }
    list_for_each (node, next, &s->buckets) {
        struct named *n = container_of(node, struct named, node);
        buckets_free(n->it);
        free(n);
    }
    list_for_each (node, next, &s->pools) {
        struct named *n = container_of(node, struct named, node);
        pool_free(n->it);
        free(n);
    }
    tls_tickets_free(s->tickets);
    metrics_free(s->metrics);
    uv_mutex_destroy(&s->lock);
    free(s);
}

static struct named *find(const struct list *names, const char *name, size_t *n)
{
    *n = 0;
    list_for_each (node, next, names) {
        struct named *named = container_of(node, struct named, node);
        if (!strcmp(named->name, name))
            return named;
        ++*n;
    }
    return NULL;
}

/* A record for a new name, not listed yet. NULL with *err set. */
static struct named *name_new(const char *name, size_t n_others, int *err)
{
    size_t len = strlen(name);
    *err = PS_ELIMIT;
    if (n_others >= SHARED_NAMES_MAX)
        return NULL;
    *err = -ENOMEM;
    struct named *named = calloc(1, sizeof *named + len + 1);
    if (named)
        memcpy(named->name, name, len + 1);
    return named;
}

/* Lists it, or frees it when there is nothing in it. */
static int add(struct list *names, struct named *named)
{
    if (!named->it) {
        free(named);
        return -ENOMEM;
    }
    list_push(names, &named->node);
    return 0;
}

static int open_store(struct shared *s, const char *name, const struct store_limits *limits,
                      struct store **out)
{
    size_t n;
    struct named *named = find(&s->stores, name, &n);
    if (named) {
        *out = named->it;
        if (limits)
            store_set_limits(*out, limits);
        return 0;
    }
    int err;
    named = name_new(name, n, &err);
    if (!named)
        return err;
    static const struct store_limits defaults = {STORE_ITEMS, STORE_BYTES};
    *out = named->it = store_new(limits ? limits : &defaults, &s->hash);
    return add(&s->stores, named);
}

int shared_store(struct shared *s, const char *name, const struct store_limits *limits,
                 struct store **out)
{
    uv_mutex_lock(&s->lock);
    int err = open_store(s, name, limits, out);
    uv_mutex_unlock(&s->lock);
    return err;
}

static int open_buckets(struct shared *s, const char *name, const struct buckets_limits *limits,
                        uint64_t now_ns, struct buckets **out)
{
    size_t n;
    struct named *named = find(&s->buckets, name, &n);
    if (named) {
        *out = named->it;
        buckets_set_limits(*out, limits, now_ns);
        return 0;
    }
    int err;
    named = name_new(name, n, &err);
    if (!named)
        return err;
    *out = named->it = buckets_new(limits, &s->hash);
    return add(&s->buckets, named);
}

int shared_buckets(struct shared *s, const char *name, const struct buckets_limits *limits,
                   uint64_t now_ns, struct buckets **out)
{
    uv_mutex_lock(&s->lock);
    int err = open_buckets(s, name, limits, now_ns, out);
    uv_mutex_unlock(&s->lock);
    return err;
}

static int open_pool(struct shared *s, const char *name, struct pool **out)
{
    size_t n;
    struct named *named = find(&s->pools, name, &n);
    if (named) {
        *out = named->it;
        return 0;
    }
    int err;
    named = name_new(name, n, &err);
    if (!named)
        return err;
    *out = named->it = pool_new(name);
    return add(&s->pools, named);
}

int shared_pool(struct shared *s, const char *name, struct pool **out)
{
    uv_mutex_lock(&s->lock);
    int err = open_pool(s, name, out);
    uv_mutex_unlock(&s->lock);
    return err;
}

static void *find_there(struct shared *s, const struct list *names, const char *name)
{
    size_t n;
    uv_mutex_lock(&s->lock);
    struct named *named = find(names, name, &n);
    uv_mutex_unlock(&s->lock);
    return named ? named->it : NULL;
}

struct pool *shared_find_pool(struct shared *s, const char *name)
{
    return find_there(s, &s->pools, name);
}

struct store *shared_find_store(struct shared *s, const char *name)
{
    return find_there(s, &s->stores, name);
}

void shared_visit_stores(struct shared *s,
                         void (*visit)(void *arg, const char *name, struct store *store), void *arg)
{
    uv_mutex_lock(&s->lock);
    list_for_each (node, next, &s->stores) {
        struct named *named = container_of(node, struct named, node);
        visit(arg, named->name, named->it);
    }
    uv_mutex_unlock(&s->lock);
}

void shared_visit_buckets(struct shared *s,
                          void (*visit)(void *arg, const char *name, struct buckets *b), void *arg)
{
    uv_mutex_lock(&s->lock);
    list_for_each (node, next, &s->buckets) {
        struct named *named = container_of(node, struct named, node);
        visit(arg, named->name, named->it);
    }
    uv_mutex_unlock(&s->lock);
}

void shared_visit_pools(struct shared *s, uint64_t now_ms,
                        void (*visit)(void *arg, const struct pool_view *view), void *arg)
{
    uv_mutex_lock(&s->lock);
    list_for_each (node, next, &s->pools)
        pool_visit(container_of(node, struct named, node)->it, now_ms, visit, arg);
    uv_mutex_unlock(&s->lock);
}

struct metrics *shared_metrics(struct shared *s)
{
    return s->metrics;
}

struct tls_tickets *shared_tickets(struct shared *s)
{
    return s->tickets;
}
