/* Worlds: opening, time, what is written down, closing. */
#include "testbed.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/script/script.h"

enum { FIRST_CLIENT_PORT = 40001 };

/* ---- what is written down ---- */

static void add_line(struct buf *lines, const char *text, size_t len)
{
    if (buf_append(lines, text, len) == 0)
        buf_append(lines, "", 1);
}

void world_trace(struct world *w, const char *fmt, ...)
{
    char *text, *line;
    va_list args;
    uint64_t ms = w->worker.loop.now_ms - w->start_ms + w->opened_ms;
    if (w->closing)
        return;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        return;
    len = asprintf(&line, "%6.3f  %s", (double)ms / 1000, text);
    free(text);
    if (len < 0)
        return;
    add_line(&w->bed->trace, line, (size_t)len);
    free(line);
}

static bool is_script_error(enum log_level level, const char *text, size_t len)
{
    static const char mark[] = "script error";
    return level == LOG_ERROR && len >= sizeof mark - 1 && !memcmp(text, mark, sizeof mark - 1);
}

static void on_line(void *arg, enum log_level level, uint64_t conn_id, const char *text, size_t len)
{
    static const char *const words[] = {
#define X(name, word, priority) word,
        LOG_LEVELS(X)
#undef X
    };
    struct testbed *bed = arg;
    struct world *w = bed->acting;
    char *line;
    (void)conn_id;
    if (!w || w->closing)
        return;
    int n = asprintf(&line, "%s: %.*s", words[level], (int)len, text);
    if (n < 0)
        return;
    add_line(&w->log, line, (size_t)n);
    world_trace(w, "log %.*s", (int)strcspn(line, "\n"), line);
    free(line);
    if (is_script_error(level, text, len))
        add_line(&w->errors, text, len);
}

static void free_access(struct world_access *a)
{
    list_remove(&a->node);
    for (char **tag = a->tags; tag && *tag; tag++)
        free(*tag);
    free(a->tags);
    free(a->reason);
    free(a->side);
    free(a->detail);
    free(a->upstream);
    free(a);
}

/* Returns false when out of memory. */
static bool copy_tags(struct world_access *a, const char *const *tags)
{
    size_t n = 0;
    while (tags && tags[n])
        n++;
    a->tags = calloc(n + 1, sizeof *a->tags);
    for (size_t i = 0; a->tags && i < n; i++)
        if (!(a->tags[i] = strdup(tags[i])))
            return false;
    return a->tags != NULL;
}

static void on_access(void *arg, const struct log_access *line)
{
    struct testbed *bed = arg;
    struct world *w = bed->acting;
    if (!w || w->closing)
        return;
    world_trace(w, "end of connection %llu: reason=%s side=%s detail=%s up=%llu down=%llu",
                (unsigned long long)line->id, line->reason, line->side, line->detail,
                (unsigned long long)line->bytes_up, (unsigned long long)line->bytes_down);
    struct world_access *a = calloc(1, sizeof *a);
    if (!a)
        return;
    list_push(&w->ended, &a->node);
    a->id = line->id;
    a->bytes_up = line->bytes_up;
    a->bytes_down = line->bytes_down;
    a->reason = strdup(line->reason);
    a->side = strdup(line->side);
    a->detail = strdup(line->detail);
    a->upstream = strdup(line->upstream);
    if (!a->reason || !a->side || !a->detail || !a->upstream || !copy_tags(a, line->tags))
        free_access(a);
}

const struct world_access *world_access_of(const struct world *w, uint64_t id)
{
    list_for_each (node, tmp, &w->ended) {
        const struct world_access *a = container_of(node, struct world_access, node);
        if (a->id == id)
            return a;
    }
    return NULL;
}

static void on_connect(void *arg, const char *address, int err)
{
    const char *outcome = err == 0 ? "connected" : err == -ETIMEDOUT ? "no answer" : err_word(err);
    world_trace(arg, "penstock dials %s: %s", address, outcome);
}

