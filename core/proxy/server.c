/* The whole process: what starts, in which order, and how it stops. Runs on the main thread. */
#include "penstock/proxy/server.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <uv.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/notify.h"
#include "penstock/proxy/worker.h"

enum { N_SIGNALS = 4 };
static const int signals[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

struct server {
    const struct config *config;
    struct server_counts counts;
    struct listener *listeners;
    size_t n_open; /* listeners that are open */
    struct worker *workers;
    uint32_t n_workers; /* that are initialised */
    uv_loop_t loop;
    uv_signal_t signals[N_SIGNALS];
    uv_timer_t drain; /* the end of patience after TERM */
    uv_async_t ended; /* a worker's thread is about to end */
    atomic_uint n_ended;
    enum worker_order order;
};

/* --- descriptors
 * ------------------------------------------------------------------------------------------- */

static unsigned long descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > INT32_MAX)
        return INT32_MAX;
    return (unsigned long)limit.rlim_cur;
}

/* What penstock itself needs: logs, loops, listeners, DNS, and some air. */
static unsigned long own_descriptors(const struct config *c)
{
    return 64 + 16ul * c->workers + 2ul * c->workers * c->n_listeners;
}

/* Connections that fit: two descriptors each, a tenth of all being left for the pipes of splice. */
static unsigned long room(const struct config *c)
{
    unsigned long limit = descriptor_limit() / 10 * 9, own = own_descriptors(c);
    return limit > own ? (limit - own) / 2 : 0;
}

static int check_descriptors(struct server *s, char *why, size_t why_cap)
{
    const struct config *c = s->config;
    unsigned long fit = room(c);
    if (fit == 0 || c->max_conns > fit) {
        unsigned long need = (2ul * c->max_conns + own_descriptors(c)) / 9 * 10 + 10;
        snprintf(why, why_cap,
                 "ulimit -n is %lu: room for %lu connections, not for %u (needs ulimit -n %lu, or "
                 "--max-conns %lu)",
                 descriptor_limit(), fit, c->max_conns ? c->max_conns : 1, need, fit ? fit : 1);
        return -EMFILE;
    }
    s->counts.max_conns = c->max_conns ? c->max_conns : (uint32_t)fit;
    return 0;
}

/* --- start
 * ---------------------------------------------------------------------------------------------- */

int server_new(const struct config *config, struct server **out)
{
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    int err = uv_loop_init(&s->loop);
    if (err)
        goto fail_loop;
    s->config = config;
    s->counts.max_pipes = (unsigned)(descriptor_limit() / 20 / config->workers);
    err = -ENOMEM;
    s->workers = calloc(config->workers, sizeof *s->workers);
    s->listeners = calloc(config->n_listeners, sizeof *s->listeners);
    if (!s->workers || !s->listeners)
        goto fail;
    for (; s->n_workers < config->workers; s->n_workers++) {
        err = worker_init(&s->workers[s->n_workers], s->n_workers, config, &s->counts);
        if (err)
            goto fail;
    }
    *out = s;
    return 0;

fail:
    server_free(s);
    return err;
fail_loop:
    free(s);
    return err;
}

int server_load_policies(struct server *s, const struct policy_factory *factory, char *why,
                         size_t why_cap)
{
    for (uint32_t i = 0; factory && i < s->n_workers; i++) {
        struct worker *w = &s->workers[i];
        int err = factory->make(factory->arg, i, &w->loop, &w->policies, why, why_cap);
        if (err)
            return err;
    }
    return 0;
}

static void close_listeners(struct server *s)
{
    while (s->n_open)
        listener_close(&s->listeners[--s->n_open]);
}

int server_bind(struct server *s, char *why, size_t why_cap)
{
    int err = check_descriptors(s, why, why_cap);
    for (size_t i = 0; !err && i < s->config->n_listeners; i++) {
        err = listener_open(&s->listeners[i], &s->config->listeners[i], s->config->workers, why,
                            why_cap);
        if (!err)
            s->n_open++;
    }
    if (err)
        close_listeners(s);
    return err;
}

static void log_listening(const struct server *s)
{
    for (size_t i = 0; i < s->n_open; i++) {
        const struct listener *l = &s->listeners[i];
        char to[256];
        log_info("listening on %s -> %s%s", l->text,
                 l->config->to ? targets_format(l->config->to, to, sizeof to) : "policy",
                 l->config->bind.bare_port ? " (this machine only; \":PORT\" opens it to others)"
                                           : "");
    }
    log_info("%u worker%s, room for %u connections", s->n_workers, s->n_workers == 1 ? "" : "s",
             s->counts.max_conns);
}

