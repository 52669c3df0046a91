/* Connections: listed and killed. They live on the workers' threads: a query has a part for each
 * worker, which looks through its own connections and writes those that fit as JSON; the main
 * thread puts the parts together in the order of ids. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "conn_json.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/networks.h"
#include "penstock/base/units.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/worker.h"
#include "rates.h"

enum {
    PAGE = 100, /* connections in an answer, where it is not said */
    PAGE_MAX = 1000,
    NETWORKS_MAX = 64,        /* in a filter: each connection is held against all of them */
    KILLS = 256,              /* in one go: more would hold up those that stay */
    PART_BYTES_MAX = 1 << 20, /* of a worker's part: with many tags it is less than a page */
};

/* Which connections. */
struct filter {
    uint64_t id;    /* 0: any */
    uint64_t after; /* ids above it */
    uint64_t until; /* ids up to it: who comes later is not killed */
    uint64_t min_age_ms;
    uint64_t min_rate; /* bytes a second, both directions together; 0: any */
    char *listener;    /* name; NULL: any */
    struct networks *client;
    char *tag, *tag_value; /* tag_value: NULL when any will do */
};

struct row {
    uint64_t id;
    size_t end; /* of its JSON in the part's bytes */
};

struct part {
    struct worker_task task;
    struct query *query;
    struct buf json;
    struct row *rows;
    size_t n;
    uint64_t killed;
    bool more;   /* there are others behind these */
    bool failed; /* out of memory */
    atomic_bool done;
};

struct query {
    struct list node; /* in admin->queries */
    struct pending pending;
    struct filter filter;
    uint64_t limit;
    bool kill, all;
    enum { ASKED, QUEUED, NOTING, PAUSED } state;
    bool rates;       /* it measures them: QUEUED (perhaps), NOTING, PAUSED, and then ASKED */
    uint64_t due_ns;  /* PAUSED: until then */
    atomic_uint left; /* parts that are not done */
    unsigned n_parts;
    struct part parts[];
};

/* --- on the worker's thread
 * ------------------------------------------------------------------------------------ */

static bool has_tag(const struct conn *c, const struct filter *f)
{
    for (const struct conn_tag *t = c->tags; t; t = t->next)
        if (strcmp(t->text, f->tag) == 0)
            return !f->tag_value || strcmp(t->value, f->tag_value) == 0;
    return false;
}

static bool fits(const struct conn *c, const struct filter *f)
{
    return !conn_is_closed(c) && c->id > f->after && c->id <= f->until &&
           (!f->id || c->id == f->id) && conn_json_age_ms(c) >= f->min_age_ms &&
           (!f->listener || strcmp(conn_listener_name(c), f->listener) == 0) &&
           (!f->client || networks_has(f->client, &c->client_addr)) && (!f->tag || has_tag(c, f)) &&
           (!f->min_rate || rates_of(c, RELAY_UP) + rates_of(c, RELAY_DOWN) >= f->min_rate);
}

/* False when no more go into the part. */
static bool add_row(struct part *p, const struct conn *c)
{
    struct json j;
    if (p->n == p->query->limit || buf_len(&p->json) >= PART_BYTES_MAX) {
        p->more = true;
        return false;
    }
    json_init(&j, &p->json);
    conn_json_write(&j, c, p->query->rates);
    p->failed |= j.failed;
    p->rows[p->n++] = (struct row){c->id, buf_len(&p->json)};
    return !p->failed;
}

static void kill_conn(struct part *p, struct conn *c)
{
    conn_hold(c); /* dropped below: the close may be the end of it */
    conn_reset(c, REASON_KILLED, SIDE_NONE, "admin");
    conn_drop(c);
    p->killed++;
}

/* False when there may be others left. */
static bool kill_some(struct part *p, struct worker *w)
{
    unsigned n = 0;
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        if (!fits(c, &p->query->filter))
            continue;
        if (n++ == KILLS)
            return false;
        kill_conn(p, c);
    }
    return true;
}

static void look(struct part *p, struct worker *w)
{
    const struct query *q = p->query;
    p->rows = malloc(q->limit * sizeof *p->rows);
    p->failed = !p->rows;
    if (p->failed)
        return;
    list_for_each (node, tmp, &w->conns) { /* in the order of ids */
        const struct conn *c = container_of(node, struct conn, node);
        if (fits(c, &q->filter) && !add_row(p, c))
            return;
    }
}

