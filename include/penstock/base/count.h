/* A number that one thread counts and any thread reads: no lock, and no locked instruction. */
#ifndef PENSTOCK_BASE_COUNT_H
#define PENSTOCK_BASE_COUNT_H

#include <stdatomic.h>
#include <stdint.h>

struct count {
    _Atomic(uint64_t) n;
};

/* By the thread that counts. Modulo 2^64: adding a negative number takes away. */
static inline void count_add(struct count *c, uint64_t n)
{
    uint64_t before = atomic_load_explicit(&c->n, memory_order_relaxed);
    atomic_store_explicit(&c->n, before + n, memory_order_relaxed);
}

static inline uint64_t count_get(const struct count *c)
{
    return atomic_load_explicit(&c->n, memory_order_relaxed);
}

#endif
