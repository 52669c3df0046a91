/* The filters of a connection's directions, and the streams of its hooks.
 *
 * The filters of a direction form a pipeline: the first reads from the relay's source, the last
 * writes to its destination, a queue lies between each two. One that returns is taken out of it:
 * its neighbours are joined, and when all have returned, C relays the rest. */
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/proxy/config.h"
#include "socket_priv.h"
#include "stream_priv.h"

struct filter {
    struct script_stream *rd, *wr; /* NULL before its task has made them, and once it is over */
    struct task *task;
};

struct filters {
    size_t n, running;
    struct stream_queue *queues; /* n - 1: behind each filter but the last */
    struct filter list[];
};

/* ---- streams of the sides ---- */

static struct relay *relay_of(struct script_conn *s, int dir)
{
    return conn_relay(s->conn, (enum relay_direction)dir);
}

/* Who had this end so far has it no more. */
static void take_reader(struct script_conn *c, int dir, struct script_stream *s)
{
    struct script_stream *old = c->readers[dir];
    if (old)
        old->in = NULL;
    if (old && !old->out && !old->out_queue)
        lib_stream_detach(old);
    c->readers[dir] = s;
    if (s) {
        s->script = c;
        lib_stream_set_source(s, relay_of(c, dir), NULL);
    }
}

static void take_writer(struct script_conn *c, int dir, struct script_stream *s)
{
    if (c->writers[dir])
        c->writers[dir]->out = NULL;
    c->writers[dir] = s;
    if (s) {
        s->script = c;
        lib_stream_set_destination(s, relay_of(c, dir), NULL);
    }
}

static void release_stream(struct script_conn *c, struct script_stream *s)
{
    for (int dir = RELAY_UP; dir <= RELAY_DOWN; dir++) {
        if (c->readers[dir] == s)
            c->readers[dir] = NULL;
        if (c->writers[dir] == s)
            c->writers[dir] = NULL;
    }
    lib_stream_detach(s);
}

void lib_stream_push_side(lua_State *L, struct script_conn *c, enum conn_side side)
{
    struct script_stream *s = lib_stream_push_new(L, c->vm, true);
    int from = side == SIDE_CLIENT ? RELAY_UP : RELAY_DOWN;
    if (c->readers[from]) /* of an earlier hook, which may have had both of its ends */
        release_stream(c, c->readers[from]);
    take_reader(c, from, s);
    take_writer(c, from == RELAY_UP ? RELAY_DOWN : RELAY_UP, s);
}

struct script_stream *lib_stream_client(lua_State *L, struct script_conn *c)
{
    if (!c->readers[RELAY_UP]) {
        take_reader(c, RELAY_UP, lib_stream_push_new(L, c->vm, true));
        lua_pop(L, 1);
    }
    return c->readers[RELAY_UP];
}

void lib_stream_detach_sides(struct script_conn *c)
{
    for (int dir = RELAY_UP; dir <= RELAY_DOWN; dir++) {
        struct script_stream *rd = c->readers[dir], *wr = c->writers[dir];
        if (rd)
            release_stream(c, rd);
        if (wr && wr != rd && c->writers[dir])
            release_stream(c, wr);
    }
}

/* ---- the pipeline ---- */

static void free_filters(struct filters *f)
{
    if (!f)
        return;
    for (size_t i = 0; i + 1 < f->n; i++)
        buf_deinit(&f->queues[i].bytes);
    free(f->queues);
    free(f);
}

static struct filters *new_filters(size_t n)
{
    struct filters *f = calloc(1, sizeof *f + n * sizeof f->list[0]);
    if (!f)
        return NULL;
    f->n = n;
    f->queues = n > 1 ? calloc(n - 1, sizeof *f->queues) : NULL;
    if (n > 1 && !f->queues) {
        free_filters(f);
        return NULL;
    }
    return f;
}

/* Makes the streams of all filters before the first one runs: any of them may return at once. */
static void make_streams(lua_State *L, struct script_conn *c, int dir, struct filters *f)
{
    for (size_t i = 0; i < f->n; i++) {
        f->list[i].rd = lib_stream_push_new(L, c->vm, true);
        f->list[i].wr = lib_stream_push_new(L, c->vm, false);
        lua_pop(L, 2); /* anchored */
        f->list[i].rd->script = f->list[i].wr->script = c;
    }
    take_reader(c, dir, f->list[0].rd);
    for (size_t i = 0; i + 1 < f->n; i++) {
        lib_stream_set_destination(f->list[i].wr, NULL, &f->queues[i]);
        lib_stream_set_source(f->list[i + 1].rd, NULL, &f->queues[i]);
    }
    take_writer(c, dir, f->list[f->n - 1].wr);
}