/* The connection gets its id right after it has taken its stream (conn_start). */
static void on_taken(void *arg, const struct stream *stream)
{
    struct world *w = arg;
    struct peer *p = container_of(stream, struct peer, stream);
    p->conn_id = atomic_load(&w->counts.ids) + 1;
    world_trace(w, "%s is connection %llu", p->name, (unsigned long long)p->conn_id);
}

/* ---- opening ---- */

/* The one listener of a policy. */
static int add_listener(struct world *w, const struct world_options *o, char *why, size_t why_cap)
{
    struct config_listener *l = config_add_listener(&w->config);
    if (!l)
        return -ENOMEM;
    int err = endpoint_parse("127.0.0.1:1", ENDPOINT_LISTEN, &l->bind, why, why_cap);
    if (err)
        return err;
    l->limits = o->limits;
    l->timeouts = o->timeouts;
    if (o->name && !(l->name = strdup(o->name)))
        return -ENOMEM;
    return o->to ? world_default_to(w, o->to, why, why_cap) : 0;
}

static int load(struct world *w, const struct world_options *o, struct policy_set **out, char *why,
                size_t why_cap)
{
    struct script_options options = {
        .path = o->path, .unsafe = o->unsafe, .seed = o->seed, .clock = &w->worker.loop};
    int err = w->bed->load(&options, &w->config, out, why, why_cap);
    if (err)
        return err;
    w->configured = w->config.n_listeners > 0;
    if (w->configured && o->own) {
        snprintf(why, why_cap,
                 "%s is a configuration, which says name, to, limits and timeouts "
                 "of its listeners itself",
                 o->path);
        err = -EINVAL;
    } else if (!w->configured) {
        err = add_listener(w, o, why, why_cap);
    }
    if (err)
        (*out)->ops->free(*out);
    return err;
}

static void drop_listeners(struct world *w)
{
    for (size_t i = 0; w->listeners && i < w->config.n_listeners; i++)
        if (w->listeners[i])
            listener_drop(w->listeners[i]);
    free(w->listeners);
}

/* The listeners of the configuration and their acceptors. */
static int open_listeners(struct world *w, struct worker_change *change)
{
    const struct config *config = &w->config;
    int err = 0;
    w->listeners = calloc(config->n_listeners, sizeof(struct listener *));
    if (!w->listeners)
        return -ENOMEM;
    for (size_t i = 0; !err && i < config->n_listeners; i++) {
        err = listener_open_virtual(&w->listeners[i], &config->listeners[i], w->worker.loop.now_ns);
        if (!err)
            change->acceptors[i] = acceptor_new(w->listeners[i], &w->worker, &err);
    }
    return err;
}

/* Takes over the policies. */
static int change_to(struct world *w, struct policy_set *policies)
{
    int err = -ENOMEM;
    size_t *all_new = malloc(w->config.n_listeners * sizeof *all_new);
    if (!all_new)
        goto fail_new;
    for (size_t i = 0; i < w->config.n_listeners; i++)
        all_new[i] = SIZE_MAX;
    struct worker_change *change = worker_change_new(&w->config, policies, 1, all_new);
    if (!change)
        goto fail_change;
    err = open_listeners(w, change);
    if (err) {
        worker_change_free(change); /* and the policies */
    } else {
        worker_change(&w->worker, change);
        worker_open(&w->worker);
    }
    free(all_new);
    return err;

fail_change:
    free(all_new);
fail_new:
    policies->ops->free(policies);
    return err;
}

static int open_worker(struct world *w, const struct world_options *o, char *why, size_t why_cap)
{
    struct policy_set *policies;
    int err = load(w, o, &policies, why, why_cap);
    if (err)
        return err;
    config_settle(&w->config);
    return change_to(w, policies);
}

int world_find_listener(const struct world *w, const char *name)
{
    for (size_t i = 0; i < w->config.n_listeners; i++) {
        const char *own = w->config.listeners[i].name;
        if ((own && !strcmp(own, name)) || !strcmp(w->config.listeners[i].bind.text, name))
            return (int)i;
    }
    return -1;
}

