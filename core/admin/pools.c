/* Pools and their servers: shown, and changed by hand. The state of a server is what scripts see of
 * it, too; connections to one that is drained are ended by their workers. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/net/target.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/pool.h"
#include "penstock/proxy/worker.h"

/* --- on the worker's thread
 * ------------------------------------------------------------------------------------ */

struct drain_part {
    struct worker_task task;
    struct drain *drain;
    uint64_t n; /* connections */
    atomic_bool done;
};

/* What has become of a server, to be told to the connections that use it. */
struct drain {
    struct list node; /* in admin->drains */
    struct pending pending;
    struct pool_server *server; /* one reference */
    uint64_t until_ms;          /* they end by then; 0: they stay */
    atomic_uint left;           /* parts that are not done */
    unsigned n_parts;
    struct drain_part parts[];
};

static bool uses(const struct conn *c, const struct account *account)
{
    return !conn_is_closed(c) && c->connected_ns &&
           target_uses(&c->targets->items[c->target], account);
}

static void tell_conns(struct drain_part *p, struct worker *w)
{
    const struct account *account = pool_server_account(p->drain->server);
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        if (!uses(c, account))
            continue;
        p->n++;
        if (p->drain->until_ms)
            conn_end_within(c, p->drain->until_ms, "drain");
        else
            conn_end_never(c);
    }
}

static void run_part(struct worker_task *task, struct worker *w)
{
    struct drain_part *p = container_of(task, struct drain_part, task);
    struct drain *d = p->drain;
    struct admin *a = d->pending.admin; /* outlives all workers, as the drain does not */
    if (w)
        tell_conns(p, w);
    p->done = true;
    if (atomic_fetch_sub(&d->left, 1) == 1)
        uv_async_send(&a->answered);
}

/* --- shown
 * -----------------------------------------------------------------------------------------------
 */

struct listing {
    struct json json;
    char *pool; /* the one whose servers are written; NULL before the first */
};

static void end_pool(struct listing *l)
{
    if (l->pool) {
        json_end_list(&l->json);
        json_end_object(&l->json);
    }
    free(l->pool);
    l->pool = NULL;
}

static void begin_pool(struct listing *l, const struct pool_view *v)
{
    end_pool(l);
    l->pool = strdup(v->pool);
    l->json.failed |= !l->pool;
    json_begin_object(&l->json, NULL);
    json_text(&l->json, "name", v->pool);
    json_text(&l->json, "algo", pool_algo_name(v->algo));
    json_bool(&l->json, "in_force", v->pool_used);
    json_begin_list(&l->json, "servers");
}

static void write_server(void *arg, const struct pool_view *v)
{
    struct listing *l = arg;
    struct json *j = &l->json;
    if (j->failed)
        return;
    if (!l->pool || strcmp(l->pool, v->pool) != 0)
        begin_pool(l, v);
    json_begin_object(j, NULL);
    json_text(j, "name", v->server);
    json_text(j, "address", v->address);
    json_text(j, "state", pool_state_name(v->state));
    json_text(j, "check", v->check == POOL_UNCHECKED ? NULL : pool_check_name(v->check));
    json_number(j, "weight", v->weight);
    json_number(j, "configured_weight", v->configured_weight);
    json_uint(j, "connections", v->active);
    json_uint(j, "dialled", v->good);
    json_uint(j, "failed", v->bad);
    json_bool(j, "in_force", v->used);
    json_end_object(j);
}

void pools_list(struct request *r)
{
    struct listing l = {0};
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    json_init(&l.json, &r->out);
    json_begin_object(&l.json, NULL);
    json_begin_list(&l.json, "pools");
    shared_visit_pools(r->admin->shared, clock_now_ns() / 1000000, write_server, &l);
    end_pool(&l);
    json_end_list(&l.json);
    json_end_object(&l.json);
    request_answer_json(r, MHD_HTTP_OK, &l.json);
}

/* --- changed
 * ---------------------------------------------------------------------------------------------- */

/* The server that the path names, with a reference; or fails `r`. */
static struct pool_server *find_server(struct request *r)
{
    const struct text *pool_name = &r->names[0], *name = &r->names[1];
    struct pool *pool =
        text_is_whole(pool_name) ? shared_find_pool(r->admin->shared, pool_name->bytes) : NULL;
    struct pool_server *s = pool && text_is_whole(name) ? pool_find(pool, name->bytes) : NULL;
    if (!pool)
        request_fail(r, MHD_HTTP_NOT_FOUND, "there is no pool %s", pool_name->bytes);
    else if (!s)
        request_fail(r, MHD_HTTP_NOT_FOUND, "there is no server %s in the pool %s", name->bytes,
                     pool_name->bytes);
    return s;
}