/* Pushes the filter, its connection and its streams. */
static int push_filter(lua_State *L, struct task *t)
{
    struct filters *f = t->arg;
    size_t i = t->hook;
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->script_policy->filters[t->dir]);
    lua_rawgeti(L, -1, (int)i + 1);
    lua_remove(L, -2); // stack: filter
    struct script_conn *c = lib_conn_push(L, t->vm, t->conn);
    t->script = c;
    list_push(&c->tasks, &t->of_conn);
    if (c->filters[t->dir] != f) {
        make_streams(L, c, t->dir, f);
        c->filters[t->dir] = f;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->list[i].rd->ref);
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->list[i].wr->ref); // stack: filter, conn, rd, wr
    return 3;
}

static void finish_filter(lua_State *L, struct task *t, int n)
{
    (void)L;
    (void)n; /* ignored */
    t->relay_verdict = RELAY_PASS;
}

static struct filter *neighbour(struct filters *f, size_t i, int step)
{
    for (ptrdiff_t k = (ptrdiff_t)i + step; k >= 0 && k < (ptrdiff_t)f->n; k += step)
        if (f->list[k].rd)
            return &f->list[k];
    return NULL;
}

/* The queue goes before what the relay's source has. */
static int queue_to_source(struct relay *r, struct stream_queue *q)
{
    int err = relay_unread(r, buf_bytes(&q->bytes), buf_len(&q->bytes));
    buf_deinit(&q->bytes);
    return err;
}

static int append_queue(struct script_stream *wr, struct stream_queue *q)
{
    int err = wr->out ? relay_put(wr->out, buf_bytes(&q->bytes), buf_len(&q->bytes))
                      : buf_append(&wr->out_queue->bytes, buf_bytes(&q->bytes), buf_len(&q->bytes));
    buf_deinit(&q->bytes);
    return err;
}

/* Nothing that comes from before this filter is wanted any more. */
static void cancel_before(struct filters *f, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (f->list[k].task)
            sched_cancel_later(f->list[k].task);
}

static bool has_finished(const struct script_stream *wr)
{
    return wr->out ? wr->out->finishing : wr->out_queue->ended;
}

/* Joins what was before filter i with what comes after it. 0 or a negative errno. */
static int join(struct script_conn *c, int dir, struct filters *f, size_t i)
{
    struct script_stream *rd = f->list[i].rd, *wr = f->list[i].wr;
    struct filter *before = neighbour(f, i, -1), *after = neighbour(f, i, 1);
    int err = 0;
    if (has_finished(wr)) {
        cancel_before(f, i);
        return 0;
    }
    if (rd->in_queue) { /* what waits there goes on, and whoever wrote there writes on behind it */
        struct stream_queue *q = rd->in_queue;
        bool ended = q->ended;
        err = append_queue(wr, q);
        if (ended)
            lib_stream_finish(wr);
        else if (before && wr->out)
            take_writer(c, dir, before->wr);
        else if (before)
            lib_stream_set_destination(before->wr, NULL, wr->out_queue);
        if (after && after->rd->reader)
            sched_wake_later(after->rd->reader);
        q->reader = NULL;
    } else if (after && wr->out_queue && wr->out_queue->reader == after->rd) {
        err = queue_to_source(rd->in, wr->out_queue);
        after->rd->in_queue = NULL;
        take_reader(c, dir, after->rd);
    }
    return err;
}