static struct world *world_new(struct testbed *bed, const struct world_options *o)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->bed = bed;
    w->start_ms = o->start_ms;
    w->opened_ms = bed->elapsed_ms;
    w->next_port = FIRST_CLIENT_PORT;
    list_init(&w->node);
    list_init(&w->services);
    list_init(&w->peers);
    list_init(&w->ended);
    return w;
}

int world_open(struct testbed *bed, const struct world_options *o, struct world **out, char *why,
               size_t why_cap)
{
    struct world *w = world_new(bed, o);
    int err = -ENOMEM;
    snprintf(why, why_cap, "out of memory");
    if (!w)
        return err;
    struct vnet_observer observer = {.on_connect = on_connect, .on_taken = on_taken, .arg = w};
    w->vnet = vnet_new(&observer);
    if (!w->vnet)
        goto fail_vnet;
    config_init(&w->config);
    err = worker_init_virtual(&w->worker, &w->config, &w->counts, w->vnet, o->start_ms);
    if (err)
        goto fail_config;
    bed->acting = w;
    err = open_worker(w, o, why, why_cap);
    bed->acting = NULL;
    if (err)
        goto fail_worker;
    list_push(&bed->worlds, &w->node);
    *out = w;
    return 0;

fail_worker:
    worker_deinit(&w->worker);
    drop_listeners(w);
fail_config:
    config_deinit(&w->config);
    vnet_free(w->vnet);
fail_vnet:
    buf_deinit(&w->log);
    buf_deinit(&w->errors);
    free(w);
    return err;
}

int world_default_to(struct world *w, const char *address, char *why, size_t why_cap)
{
    struct config_listener *l = &w->config.listeners[0];
    if (w->configured || l->to)
        return 0;
    l->to = targets_parse(address, 0, why, why_cap);
    return l->to ? 0 : -EINVAL;
}

/* ---- time ---- */

static int act(struct world *w, bool (*move)(struct loop *l, uint64_t ms), uint64_t ms)
{
    struct world *outer = w->bed->acting;
    w->bed->acting = w;
    bool rested = move ? move(&w->worker.loop, ms) : loop_settle(&w->worker.loop);
    w->bed->acting = outer;
    return rested ? 0 : -ELOOP;
}

int world_settle(struct world *w)
{
    return act(w, NULL, 0);
}

int testbed_advance(struct testbed *bed, uint64_t ms)
{
    int err = 0;
    list_for_each (node, tmp, &bed->worlds) {
        int failed = act(container_of(node, struct world, node), loop_advance, ms);
        err = err ? err : failed;
    }
    bed->elapsed_ms += ms;
    return err;
}

/* ---- closing ---- */

void world_close(struct world *w)
{
    w->closing = true;
    if (w->handle)
        *w->handle = NULL;
    list_remove(&w->node);
    worker_end_conns(&w->worker);
    peers_close(w);
    world_settle(w);
    worker_deinit(&w->worker);
    drop_listeners(w);
    vnet_free(w->vnet);
    config_deinit(&w->config);
    list_for_each (node, tmp, &w->ended)
        free_access(container_of(node, struct world_access, node));
    buf_deinit(&w->log);
    buf_deinit(&w->errors);
    free(w);
}

/* ---- the bed ---- */

void testbed_init(struct testbed *bed, script_test_load_fn *load_file)
{
    *bed = (struct testbed){.tap = {.line = on_line, .access = on_access, .arg = bed},
                            .load = load_file};
    list_init(&bed->worlds);
    log_set_level(LOG_DEBUG);
    log_set_tap(&bed->tap);
}

void testbed_begin(struct testbed *bed)
{
    list_for_each (node, tmp, &bed->worlds)
        world_close(container_of(node, struct world, node));
    bed->elapsed_ms = 0;
    buf_deinit(&bed->trace);
}

void testbed_deinit(struct testbed *bed)
{
    testbed_begin(bed);
    log_set_tap(NULL);
}
