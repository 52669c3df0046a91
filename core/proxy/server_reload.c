/* Reload: another version in place of the present one, while connections go on. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "server_priv.h"

enum { WHY_MAX = 8192 }; /* a Lua traceback fits */

/* --- what takes a restart
 * ---------------------------------------------------------------------------------- */

static bool differ(const char *a, const char *b)
{
    return a != b && (!a || !b || strcmp(a, b) != 0);
}

/* Options of the process that are read only once. X(name, has it changed from `was` to `now`?) */
#define AT_START(X)                                                                                \
    X(user, differ(now->user, was->user))                                                          \
    X(workers, now->workers != was->workers)                                                       \
    X(max_conns, now->max_conns != was->max_conns)                                                 \
    X(spin, now->spin_us != was->spin_us)                                                          \
    X(gather, now->gather_us != was->gather_us)                                                    \
    X(resolver, differ(now->resolver, was->resolver))                                              \
    X(pid_file, differ(now->pid_file, was->pid_file))                                              \
    X(admin, differ(now->admin, was->admin))                                                       \
    X(admin_token_file, differ(now->admin_token_file, was->admin_token_file))                      \
    X(admin_no_token, now->admin_no_token != was->admin_no_token)                                  \
    X(admin_lua, now->admin_lua != was->admin_lua)                                                 \
    X(sandbox, now->sandbox != was->sandbox)                                                       \
    X(log_file, differ(now->log.file, was->log.file))                                              \
    X(log_format, now->log.format != was->log.format)                                              \
    X(access_log, differ(now->log.access_file, was->log.access_file))

bool server_keeps(const char *option)
{
    static const char *const names[] = {
#define X(name, changed) #name,
        AT_START(X)
#undef X
    };
    if (strncmp(option, "no-", 3) == 0)
        option += 3; /* --no-sandbox is sandbox = false */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = 0;
        while (names[i][n] &&
               (names[i][n] == option[n] || (names[i][n] == '_' && option[n] == '-')))
            n++;
        if (!names[i][n] && !option[n])
            return true;
    }
    return false;
}

static void warn_of_restart(const struct server *s, const struct config *now)
{
    const struct config *was = s->version.config;
    const struct {
        const char *name;
        bool changed;
    } options[] = {
#define X(name, changed) {#name, changed},
        AT_START(X)
#undef X
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].changed)
            log_warn("ps.options: %s has changed, which takes effect at the next start",
                     options[i].name);
    log_set_level(now->log.level);
}

/* --- a reload
 * --------------------------------------------------------------------------------------- */

static void notify_reloading(const struct server *s)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_ns() / 1000);
    server_notify(s, text);
}

static void watch_files(struct server *s, const struct version *v)
{
    if (s->version.config->watch)
        watch_set(&s->watch, v->files, v->n_files);
}

/* The sockets that were opened are told of before the change is: who waits for its line knows them.
 */
static void log_added(const struct server *s)
{
    for (size_t i = 0; s->from && i < s->listeners.n; i++)
        if (s->from[i] == SIZE_MAX)
            server_log_listening(s->listeners.items[i], &s->version.config->listeners[i]);
}

static int put_in_force(struct server *s, struct version *v, char *why)
{
    s->number++;
    int err = server_change(s, v, &s->listeners, why, WHY_MAX);
    if (err) {
        s->number--;
        return err;
    }
    warn_of_restart(s, v->config);
    version_deinit(&s->version);
    s->version = *v;
    *v = (struct version){0};
    return 0;
}

static void tell(struct list *waiters, int err, unsigned version, const char *why)
{
    struct list all; /* who is told may ask again */
    list_take(&all, waiters);
    list_for_each (node, tmp, &all) {
        list_remove(node);
        struct server_waiter *waiter = container_of(node, struct server_waiter, node);
        waiter->done(waiter, err, version, why);
    }
}

static void end_reload(struct server *s, int err, const char *why)
{
    server_notify(s, "READY=1");
    tell(&s->attending, err, s->number, why);
}

static bool has_nothing_to_load(const struct server *s)
{
    return !s->version.config->policy && !config_has_tls(s->version.config);
}

static void reload(struct server *s)
{
    static const char nothing[] = "nothing to load again: there is no policy, no configuration "
                                  "file and no certificate";
    char why[WHY_MAX] = "";
    struct version v;
    s->began_ns = clock_now_ns();
    list_take(&s->attending, &s->waiting);
    if (has_nothing_to_load(s)) {
        log_warn("%s: %s", s->wanted_by, nothing);
        tell(&s->attending, -ENOENT, s->number, nothing);
        return;
    }
    notify_reloading(s);
    int err = s->loader->load(s->loader->arg, s->n_workers, &v, why, sizeof why);
    watch_files(s, &v); /* of a version that failed, too: to see when it is mended */
    if (!err)
        err = put_in_force(s, &v, why);
    if (!err) {
        log_added(s);
        return; /* on_changed() goes on */
    }
    stats_count_reload(s->counts.stats, false);
    log_error("%s: version %u stays in force: %s", s->wanted_by, s->number, why);
    version_deinit(&v);
    end_reload(s, err, why);
}

/* Those that were asked for, one after the other, as far as it goes. */
void server_reload_wanted(struct server *s)
{
    while (s->wanted && !s->from && !s->upgrade && s->order == WORKER_SERVE) {
        s->wanted--;
        reload(s);
    }
}

void server_reload(struct server *s, const char *by)
{
    if (s->order != WORKER_SERVE) {
        log_warn("%s: not while stopping", by);
        return;
    }
    if (s->upgrade)
        log_info("%s: waits for the end of the upgrade", by);
    s->wanted++;
    s->wanted_by = by;
    server_reload_wanted(s);
}

void server_reload_wait(struct server *s, const char *by, struct server_waiter *waiter)
{
    if (s->order != WORKER_SERVE) {
        waiter->done(waiter, -ESHUTDOWN, s->number, "not while stopping");
        return;
    }
    bool first = list_is_empty(&s->waiting);
    list_push(&s->waiting, &waiter->node);
    if (first)
        server_reload(s, by);
}

void server_fail_waiters(struct server *s)
{
    tell(&s->waiting, -ESHUTDOWN, s->number, "not while stopping");
}

static void log_done(const struct server *s)
{
    log_info(
        "version %u is in force after %" PRIu64 " ms: listeners added %zu, kept %zu, removed %zu",
        s->number, (clock_now_ns() - s->began_ns) / 1000000, s->n_added, s->n_kept, s->n_removed);
}

static void on_changed(uv_async_t *handle)
{
    struct server *s = handle->data;
    server_upgrade_taken(s);
    if (!s->from || atomic_load(&s->n_changed) < s->n_workers)
        return;
    free(s->from);
    s->from = NULL;
    if (!s->open)
        server_is_up(s);
    s->open = true;
    if (s->number > 1) {
        stats_count_reload(s->counts.stats, true);
        log_done(s);
        end_reload(s, 0, "");
    }
    server_upgrade_go_on(s);
    server_reload_wanted(s);
}

void server_worker_changed(void *arg)
{
    struct server *s = arg;
    atomic_fetch_add(&s->n_changed, 1);
    uv_async_send(&s->changed);
}

static void on_files_changed(struct watch *w)
{
    server_reload(container_of(w, struct server, watch), "--watch");
}

int server_open_reload(struct server *s)
{
    int err = uv_async_init(&s->loop, &s->changed, on_changed);
    if (err)
        return err;
    s->changed.data = s;
    watch_init(&s->watch, &s->loop, on_files_changed);
    watch_files(s, &s->version);
    return 0;
}
