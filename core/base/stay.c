/* The slow side of stays: what the watching thread does. */
#include "penstock/base/stay.h"

#include <stdio.h>

void stay_init(struct stay *s)
{
    atomic_init(&s->count, 0);
    atomic_init(&s->conn, 0);
    atomic_init(&s->what, "");
    atomic_init(&s->where, "");
    pthread_mutex_init(&s->lock, NULL);
}

void stay_deinit(struct stay *s)
{
    pthread_mutex_destroy(&s->lock);
}

void stay_forget(struct stay *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&s->where, "", memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
}

bool stay_look(struct stay *s, struct stay_view *out)
{
    out->count = atomic_load_explicit(&s->count, memory_order_acquire);
    if (out->count % 2 == 0)
        return false;
    pthread_mutex_lock(&s->lock);
    out->conn = atomic_load_explicit(&s->conn, memory_order_relaxed);
    out->what = atomic_load_explicit(&s->what, memory_order_relaxed);
    snprintf(out->where, sizeof out->where, "%s",
             atomic_load_explicit(&s->where, memory_order_relaxed));
    pthread_mutex_unlock(&s->lock);
    return true;
}
