/* POST /v1/lua: a chunk of Lua, run by the policies of one worker or of each. Knows no Lua: only
 * that a policy set runs chunks (policy.h).
 *
 * A part belongs to its worker's thread from the post on until it is counted out of `left`, the
 * whole query to the main thread afterwards. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/proxy/policy.h"
#include "penstock/proxy/worker.h"

enum { PATIENCE_MS = 10000, PATIENCE_MAX_MS = 60000, LOGGED_BYTES = 200 };

struct part {
    struct worker_task run, stop;
    struct lua_query *query;
    unsigned worker;
    struct policy_chunk chunk;
    struct policy_set *set; /* where it runs now; the worker's */
    bool without;           /* there is no policy */
    bool refused;           /* the worker has ended */
    atomic_bool done;
};

struct lua_query {
    struct list node; /* in admin->prompts */
    struct pending pending;
    struct buf code;
    atomic_uint left; /* tasks and chunks that have not ended */
    unsigned n_parts;
    struct part parts[];
};

/* --- on the worker's thread
 * ------------------------------------------------------------------------------------ */

static void end_one(struct lua_query *q)
{
    struct admin *a = q->pending.admin; /* outlives all workers, as the query does not */
    if (atomic_fetch_sub(&q->left, 1) == 1)
        uv_async_send(&a->answered);
}

static void on_chunk_done(struct policy_chunk *chunk)
{
    struct part *p = container_of(chunk, struct part, chunk);
    p->set = NULL;
    p->done = true;
    end_one(p->query);
}

static void run_part(struct worker_task *task, struct worker *w)
{
    struct part *p = container_of(task, struct part, run);
    struct policy_set *set = w ? worker_generation(w)->policies : NULL;
    p->refused = !w;
    p->without = w && !set;
    if (!set) {
        p->done = true;
        end_one(p->query);
        return;
    }
    p->set = set;
    set->ops->evaluate(set, &p->chunk);
}

static void stop_part(struct worker_task *task, struct worker *w)
{
    struct part *p = container_of(task, struct part, stop);
    if (w && p->set)
        p->set->ops->abandon(p->set, &p->chunk, "cancelled: who asked has hung up");
    end_one(p->query);
}

/* --- the arguments
 * ----------------------------------------------------------------------------------------- */

struct wanted {
    unsigned n_workers;
    uint64_t worker;
    bool all;
    uint64_t patience_ms;
};

static int set_worker(void *arg, const struct text *value)
{
    struct wanted *w = arg;
    if (!text_is_whole(value))
        return -EINVAL;
    w->all = strcmp(value->bytes, "all") == 0;
    return w->all ? 0 : units_parse_uint(value->bytes, 0, w->n_workers - 1, &w->worker);
}

static int set_timeout(void *arg, const struct text *value)
{
    uint64_t *ms = &((struct wanted *)arg)->patience_ms;
    bool good = text_is_whole(value) && units_parse_time_ms(value->bytes, ms) == 0 && *ms > 0 &&
                *ms <= PATIENCE_MAX_MS;
    return good ? 0 : -EINVAL;
}

/* POST /v1/lua */
static const struct argument arguments[] = {
    {"worker", set_worker, "the number of a worker, from 0, or all"},
    {"timeout", set_timeout, "a time up to 60 s: 10, 500ms, 1m"},
};

/* --- on the main thread
 * ---------------------------------------------------------------------------------------------- */

static void free_query(struct lua_query *q)
{
    for (unsigned i = 0; i < q->n_parts; i++)
        policy_chunk_deinit(&q->parts[i].chunk);
    buf_deinit(&q->code);
    list_remove(&q->node);
    free(q);
}

static void post(struct lua_query *q, unsigned i, struct worker_task *task)
{
    list_init(&task->node);
    worker_post(server_worker(q->pending.admin->server, q->parts[i].worker), task);
}

static void on_left(struct pending *pending)
{
    struct lua_query *q = container_of(pending, struct lua_query, pending);
    atomic_fetch_add(&q->left, q->n_parts);
    for (unsigned i = 0; i < q->n_parts; i++)
        post(q, i, &q->parts[i].stop);
}

static int find_silent(const struct pending *pending)
{
    const struct lua_query *q = container_of(pending, struct lua_query, pending);
    for (unsigned i = 0; i < q->n_parts; i++)
        if (!q->parts[i].done)
            return (int)q->parts[i].worker;
    return -1;
}

static void ask(struct lua_query *q, const struct wanted *wanted)
{
    unsigned n = q->n_parts;
    for (unsigned i = 0; i < n; i++) {
        struct part *p = &q->parts[i];
        p->query = q;
        p->worker = wanted->all ? i : (unsigned)wanted->worker;
        p->run.run = run_part;
        p->stop.run = stop_part;
        p->chunk = (struct policy_chunk){.code = buf_bytes(&q->code),
                                         .n = buf_len(&q->code),
                                         .patience_ms = wanted->patience_ms,
                                         .done = on_chunk_done};
    }
    for (unsigned i = 0; i < n; i++)
        post(q, i, &q->parts[i].run);
}