static void run_part(struct worker_task *task, struct worker *w)
{
    struct part *p = container_of(task, struct part, task);
    struct query *q = p->query;
    struct admin *a = q->pending.admin; /* outlives all workers, as the query does not */
    bool noting = q->state == NOTING;
    if (w && !noting && q->kill && !kill_some(p, w)) {
        worker_post(w, task); /* after those whose turn it is */
        return;
    }
    if (w && noting)
        rates_note(w);
    else if (w && !q->kill)
        look(p, w);
    p->done = true;
    if (atomic_fetch_sub(&q->left, 1) == 1)
        uv_async_send(&a->answered);
}

/* --- the filter
 * ------------------------------------------------------------------------------------------------
 */

static void free_query(struct query *q)
{
    for (unsigned i = 0; i < q->n_parts; i++) {
        buf_deinit(&q->parts[i].json);
        free(q->parts[i].rows);
    }
    networks_drop(q->filter.client);
    free(q->filter.listener);
    free(q->filter.tag);
    list_remove(&q->node);
    free(q);
}

static int set_listener(void *arg, const struct text *value)
{
    struct query *q = arg;
    free(q->filter.listener);
    q->filter.listener = text_is_whole(value) ? strdup(value->bytes) : NULL;
    return q->filter.listener ? 0 : text_is_whole(value) ? -ENOMEM : -EINVAL;
}

static size_t count_networks(const char *list)
{
    size_t n = 1;
    for (const char *c = list; *c; c++)
        n += *c == ',';
    return n;
}

static int set_client(void *arg, const struct text *value)
{
    struct query *q = arg;
    networks_drop(q->filter.client);
    q->filter.client = NULL;
    if (!text_is_whole(value) || count_networks(value->bytes) > NETWORKS_MAX)
        return -EINVAL;
    return networks_parse(value->bytes, &q->filter.client);
}

static int set_tag(void *arg, const struct text *value)
{
    struct query *q = arg;
    free(q->filter.tag);
    q->filter.tag = text_is_whole(value) ? strdup(value->bytes) : NULL;
    if (!q->filter.tag)
        return text_is_whole(value) ? -ENOMEM : -EINVAL;
    char *equals = strchr(q->filter.tag, '=');
    q->filter.tag_value = equals ? equals + 1 : NULL;
    if (equals)
        *equals = '\0';
    return *q->filter.tag ? 0 : -EINVAL;
}

static int set_min_age(void *arg, const struct text *value)
{
    struct query *q = arg;
    return text_is_whole(value) ? units_parse_time_ms(value->bytes, &q->filter.min_age_ms)
                                : -EINVAL;
}

static int set_min_rate(void *arg, const struct text *value)
{
    struct query *q = arg;
    q->rates = true;
    return text_is_whole(value) ? units_parse_size(value->bytes, &q->filter.min_rate) : -EINVAL;
}

static int set_rates(void *arg, const struct text *value)
{
    struct query *q = arg;
    bool is_true = text_is_whole(value) && strcmp(value->bytes, "true") == 0;
    q->rates |= is_true;
    return is_true ? 0 : -EINVAL;
}

static int set_after(void *arg, const struct text *value)
{
    struct query *q = arg;
    return text_is_whole(value) ? units_parse_uint(value->bytes, 0, UINT64_MAX, &q->filter.after)
                                : -EINVAL;
}

static int set_limit(void *arg, const struct text *value)
{
    struct query *q = arg;
    return text_is_whole(value) ? units_parse_uint(value->bytes, 1, PAGE_MAX, &q->limit) : -EINVAL;
}

static int set_all(void *arg, const struct text *value)
{
    struct query *q = arg;
    q->all = text_is_whole(value) && strcmp(value->bytes, "true") == 0;
    return q->all ? 0 : -EINVAL;
}

/* GET /v1/connections */
static const struct argument listing[] = {
    {"listener", set_listener, "the name of a listener"},
    {"client", set_client, "a network, or up to 64: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1, unix"},
    {"tag", set_tag, "KEY or KEY=VALUE"},
    {"min_age", set_min_age, "a time: 30, 500ms, 2m or 1h"},
    {"min_rate", set_min_rate, "bytes a second: 1000, 64K or 1M"},
    {"rates", set_rates, "true"},
    {"after", set_after, "the id of a connection"},
    {"limit", set_limit, "1 to 1000"},
};

