/* The event loop: block in the poller, serve its batch, then libuv, timers and queued tasks. */
#include "penstock/net/loop.h"

#include <errno.h>

#include "penstock/base/clock.h"
#include "penstock/base/log.h"
#include "penstock/net/vnet.h"

enum {
    PROMPT_NS = 2000000,  /* how long one prompt event keeps the loop prompt */
    SETTLE_MAX = 1000000, /* rounds of loop_settle() that show that it will never end */
};

static void read_clock(void *arg)
{
    struct loop *l = arg;
    if (l->options.vnet) /* its time is moved by loop_advance() alone */
        return;
    l->now_ns = clock_now_ns();
    l->now_ms = l->now_ns / 1000000;
    if (l->lag)
        lag_begin(l->lag, l->now_ns);
}

static void set_virtual_clock(struct loop *l, uint64_t ms)
{
    l->now_ms = ms;
    l->now_ns = ms * 1000000;
}

static void on_uv_ready(struct poller_entry *entry, unsigned events)
{
    (void)events;
    container_of(entry, struct loop, uv_entry)->uv_dirty = true;
}

int loop_init(struct loop *l, const struct loop_options *options)
{
    *l = (struct loop){.options = *options, .uv_dirty = true};
    stay_init(&l->stay);
    list_init(&l->ready);
    list_init(&l->deferred);
    buf_pool_init(&l->bufs);
    pipe_pool_init(&l->pipes, options->max_pipes);
    read_clock(l);
    if (options->vnet)
        set_virtual_clock(l, options->start_ms);
    int err = poller_init(&l->poller);
    if (err)
        goto fail_poller;
    err = uv_loop_init(&l->uv);
    if (err)
        goto fail_uv;
    l->uv_entry = (struct poller_entry){.on_event = on_uv_ready, .fd = uv_backend_fd(&l->uv)};
    err = poller_add_level(&l->poller, &l->uv_entry, POLLER_IN);
    if (err)
        goto fail_add;
    return 0;

fail_add:
    uv_loop_close(&l->uv);
fail_uv:
    poller_deinit(&l->poller);
fail_poller:
    stay_deinit(&l->stay);
    return err;
}

/* Runs the tasks queued so far; those they queue again wait for the next round. */
static void run_tasks(struct list *queue)
{
    struct list now;
    list_take(&now, queue);
    while (!list_is_empty(&now)) {
        struct loop_task *task = container_of(now.next, struct loop_task, node);
        list_remove(&task->node);
        task->run(task);
    }
}

static int min_timeout(int a, int b)
{
    if (a < 0)
        return b;
    return b < 0 || a < b ? a : b;
}

static int block_ms(struct loop *l)
{
    if (l->uv_dirty || !list_is_empty(&l->ready))
        return 0;
    return min_timeout(timers_next_ms(&l->timers, l->now_ms), uv_backend_timeout(&l->uv));
}

/* Polls for spin_us before it blocks: a wake-up of a sleeping core costs more than that. */
static int spin(struct loop *l)
{
    uint64_t until = l->now_ns + (uint64_t)l->options.spin_us * 1000;
    do {
        if (poller_wait(&l->poller, 0, read_clock, l))
            return 1;
    } while (l->now_ns < until && timers_next_ms(&l->timers, l->now_ms) != 0);
    return 0;
}

/* While a worker does nothing but move bulk data, each wake-up would find a few segments and cost
 * as much as moving many. Sleeping between rounds lets them gather in the sockets' buffers, which
 * are far larger than what a link brings in that time. Anything else that was served lately, a
 * connection or a small message, forbids it. */
static void gather(struct loop *l)
{
    struct timespec pause = {.tv_nsec = (long)l->options.gather_us * 1000};
    if (!l->bulk)
        return;
    l->bulk = false;
    if (l->options.gather_us && !l->options.spin_us && l->now_ns - l->prompt_ns > PROMPT_NS)
        nanosleep(&pause, NULL);
}

static void wait_for_events(struct loop *l)
{
    gather(l);
    int timeout = block_ms(l);
    if (timeout != 0 && l->options.spin_us && spin(l))
        return;
    if (l->options.spin_us && timeout != 0)
        timeout = block_ms(l);
    poller_wait(&l->poller, timeout, read_clock, l);
}

static void run_uv(struct loop *l)
{
    l->uv_dirty = false;
    uv_run(&l->uv, UV_RUN_NOWAIT);
}

/* What follows the events of a round. */
static void run_rest(struct loop *l)
{
    /* Not "== 0": libuv measures from the time it last read itself, so a timer of its own never
     * looks due. */
    if (l->uv_dirty || uv_backend_timeout(&l->uv) >= 0)
        run_uv(l);
    timers_run(&l->timers, l->now_ms);
    run_tasks(&l->ready);
    run_tasks(&l->deferred);
}

void loop_run(struct loop *l)
{
    read_clock(l);
    while (!l->stopping) {
        if (l->lag)
            lag_end(l->lag, clock_coarse_ns());
        wait_for_events(l);
        run_rest(l);
    }
}

static bool is_settled(const struct loop *l)
{
    return vnet_is_idle(l->options.vnet) && list_is_empty(&l->ready) &&
           list_is_empty(&l->deferred) && timers_next_ms(&l->timers, l->now_ms) != 0;
}

bool loop_settle(struct loop *l)
{
    for (unsigned i = 0; i < SETTLE_MAX; i++) {
        vnet_dispatch(l->options.vnet);
        run_rest(l);
        if (is_settled(l))
            return true;
    }
    return false;
}

bool loop_advance(struct loop *l, uint64_t ms)
{
    uint64_t until = l->now_ms + ms;
    if (!loop_settle(l)) /* what is ready now starts its timers now */
        return false;
    int next = timers_next_ms(&l->timers, l->now_ms);
    while (next >= 0 && l->now_ms + (uint64_t)next <= until) {
        set_virtual_clock(l, l->now_ms + (uint64_t)next);
        if (!loop_settle(l))
            return false;
        next = timers_next_ms(&l->timers, l->now_ms);
    }
    set_virtual_clock(l, until);
    return loop_settle(l);
}

void loop_stop(struct loop *l)
{
    l->stopping = true;
}

void loop_ready(struct loop *l, struct loop_task *task)
{
    if (list_is_empty(&task->node))
        list_push(&l->ready, &task->node);
}

void loop_defer(struct loop *l, struct loop_task *task)
{
    if (list_is_empty(&task->node))
        list_push(&l->deferred, &task->node);
}

void loop_forget(struct loop_task *task)
{
    list_remove(&task->node);
}

static void log_left_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    log_error("handle left open at the end of a loop: %s%s", uv_handle_type_name(handle->type),
              uv_is_closing(handle) ? " (closing)" : "");
}

int loop_deinit(struct loop *l)
{
    /* Every handle is closing by now: only close callbacks are left to run. */
    while (uv_run(&l->uv, UV_RUN_NOWAIT))
        if (uv_backend_timeout(&l->uv) != 0)
            break;
    while (!list_is_empty(&l->deferred))
        run_tasks(&l->deferred);
    int err = uv_loop_close(&l->uv);
    if (err)
        uv_walk(&l->uv, log_left_handle, NULL);
    poller_deinit(&l->poller);
    pipe_pool_deinit(&l->pipes);
    buf_pool_deinit(&l->bufs);
    buf_deinit(&l->records);
    stay_deinit(&l->stay);
    return err;
}
