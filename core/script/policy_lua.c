/* struct policy in Lua: which hook runs when, with which arguments, and what becomes of its answer.
 *
 * A hook that waits holds its connection (conn_hold in wait_for, conn_drop in on_waited). */
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/net/tls.h"
#include "penstock/net/tls_cert.h"
#include "script_priv.h"

static const char *const hook_names[HOOK_COUNT] = {
#define X(name, lua) lua,
    POLICY_HOOKS(X)
#undef X
};

const char *policy_hook_name(enum policy_hook hook)
{
    return hook_names[hook];
}

static struct script_policy *script_policy(struct policy *p)
{
    return (struct script_policy *)p; /* its first member */
}

static struct vm *vm_from(struct policy *p)
{
    return script_policy(p)->vm;
}

/* Pushes hook function and connection, and lists the task there. */
static struct script_conn *push_hook(lua_State *L, struct task *t)
{
    struct vm *vm = t->vm;
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->script_policy->hooks[t->hook]);
    t->script = lib_conn_push(L, vm, t->conn); // stack: …, hook, conn
    list_push(&t->script->tasks, &t->of_conn);
    return t->script;
}

/* ---- accept, connect, failed, connected ---- */

static int push_decide(lua_State *L, struct task *t)
{
    push_hook(L, t);
    if (t->hook == HOOK_SNI) {
        lua_pushstring(L, tls_asked_name(&t->conn->client));
        return 2; // stack: hook, conn, name
    }
    if (t->hook != HOOK_FAILED)
        return 1;
    char text[256];
    lua_pushstring(L, conn_upstream_text(t->conn, text, sizeof text));
    lua_pushstring(L, err_word(t->conn->failed_err));
    const char *detail = t->conn->failed_hop ? t->conn->failed_hop : t->conn->failed_why;
    if (detail)
        lua_pushstring(L, detail);
    else
        lua_pushstring(L, err_text(t->conn->failed_err));
    return 4; // stack: hook, conn, destination, error, detail
}

static void finish_decide(lua_State *L, struct task *t, int n)
{
    (void)n;
    verdict_read(L, t);
}

/* ---- handshake, serve ---- */

static int push_handshake(lua_State *L, struct task *t)
{
    bool preamble = t->conn->preamble;
    if (preamble)
        lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->replay);
    struct script_conn *c = push_hook(L, t);
    lib_stream_push_side(L, c, SIDE_CLIENT);
    lib_stream_push_side(L, c, SIDE_UPSTREAM); // stack: …, hook (or nil), conn, client, upstream
    return preamble ? 4 : 3;
}

static int push_serve(lua_State *L, struct task *t)
{
    lib_stream_push_side(L, push_hook(L, t), SIDE_CLIENT); // stack: hook, conn, client
    return 2;
}

/* ---- data ---- */

static int push_data(lua_State *L, struct task *t)
{
    push_hook(L, t);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->dirs[t->dir]);
    lua_pushlstring(L, t->bytes, t->n_bytes); // stack: hook, conn, direction, chunk
    return 3;
}

static bool ended(const struct task *t)
{
    return t->cancelled || t->script->closing || conn_is_closed(t->conn);
}

/* Sends the chunk on as it was. */
static void write_unchanged(lua_State *L, struct task *t, struct relay *r)
{
    const char *bytes = t->bytes;
    size_t n = t->n_bytes;
    if (t->chunk_ref != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, t->chunk_ref);
        bytes = lua_tolstring(L, -1, &n);
    }
    relay_write(r, bytes, n);
}

static void finish_data(lua_State *L, struct task *t, int n)
{
    if (ended(t))
        return;
    struct relay *r = conn_relay(t->conn, (enum relay_direction)t->dir);
    int type = n ? lua_type(L, 1) : LUA_TNIL;
    if (type == LUA_TNIL) {
        write_unchanged(L, t, r);
    } else if (type == LUA_TSTRING) {
        size_t len;
        const char *bytes = lua_tolstring(L, 1, &len);
        if (len)
            relay_write(r, bytes, len);
    } else {
        lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->pass);
        if (!lua_rawequal(L, 1, -1))
            verdict_nonsense(
                L, "data",
                "it returns nothing to send the chunk on unchanged, a string to send instead (\"\" "
                "drops it), or ps.PASS; conn:close() and conn:reset() end the connection");
        write_unchanged(L, t, r);
        t->relay_verdict = RELAY_PASS;
        return;
    }
    t->relay_verdict = t->script->passed[t->dir] ? RELAY_PASS : RELAY_GO_ON;
}

/* ---- close ---- */

static void set_number(lua_State *L, const char *key, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value ? value : "");
    lua_setfield(L, -2, key);
}

static int push_close(lua_State *L, struct task *t)
{
    const struct conn_info *info = t->info;
    push_hook(L, t);
    lua_createtable(L, 0, 8); // stack: hook, conn, info
    set_string(L, "reason", info->reason_word);
    set_string(L, "side", info->side);
    set_string(L, "detail", info->detail);
    set_number(L, "bytes_up", (double)info->bytes_up);
    set_number(L, "bytes_down", (double)info->bytes_down);
    set_number(L, "duration", (double)info->duration_us / 1e6);
    if (info->connect_us >= 0)
        set_number(L, "connect_time", (double)info->connect_us / 1e6);
    return 2;
}