/* As it is now; `ending` of its connections are to end. */
static void answer_server(struct request *r, struct pool_server *s, uint64_t ending)
{
    struct json j;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "server", pool_server_name(s));
    json_text(&j, "state", pool_state_name(pool_state(s, clock_now_ns() / 1000000)));
    json_uint(&j, "connections", pool_active(s));
    json_uint(&j, "ending", ending);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

static int find_silent(const struct pending *pending)
{
    const struct drain *d = container_of(pending, struct drain, pending);
    for (unsigned i = 0; i < d->n_parts; i++)
        if (!d->parts[i].done)
            return (int)i;
    return -1;
}

/* Has all workers told; takes over the reference. */
static void tell(struct request *r, struct pool_server *server, uint64_t until_ms)
{
    struct server_status s;
    server_get_status(r->admin->server, &s);
    struct drain *d = calloc(1, sizeof *d + s.workers * sizeof *d->parts);
    if (!d) {
        pool_server_drop(server);
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return;
    }
    *d = (struct drain){.pending = {.silent = find_silent},
                        .server = server,
                        .until_ms = until_ms,
                        .left = s.workers,
                        .n_parts = s.workers};
    if (!pending_begin(&d->pending, r, ADMIN_WORKERS_MS)) {
        pool_server_drop(server);
        free(d);
        return;
    }
    list_push(&r->admin->drains, &d->node);
    for (unsigned i = 0; i < s.workers; i++) {
        d->parts[i].drain = d;
        d->parts[i].task.run = run_part;
        list_init(&d->parts[i].task.node);
        worker_post(server_worker(r->admin->server, i), &d->parts[i].task);
    }
}

void pools_drain(struct request *r)
{
    /* POST /v1/pools/{pool}/servers/{server}/drain */
    static const struct argument arguments[] = {
        {"over", argument_over, ARGUMENT_OVER},
    };
    uint64_t over_ms = UINT64_MAX, now_ms = clock_now_ns() / 1000000;
    if (!request_arguments(r, arguments, 1, &over_ms))
        return;
    struct pool_server *s = find_server(r);
    if (!s)
        return;
    bool ends = over_ms != UINT64_MAX;
    log_info("admin: pool %s: %s is drained", r->names[0].bytes, r->names[1].bytes);
    if (!ends) {
        pool_drain(s);
        answer_server(r, s, 0);
        pool_server_drop(s);
        return;
    }
    pool_drain_until(s, now_ms, now_ms + over_ms);
    tell(r, s, now_ms + over_ms);
}

void pools_up(struct request *r)
{
    struct pool_server *s = request_arguments(r, NULL, 0, NULL) ? find_server(r) : NULL;
    if (!s)
        return;
    pool_restore(s);
    log_info("admin: pool %s: %s is up", r->names[0].bytes, r->names[1].bytes);
    tell(r, s, 0);
}

static bool read_weight(const struct request *r, double *weight)
{
    char *end;
    const char *body = buf_bytes(&r->body);
    *weight = strtod(body, &end);
    end += strspn(end, "\r\n");
    return buf_len(&r->body) && !strchr(" \t\r\n", *body) && end == body + buf_len(&r->body) &&
           *weight > 0 && *weight <= POOL_WEIGHT_MAX;
}

void pools_weigh(struct request *r)
{
    double weight;
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    if (!read_weight(r, &weight)) {
        request_fail(r, MHD_HTTP_BAD_REQUEST,
                     "the body is a weight: a number above 0, up to %d; drain takes a server out",
                     POOL_WEIGHT_MAX);
        return;
    }
    struct pool_server *s = find_server(r);
    if (!s)
        return;
    pool_set_weight(s, weight);
    log_info("admin: pool %s: %s has the weight %g", r->names[0].bytes, r->names[1].bytes, weight);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "server", pool_server_name(s));
    json_number(&j, "weight", weight);
    json_end_object(&j);
    pool_server_drop(s);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

void pools_collect(struct admin *a)
{
    list_for_each (node, tmp, &a->drains) {
        struct drain *d = container_of(node, struct drain, node);
        uint64_t n = 0;
        if (atomic_load(&d->left))
            continue;
        for (unsigned i = 0; i < d->n_parts; i++)
            n += d->parts[i].n;
        struct request *r = pending_end(&d->pending);
        if (r)
            answer_server(r, d->server, d->until_ms ? n : 0);
        pool_server_drop(d->server);
        list_remove(&d->node);
        free(d);
    }
}
