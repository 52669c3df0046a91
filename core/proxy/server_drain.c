/* Draining a listener, and opening it again. The main thread decides and opens, each worker's
 * thread does it with its own acceptor. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/proxy/acceptor.h"
#include "penstock/proxy/conn.h"
#include "server_priv.h"

/* What one worker has to do with one listener. */
struct step {
    struct worker_task task;
    struct server_drain *drain;
    struct listener *listener; /* one reference */
    int fd;                    /* to accept from; -1: accept no more */
    unsigned socket;           /* its number */
};

/* Draining all listeners of a name, or opening them again. */
struct server_drain {
    struct list node; /* in server->drains */
    struct server *server;
    struct server_waiter *waiter; /* outlives all that is under way while the server runs */
    bool up;
    uint64_t patience_ms; /* with clients for whom there is no room */
    uint64_t until_ms;    /* connections end by then; 0: they may stay */
    atomic_uint left;     /* steps that are not done */
    size_t n;
    struct step steps[];
};

/* --- on the worker's thread
 * ------------------------------------------------------------------------------------ */

static struct acceptor *find_acceptor(struct worker *w, const struct listener *l)
{
    for (size_t i = 0; w && i < w->n_acceptors; i++)
        if (w->acceptors[i] && w->acceptors[i]->listener == l)
            return w->acceptors[i];
    return NULL; /* a reload has removed it, or the worker has ended */
}

static void open_again(struct acceptor *a, const struct step *step)
{
    int err = acceptor_reopen(a, step->fd, step->socket);
    if (err)
        log_error("%s: cannot accept: %s", a->listener->text, err_text(err));
}

static void tell_conns(struct worker *w, const struct step *step)
{
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        if (c->listener != step->listener)
            continue;
        if (step->drain->until_ms)
            conn_end_within(c, step->drain->until_ms, "drain");
        else if (step->drain->up)
            conn_end_never(c);
    }
}

/* The last act on the worker's thread: `d` may be gone then. */
static void end_step(struct step *step)
{
    struct server_drain *d = step->drain;
    struct server *s = d->server;
    if (atomic_fetch_sub(&d->left, 1) == 1)
        uv_async_send(&s->drained);
}

static void on_acceptor_drained(struct acceptor *a, void *arg)
{
    (void)a;
    end_step(arg);
}

static void run_step(struct worker_task *task, struct worker *w)
{
    struct step *step = container_of(task, struct step, task);
    struct acceptor *a = find_acceptor(w, step->listener);
    if (w)
        tell_conns(w, step);
    if (a && !step->drain->up) {
        acceptor_drain(a, step->drain->patience_ms, on_acceptor_drained, step);
        return;
    }
    if (a && step->fd >= 0)
        open_again(a, step);
    else if (step->fd >= 0)
        close(step->fd);
    end_step(step);
}

/* --- on the main thread
 * ---------------------------------------------------------------------------------------- */

static const char *name_of(const struct server *s, size_t i)
{
    const char *name = s->version.config->listeners[i].name;
    return name ? name : s->listeners.items[i]->text;
}

static size_t count_named(const struct server *s, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < s->listeners.n; i++)
        n += strcmp(name_of(s, i), name) == 0;
    return n;
}

static void free_drain(struct server_drain *d)
{
    for (size_t i = 0; i < d->n; i++)
        listener_drop(d->steps[i].listener);
    list_remove(&d->node);
    free(d);
}

/* One step for each worker; their descriptors are there already when it goes up. */
static int add_steps(struct server_drain *d, struct listener *l)
{
    struct server *s = d->server;
    for (uint32_t i = 0; i < s->n_workers; i++) {
        int fd = d->up && l->drained ? listener_copy_socket(l, i) : -1;
        if (d->up && l->drained && fd < 0)
            return fd;
        struct step *step = &d->steps[d->n++];
        *step = (struct step){.drain = d, .listener = listener_hold(l), .fd = fd};
        if (fd >= 0)
            step->socket = i % l->n_fds;
        list_init(&step->task.node);
        step->task.run = run_step;
    }
    return 0;
}

/* Its sockets are still about to be closed. */
static bool is_under_way(const struct server *s, const struct listener *l)
{
    list_for_each (node, tmp, &s->drains) {
        const struct server_drain *d = container_of(node, struct server_drain, node);
        for (size_t i = 0; i < d->n; i++)
            if (d->steps[i].listener == l)
                return true;
    }
    return false;
}

