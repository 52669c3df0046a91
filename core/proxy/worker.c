/* A worker's life: start, serve, drain, end. */
#include "penstock/proxy/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/resolver.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/conn.h"

void worker_end_conns(struct worker *w)
{
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        conn_hold(c); /* dropped below: the close may be the end of it */
        conn_reset(c, REASON_SHUTDOWN, SIDE_NONE, "");
        if (c->policy)
            c->policy->ops->cancel(c->policy, c); /* close hooks that still wait */
        conn_drop(c);
    }
}

static void stop_if_done(struct worker *w)
{
    if (w->obeyed >= WORKER_DRAIN && w->n_conns == 0)
        loop_stop(&w->loop);
}

static void on_wake(uv_async_t *handle)
{
    struct worker *w = handle->data;
    enum worker_order order = (enum worker_order)atomic_load(&w->order);
    if (order >= WORKER_DRAIN && w->obeyed < WORKER_DRAIN)
        for (size_t i = 0; i < w->n_acceptors; i++)
            acceptor_drain(&w->acceptors[i]);
    w->obeyed = order;
    if (order == WORKER_END)
        worker_end_conns(w);
    stop_if_done(w);
}

void worker_command(struct worker *w, enum worker_order order)
{
    atomic_store(&w->order, (int)order);
    uv_async_send(&w->wake);
}

void worker_slot_freed(struct worker *w)
{
    for (size_t i = 0; i < w->n_acceptors; i++)
        acceptor_resume(&w->acceptors[i]);
}

void worker_conn_freed(struct worker *w)
{
    w->n_conns--;
    stop_if_done(w);
}

static int init(struct worker *w, const struct loop_options *options)
{
    const struct config *config = w->config;
    list_init(&w->conns);
    int err = loop_init(&w->loop, options);
    if (err)
        return err;
    err = uv_async_init(&w->loop.uv, &w->wake, on_wake);
    if (err)
        goto fail_async;
    w->wake.data = w;
    err = resolver_new(&w->loop, config->resolver, &w->resolver);
    if (err)
        goto fail_resolver;
    w->loop.resolver = w->resolver;
    return 0;

fail_resolver:
    uv_close((uv_handle_t *)&w->wake, NULL);
fail_async:
    loop_deinit(&w->loop);
    return err;
}

int worker_init(struct worker *w, unsigned index, const struct config *config,
                struct server_counts *counts)
{
    *w = (struct worker){.index = index, .config = config, .counts = counts};
    struct loop_options options = {
        .spin_us = config->spin_us, .gather_us = config->gather_us, .max_pipes = counts->max_pipes};
    return init(w, &options);
}

int worker_init_virtual(struct worker *w, const struct config *config, struct server_counts *counts,
                        struct vnet *vnet, uint64_t start_ms)
{
    *w = (struct worker){.config = config, .counts = counts};
    struct loop_options options = {.vnet = vnet, .start_ms = start_ms};
    return init(w, &options);
}

static void free_policies(struct worker *w)
{
    if (w->policies)
        w->policies->ops->free(w->policies);
    w->policies = NULL;
}

static void run(void *arg)
{
    struct worker *w = arg;
    loop_run(&w->loop);
    free_policies(w);
    w->on_ended(w->arg);
}

/* Whatever ulimit -s says: half of it is Lua's (SCRIPT_STACK_BYTES). */
enum { STACK_BYTES = 8 << 20 };

/* Signals are the main thread's. */
static int create_thread(struct worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = STACK_BYTES};
    int err = uv_thread_create_ex(&w->thread, &options, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

int worker_open(struct worker *w, struct listener *listeners, size_t n)
{
    w->acceptors = calloc(n, sizeof *w->acceptors);
    if (!w->acceptors)
        return -ENOMEM;
    w->n_acceptors = n;
    for (size_t i = 0; i < n; i++) {
        int err = acceptor_start(&w->acceptors[i], &listeners[i], w);
        if (err)
            return err;
    }
    return 0;
}

int worker_start(struct worker *w, struct listener *listeners, size_t n, void (*on_ended)(void *),
                 void *arg)
{
    w->on_ended = on_ended;
    w->arg = arg;
    int err = worker_open(w, listeners, n);
    if (!err)
        err = create_thread(w);
    w->started = err == 0;
    return err;
}

int worker_deinit(struct worker *w)
{
    if (w->started)
        uv_thread_join(&w->thread);
    free_policies(w);
    for (size_t i = 0; i < w->n_acceptors; i++)
        acceptor_stop(&w->acceptors[i]);
    resolver_free(w->resolver);
    uv_close((uv_handle_t *)&w->wake, NULL);
    int err = loop_deinit(&w->loop);
    if (err)
        log_error("worker %u: the loop did not close cleanly: %s", w->index, err_text(err));
    free(w->acceptors);
    return err;
}
