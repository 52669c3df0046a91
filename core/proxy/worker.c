/* A worker's life: start, serve, change to another version, drain, end. */
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

enum { ROOM_MS = 5000 }; /* a reload waits so long for clients of a removed listener at its limit */

/* --- generations
 * ------------------------------------------------------------------------------------------- */

static void free_generation(struct generation *g)
{
    if (g->policies)
        g->policies->ops->free(g->policies);
    config_drop(g->config);
    free(g);
}

static void remove_generation(struct generation *g)
{
    list_remove(&g->node);
    loop_forget(&g->idle_task);
    free_generation(g);
}

static void free_generations(struct worker *w)
{
    list_for_each (node, next, &w->generations)
        remove_generation(container_of(node, struct generation, node));
}

static bool is_busy(const struct generation *g)
{
    return g->policies && g->policies->busy;
}

static void remove_if_over(struct worker *w, struct generation *g)
{
    if (g->n_conns == 0 && g->n_leaving == 0 && g != worker_generation(w) && !is_busy(g))
        remove_generation(g);
}

static void retire(struct generation *g, bool replaced)
{
    if (g->policies)
        g->policies->ops->retire(g->policies, replaced);
}

/* Ends connections, those of `only` or all; closed ones whose close hook still waits are left
 * without it. */
static void end_conns(struct worker *w, const struct generation *only, const char *detail)
{
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        if (only && c->generation != only)
            continue;
        conn_hold(c); /* dropped below: the close may be the end of it */
        conn_reset(c, REASON_SHUTDOWN, SIDE_NONE, detail);
        if (c->policy)
            c->policy->ops->cancel(c->policy, c); /* close hooks that still wait */
        conn_drop(c);
    }
}

/* Each version with policies keeps a VM: of more than there may be the connections are ended. One
 * of a configuration alone costs next to nothing. */
static void end_surplus(struct worker *w)
{
    uint32_t n = 0, max = worker_generation(w)->config->max_versions;
    list_for_each (node, tmp, &w->generations) { /* the newest first */
        const struct generation *g = container_of(node, struct generation, node);
        n += g->policies != NULL;
        if (!g->policies || n <= max || !g->n_conns)
            continue;
        log_warn("version %u has been replaced %u times (--max-versions): ending its %zu "
                 "connection%s",
                 g->number, n - 1, g->n_conns, g->n_conns == 1 ? "" : "s");
        end_conns(w, g, "reload");
    }
}

/* The generation before the newest gets no more connections, but those that its leaving acceptors
 * still take. */
static void retire_previous(struct worker *w)
{
    struct list *node = worker_generation(w)->node.next;
    if (node == &w->generations)
        return;
    struct generation *previous = container_of(node, struct generation, node);
    retire(previous, true);
    remove_if_over(w, previous);
    end_surplus(w);
}

/* --- changes
 * -----------------------------------------------------------------------------------------------
 */

struct worker_change *worker_change_new(struct config *config, struct policy_set *policies,
                                        unsigned number, const size_t *from)
{
    struct worker_change *change = calloc(1, sizeof *change);
    struct generation *g = calloc(1, sizeof *g);
    struct acceptor **acceptors = calloc(config->n_listeners, sizeof(struct acceptor *));
    if (!change || !g || !acceptors) {
        free(change);
        free(g);
        free(acceptors);
        return NULL;
    }
    *g = (struct generation){.config = config_hold(config), .policies = policies, .number = number};
    list_init(&g->idle_task.node);
    *change = (struct worker_change){.generation = g, .acceptors = acceptors, .from = from};
    return change;
}

void worker_change_free(struct worker_change *change)
{
    for (size_t i = 0; i < change->generation->config->n_listeners; i++)
        if (change->acceptors[i])
            acceptor_free(change->acceptors[i]);
    free_generation(change->generation);
    free(change->acceptors);
    free(change);
}

/* Moves the acceptors that are kept from the old array to the new one. */
static void keep_acceptors(struct worker *w, struct worker_change *change, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (change->from[i] == SIZE_MAX)
            continue;
        change->acceptors[i] = w->acceptors[change->from[i]];
        w->acceptors[change->from[i]] = NULL;
    }
}

static void stop_if_done(struct worker *w);

/* The change is in force; is it done? */
static void end_change(struct worker *w)
{
    if (!w->changing || !list_is_empty(&w->leaving))
        return;
    w->changing = false;
    if (w->on_changed)
        w->on_changed(w->arg);
}

static void on_left(struct acceptor *a, void *arg)
{
    struct worker *w = arg;
    struct generation *g = a->generation;
    list_remove(&a->node);
    acceptor_free(a);
    g->n_leaving--;
    remove_if_over(w, g);
    end_change(w);
    stop_if_done(w);
}

/* Their last clients belong to the old generation. */
static void drain_removed(struct worker *w)
{
    for (size_t i = 0; i < w->n_acceptors; i++) {
        struct acceptor *a = w->acceptors[i];
        if (!a)
            continue;
        w->acceptors[i] = NULL;
        list_push(&w->leaving, &a->node);
        a->generation->n_leaving++;
        acceptor_drain(a, ROOM_MS, on_left, w);
    }
}