/* A filter is over, by returning or by an error that is to be passed over. */
static void leave(struct script_conn *c, int dir, size_t i)
{
    struct filters *f = c->filters[dir];
    struct filter *filter = &f->list[i];
    struct conn *conn = c->conn;
    filter->task = NULL;
    int err = join(c, dir, f, i);
    release_stream(c, filter->rd);
    release_stream(c, filter->wr);
    filter->rd = filter->wr = NULL;
    if (err == -ENOMEM) { /* any other error is the connection's own business */
        conn_reset(conn, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    if (--f->running)
        return;
    free_filters(f);
    c->filters[dir] = NULL;
    conn_filtered(conn, (enum relay_direction)dir);
}

static void filter_done(struct task *t, enum task_end end)
{
    struct conn *c = t->conn;
    struct script_conn *script = c->script;
    struct filters *f = t->arg;
    int dir = t->dir;
    size_t i = t->hook;
    bool attached = script && script->filters[dir] == f;
    bool silent = c->ending || (script && script->closing);
    bool pass = end == TASK_RETURNED || t->cancelled || t->script_policy->pass_on_error;
    sched_release(t);
    if (silent || (attached && pass)) {
        if (!silent)
            leave(script, dir, i);
    } else {
        if (!attached) /* it could not even start */
            free_filters(f);
        conn_reset(c, REASON_SCRIPT, SIDE_NONE, "filter");
    }
    conn_drop(c); /* held by start_filter() */
}

#define FILTER(text)                                                                               \
    {                                                                                              \
        .name = text, .push = push_filter, .finish = finish_filter, .done = filter_done,           \
        .counts_as = CALL_FILTER                                                                   \
    }

static const struct task_ops filter_ops[2] = {
    [RELAY_UP] = FILTER("up filter"),
    [RELAY_DOWN] = FILTER("down filter"),
};

#undef FILTER

static bool start_filter(struct script_policy *p, struct conn *c, struct filters *f, int dir,
                         size_t i)
{
    struct task *t = sched_take(p->vm, &filter_ops[dir]);
    if (!t) {
        log_line(LOG_ERROR, c->id, "out of memory for the %s", filter_ops[dir].name);
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return false;
    }
    t->script_policy = p;
    t->conn = c;
    t->arg = f;
    t->hook = (uint8_t)i;
    t->dir = (uint8_t)dir;
    f->list[i].task = t;
    conn_hold(c); /* dropped in filter_done() */
    enum task_end end = sched_start(t);
    if (end != TASK_WAITS)
        filter_done(t, end);
    return true;
}

void filter_start(struct policy *policy, struct conn *c, enum relay_direction dir)
{
    struct script_policy *p = (struct script_policy *)policy;
    size_t n = p->n_filters[dir];
    struct filters *f = new_filters(n);
    struct script_conn *script = c->script;
    if (!f) {
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    if (script && script->readers[dir])
        release_stream(script, script->readers[dir]);
    f->running = n;
    size_t i = 0;
    do {
        if (!start_filter(p, c, f, dir, i)) {
            if (i == 0)
                free_filters(f);
            break;
        }
        script = c->script;
        if (!script || script->filters[dir] != f || script->closing)
            break; /* all have returned, or the end has come */
    } while (++i < n && !c->ending);
    vm_settle(p->vm);
}

void filter_stop(struct script_conn *c, enum relay_direction dir)
{
    struct filters *f = c->filters[dir];
    for (size_t i = 0; f && i < f->n; i++)
        if (f->list[i].task)
            sched_cancel_later(f->list[i].task);
}

bool filter_input(struct policy *policy, struct conn *c, enum relay_direction dir)
{
    (void)policy;
    struct script_conn *s = c->script;
    return s && s->readers[dir] && lib_stream_on_input(s->readers[dir]);
}

void filter_room(struct policy *policy, struct conn *c, enum relay_direction dir)
{
    (void)policy;
    struct script_conn *s = c->script;
    if (s && s->writers[dir])
        lib_stream_on_room(s->writers[dir]);
}

static bool waits_for_input(const struct script_stream *rd)
{
    return rd->reader && list_is_empty(&rd->reader->ready_node);
}

bool filter_starved(struct policy *policy, struct conn *c, enum relay_direction dir)
{
    (void)policy;
    struct script_conn *s = c->script;
    struct filters *f = s ? s->filters[dir] : NULL;
    for (size_t i = 0; f && i < f->n; i++)
        if (f->list[i].task && !waits_for_input(f->list[i].rd))
            return false;
    return f || !s || !s->readers[dir] || waits_for_input(s->readers[dir]);
}

/* ---- the end ---- */

void lib_stream_forget(struct vm *vm, struct script_conn *c)
{
    (void)vm;
    for (int dir = RELAY_UP; dir <= RELAY_DOWN; dir++) {
        struct filters *f = c->filters[dir];
        for (size_t i = 0; f && i < f->n; i++) {
            if (f->list[i].rd)
                release_stream(c, f->list[i].rd);
            if (f->list[i].wr)
                release_stream(c, f->list[i].wr);
        }
        free_filters(f);
        c->filters[dir] = NULL;
    }
    lib_stream_detach_sides(c);
    lib_socket_leave_all(&c->sockets);
    list_remove(&c->dirty_node);
}