/* POST /v1/connections/kill */
static const struct argument killing[] = {
    {"listener", set_listener, "the name of a listener"},
    {"client", set_client, "a network, or up to 64: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1, unix"},
    {"tag", set_tag, "KEY or KEY=VALUE"},
    {"min_age", set_min_age, "a time: 30, 500ms, 2m or 1h"},
    {"min_rate", set_min_rate, "bytes a second: 1000, 64K or 1M"},
    {"all", set_all, "true"},
};

/* --- on the main thread
 * ---------------------------------------------------------------------------------------------- */

static int find_silent(const struct pending *pending)
{
    const struct query *q = container_of(pending, struct query, pending);
    if (q->state != ASKED && q->state != NOTING)
        return -1;
    for (unsigned i = 0; i < q->n_parts; i++)
        if (!q->parts[i].done)
            return (int)i;
    return -1;
}

/* NULL when it was refused. */
static struct query *new_query(struct request *r, bool kill)
{
    struct server_status s;
    server_get_status(r->admin->server, &s);
    struct query *q = calloc(1, sizeof *q + s.workers * sizeof *q->parts);
    if (!q) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return NULL;
    }
    *q = (struct query){.pending = {.silent = find_silent}, .limit = PAGE, .kill = kill};
    q->filter.until = kill ? s.served : UINT64_MAX;
    q->n_parts = s.workers;
    list_push(&r->admin->queries, &q->node);
    return q;
}

static void ask(struct query *q, int state)
{
    unsigned n = q->n_parts;
    q->state = state;
    q->left = n;
    for (unsigned i = 0; i < n; i++) {
        q->parts[i].query = q;
        q->parts[i].done = false;
        q->parts[i].task.run = run_part;
        list_init(&q->parts[i].task.node);
        worker_post(server_worker(q->pending.admin->server, i), &q->parts[i].task);
    }
}

/* Those that measure rates share the notes on connections: nobody makes new ones while another
 * counts on the old. */
static void begin_rates(struct query *q)
{
    if (q->pending.admin->n_rating) {
        q->state = QUEUED;
        return;
    }
    q->pending.admin->n_rating++;
    ask(q, NOTING);
}

static void begin_queued(struct admin *a)
{
    unsigned n = 0;
    list_for_each (node, tmp, &a->queries) {
        struct query *q = container_of(node, struct query, node);
        if (q->state != QUEUED)
            continue;
        n++;
        ask(q, NOTING);
    }
    a->n_rating = n;
}

/* The notes are made. */
static void pause_query(struct query *q)
{
    struct admin *a = q->pending.admin;
    q->state = PAUSED;
    q->due_ns = clock_now_ns() + RATES_MS * UINT64_C(1000000);
    if (!uv_is_active((uv_handle_t *)&a->pause))
        uv_timer_start(&a->pause, a->pause.timer_cb, RATES_MS, 0);
}

void conns_resume(struct admin *a)
{
    uint64_t now = clock_now_ns(), next = UINT64_MAX;
    list_for_each (node, tmp, &a->queries) {
        struct query *q = container_of(node, struct query, node);
        if (q->state == PAUSED && q->due_ns <= now)
            ask(q, ASKED);
        else if (q->state == PAUSED && q->due_ns < next)
            next = q->due_ns;
    }
    if (next != UINT64_MAX)
        uv_timer_start(&a->pause, a->pause.timer_cb, (next - now) / 1000000 + 1, 0);
}

static void start(struct request *r, bool kill)
{
    struct query *q = new_query(r, kill);
    if (!q)
        return;
    const struct filter *f = &q->filter;
    bool good = kill ? request_arguments(r, killing, sizeof killing / sizeof *killing, q)
                     : request_arguments(r, listing, sizeof listing / sizeof *listing, q);
    if (good && kill && !f->listener && !f->client && !f->tag && !f->min_age_ms && !f->min_rate &&
        !q->all) {
        request_fail(r, MHD_HTTP_BAD_REQUEST,
                     "which ones? listener, client, tag, min_age or min_rate above 0, or all=true");
        good = false;
    }
    if (!good || !pending_begin(&q->pending, r, ADMIN_WORKERS_MS))
        free_query(q);
    else if (q->rates)
        begin_rates(q);
    else
        ask(q, ASKED);
}

