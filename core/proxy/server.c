/* The whole process: what starts, in which order, and how it stops. Runs on the main thread. */
#include "penstock/proxy/server.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <uv.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/proxy/notify.h"
#include "penstock/proxy/shared.h"
#include "server_priv.h"

static const int signals[SERVER_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};

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
    const struct config *c = s->version.config;
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

/* On the worker's thread. */
static void on_worker_ended(void *arg)
{
    struct server *s = arg;
    atomic_fetch_add(&s->n_ended, 1);
    uv_async_send(&s->ended);
}

/* Scripts with all Lua libraries may fork at any time (os.execute, io.popen). */
void server_set_copied(struct server *s, bool copied)
{
    atomic_store(&s->counts.copied, copied || s->version.config->unsafe_lua);
}

int server_new(struct version *version, struct shared *shared, struct server **out)
{
    const struct config *config = version->config;
    struct server *s = calloc(1, sizeof *s);
    int err = -ENOMEM;
    if (!s)
        goto fail_memory;
    err = uv_loop_init(&s->loop);
    if (err)
        goto fail_loop;
    s->version = *version;
    s->shared = shared;
    server_set_copied(s, false);
    s->number = 1;
    s->started_ns = clock_now_ns();
    list_init(&s->waiting);
    list_init(&s->attending);
    list_init(&s->drains);
    s->counts.max_pipes = (unsigned)(descriptor_limit() / 20 / config->workers);
    err = -ENOMEM;
    s->counts.stats = stats_new(shared, config->workers);
    s->workers = calloc(config->workers, sizeof *s->workers);
    s->dogs = calloc(config->workers, sizeof *s->dogs);
    if (!s->counts.stats || !s->workers || !s->dogs)
        goto fail;
    for (; s->n_workers < config->workers; s->n_workers++) {
        struct worker *w = &s->workers[s->n_workers];
        err = worker_init(w, s->n_workers, config, &s->counts);
        if (err)
            goto fail;
        w->on_changed = server_worker_changed;
        w->on_ended = on_worker_ended;
        w->arg = s;
    }
    *out = s;
    return 0;

fail:
    server_free(s);
    return err;
fail_loop:
    free(s);
fail_memory:
    version_deinit(version);
    return err;
}

int server_bind(struct server *s, char *why, size_t why_cap)
{
    struct listeners none = {0};
    int err = check_descriptors(s, why, why_cap);
    if (!err)
        err = server_change(s, &s->version, &none, why, why_cap);
    return err;
}

