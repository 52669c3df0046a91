/* Which request leads where, and the answers that the main thread can give by itself. The table is
 * the API: docs/admin.md and docs/openapi.yaml tell of each (scripts/check-admin). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/metrics.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "unknown"
#endif

enum { METRICS_BYTES_MAX = 64 << 20 };

/* --- how it is
 * --------------------------------------------------------------------------------------------- */

static void answer_status(struct request *r, bool good, const char *word)
{
    struct server_status s;
    struct json j;
    server_get_status(r->admin->server, &s);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "status", word);
    json_uint(&j, "configuration", s.version);
    json_uint(&j, "uptime_ms", s.uptime_ms);
    json_uint(&j, "workers", s.workers);
    json_uint(&j, "connections", s.conns);
    json_uint(&j, "max_connections", s.max_conns);
    json_uint(&j, "served", s.served);
    json_end_object(&j);
    request_answer_json(r, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, &j);
}

static void run_health(struct request *r)
{
    struct server_status s;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    server_get_status(r->admin->server, &s);
    answer_status(r, !s.draining, s.draining ? "draining" : "serving");
}

static void run_ready(struct request *r)
{
    struct server_status s;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    server_get_status(r->admin->server, &s);
    answer_status(r, s.open && !s.draining,
                  s.draining ? "draining"
                  : s.open   ? "ready"
                             : "starting");
}

static void run_version(struct request *r)
{
    struct server_status s;
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    server_get_status(r->admin->server, &s);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "version", PENSTOCK_VERSION);
    json_uint(&j, "api", 1);
    json_uint(&j, "configuration", s.version);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

/* --- metrics
 * --------------------------------------------------------------------------------------------- */

static void run_metrics(struct request *r)
{
    size_t room = 64 << 10, n = 0;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    for (;;) {
        char *text = buf_reserve(&r->out, room);
        n = text ? metrics_text(shared_metrics(r->admin->shared), text, room) : SIZE_MAX;
        if (n <= room)
            break;
        if (n > METRICS_BYTES_MAX) {
            request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for all metrics");
            return;
        }
        room = n + n / 8; /* they may grow meanwhile */
    }
    buf_commit(&r->out, n);
    request_answer(r, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8");
}

/* --- reload
 * ---------------------------------------------------------------------------------------------- */

static unsigned change_status(int err)
{
    switch (err) {
    case 0:
        return MHD_HTTP_OK;
    case -ESHUTDOWN:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case -ENOENT:
    case -EBUSY:
        return MHD_HTTP_CONFLICT;
    default:
        return ADMIN_UNPROCESSABLE;
    }
}

static void on_reloaded(struct server_waiter *waiter, int err, unsigned version, const char *why)
{
    struct request *r = request_waited(waiter);
    struct json j;
    if (!r)
        return;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, "configuration", version);
    if (err)
        json_text(&j, "error", why);
    json_end_object(&j);
    request_answer_json(r, change_status(err), &j);
}

static void run_reload(struct request *r)
{
    bool good = request_arguments(r, NULL, 0, NULL);
    struct server_waiter *waiter = good ? request_wait(r, on_reloaded) : NULL;
    if (waiter)
        server_reload_wait(r->admin->server, "admin", waiter);
}

static void on_upgraded(struct server_waiter *waiter, int err, unsigned pid, const char *why)
{
    struct request *r = request_waited(waiter);
    struct json j;
    if (!r)
        return;
    if (err) {
        request_fail(r, change_status(err), "%s", why);
        return;
    }
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, "pid", pid);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

static void run_upgrade(struct request *r)
{
    bool good = request_arguments(r, NULL, 0, NULL);
    struct server_waiter *waiter = good ? request_wait(r, on_upgraded) : NULL;
    if (waiter)
        server_upgrade(r->admin->server, "admin", waiter);
}

/* --- the log
 * ---------------------------------------------------------------------------------------------- */

static const char *const levels[] = {
#define X(name, word, priority) word,
    LOG_LEVELS(X)
#undef X
};

/* The line is there at whichever of the two levels has more: who turns the log down leaves it. */
static void change_log_level(enum log_level level)
{
    bool before = log_enabled(LOG_WARN);
    if (before)
        log_warn("admin: the log level is %s now", levels[level]);
    log_set_level(level);
    if (!before)
        log_warn("admin: the log level is %s now", levels[level]);
}