static int prepare_up(struct server_drain *d, size_t i, char *why, size_t why_cap)
{
    struct server *s = d->server;
    struct listener *l = s->listeners.items[i];
    int err = listener_reopen(l, &s->version.config->listeners[i], s->n_workers, why, why_cap);
    if (err)
        return err;
    err = add_steps(d, l);
    if (err) {
        snprintf(why, why_cap, "%s: %s", l->text, err_text(err));
        listener_unlink(l);
    }
    listener_release(l); /* the steps have their own descriptors */
    return err;
}

/* Steps for all listeners of the name, also for those that are as wanted already: their connections
 * may be told something else. */
static int prepare(struct server_drain *d, const char *name, char *why, size_t why_cap)
{
    struct server *s = d->server;
    for (size_t i = 0; i < s->listeners.n; i++) {
        struct listener *l = s->listeners.items[i];
        if (strcmp(name_of(s, i), name) != 0)
            continue;
        if (is_under_way(s, l)) {
            snprintf(why, why_cap, "it is just being drained or opened; try again");
            return -EBUSY;
        }
        int err = d->up && l->drained ? prepare_up(d, i, why, why_cap) : add_steps(d, l);
        if (err)
            return err;
    }
    return 0;
}

/* Nothing of what failed stays open. */
static void undo(struct server_drain *d)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->steps[i].fd < 0)
            continue;
        close(d->steps[i].fd);
        listener_unlink(d->steps[i].listener);
    }
    free_drain(d);
}

/* From here on nothing fails. */
static void carry_out(struct server_drain *d)
{
    struct server *s = d->server;
    size_t n = d->n;
    list_push(&s->drains, &d->node);
    atomic_store(&d->left, (unsigned)n);
    for (size_t i = 0; i < n; i++) {
        bool was_drained = d->steps[i].listener->drained;
        d->steps[i].listener->drained = !d->up;
        if (!d->up && !was_drained) /* no client finds the way to a queue that is about to close */
            listener_unlink(d->steps[i].listener);
    }
    for (size_t i = 0; i < n; i++) {
        struct worker_task *task = &d->steps[i].task;
        worker_post(&s->workers[i % s->n_workers], task);
    }
}

/* What `order` says, which is copied. */
static void begin(struct server *s, const char *name, const struct server_drain *order)
{
    struct server_waiter *waiter = order->waiter;
    char why[1024] = "";
    size_t n = count_named(s, name);
    if (s->order != WORKER_SERVE) {
        waiter->done(waiter, -ESHUTDOWN, s->number, "not while stopping");
        return;
    }
    if (s->upgrade) { /* its sockets are another process's already */
        waiter->done(waiter, -EBUSY, s->number, "an upgrade is under way; try again");
        return;
    }
    if (n == 0) {
        waiter->done(waiter, -ENOENT, s->number, "there is no such listener");
        return;
    }
    struct server_drain *d = calloc(1, sizeof *d + n * s->n_workers * sizeof *d->steps);
    if (!d) {
        waiter->done(waiter, -ENOMEM, s->number, err_text(-ENOMEM));
        return;
    }
    *d = *order;
    d->server = s;
    d->patience_ms = s->version.config->drain_ms;
    list_init(&d->node);
    int err = prepare(d, name, why, sizeof why);
    if (err) {
        undo(d);
        waiter->done(waiter, err, s->number, why);
        return;
    }
    log_info("%s: %s", name, d->up ? "open again" : "drained: no new connections");
    carry_out(d);
}

void server_drain_listener(struct server *s, const char *name, uint64_t over_ms,
                           struct server_waiter *waiter)
{
    uint64_t now_ms = clock_now_ns() / 1000000;
    struct server_drain order = {.waiter = waiter,
                                 .until_ms = over_ms == UINT64_MAX ? 0 : now_ms + over_ms};
    begin(s, name, &order);
}

void server_up_listener(struct server *s, const char *name, struct server_waiter *waiter)
{
    struct server_drain order = {.waiter = waiter, .up = true};
    begin(s, name, &order);
}

static void on_drained(uv_async_t *handle)
{
    struct server *s = handle->data;
    list_for_each (node, tmp, &s->drains) {
        struct server_drain *d = container_of(node, struct server_drain, node);
        struct server_waiter *waiter = d->waiter;
        if (atomic_load(&d->left))
            continue;
        free_drain(d);
        waiter->done(waiter, 0, s->number, "");
    }
}

int server_open_drains(struct server *s)
{
    int err = uv_async_init(&s->loop, &s->drained, on_drained);
    s->drained.data = s;
    return err;
}

void server_close_drains(struct server *s)
{
    list_for_each (node, tmp, &s->drains)
        free_drain(container_of(node, struct server_drain, node));
}