static void finish_close(lua_State *L, struct task *t, int n)
{
    (void)L;
    (void)t;
    (void)n; /* ignored */
}

/* ---- running them ---- */

/* The hook waits: hold the connection until on_waited(). */
static enum policy_step wait_for(struct task *t)
{
    t->held = true;
    t->info = NULL;
    conn_hold(t->conn);
    vm_settle(t->vm);
    return POLICY_WAIT;
}

/* What a hook decided comes too late. */
static void drop_verdict(struct verdict *v)
{
    targets_drop(v->targets);
    tls_cert_drop(v->cert);
    buf_deinit(&v->reply);
}

/* The streams that a hook was given end with it. */
static void end_streams(struct task *t)
{
    if (t->script && (t->hook == HOOK_HANDSHAKE || t->hook == HOOK_SERVE))
        lib_stream_detach_sides(t->script);
}

static bool decides(enum policy_hook hook)
{
    return hook != HOOK_DATA && hook != HOOK_CLOSE;
}

/* A hook that waited is over: tell the connection, unless that has ended. */
static void on_waited(struct task *t, enum task_end end)
{
    struct conn *c = t->conn;
    enum policy_hook hook = (enum policy_hook)t->hook;
    enum relay_direction dir = (enum relay_direction)t->dir;
    enum relay_verdict relay_verdict = (enum relay_verdict)t->relay_verdict;
    struct verdict verdict = decides(hook) ? t->extra->verdict : (struct verdict){0};
    bool silent = ended(t);
    (void)end;

    end_streams(t);
    sched_release(t);
    if (silent) {
        drop_verdict(&verdict);
    } else if (hook == HOOK_DATA) {
        conn_data_decided(c, dir, relay_verdict);
    } else if (decides(hook)) {
        conn_decided(c, hook, &verdict);
    }
    conn_drop(c);
}

#define HOOK(hook, text, push_it, finish_it)                                                       \
    [hook] = {.name = text,                                                                        \
              .push = push_it,                                                                     \
              .finish = finish_it,                                                                 \
              .done = on_waited,                                                                   \
              .counts_as = CALL_HOOK + (hook)}

static const struct task_ops hook_ops[HOOK_COUNT] = {
    HOOK(HOOK_ACCEPT, "accept hook", push_decide, finish_decide),
    HOOK(HOOK_SNI, "sni hook", push_decide, finish_decide),
    HOOK(HOOK_CONNECT, "connect hook", push_decide, finish_decide),
    HOOK(HOOK_FAILED, "failed hook", push_decide, finish_decide),
    HOOK(HOOK_CONNECTED, "connected hook", push_decide, finish_decide),
    HOOK(HOOK_HANDSHAKE, "handshake hook", push_handshake, finish_decide),
    HOOK(HOOK_SERVE, "serve hook", push_serve, finish_decide),
    HOOK(HOOK_DATA, "data hook", push_data, finish_data),
    HOOK(HOOK_CLOSE, "close hook", push_close, finish_close),
};

#undef HOOK

/* A task for `hook`, whose answer is an error until it has given another. */
static struct task *take(struct policy *p, struct conn *c, enum policy_hook hook)
{
    struct task *t = sched_take(vm_from(p), &hook_ops[hook]);
    if (t && decides(hook) && !sched_extra(t)) {
        sched_release(t);
        t = NULL;
    }
    if (!t) {
        log_line(LOG_ERROR, c->id, "out of memory for the %s", hook_ops[hook].name);
        return NULL;
    }
    t->script_policy = script_policy(p);
    t->conn = c;
    t->hook = (uint8_t)hook;
    t->relay_verdict = RELAY_FAIL;
    if (decides(hook))
        t->extra->verdict = (struct verdict){.kind = VERDICT_ERROR};
    return t;
}

/* The script has asked for the end of this connection, which comes as soon as Lua is left. */
static bool is_closing(const struct conn *c)
{
    const struct script_conn *script = c->script;
    return script && script->closing;
}

static enum policy_step decide(struct policy *p, struct conn *c, enum policy_hook hook,
                               struct verdict *out)
{
    struct vm *vm = vm_from(p);
    *out = (struct verdict){.kind = VERDICT_CONTINUE};
    if (is_closing(c) || !conn_has_hook(c, hook))
        return POLICY_DONE;
    struct task *t = take(p, c, hook);
    if (!t) {
        out->kind = VERDICT_ERROR;
        return POLICY_DONE;
    }
    if (sched_start(t) == TASK_WAITS)
        return wait_for(t);
    if (t->script && ended(t))
        drop_verdict(&t->extra->verdict); /* and *out stays as it is */
    else
        *out = t->extra->verdict;
    end_streams(t);
    sched_release(t);
    vm_settle(vm);
    return POLICY_DONE;
}