static void start_or_use(struct acceptor *a, struct generation *g, size_t i, bool kept)
{
    const struct config_listener *config = &g->config->listeners[i];
    if (kept) {
        acceptor_use(a, g, config);
        return;
    }
    int err = acceptor_start(a, g, config);
    if (err)
        log_error("%s: cannot accept: %s", a->listener->text, err_text(err));
}

static void on_idle_task(struct loop_task *task)
{
    struct generation *g = container_of(task, struct generation, idle_task);
    struct worker *w = g->worker;
    remove_if_over(w, g);
    stop_if_done(w);
}

/* Its VM may still be on the stack. */
static void on_idle(struct policy_set *set)
{
    struct generation *g = set->owner;
    loop_defer(&g->worker->loop, &g->idle_task);
}

static void bring_into_force(struct worker *w, struct generation *g)
{
    struct policy_set *set = g->policies;
    g->worker = w;
    g->idle_task.run = on_idle_task;
    if (!set)
        return;
    set->stats = w->stats ? &w->stats->policies : NULL;
    set->owner = g;
    set->on_idle = on_idle;
    set->ops->activate(set, &w->loop, g->number > 1);
}

static void apply_change(struct worker *w, struct worker_change *change)
{
    const struct config *config = change->generation->config;
    keep_acceptors(w, change, config->n_listeners);
    drain_removed(w);
    free(w->acceptors);
    w->acceptors = change->acceptors;
    w->n_acceptors = config->n_listeners;
    list_push(w->generations.next, &change->generation->node); /* before the first */
    bring_into_force(w, change->generation);
    for (size_t i = 0; i < w->n_acceptors; i++)
        start_or_use(w->acceptors[i], change->generation, i, change->from[i] != SIZE_MAX);
    retire_previous(w);
    free(change);
    w->changing = true;
    end_change(w);
}

void worker_end_conns(struct worker *w)
{
    end_conns(w, NULL, "");
}

static struct worker_change *next_change(struct worker *w)
{
    struct worker_change *change = NULL;
    uv_mutex_lock(&w->lock);
    if (!list_is_empty(&w->changes)) {
        change = container_of(w->changes.next, struct worker_change, node);
        list_remove(&change->node);
    }
    uv_mutex_unlock(&w->lock);
    return change;
}

static void apply_changes(struct worker *w)
{
    for (struct worker_change *change = next_change(w); change; change = next_change(w))
        apply_change(w, change);
}

void worker_open(struct worker *w)
{
    apply_changes(w);
}

void worker_change(struct worker *w, struct worker_change *change)
{
    uv_mutex_lock(&w->lock);
    list_push(&w->changes, &change->node);
    uv_mutex_unlock(&w->lock);
    if (w->started)
        uv_async_send(&w->wake);
}

/* --- tasks
 * -------------------------------------------------------------------------------------------- */

void worker_post(struct worker *w, struct worker_task *task)
{
    uv_mutex_lock(&w->lock);
    bool over = w->refuses_tasks;
    if (!over)
        list_push(&w->tasks, &task->node);
    uv_mutex_unlock(&w->lock);
    if (over)
        task->run(task, NULL);
    else if (w->started)
        uv_async_send(&w->wake);
}

/* `on` is the worker, or NULL once it has ended. */
static void run_tasks(struct worker *w, struct worker *on)
{
    struct list tasks;
    uv_mutex_lock(&w->lock);
    list_take(&tasks, &w->tasks);
    w->refuses_tasks = !on;
    uv_mutex_unlock(&w->lock);
    list_for_each (node, tmp, &tasks) {
        list_remove(node); /* it may be posted again */
        struct worker_task *task = container_of(node, struct worker_task, node);
        task->run(task, on);
    }
}

/* --- orders
 * ------------------------------------------------------------------------------------------------
 */

static bool has_busy_generation(const struct worker *w)
{
    list_for_each (node, tmp, &w->generations)
        if (is_busy(container_of(node, struct generation, node)))
            return true;
    return false;
}

static void stop_if_done(struct worker *w)
{
    bool may_wait = w->obeyed < WORKER_END;
    if (w->obeyed >= WORKER_DRAIN && w->n_conns == 0 && w->n_finishing == 0 &&
        list_is_empty(&w->leaving) && !(may_wait && has_busy_generation(w)))
        loop_stop(&w->loop);
}

static void on_finished(struct acceptor *a, void *arg)
{
    struct worker *w = arg;
    (void)a;
    w->n_finishing--;
    stop_if_done(w);
}

/* Clients for whom there is no room yet are served as others go, until the end of the drain. */
static void finish(struct worker *w, struct acceptor *a)
{
    if (acceptor_try_close(a))
        return;
    w->n_finishing++;
    acceptor_drain(a, UINT32_MAX, on_finished, w);
}