/* " from ADDRESS", or nothing over a UNIX socket. */
static const char *format_from(const struct request *r, char *buf, size_t cap)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->http, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct addr from = {0};
    char text[ADDR_TEXT_MAX];
    buf[0] = '\0';
    if (!info || !info->client_addr || r->admin->rules.bound.sa.sa_family == AF_UNIX)
        return buf;
    bool six = info->client_addr->sa_family == AF_INET6;
    memcpy(&from.sa, info->client_addr,
           six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    snprintf(buf, cap, " from %s", addr_format(&from, text, sizeof text));
    return buf;
}

/* Who has control leaves a trace; an empty chunk asks whether there is a prompt. Its bytes may hold
 * zeros: they are the log's to escape. */
static void log_chunk(const struct request *r, const struct wanted *w)
{
    char line[LOGGED_BYTES + ADDR_TEXT_MAX + 128], which[32] = "all workers";
    char from[ADDR_TEXT_MAX + 8];
    size_t n = buf_len(&r->body), blanks = 0;
    while (blanks < n && strchr(" \t\r\n\v\f", buf_bytes(&r->body)[blanks]) &&
           buf_bytes(&r->body)[blanks])
        blanks++;
    if (!n)
        return;
    if (!w->all)
        snprintf(which, sizeof which, "worker %u", (unsigned)w->worker);
    size_t len = (size_t)snprintf(line, sizeof line, "admin: Lua in %s%s, %zu bytes: ", which,
                                  format_from(r, from, sizeof from), n);
    size_t told = n - blanks < LOGGED_BYTES ? n - blanks : LOGGED_BYTES;
    memcpy(line + len, buf_bytes(&r->body) + blanks, told);
    len += told;
    if (told < n - blanks)
        len += (size_t)snprintf(line + len, sizeof line - len, "…");
    log_bytes(LOG_WARN, 0, line, len);
}

void lua_run(struct request *r)
{
    struct server_status s;
    server_get_status(r->admin->server, &s);
    struct wanted wanted = {.n_workers = s.workers, .patience_ms = PATIENCE_MS};
    if (!r->admin->lua) {
        request_fail(r, MHD_HTTP_FORBIDDEN,
                     "the Lua prompt is off: start penstock with --admin-lua to have it");
        return;
    }
    if (!request_arguments(r, arguments, sizeof arguments / sizeof *arguments, &wanted))
        return;
    unsigned n = wanted.all ? s.workers : 1;
    struct lua_query *q = calloc(1, sizeof *q + n * sizeof *q->parts);
    if (!q) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return;
    }
    if (!pending_begin(&q->pending, r, wanted.patience_ms + ADMIN_WORKERS_MS)) {
        free(q);
        return;
    }
    log_chunk(r, &wanted);
    q->pending.silent = find_silent;
    q->pending.left = on_left;
    q->code = r->body; /* the query may outlive the request */
    buf_init(&r->body);
    q->n_parts = n;
    q->left = n;
    list_push(&r->admin->prompts, &q->node);
    ask(q, &wanted);
}

static void put_bytes(struct json *j, const char *key, const struct buf *b, bool is)
{
    json_bytes(j, key, !is ? NULL : buf_len(b) ? buf_bytes(b) : "", buf_len(b));
}

static void write_part(struct json *j, const struct part *p)
{
    const struct policy_chunk *c = &p->chunk;
    json_begin_object(j, NULL);
    json_uint(j, "worker", p->worker);
    put_bytes(j, "output", &c->output, true);
    json_bool(j, "truncated", c->cut);
    put_bytes(j, "result", &c->result, c->n_results > 0);
    put_bytes(j, "error", &c->error, buf_len(&c->error) > 0);
    json_bool(j, "incomplete", c->incomplete);
    json_end_object(j);
}

static void answer(struct lua_query *q, struct request *r)
{
    struct json j;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_begin_list(&j, "results");
    for (unsigned i = 0; i < q->n_parts; i++) {
        if (q->parts[i].without) {
            request_fail(r, MHD_HTTP_CONFLICT,
                         "there is no policy, and so no Lua: start penstock with -p FILE, where "
                         "FILE may be as short as: return {}");
            return;
        }
        if (q->parts[i].refused) {
            request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "penstock stops");
            return;
        }
        write_part(&j, &q->parts[i]);
    }
    json_end_list(&j);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

void lua_collect(struct admin *a)
{
    list_for_each (node, tmp, &a->prompts) {
        struct lua_query *q = container_of(node, struct lua_query, node);
        if (atomic_load(&q->left))
            continue;
        struct request *r = pending_end(&q->pending);
        if (r)
            answer(q, r);
        free_query(q);
    }
}