static enum policy_step data(struct policy *p, struct conn *c, enum relay_direction dir,
                             const char *bytes, size_t n, enum relay_verdict *verdict)
{
    struct vm *vm = vm_from(p);
    if (is_closing(c)) { /* nothing goes on any more */
        *verdict = RELAY_GO_ON;
        return POLICY_DONE;
    }
    struct task *t = take(p, c, HOOK_DATA);
    if (!t) {
        *verdict = RELAY_FAIL;
        return POLICY_DONE;
    }
    t->dir = (uint8_t)dir;
    t->bytes = bytes;
    t->n_bytes = n;
    if (sched_start(t) == TASK_WAITS)
        return wait_for(t);
    *verdict = t->script && ended(t) ? RELAY_GO_ON : (enum relay_verdict)t->relay_verdict;
    sched_release(t);
    vm_settle(vm);
    return POLICY_DONE;
}

static void close_hook(struct policy *p, struct conn *c, const struct conn_info *info)
{
    struct vm *vm = vm_from(p);
    if (!policy_has(p, HOOK_CLOSE))
        return;
    struct task *t = take(p, c, HOOK_CLOSE);
    if (!t)
        return;
    t->info = info;
    if (sched_start(t) == TASK_WAITS) {
        sched_limit(t, SCRIPT_CLOSE_MS);
        wait_for(t);
        return;
    }
    sched_release(t);
    vm_settle(vm);
}

/* ---- ends ---- */

/* The first task of the connection that waits and has not been cancelled yet. */
static struct task *next_waiting(struct script_conn *script)
{
    list_for_each (node, next, &script->tasks) {
        struct task *t = container_of(node, struct task, of_conn);
        if (t->state == TASK_WAITING && !t->cancelled)
            return t;
    }
    return NULL;
}

static void cancel(struct policy *p, struct conn *c)
{
    struct script_conn *script = c->script;
    if (!script)
        return;
    conn_hold(c); /* dropped below: the tasks drop theirs */
    list_for_each (node, next, &script->tasks)
        if (container_of(node, struct task, of_conn)->state != TASK_WAITING)
            container_of(node, struct task, of_conn)->cancelled = true;
    for (struct task *t = next_waiting(script); t; t = next_waiting(script))
        sched_cancel(t);
    lib_stream_forget(vm_from(p), script);
    vm_settle(vm_from(p));
    conn_drop(c);
}

void policy_run_closes(struct vm *vm)
{
    while (!list_is_empty(&vm->closing)) {
        struct script_conn *script = container_of(vm->closing.next, struct script_conn, close_node);
        struct conn *c = script->conn; /* held by lib_conn.c: ask_close() */
        list_remove(&script->close_node);
        enum close_reason reason = (enum close_reason)script->why;
        enum conn_side side = reason == REASON_TLS ? SIDE_UPSTREAM : SIDE_NONE;
        char detail[VERDICT_REASON_MAX] = "";
        if (reason != REASON_CLOSED)
            memcpy(detail, c->detail, sizeof detail);
        if (script->reset)
            conn_reset(c, reason, side, detail);
        else
            conn_close(c, reason, side, detail);
        conn_drop(c);
    }
}

static void forget(struct policy *p, struct conn *c)
{
    lib_conn_forget(vm_from(p), c);
}

const struct policy_ops policy_lua_ops = {
    .decide = decide,
    .data = data,
    .filter = filter_start,
    .input = filter_input,
    .room = filter_room,
    .starved = filter_starved,
    .close = close_hook,
    .cancel = cancel,
    .forget = forget,
    .waiting = waiting_hook,
};

/* ---- all policies of a VM ---- */

static void free_set(struct policy_set *set)
{
    vm_free((struct vm *)set); /* its first member */
}

static void activate(struct policy_set *set, struct loop *loop, bool again)
{
    script_activate((struct vm *)set, loop, again);
}

static void retire(struct policy_set *set, bool replaced)
{
    script_retire((struct vm *)set, replaced);
}

const struct policy_set_ops policy_lua_set_ops = {.activate = activate,
                                                  .retire = retire,
                                                  .evaluate = prompt_evaluate,
                                                  .abandon = prompt_abandon,
                                                  .free = free_set};

struct script_policy *policy_lua_add(struct vm *vm)
{
    struct script_policy *p = calloc(1, sizeof *p);
    struct policy **grown =
        p ? realloc(vm->set.policies, (vm->set.n + 1) * sizeof(struct policy *)) : NULL;
    if (!grown) {
        free(p);
        return NULL;
    }
    p->policy.ops = &policy_lua_ops;
    p->vm = vm;
    p->about = "";
    for (int i = 0; i < HOOK_COUNT; i++)
        p->hooks[i] = LUA_NOREF;
    p->filters[RELAY_UP] = p->filters[RELAY_DOWN] = LUA_NOREF;
    vm->set.policies = grown;
    grown[vm->set.n++] = &p->policy;
    return p;
}

void policy_lua_free_all(struct vm *vm)
{
    for (size_t i = 0; i < vm->set.n; i++)
        free(vm->set.policies[i]);
    free(vm->set.policies);
    vm->set = (struct policy_set){.ops = vm->set.ops};
}
