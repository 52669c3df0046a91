/* Pipes for splice(2), pooled because making one costs as much as relaying 16 KiB. A pipe is given
 * back empty. */
#ifndef PENSTOCK_NET_PIPE_POOL_H
#define PENSTOCK_NET_PIPE_POOL_H

#include <stddef.h>

struct pipe_pool_pipe {
    int rd, wr;
    size_t size_bytes; /* capacity the kernel gave it */
    size_t held_bytes; /* bytes in it now */
    struct pipe_pool_pipe *next;
};

struct pipe_pool {
    struct pipe_pool_pipe *spare;
    unsigned n_spare;
    unsigned
        n_may; /* pipes that may still be made: they must not eat the descriptors of connections */
    size_t want_bytes; /* what to ask of the kernel: 1 MiB, less once it has refused */
};

/* At most `max_pipes` at once (two descriptors each). */
void pipe_pool_init(struct pipe_pool *p, unsigned max_pipes);
void pipe_pool_deinit(struct pipe_pool *p);
/* A pipe of 1 MiB, or of 256 or 64 KiB where the kernel allows no more; NULL when there is none to
 * be had (no splice here, out of descriptors): copy then. */
struct pipe_pool_pipe *pipe_pool_get(struct pipe_pool *p);
/* Takes a pipe back; one that still holds bytes is closed. */
void pipe_pool_put(struct pipe_pool *p, struct pipe_pool_pipe *pipe);

#endif
