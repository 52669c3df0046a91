/* Read buffers of a loop. There is one current buffer to read into, shared by all connections: an
 * idle connection owns none. When a write is cut short, the filled buffer itself goes to the
 * connection (no copy) and the loop takes another. */
#ifndef PENSTOCK_NET_BUF_POOL_H
#define PENSTOCK_NET_BUF_POOL_H

#include <stddef.h>

#include "penstock/base/buf.h"

enum {
    BUF_POOL_SMALL = 64 * 1024, /* first reads of a direction */
    BUF_POOL_LARGE = 256 * 1024 /* reads of a direction that keeps filling the small one */
};

struct buf_pool {
    char *current; /* BUF_POOL_LARGE bytes; NULL until needed */
    char *spare[16];
    size_t n_spare;
};

void buf_pool_init(struct buf_pool *p);
void buf_pool_deinit(struct buf_pool *p);
/* The current buffer, BUF_POOL_LARGE bytes; NULL when out of memory. It may be overwritten by any
 * later read. */
char *buf_pool_current(struct buf_pool *p);
/* Gives the current buffer away: `out` becomes a queue of its bytes [start, end). */
void buf_pool_hand_over(struct buf_pool *p, struct buf *out, size_t start, size_t end);
/* Takes the memory of an emptied queue back (or frees it); `b` is empty afterwards. */
void buf_pool_give_back(struct buf_pool *p, struct buf *b);

#endif