/* --- stop
 * ------------------------------------------------------------------------------------------------
 */

static void command_all(struct server *s, enum worker_order order)
{
    s->order = order;
    for (uint32_t i = 0; i < s->n_workers; i++)
        if (s->workers[i].started)
            worker_command(&s->workers[i], order);
}

static void end_now(struct server *s)
{
    unsigned left = atomic_load(&s->counts.conns);
    if (left)
        log_warn("ending %u connection%s", left, left == 1 ? "" : "s");
    command_all(s, WORKER_END);
}

static void on_drain_over(uv_timer_t *timer)
{
    end_now(timer->data);
}

static void stop(struct server *s, int signum)
{
    char time[32];
    unsigned left = atomic_load(&s->counts.conns);
    if (s->order >= WORKER_DRAIN || s->config->drain_ms == 0) {
        end_now(s);
        return;
    }
    if (left)
        log_info("%s: no new connections; %u open may go on for %s",
                 signum == SIGTERM ? "TERM" : "INT", left,
                 units_format_time(s->config->drain_ms, time, sizeof time));
    notify_service("STOPPING=1");
    uv_timer_start(&s->drain, on_drain_over, s->config->drain_ms, 0);
    command_all(s, WORKER_DRAIN);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct server *s = handle->data;
    if (signum == SIGHUP)
        log_warn("HUP: reload is not in this version; nothing has changed");
    else if (signum == SIGUSR1)
        log_reopen();
    else
        stop(s, signum);
}

static void on_ended(uv_async_t *handle)
{
    struct server *s = handle->data;
    if (atomic_load(&s->n_ended) == s->n_workers)
        uv_stop(&s->loop);
}

/* On the worker's thread. */
static void on_worker_ended(void *arg)
{
    struct server *s = arg;
    atomic_fetch_add(&s->n_ended, 1);
    uv_async_send(&s->ended);
}

static int open_handles(struct server *s)
{
    int err = uv_async_init(&s->loop, &s->ended, on_ended);
    if (err)
        return err;
    s->ended.data = s;
    uv_timer_init(&s->loop, &s->drain);
    s->drain.data = s;
    for (int i = 0; i < N_SIGNALS; i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, signals[i]);
    }
    return 0;
}

static int start_workers(struct server *s)
{
    for (uint32_t i = 0; i < s->n_workers; i++) {
        int err = worker_start(&s->workers[i], s->listeners, s->n_open, on_worker_ended, s);
        if (err)
            return err;
    }
    for (size_t i = 0; i < s->n_open; i++)
        listener_release(&s->listeners[i]);
    return 0;
}

static void log_totals(const struct server *s)
{
    unsigned long long limited = 0;
    for (size_t i = 0; i < s->n_open; i++)
        limited += atomic_load(&s->listeners[i].limited);
    log_info("stopped: %llu connections served, limits reached %llu times",
             (unsigned long long)atomic_load(&s->counts.ids), limited);
}

/* Waits for every thread. Reports an error when a loop did not close cleanly. */
static int join_workers(struct server *s)
{
    int result = 0;
    while (s->n_workers) {
        int err = worker_deinit(&s->workers[--s->n_workers]);
        result = result ? result : err;
    }
    return result;
}

static int close_loop(struct server *s)
{
    while (uv_run(&s->loop, UV_RUN_NOWAIT) && uv_backend_timeout(&s->loop) == 0)
        ;
    return uv_loop_close(&s->loop);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

int server_run(struct server *s)
{
    int err = open_handles(s);
    if (!err)
        err = start_workers(s);
    if (err) {
        log_error("cannot start: %s", err_text(err));
        for (uint32_t i = 0; i < s->n_workers; i++)
            atomic_fetch_add(&s->n_ended, s->workers[i].started ? 0 : 1);
        command_all(s, WORKER_END);
        if (atomic_load(&s->n_ended) < s->n_workers)
            uv_run(&s->loop, UV_RUN_DEFAULT);
        return err;
    }
    log_listening(s);
    notify_service("READY=1");
    uv_run(&s->loop, UV_RUN_DEFAULT);
    log_totals(s);
    return join_workers(s);
}

void server_free(struct server *s)
{
    join_workers(s);
    close_listeners(s);
    uv_walk(&s->loop, close_handle, NULL);
    int err = close_loop(s);
    if (err)
        log_error("the main loop did not close cleanly: %s", err_text(err));
    free(s->listeners);
    free(s->workers);
    free(s);
}