static void run_log_level(struct request *r)
{
    size_t n = sizeof levels / sizeof *levels;
    size_t len = strcspn(buf_bytes(&r->body), "\r\n");
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    for (size_t i = 0; i < n; i++) {
        struct json j;
        if (strlen(levels[i]) != len || memcmp(levels[i], buf_bytes(&r->body), len) != 0)
            continue;
        change_log_level((enum log_level)i);
        json_init(&j, &r->out);
        json_begin_object(&j, NULL);
        json_text(&j, "level", levels[i]);
        json_end_object(&j);
        request_answer_json(r, MHD_HTTP_OK, &j);
        return;
    }
    request_fail(r, MHD_HTTP_BAD_REQUEST, "the level is error, warn, info or debug");
}

/* --- the table
 * ------------------------------------------------------------------------------------------- */

static const struct route routes[] = {
    {"GET", "/v1/health", run_health, 0},
    {"GET", "/v1/ready", run_ready, 0},
    {"GET", "/v1/version", run_version, 0},
    {"GET", "/v1/listeners", listeners_list, 0},
    {"POST", "/v1/listeners/{listener}/drain", listeners_drain, 0},
    {"POST", "/v1/listeners/{listener}/up", listeners_up, 0},
    {"GET", "/v1/connections", conns_list, 0},
    {"POST", "/v1/connections/kill", conns_kill, 0},
    {"POST", "/v1/connections/{id}/kill", conns_kill_one, 0},
    {"GET", "/v1/pools", pools_list, 0},
    {"PUT", "/v1/pools/{pool}/servers/{server}/weight", pools_weigh, 0},
    {"POST", "/v1/pools/{pool}/servers/{server}/drain", pools_drain, 0},
    {"POST", "/v1/pools/{pool}/servers/{server}/up", pools_up, 0},
    {"GET", "/v1/stores", stores_list, 0},
    {"GET", "/v1/stores/{store}", stores_get, 0},
    {"PUT", "/v1/stores/{store}", stores_set, STORE_VALUE_MAX},
    {"DELETE", "/v1/stores/{store}", stores_delete, 0},
    {"GET", "/v1/stores/{store}/keys", stores_keys, 0},
    {"GET", "/v1/buckets", buckets_list, 0},
    {"GET", "/v1/stats", stats_show, 0},
    {"GET", "/v1/config", config_show, 0},
    {"POST", "/v1/reload", run_reload, 0},
    {"POST", "/v1/upgrade", run_upgrade, 0},
    {"PUT", "/v1/log-level", run_log_level, 0},
    {"POST", "/v1/lua", lua_run, LUA_CHUNK_MAX},
    {"GET", "/metrics", run_metrics, 0},
};

static bool read_number(const char *raw, size_t n, uint64_t *id)
{
    char number[24];
    if (n >= sizeof number)
        return false;
    memcpy(number, raw, n);
    number[n] = '\0';
    return units_parse_uint(number, 1, UINT64_MAX, id) == 0;
}

/* Does `path` fit? What stands in braces goes to r->id and r->names. */
static bool fits(const char *pattern, const char *path, struct request *r)
{
    size_t n_names = 0;
    for (;;) {
        size_t literal = strcspn(pattern, "{");
        if (strncmp(pattern, path, literal) != 0)
            return false;
        pattern += literal;
        path += literal;
        if (!*pattern)
            return !*path;
        size_t n = strcspn(path, "/");
        bool good = strncmp(pattern, "{id}", 4) == 0
                        ? read_number(path, n, &r->id)
                        : n && request_decode(r, path, n, &r->names[n_names++]) == 0;
        if (!good)
            return false;
        pattern = strchr(pattern, '}') + 1;
        path += n;
    }
}

/* All that the path takes: "GET, PUT". */
static const char *list_methods(struct request *r, const char *path)
{
    enum { ROOM = 64 };
    char *list = request_alloc(r, ROOM);
    size_t len = 0;
    for (size_t i = 0; list && i < sizeof routes / sizeof *routes; i++)
        if (fits(routes[i].path, path, r))
            len +=
                (size_t)snprintf(list + len, ROOM - len, "%s%s", len ? ", " : "", routes[i].method);
    return list;
}

void route_find(struct request *r, const char *method, const char *path)
{
    bool other = false;
    const char *meant = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (size_t i = 0; i < sizeof routes / sizeof *routes && !r->route; i++) {
        if (!fits(routes[i].path, path, r))
            continue;
        other = true;
        if (strcmp(routes[i].method, meant) == 0)
            r->route = &routes[i];
    }
    if (r->route)
        return;
    if (other) {
        r->allow = list_methods(r, path);
        request_fail(r, MHD_HTTP_METHOD_NOT_ALLOWED, "%s takes %s", path,
                     r->allow ? r->allow : "another method");
    } else {
        request_fail(r, MHD_HTTP_NOT_FOUND, "there is no %s; docs/admin.md lists what there is",
                     path);
    }
}