static void log_listening(const struct server *s)
{
    const struct config *config = s->version.config;
    for (size_t i = 0; i < s->listeners.n; i++)
        server_log_listening(s->listeners.items[i], &config->listeners[i]);
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

void server_drain(struct server *s)
{
    if (s->version.config->drain_ms == 0) {
        end_now(s);
        return;
    }
    for (size_t i = 0; i < s->listeners.n; i++) /* nobody comes to a queue that is about to close */
        listener_unlink(s->listeners.items[i]);
    uv_timer_start(&s->drain, on_drain_over, s->version.config->drain_ms, 0);
    command_all(s, WORKER_DRAIN);
    server_tell_status(s);
}

static void log_drain(const struct server *s, const char *by)
{
    char time[32];
    unsigned left = atomic_load(&s->counts.conns);
    if (left && s->version.config->drain_ms)
        log_info("%s: no new connections; %u open may go on for %s", by, left,
                 units_format_time(s->version.config->drain_ms, time, sizeof time));
}

static void stop(struct server *s, int signum)
{
    const char *by = signum == SIGTERM ? "TERM" : "INT";
    bool first = !s->told_to_stop;
    s->told_to_stop = true;
    server_fail_waiters(s);
    server_upgrade_stop(s);
    if (s->order == WORKER_SERVE) {
        log_drain(s, by);
        server_notify(s, "STOPPING=1");
        server_drain(s);
    } else if (first && s->order == WORKER_DRAIN) { /* a service manager means all its processes */
        log_info("%s: this process drains already, since the upgrade; a second one ends it", by);
    } else {
        end_now(s);
    }
}

void server_leave(struct server *s)
{
    s->replaced = true;
    watch_set(&s->watch, NULL, 0);
    log_drain(s, "upgrade");
    server_drain(s);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct server *s = handle->data;
    if (signum == SIGHUP)
        server_reload(s, "HUP");
    else if (signum == SIGUSR1)
        log_reopen();
    else if (signum == SIGUSR2)
        server_upgrade(s, "USR2", NULL);
    else
        stop(s, signum);
}

/* Who has begun to ask this process, and not the new one, gets an answer. */
static bool waits_for_guest(const struct server *s)
{
    return s->replaced && s->guest && s->order < WORKER_END && s->guest->is_busy(s->guest->arg);
}

static void end_if_over(struct server *s)
{
    if (atomic_load(&s->n_ended) == s->n_workers && !waits_for_guest(s))
        uv_stop(&s->loop);
}

static void on_ended(uv_async_t *handle)
{
    end_if_over(handle->data);
}

void server_set_guest(struct server *s, const struct server_guest *guest)
{
    s->guest = guest;
}

void server_guest_left(struct server *s)
{
    end_if_over(s);
}

static void on_look(uv_timer_t *timer)
{
    struct server *s = timer->data;
    uint64_t now_ns = clock_now_ns();
    for (uint32_t i = 0; i < s->n_workers; i++)
        watchdog_look(&s->dogs[i], &s->workers[i].loop.stay, i, now_ns);
}

static int open_handles(struct server *s)
{
    int err = uv_async_init(&s->loop, &s->ended, on_ended);
    if (err)
        return err;
    s->ended.data = s;
    uv_timer_init(&s->loop, &s->drain);
    s->drain.data = s;
    uv_timer_init(&s->loop, &s->look);
    s->look.data = s;
    if (s->version.config->policy)
        uv_timer_start(&s->look, on_look, WATCHDOG_LOOK_MS, WATCHDOG_LOOK_MS);
    uv_timer_init(&s->loop, &s->upgrading);
    s->upgrading.data = s;
    server_open_service(s);
    err = server_open_reload(s);
    if (!err)
        err = server_open_drains(s);
    if (err)
        return err;
    for (int i = 0; i < SERVER_SIGNALS; i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, signals[i]);
    }
    return 0;
}

static int start_workers(struct server *s)
{
    for (uint32_t i = 0; i < s->n_workers; i++) {
        int err = worker_start(&s->workers[i]);
        if (err)
            return err;
    }
    return 0;
}

static void log_totals(const struct server *s)
{
    unsigned long long limited = s->limited_before;
    for (size_t i = 0; i < s->listeners.n; i++)
        limited += atomic_load(&s->listeners.items[i]->limited);
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

int server_run(struct server *s, const struct version_loader *loader)
{
    s->loader = loader;
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
        join_workers(s);
        return err;
    }
    log_listening(s);
    server_notify(s, "READY=1");
    server_tell_status(s);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    log_totals(s);
    return join_workers(s);
}

/* libuv gives a signal its default action back when its handle is closed: one that came then would
 * kill what is about to end well, before its log is written. */
static void ignore_more_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < SERVER_SIGNALS; i++)
        sigaddset(&set, signals[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* the other threads take none */
}

void server_free(struct server *s)
{
    ignore_more_signals();
    join_workers(s);
    server_close_drains(s);
    server_upgrade_free(s);
    server_close_listeners(s);
    uv_walk(&s->loop, close_handle, NULL);
    int err = close_loop(s);
    if (err)
        log_error("the main loop did not close cleanly: %s", err_text(err));
    stats_free(s->counts.stats);
    free(s->workers);
    free(s->dogs);
    watch_deinit(&s->watch);
    version_deinit(&s->version);
    free(s);
}
