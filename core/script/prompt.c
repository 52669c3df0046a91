/* Chunks that an operator has run in a VM (policy_set_ops.evaluate): each a task of its own, with
 * the sandbox, budget and heap of the VM. They have globals of their own, which last as long as the
 * VM and behind which stand the policy's.
 *
 * What has come of a chunk is in its struct, which is the caller's from `done` on: perhaps another
 * thread's. */
#include <stdio.h>
#include <string.h>

#include "penstock/base/units.h"
#include "script_priv.h"

enum { OUTPUT_MAX = 256 << 10 }; /* bytes that a chunk may print */
enum { VALUES_MAX = 8 };         /* that are shown; RESULTS_MAX tells of one more, and the nil */

/* Never empty, which would be none. */
static void set_error(struct policy_chunk *chunk, const char *text, size_t len)
{
    if (!len) {
        text = "it has failed without a message";
        len = strlen(text);
    }
    buf_deinit(&chunk->error);
    if (buf_append(&chunk->error, text, len))
        buf_append(&chunk->error, "out of memory", 13);
}

/* ---- running ---- */

/* The globals of chunks, at first use. */
static void open_prompt(lua_State *L, struct vm *vm)
{
    lua_createtable(L, 0, 4);
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "penstock");
    lua_setfield(L, -3, "ps");
    lua_pop(L, 1); // stack: …, globals
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    vm_load_module(L, "penstock.show");
    lua_call(L, 0, 1); // stack: …, globals, show
    vm->prompt_show = luaL_ref(L, LUA_REGISTRYINDEX);
    vm->prompt_env = luaL_ref(L, LUA_REGISTRYINDEX); // stack: …
}

/* Compiles `head` and the chunk behind it; leaves the function, or the message. */
static bool compile(lua_State *L, const struct policy_chunk *chunk, const char *head)
{
    size_t n;
    lua_pushstring(L, head);
    lua_pushlstring(L, chunk->code, chunk->n);
    lua_concat(L, 2);
    const char *text = lua_tolstring(L, -1, &n);
    bool good = luaL_loadbufferx(L, text, n, "=prompt", "t") == 0;
    lua_remove(L, -2); // stack: …, function or message
    return good;
}

static bool breaks_off(const char *message)
{
    static const char end[] = "'<eof>'";
    size_t n = strlen(message);
    return n >= sizeof end - 1 && strcmp(message + n - (sizeof end - 1), end) == 0;
}

/* An expression is a chunk, too: its values are what it returns, behind a nil, so that a call is no
 * tail call and shows in tracebacks. Leaves the function, or raises. */
static void push_compiled(lua_State *L, struct policy_chunk *chunk)
{
    chunk->expression = compile(L, chunk, "return nil, ");
    if (chunk->expression)
        return;
    bool expression = breaks_off(lua_tostring(L, -1));
    if (compile(L, chunk, "")) { // stack: …, message, function
        lua_remove(L, -2);
        return;
    }
    chunk->incomplete = expression || breaks_off(lua_tostring(L, -1));
    if (expression)
        lua_pop(L, 1);
    lua_error(L);
}

static int push_chunk(lua_State *L, struct task *t)
{
    if (t->vm->prompt_env == LUA_NOREF)
        open_prompt(L, t->vm);
    push_compiled(L, t->arg);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->prompt_env);
    lua_setfenv(L, -2); // stack: function
    return 0;
}

static void finish_chunk(lua_State *L, struct task *t, int n)
{
    struct policy_chunk *chunk = t->arg;
    size_t len;
    if (chunk->expression) {
        lua_remove(L, 1);
        n--;
    }
    bool more = n > VALUES_MAX;
    if (more)
        lua_settop(L, n = VALUES_MAX);
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->prompt_show);
    lua_insert(L, 1);  // stack: show, results
    lua_call(L, n, 1); // stack: text
    const char *text = lua_tolstring(L, -1, &len);
    const char *rest = !more ? "" : memchr(text, '\n', len) ? "\n…" : "\t…";
    if (buf_append(&chunk->result, text, len) || buf_append(&chunk->result, rest, strlen(rest)))
        luaL_error(L, "not enough memory");
    chunk->n_results = (unsigned)n;
}

static void on_failed(struct task *t, const char *text, size_t len)
{
    set_error(t->arg, text, len);
}

static void tell_cancelled(struct policy_chunk *chunk)
{
    char time[32], text[80];
    snprintf(text, sizeof text, "cancelled: it has waited for %s",
             units_format_time(chunk->patience_ms, time, sizeof time));
    const char *why = chunk->why ? chunk->why : text;
    set_error(chunk, why, strlen(why));
}

/* The chunk is not ours any more after this. */
static void end_chunk(struct policy_chunk *chunk)
{
    list_remove(&chunk->node);
    chunk->task = NULL;
    chunk->done(chunk);
}

static void on_done(struct task *t, enum task_end end)
{
    struct policy_chunk *chunk = t->arg;
    if (end == TASK_CANCELLED)
        tell_cancelled(chunk);
    sched_release(t);
    end_chunk(chunk);
}

static const struct task_ops chunk_ops = {
    .name = "Lua prompt",
    .push = push_chunk,
    .finish = finish_chunk,
    .done = on_done,
    .counts_as = CALL_TASK,
    .failed = on_failed,
};

void prompt_evaluate(struct policy_set *set, struct policy_chunk *chunk)
{
    struct vm *vm = (struct vm *)set; /* its first member */
    struct task *t = sched_take(vm, &chunk_ops);
    list_init(&chunk->node);
    if (!t) {
        set_error(chunk, "out of memory", 13);
        end_chunk(chunk);
        return;
    }
    t->arg = chunk;
    t->script_policy = NULL;
    chunk->task = t;
    list_push(&vm->chunks, &chunk->node);
    enum task_end end = sched_start(t);
    if (end == TASK_WAITS)
        sched_limit(t, chunk->patience_ms);
    else
        on_done(t, end);
    vm_settle(vm);
}

/* ---- ends ---- */

void prompt_abandon(struct policy_set *set, struct policy_chunk *chunk, const char *why)
{
    struct vm *vm = (struct vm *)set;
    chunk->why = why;
    sched_cancel(chunk->task);
    vm_settle(vm);
}

void prompt_retire(struct vm *vm)
{
    while (!list_is_empty(&vm->chunks)) /* the end of one may bring on that of another */
        prompt_abandon(&vm->set, container_of(vm->chunks.next, struct policy_chunk, node),
                       "cancelled: a reload has replaced the version that it ran in");
}

void prompt_deinit(struct vm *vm)
{
    list_for_each (node, next, &vm->chunks) {
        struct policy_chunk *chunk = container_of(node, struct policy_chunk, node);
        chunk->why = "cancelled: penstock stops";
        tell_cancelled(chunk);
        end_chunk(chunk);
    }
}

bool prompt_print(struct vm *vm, const char *text, size_t len)
{
    struct policy_chunk *chunk =
        vm->current && vm->current->ops == &chunk_ops ? vm->current->arg : NULL;
    if (!chunk)
        return false;
    size_t used = buf_len(&chunk->output), room = OUTPUT_MAX - used;
    chunk->cut |= len >= room;
    if (!chunk->cut &&
        (buf_append(&chunk->output, text, len) || buf_append(&chunk->output, "\n", 1)))
        chunk->cut = true;
    return true;
}
