/* The event loop of one thread: the poller outside, libuv inside.
 *
 * The thread blocks in the poller; libuv's own backend descriptor is one entry of it, and libuv is
 * run without blocking when that fires or when it has timers or closing handles. So a relayed byte
 * costs no system call that libuv makes for itself (one fewer for each wake-up than the other way
 * round, docs/architecture.md). */
#ifndef PENSTOCK_NET_LOOP_H
#define PENSTOCK_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "penstock/base/buf.h"
#include "penstock/base/lag.h"
#include "penstock/base/list.h"
#include "penstock/base/stay.h"
#include "penstock/net/buf_pool.h"
#include "penstock/net/pipe_pool.h"
#include "penstock/net/poller.h"
#include "penstock/net/timers.h"

struct vnet;

/* Work to do once this batch of events is over. Embedded in its owner, list-initialised. */
struct loop_task {
    struct list node;
    void (*run)(struct loop_task *task);
};

struct loop_options {
    uint32_t spin_us;   /* poll that long before blocking; 0: block at once */
    uint32_t gather_us; /* while only bulk transfers run: let bytes gather that long between rounds;
                           0: never */
    unsigned max_pipes; /* pipes for splice at once */
    /* Not NULL: this network instead of the system's, and a clock that stands still but for
     * loop_advance(), beginning at `start_ms` (1 at least). Outlives the loop. */
    struct vnet *vnet;
    uint64_t start_ms;
};

struct resolver;

struct loop {
    uv_loop_t uv;
    struct poller poller;
    struct poller_entry uv_entry; /* libuv's backend descriptor */
    struct timers timers;
    uint64_t now_ns, now_ms;   /* monotonic, read once for each wake-up */
    struct list ready;         /* loop_task: more to do, run in the next round without blocking */
    struct list deferred;      /* loop_task: run after the batch, mostly to free memory */
    struct resolver *resolver; /* of this thread; its owner sets it; may be NULL */
    struct buf_pool bufs;
    struct buf records; /* TLS: what is being written, until the socket has had its chance */
    struct pipe_pool pipes;
    struct loop_options options;
    struct stay stay;   /* in scripts, for who watches from another thread */
    struct lag *lag;    /* of its rounds; its owner sets it; NULL: nobody asks */
    uint64_t prompt_ns; /* last time something was served that wants promptness */
    bool bulk;          /* this round moved bulk data */
    bool uv_dirty;      /* libuv handles were touched outside of libuv's callbacks */
    bool stopping;
};

/* Returns 0 or a negative errno; nothing is left on failure. */
int loop_init(struct loop *l, const struct loop_options *options);
/* Runs until loop_stop(). Then: close every handle and connection, loop_deinit(). */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Runs libuv until closing handles are closed, and deferred tasks; frees all. Returns 0, or -EBUSY
 * when handles are left, each logged. */
int loop_deinit(struct loop *l);

/* Of a loop with a virtual network only, and not from its callbacks. Serves all that is ready, due
 * or closing, until nothing is left to do before time passes. Returns false when there was no end
 * to it. */
bool loop_settle(struct loop *l);
/* Moves the clock on by `ms`, from timer to timer, settling at each. Returns as loop_settle(). */
bool loop_advance(struct loop *l, uint64_t ms);

/* Tells the loop that a libuv handle was started, stopped or closed outside of a libuv callback. */
static inline void loop_touch_uv(struct loop *l)
{
    l->uv_dirty = true;
}
/* Runs `task` in the next round of the loop; the loop does not block before. Harmless when queued
 * already. */
void loop_ready(struct loop *l, struct loop_task *task);
/* Runs `task` when the present batch of callbacks is over: the place to free memory that an event
 * of the same batch may still point to. */
void loop_defer(struct loop *l, struct loop_task *task);
/* Removes a task that is queued by either; harmless otherwise. */
void loop_forget(struct loop_task *task);

/* Tells the loop what was served: bulk data, which gains from gathering, or anything else, which
 * does not. Every wake-up for a few segments costs as much as moving 64 KiB; see
 * docs/architecture.md. */
static inline void loop_served_bulk(struct loop *l)
{
    l->bulk = true;
}
static inline void loop_served_prompt(struct loop *l)
{
    l->prompt_ns = l->now_ns;
}

static inline void loop_timer(struct loop *l, struct timer *t, uint64_t in_ms)
{
    timers_start(&l->timers, t, l->now_ms + (in_ms ? in_ms : 1));
}

#endif
