/* Pipes for splice(2). The kernel bounds pipe memory per user (fs.pipe-user-pages-soft): when it
 * refuses 1 MiB, the pool asks for less from then on. */
#include "penstock/net/pipe_pool.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { LARGEST = 1024 * 1024, SMALLEST = 64 * 1024, SPARE_MAX = 16 };

void pipe_pool_init(struct pipe_pool *p, unsigned max_pipes)
{
    *p = (struct pipe_pool){.want_bytes = LARGEST, .n_may = max_pipes};
}

static void free_pipe(struct pipe_pool *p, struct pipe_pool_pipe *pipe)
{
    p->n_may++;
    close(pipe->rd);
    close(pipe->wr);
    free(pipe);
}

void pipe_pool_deinit(struct pipe_pool *p)
{
    while (p->spare) {
        struct pipe_pool_pipe *pipe = p->spare;
        p->spare = pipe->next;
        free_pipe(p, pipe);
    }
    p->n_spare = 0;
}

#ifdef F_SETPIPE_SZ
/* The largest capacity the kernel gives, down to what a pipe has by default. */
static size_t grow(struct pipe_pool *p, int fd)
{
    for (; p->want_bytes > SMALLEST; p->want_bytes /= 4) {
        int got = fcntl(fd, F_SETPIPE_SZ, (int)p->want_bytes);
        if (got > 0)
            return (size_t)got;
    }
    int got = fcntl(fd, F_GETPIPE_SZ);
    return got > 0 ? (size_t)got : SMALLEST;
}

static struct pipe_pool_pipe *make(struct pipe_pool *p)
{
    struct pipe_pool_pipe *pipe = calloc(1, sizeof *pipe);
    int fds[2];
    if (!p->n_may || !pipe || pipe2(fds, O_NONBLOCK | O_CLOEXEC)) {
        free(pipe);
        return NULL;
    }
    p->n_may--;
    pipe->rd = fds[0];
    pipe->wr = fds[1];
    pipe->size_bytes = grow(p, fds[1]);
    /* An unprivileged user over the soft limit gets pipes of one or two pages: copying is cheaper
     * then. */
    if (pipe->size_bytes < SMALLEST) {
        free_pipe(p, pipe);
        return NULL;
    }
    return pipe;
}
#else
static struct pipe_pool_pipe *make(struct pipe_pool *p)
{
    (void)p;
    return NULL;
}
#endif

struct pipe_pool_pipe *pipe_pool_get(struct pipe_pool *p)
{
    struct pipe_pool_pipe *pipe = p->spare;
    if (!pipe)
        return make(p);
    p->spare = pipe->next;
    p->n_spare--;
    return pipe;
}

void pipe_pool_put(struct pipe_pool *p, struct pipe_pool_pipe *pipe)
{
    if (pipe->held_bytes || p->n_spare >= SPARE_MAX) {
        free_pipe(p, pipe);
        return;
    }
    pipe->next = p->spare;
    p->spare = pipe;
    p->n_spare++;
}
