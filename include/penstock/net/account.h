/* What the connections to a target, or through a hop, are booked on: a layer above keeps it (a
 * server of a pool). The same may stand in many targets; any thread. */
#ifndef PENSTOCK_NET_ACCOUNT_H
#define PENSTOCK_NET_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

struct account;

struct account_ops {
    void (*hold)(struct account *a);
    void (*drop)(struct account *a);
    /* A connection to it is attempted, or its attempt or life is over. */
    void (*enter)(struct account *a);
    void (*leave)(struct account *a);
    /* What the attempt came to, as far as this one is concerned; monotonic time. */
    void (*dialled)(struct account *a, bool success, uint64_t now_ms);
    /* By when connections are to end that had chosen it at `chosen_ms`; 0: they may stay. */
    uint64_t (*ends)(struct account *a, uint64_t chosen_ms);
};

struct account {
    const struct account_ops *ops;
};

/* With a reference, which account_drop() gives back; NULL is fine for both. Returns `a`. */
static inline struct account *account_hold(struct account *a)
{
    if (a)
        a->ops->hold(a);
    return a;
}
static inline void account_drop(struct account *a)
{
    if (a)
        a->ops->drop(a);
}

#endif
