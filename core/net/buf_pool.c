/* Read buffers of a loop: one current, a few spare. */
#include "penstock/net/buf_pool.h"

#include <stdlib.h>

void buf_pool_init(struct buf_pool *p)
{
    *p = (struct buf_pool){0};
}

void buf_pool_deinit(struct buf_pool *p)
{
    free(p->current);
    while (p->n_spare)
        free(p->spare[--p->n_spare]);
    p->current = NULL;
}

char *buf_pool_current(struct buf_pool *p)
{
    if (!p->current)
        p->current = p->n_spare ? p->spare[--p->n_spare] : malloc(BUF_POOL_LARGE);
    return p->current;
}

void buf_pool_hand_over(struct buf_pool *p, struct buf *out, size_t start, size_t end)
{
    *out = (struct buf){.data = p->current, .start = start, .end = end, .cap = BUF_POOL_LARGE};
    p->current = NULL;
}

void buf_pool_give_back(struct buf_pool *p, struct buf *b)
{
    if (b->cap == BUF_POOL_LARGE && p->n_spare < sizeof p->spare / sizeof p->spare[0]) {
        p->spare[p->n_spare++] = b->data;
        buf_init(b);
    } else {
        buf_deinit(b);
    }
}
