/* Timers: an intrusive pairing heap (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, 1986).
 * Insertion is one comparison; removal merges the children in pairs. */
#include "penstock/net/timers.h"

#include <stddef.h>

void timer_init(struct timer *t, void (*on_timer)(struct timer *timer))
{
    *t = (struct timer){.on_timer = on_timer};
}

/* Joins two heaps (either may be NULL); the earlier root wins. */
static struct timer *meld(struct timer *a, struct timer *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (b->due_ms < a->due_ms) {
        struct timer *t = a;
        a = b;
        b = t;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* Joins a list of siblings into one heap: in pairs from the left, then the pairs from the right. */
static struct timer *meld_siblings(struct timer *first)
{
    struct timer *pairs = NULL;
    while (first) {
        struct timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    struct timer *root = NULL;
    while (pairs) {
        struct timer *next = pairs->next;
        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = next;
    }
    return root;
}

void timers_stop(struct timers *ts, struct timer *t)
{
    if (!t->due_ms)
        return;
    struct timer *children = meld_siblings(t->child);
    if (ts->root == t) {
        ts->root = children;
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next)
            t->next->prev = t->prev;
        ts->root = meld(ts->root, children);
    }
    t->child = t->next = t->prev = NULL;
    t->due_ms = 0;
}

void timers_start(struct timers *ts, struct timer *t, uint64_t due_ms)
{
    timers_stop(ts, t);
    t->due_ms = due_ms ? due_ms : 1;
    ts->root = meld(ts->root, t);
}

int timers_next_ms(const struct timers *ts, uint64_t now_ms)
{
    enum { AT_MOST = 3600 * 1000 };
    if (!ts->root)
        return -1;
    if (ts->root->due_ms <= now_ms)
        return 0;
    uint64_t wait = ts->root->due_ms - now_ms;
    return wait > AT_MOST ? AT_MOST : (int)wait;
}

void timers_run(struct timers *ts, uint64_t now_ms)
{
    while (ts->root && ts->root->due_ms <= now_ms) {
        struct timer *t = ts->root;
        timers_stop(ts, t);
        t->on_timer(t);
    }
}