static void close_acceptors(struct worker *w)
{
    for (size_t i = 0; i < w->n_acceptors; i++)
        acceptor_close(w->acceptors[i]);
    list_for_each (node, tmp, &w->leaving)
        acceptor_close(container_of(node, struct acceptor, node));
}

static void drain(struct worker *w)
{
    for (size_t i = 0; i < w->n_acceptors; i++)
        finish(w, w->acceptors[i]);
    list_for_each (node, tmp, &w->leaving)
        acceptor_try_close(container_of(node, struct acceptor, node));
    if (!list_is_empty(&w->generations))
        retire(worker_generation(w), false);
}

static void on_wake(uv_async_t *handle)
{
    struct worker *w = handle->data;
    enum worker_order order = (enum worker_order)atomic_load(&w->order);
    atomic_store(&w->asked, false);
    apply_changes(w);
    run_tasks(w, w);
    if (order >= WORKER_DRAIN && w->obeyed < WORKER_DRAIN)
        drain(w);
    w->obeyed = order;
    if (order == WORKER_END) {
        close_acceptors(w);
        worker_end_conns(w);
    }
    stop_if_done(w);
}

void worker_command(struct worker *w, enum worker_order order)
{
    atomic_store(&w->order, (int)order);
    uv_async_send(&w->wake);
}

void worker_ask(struct worker *w)
{
    atomic_store(&w->asked, true);
    uv_async_send(&w->wake);
}

bool worker_has_answered(const struct worker *w)
{
    return !atomic_load(&w->asked) || atomic_load(&w->over);
}

struct listener_stats *worker_listener_stats(struct worker *w, const char *name)
{
    struct stats *all = w->counts->stats;
    struct listener_stats *stats = all ? stats_listener(all, name, w->index) : NULL;
    if (all && !stats)
        log_error("%s: out of memory: its metrics stand still in worker %u", name, w->index);
    return stats ? stats : &w->uncounted;
}

void worker_slot_freed(struct worker *w)
{
    for (size_t i = 0; i < w->n_acceptors; i++)
        if (w->acceptors[i]) /* not while a change is under way */
            acceptor_resume(w->acceptors[i]);
}

void worker_conn_freed(struct worker *w, struct generation *generation)
{
    w->n_conns--;
    generation->n_conns--;
    remove_if_over(w, generation);
    stop_if_done(w);
}

/* --- life
 * --------------------------------------------------------------------------------------------------
 */

static int init(struct worker *w, const struct config *config, const struct loop_options *options)
{
    list_init(&w->conns);
    list_init(&w->generations);
    list_init(&w->changes);
    list_init(&w->leaving);
    list_init(&w->tasks);
    int err = uv_mutex_init(&w->lock);
    if (err)
        return err;
    err = loop_init(&w->loop, options);
    if (err)
        goto fail_loop;
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
fail_loop:
    uv_mutex_destroy(&w->lock);
    return err;
}

static void count_in(struct worker *w, struct worker_stats *stats)
{
    w->stats = stats;
    w->loop.lag = &stats->lag;
    resolver_count_in(w->resolver, stats->dns);
}

int worker_init(struct worker *w, unsigned index, const struct config *config,
                struct server_counts *counts)
{
    *w = (struct worker){.index = index, .counts = counts};
    struct loop_options options = {
        .spin_us = config->spin_us, .gather_us = config->gather_us, .max_pipes = counts->max_pipes};
    int err = init(w, config, &options);
    if (!err)
        w->loop.poller.copied = &counts->copied;
    if (!err && counts->stats)
        count_in(w, stats_worker(counts->stats, index));
    return err;
}

int worker_init_virtual(struct worker *w, const struct config *config, struct server_counts *counts,
                        struct vnet *vnet, uint64_t start_ms)
{
    *w = (struct worker){.counts = counts};
    struct loop_options options = {.vnet = vnet, .start_ms = start_ms};
    return init(w, config, &options);
}

static void run(void *arg)
{
    struct worker *w = arg;
    apply_changes(w);
    loop_run(&w->loop);
    run_tasks(w, NULL);
    free_generations(w);
    atomic_store(&w->over, true);
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

int worker_start(struct worker *w)
{
    int err = create_thread(w);
    w->started = err == 0;
    return err;
}

int worker_deinit(struct worker *w)
{
    if (w->started)
        uv_thread_join(&w->thread);
    run_tasks(w, NULL); /* of a worker that never started */
    for (struct worker_change *change = next_change(w); change; change = next_change(w))
        worker_change_free(change);
    for (size_t i = 0; i < w->n_acceptors; i++)
        acceptor_free(w->acceptors[i]);
    free_generations(w);
    resolver_free(w->resolver);
    uv_close((uv_handle_t *)&w->wake, NULL);
    int err = loop_deinit(&w->loop);
    if (err)
        log_error("worker %u: the loop did not close cleanly: %s", w->index, err_text(err));
    uv_mutex_destroy(&w->lock);
    free(w->acceptors);
    return err;
}
