/* Tasks that scripts make: ps.spawn and its kin, conn:after, timers, the functions of ps.on_start.
 * What they are to a script is written in lua/penstock/tasks.lua.
 *
 * A handle is a userdata that stands for a task; others may wait for its end. A gate is the same
 * without a task: it is opened by hand. */
#include "penstock/base/err.h"
#include "script_priv.h"

struct script_handle {
    struct vm *vm;
    struct task *task;   /* NULL: over, or a gate */
    struct list waiters; /* struct task */
    int ref;             /* anchors the handle while its task lives */
    bool open;           /* nobody has to wait any more */
};

static const char type_name[] = "penstock.handle";

static struct script_handle *check_handle(lua_State *L, int index)
{
    struct script_handle *h = lua_touserdata(L, index);
    bool is = false;
    if (h && lua_getmetatable(L, index)) {
        luaL_getmetatable(L, type_name);
        is = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    if (!is)
        luaL_error(L, "call it with a colon: task:wait([seconds]), signal:set(value)");
    return h;
}

static struct script_handle *push_handle(lua_State *L, struct vm *vm)
{
    struct script_handle *h = lua_newuserdata(L, sizeof *h);
    *h = (struct script_handle){.vm = vm, .ref = LUA_NOREF};
    list_init(&h->waiters);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->handle_meta);
    lua_setmetatable(L, -2); // stack: …, handle
    return h;
}

static void open_gate(struct script_handle *h)
{
    h->open = true;
    list_for_each (node, next, &h->waiters) {
        struct task *t = container_of(node, struct task, wait_node);
        list_remove(node);
        sched_wake_later(t);
    }
}

/* ---- waiting ---- */

static int answer_gate(lua_State *L, struct task *t)
{
    struct script_handle *h = t->wait_on;
    lua_pushboolean(L, 1);
    lua_pushboolean(L, h->open);
    if (h->open)
        return 2;
    lua_pop(L, 2);
    return t->timed_out ? sched_push_failure(L, PS_ETIMEOUT) : 0;
}

static void drop_gate(struct task *t)
{
    list_remove(&t->wait_node);
}

/* wait(handle, ms) -> true | nil, "timeout". ms 0: for ever */
static int task_wait(lua_State *L)
{
    static const struct wait_kind gate_wait = {answer_gate, drop_gate};
    struct script_handle *h = check_handle(L, 1);
    uint64_t ms = (uint64_t)lua_tonumber(L, 2);
    int n;
    if (h->open) {
        lua_pushboolean(L, 1);
        lua_pushboolean(L, 1);
        return 2;
    }
    struct task *t = sched_may_wait(L, h->vm, &n);
    if (!t)
        return n;
    list_push(&h->waiters, &t->wait_node);
    return sched_wait(L, t, &gate_wait, h, ms);
}

/* gate() -> handle */
static int task_gate(lua_State *L)
{
    push_handle(L, vm_of(L));
    return 1;
}

/* open(gate), shut(gate) */
static int task_open(lua_State *L)
{
    open_gate(check_handle(L, 1));
    return 0;
}

static int task_shut(lua_State *L)
{
    check_handle(L, 1)->open = false;
    return 0;
}

/* ---- making tasks ---- */

static int push_made(lua_State *L, struct task *t)
{
    if (t->conn) {
        t->script = lib_conn_push(L, t->vm, t->conn);
        lua_pop(L, 1);
        if (list_is_empty(&t->of_conn))
            list_push(&t->script->tasks, &t->of_conn);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->handle->ref);
    lua_getfenv(L, -1);
    lua_rawgeti(L, -1, 1); // stack: …, handle, environment, function
    lua_insert(L, -3);
    lua_pop(L, 2); // stack: …, function
    return 0;
}

static void finish_made(lua_State *L, struct task *t, int n)
{
    (void)L;
    (void)t;
    (void)n; /* its Lua half keeps what it needs */
}

void lib_task_ended(struct task *t)
{
    struct script_handle *h = t->handle;
    t->handle = NULL;
    h->task = NULL;
    open_gate(h);
    luaL_unref(t->vm->L, LUA_REGISTRYINDEX, h->ref);
    h->ref = LUA_NOREF;
}

static void made_done(struct task *t, enum task_end end)
{
    struct conn *c = t->conn;
    (void)end; /* an error has been reported */
    lib_task_ended(t);
    sched_release(t);
    if (c)
        conn_drop(c); /* held by task_spawn() */
}

/* X(NAME, what its errors are said to be of) */
#define MADE_KINDS(X)                                                                              \
    X(SPAWN, "spawned function")                                                                   \
    X(AFTER, "conn:after function")                                                                \
    X(TIMER, "timer")                                                                              \
    X(START, "ps.on_start function")                                                               \
    X(RELOAD, "ps.on_reload function")                                                             \
    X(STOP, "ps.on_stop function")

enum made_kind {
#define X(name, text) MADE_##name,
    MADE_KINDS(X)
#undef X
        MADE_COUNT
};

static const struct task_ops made_ops[MADE_COUNT] = {
#define X(kind, text)                                                                              \
    {.name = text,                                                                                 \
     .push = push_made,                                                                            \
     .finish = finish_made,                                                                        \
     .done = made_done,                                                                            \
     .counts_as = CALL_TASK},
    MADE_KINDS(X)
#undef X
};