void conns_list(struct request *r)
{
    start(r, false);
}

void conns_kill(struct request *r)
{
    start(r, true);
}

void conns_kill_one(struct request *r)
{
    struct query *q = request_arguments(r, NULL, 0, NULL) ? new_query(r, true) : NULL;
    if (!q)
        return;
    q->filter.id = r->id;
    if (pending_begin(&q->pending, r, ADMIN_WORKERS_MS))
        ask(q, ASKED);
    else
        free_query(q);
}

/* The part whose next connection has the least id; NULL when there is none, or when one that is at
 * its end has others behind it that were not told. */
static struct part *least(struct query *q, const size_t *at)
{
    struct part *best = NULL;
    for (unsigned i = 0; i < q->n_parts; i++) {
        struct part *p = &q->parts[i];
        if (at[i] == p->n && p->more)
            return NULL;
        if (at[i] < p->n && (!best || p->rows[at[i]].id < best->rows[at[best - q->parts]].id))
            best = p;
    }
    return best;
}

static bool has_more(const struct query *q, const size_t *at)
{
    for (unsigned i = 0; i < q->n_parts; i++)
        if (at[i] < q->parts[i].n || q->parts[i].more)
            return true;
    return false;
}

/* Appends the JSON of row `k` as it was written. */
static void copy_row(struct json *j, const struct part *p, size_t k)
{
    size_t from = k ? p->rows[k - 1].end : 0;
    bool failed = (j->comma && buf_append(j->out, ",", 1)) ||
                  buf_append(j->out, buf_bytes(&p->json) + from, p->rows[k].end - from);
    j->failed |= failed;
    j->comma = true;
}

static void write_list(struct query *q, struct json *j, size_t *at)
{
    uint64_t last = 0;
    json_begin_object(j, NULL);
    json_begin_list(j, "connections");
    for (uint64_t n = 0; n < q->limit; n++) {
        struct part *p = least(q, at);
        if (!p)
            break;
        size_t k = at[p - q->parts]++;
        copy_row(j, p, k);
        last = p->rows[k].id;
    }
    json_end_list(j);
    if (has_more(q, at))
        json_uint(j, "next", last);
    else
        json_null(j, "next");
    json_end_object(j);
}

static void answer_list(struct query *q, struct request *r)
{
    struct json j;
    size_t *at = calloc(q->n_parts, sizeof *at);
    bool failed = !at;
    for (unsigned i = 0; i < q->n_parts; i++)
        failed |= q->parts[i].failed;
    if (failed || !at) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
    } else {
        json_init(&j, &r->out);
        write_list(q, &j, at);
        request_answer_json(r, MHD_HTTP_OK, &j);
    }
    free(at);
}

static void answer_kill(struct query *q, struct request *r)
{
    struct json j;
    uint64_t killed = 0;
    for (unsigned i = 0; i < q->n_parts; i++)
        killed += q->parts[i].killed;
    if (killed)
        log_info("admin: %" PRIu64 " connection%s killed", killed, killed == 1 ? "" : "s");
    if (!r)
        return;
    if (q->filter.id && !killed) {
        request_fail(r, MHD_HTTP_NOT_FOUND, "there is no connection %" PRIu64, q->filter.id);
        return;
    }
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, "killed", killed);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

static void answer(struct query *q)
{
    struct request *r = pending_end(&q->pending);
    if (q->kill)
        answer_kill(q, r);
    else if (r)
        answer_list(q, r);
}

static void end(struct query *q)
{
    struct admin *a = q->pending.admin;
    bool rates = q->rates;
    answer(q);
    free_query(q);
    if (rates && --a->n_rating == 0)
        begin_queued(a);
}

void conns_collect(struct admin *a)
{
    list_for_each (node, tmp, &a->queries) {
        struct query *q = container_of(node, struct query, node);
        if ((q->state != ASKED && q->state != NOTING) || atomic_load(&q->left))
            continue;
        if (q->state == NOTING)
            pause_query(q);
        else
            end(q);
    }
}

void conns_cancel(struct admin *a)
{
    list_for_each (node, tmp, &a->queries) {
        struct query *q = container_of(node, struct query, node);
        struct request *r = q->state == ASKED ? NULL : pending_end(&q->pending);
        if (q->state == ASKED)
            answer(q);
        else if (r)
            request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "penstock has ended");
        free_query(q);
    }
}