/* The task ends with this connection. */
static void bind_to(struct task *t, struct conn *c, struct script_conn *script,
                    const struct script_policy *policy)
{
    t->conn = c;
    t->script_policy = policy;
    t->script = script;
    conn_hold(c); /* dropped in made_done() */
    if (script)
        list_push(&script->tasks, &t->of_conn);
    if (conn_is_closed(c)) /* of a close hook: with its time limit */
        sched_limit(t, SCRIPT_CLOSE_MS);
}

/* A task for the function at 1, with its handle on the top of the stack. It starts once Lua is
 * left. */
static struct task *make(lua_State *L, struct vm *vm, unsigned kind)
{
    struct script_handle *h = push_handle(L, vm); // stack: …, handle
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    lua_pushvalue(L, -1);
    h->ref = luaL_ref(L, LUA_REGISTRYINDEX); // stack: …, handle
    struct task *t = sched_take(vm, &made_ops[kind < MADE_COUNT ? kind : MADE_SPAWN]);
    if (!t) {
        luaL_unref(L, LUA_REGISTRYINDEX, h->ref);
        luaL_error(L, "not enough memory");
        __builtin_unreachable();
    }
    t->handle = h;
    h->task = t;
    sched_start_later(t);
    return t;
}

/* spawn(function, kind, scope) -> handle. scope: "vm", "conn" (ends with the connection), "child"
 * (ends with the running task, and its connection). */
static int task_spawn(lua_State *L)
{
    struct vm *vm = vm_of(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    const char *scope = luaL_checkstring(L, 3);
    struct task *by = vm->current;
    struct task *t = make(L, vm, (unsigned)lua_tointeger(L, 2));
    if (*scope == 'v' || !by)
        return 1;
    if (scope[1] == 'h')
        list_push(&by->children, &t->sibling);
    if (by->conn)
        bind_to(t, by->conn, by->script, by->script_policy);
    return 1;
}

/* spawn_for(conn, function, kind) -> handle | nil, "closed" */
static int task_spawn_for(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "conn:after(seconds, f)");
    unsigned kind = (unsigned)lua_tointeger(L, 3);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    lua_remove(L, 1); // stack: function, kind
    bind_to(make(L, vm_of(L), kind), c, s, NULL);
    return 1;
}

/* ---- the end of a version ---- */

static int push_stop(lua_State *L, struct task *t)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->stop);
    return 0;
}

static void stop_done(struct task *t, enum task_end end)
{
    struct vm *vm = t->vm;
    (void)end;
    sched_release(t);
    vm->set.busy = false;
    if (vm->set.on_idle)
        vm->set.on_idle(&vm->set);
}

void lib_task_stop(struct vm *vm)
{
    static const struct task_ops ops = {.name = "ps.on_stop function",
                                        .push = push_stop,
                                        .finish = finish_made,
                                        .done = stop_done,
                                        .counts_as = CALL_TASK};
    struct task *t = vm->stop != LUA_NOREF ? sched_take(vm, &ops) : NULL;
    if (!t)
        return;
    vm->set.busy = true;
    sched_limit(t, SCRIPT_CLOSE_MS);
    sched_start_later(t);
}

/* set_stop(function): what runs the functions of ps.on_stop */
static int set_stop(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_settop(L, 1);
    vm->stop = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* again() -> has this version replaced an earlier one? */
static int task_again(lua_State *L)
{
    lua_pushboolean(L, vm_of(L)->again);
    return 1;
}

/* serves() -> false while the file loads */
static int task_serves(lua_State *L)
{
    lua_pushboolean(L, vm_of(L)->active);
    return 1;
}

/* cancel(handle): it ends at its next wait */
static int task_cancel(lua_State *L)
{
    struct script_handle *h = check_handle(L, 1);
    if (h->task && h->task != h->vm->current)
        sched_cancel_later(h->task);
    lua_pushboolean(L, h->task != NULL);
    return 1;
}

/* set_methods(table): what a task's handle answers to */
static int set_methods(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->handle_meta);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "__index");
    return 0;
}

static int count_tasks(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_Integer n = 0;
    list_for_each (node, next, &vm->busy)
        n++;
    lua_pushinteger(L, n);
    return 1;
}

void lib_task_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"spawn", task_spawn},
        {"spawn_for", task_spawn_for},
        {"cancel", task_cancel},
        {"wait", task_wait},
        {"gate", task_gate},
        {"open", task_open},
        {"shut", task_shut},
        {"set_stop", set_stop},
        {"again", task_again},
        {"set_methods", set_methods},
        {"count", count_tasks},
        {"serves", task_serves},
        {NULL, NULL},
    };
    // stack: …, core
    luaL_newmetatable(L, type_name);
    lua_pushliteral(L, "task");
    lua_setfield(L, -2, "__metatable");
    vm->handle_meta = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
#define X(name, text)                                                                              \
    lua_pushinteger(L, MADE_##name);                                                               \
    lua_setfield(L, -2, #name);
    MADE_KINDS(X)
#undef X
    lua_setfield(L, -2, "task"); // stack: …, core
}
