/* Tasks: coroutines from a pool, their waits, and the one door into Lua.
 *
 * Everything that may raise happens inside the door, a C function called by lua_pcall() on the main
 * state: making the arguments, resuming the coroutine, reading its results. Nothing is ever pushed
 * onto a coroutine directly (a failed allocation there would have no handler), only moved. Must not
 * know what a hook is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "script_priv.h"

static const char while_loading[] =
    "no waits while the policy file loads: wait in a hook, such as connect = function(conn) … end";
static const char not_in_task[] = "a wait is possible only in hooks";
static const char boundary[] =
    "a wait is not possible here: a C function that called back lies between it and the hook "
    "(string.gsub with a "
    "function, table.sort, or a module body under require); wait before or after that call";
/* What a wait yields: its address, as light userdata. */
static const char wait_mark;

/* ---- the pool ---- */

static void on_wake(struct timer *timer)
{
    struct task *t = container_of(timer, struct task, wake);
    t->timed_out = true;
    sched_wake(t);
}

static void on_limit(struct timer *timer)
{
    struct task *t = container_of(timer, struct task_extra, limit)->task;
    struct vm *vm = t->vm;
    sched_cancel(t);
    vm_settle(vm);
}

struct task_extra *sched_extra(struct task *t)
{
    if (!t->extra && (t->extra = calloc(1, sizeof *t->extra))) {
        t->extra->task = t;
        timer_init(&t->extra->limit, on_limit);
    }
    return t->extra;
}

void sched_limit(struct task *t, uint64_t ms)
{
    struct task_extra *extra = sched_extra(t);
    if (extra)
        loop_timer(t->vm->loop, &extra->limit, ms);
    else
        sched_cancel_later(t);
}

static void stop_limit(struct task *t)
{
    if (t->extra && timer_is_active(&t->extra->limit))
        timers_stop(&t->vm->loop->timers, &t->extra->limit);
}

static struct task *task_new(struct vm *vm)
{
    struct task *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->vm = vm;
    t->co_ref = t->chunk_ref = LUA_NOREF;
    list_init(&t->node);
    list_init(&t->of_conn);
    list_init(&t->wait_node);
    list_init(&t->ready_node);
    list_init(&t->children);
    list_init(&t->sibling);
    timer_init(&t->wake, on_wake);
    return t;
}

static void end_wait(struct task *t)
{
    if (t->wait)
        t->wait->drop(t);
    t->wait = NULL;
    list_remove(&t->wait_node);
    list_remove(&t->ready_node);
    if (t->vm->loop) /* it has been activated */
        timers_stop(&t->vm->loop->timers, &t->wake);
}

/* Before there are stats they are counted in the VM alone: sched_activate() adds them. */
static void count_coroutines(struct vm *vm, int n)
{
    vm->n_coroutines += n;
    if (vm->set.stats)
        count_add(&vm->set.stats->coroutines, (uint64_t)n);
}

/* The coroutine is dead or must not be resumed again: leave it to the collector. */
static void forget_coroutine(struct task *t)
{
    count_coroutines(t->vm, -1);
    luaL_unref(t->vm->L, LUA_REGISTRYINDEX, t->co_ref);
    t->co_ref = LUA_NOREF;
    t->co = NULL;
}

static void task_free(struct task *t)
{
    list_remove(&t->node);
    list_remove(&t->of_conn);
    list_remove(&t->wait_node);
    list_remove(&t->ready_node);
    list_remove(&t->sibling);
    list_remove(&t->children); /* whichever is freed first */
    if (t->vm->loop) {
        timers_stop(&t->vm->loop->timers, &t->wake);
        stop_limit(t);
    }
    free(t->extra);
    free(t);
}

struct task *sched_take(struct vm *vm, const struct task_ops *ops)
{
    struct task *t;
    if (list_is_empty(&vm->idle)) {
        t = task_new(vm);
        if (!t)
            return NULL;
    } else {
        t = container_of(vm->idle.prev, struct task, node);
        list_remove(&t->node);
        vm->n_idle--;
    }
    list_push(&vm->busy, &t->node);
    t->ops = ops;
    t->cancelled = t->abandoned = t->held = false;
    t->refusals = 0;
    t->wait = NULL;
    t->handle = NULL;
    t->conn = NULL;
    t->script = NULL;
    t->bytes = NULL;
    t->info = NULL;
    return t;
}

/* What was to end with this task ends: it is told so once Lua is left. */
static void cancel_children(struct task *t)
{
    list_for_each (node, next, &t->children) {
        struct task *child = container_of(node, struct task, sibling);
        list_remove(node);
        sched_cancel_later(child);
    }
}

void sched_release(struct task *t)
{
    struct vm *vm = t->vm;
    cancel_children(t);
    list_remove(&t->sibling);
    list_remove(&t->ready_node);
    if (timer_is_active(&t->wake))
        timers_stop(&vm->loop->timers, &t->wake);
    stop_limit(t);
    if (t->chunk_ref != LUA_NOREF) {
        luaL_unref(vm->L, LUA_REGISTRYINDEX, t->chunk_ref);
        t->chunk_ref = LUA_NOREF;
    }
    list_remove(&t->of_conn);
    list_remove(&t->node);
    t->state = TASK_IDLE;
    if (vm->n_idle >= SCRIPT_IDLE_TASKS) {
        if (t->co)
            forget_coroutine(t);
        task_free(t);
        return;
    }
    list_push(&vm->idle, &t->node);
    vm->n_idle++;
}

void sched_deinit(struct vm *vm)
{
    list_for_each (node, next, &vm->busy) {
        struct task *t = container_of(node, struct task, node);
        end_wait(t);
        task_free(t);
    }
    list_for_each (node, next, &vm->idle)
        task_free(container_of(node, struct task, node));
    vm->n_idle = 0;
    count_coroutines(vm, -vm->n_coroutines);
    loop_forget(&vm->run_ready);
}

/* ---- the time budget ---- */

/* In a spec bytes come as fast as they are asked for, and how fast the machine is should not
 * matter. */
static unsigned budget_ms(const struct vm *vm)
{
    return vm->loop && vm->loop->options.vnet ? 30 * SCRIPT_BUDGET_MS : SCRIPT_BUDGET_MS;
}

/* Called every SCRIPT_BUDGET_COUNT instructions. Looks at the clock, so that an entry into Lua need
 * not. */
static void on_count(lua_State *L, lua_Debug *unused)
{
    (void)unused;
    lua_getfield(L, LUA_REGISTRYINDEX, "penstock.vm"); // stack: …, vm
    struct vm *vm = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!vm->current)
        return; /* loading */
    uint64_t now = clock_now_ns();
    if (vm->seen_run != vm->run) {
        vm->seen_run = vm->run;
        vm->seen_ns = now;
        return;
    }
    if (now - vm->seen_ns < budget_ms(vm) * 1000000ull)
        return;
    if (!vm->over_budget) {
        /* From now on at every instruction, or a pcall() in a loop would outlive it. */
        vm->over_budget = true;
        lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
    }
    luaL_where(L, 0); // stack: …, where
    lua_pushfstring(L, "computed for more than %d ms without waiting", (int)budget_ms(vm));
    lua_concat(L, 2);
    lua_error(L);
}

static void arm_budget(lua_State *L, struct vm *vm)
{
    vm->over_budget = false;
    lua_sethook(L, on_count, LUA_MASKCOUNT, SCRIPT_BUDGET_COUNT);
}

/* ---- the door ---- */

static void new_coroutine(lua_State *L, struct task *t)
{
    lua_State *co = lua_newthread(L); // stack: …, co
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->vm->tasks);
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3); // stack: …, co, tasks
    lua_pop(L, 1);
    t->co_ref = luaL_ref(L, LUA_REGISTRYINDEX); // stack: …
    t->co = co;
    count_coroutines(t->vm, 1);
}

/* What the coroutine gets back from its wait; 0: nothing yet. */
static int push_answer(lua_State *L, struct task *t)
{
    if (t->cancelled) { /* also when it was told so while it had an answer: that is not consumed */
        end_wait(t);
        return sched_push_cancelled(L, t->vm);
    }
    int n = t->wait->answer(L, t);
    if (n)
        end_wait(t);
    return n;
}

static void tell_failure(struct task *t, const char *text, size_t len)
{
    if (t->ops->failed)
        t->ops->failed(t, text, len);
    else
        report_error(t->vm, t->conn ? t->conn->id : 0, t->ops->name, text, len);
}

/* The error object of the coroutine is on the top of L. */
static enum task_end failed(lua_State *L, struct task *t)
{
    struct vm *vm = t->vm;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->cancelled); // stack: …, error, CANCELLED
    bool quiet = t->cancelled && lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (quiet)
        return TASK_CANCELLED;
    report_describe(L);            // stack: …, message
    report_traceback(L, t->co, 0); // stack: …, text
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    tell_failure(t, text, len);
    lua_pop(L, 1);
    return TASK_FAILED;
}

/* The coroutine yielded: a wait, or something that is none. */
static enum task_end yielded(lua_State *L, struct task *t)
{
    bool wait = lua_gettop(t->co) == 1 && lua_touserdata(t->co, 1) == &wait_mark;
    if (t->abandoned)
        return TASK_CANCELLED;
    if (wait) {
        lua_settop(t->co, 0);
        return TASK_WAITS;
    }
    t->abandoned = true;
    luaL_error(L, "the hook yielded; it waits with ps.sleep and its kin");
    return TASK_FAILED;
}

static enum task_end run(lua_State *L, struct task *t, int n_args)
{
    // stack: [function,] arguments
    lua_xmove(L, t->co, n_args + (t->state == TASK_IDLE));
    t->state = TASK_RUNNING;
    int status = lua_resume(t->co, n_args);
    if (status == LUA_YIELD)
        return yielded(L, t);
    if (status) {
        lua_xmove(t->co, L, 1); // stack: …, error
        return failed(L, t);
    }
    int n = lua_gettop(t->co);
    lua_settop(L, 0);
    if (n > RESULTS_MAX)
        lua_settop(t->co, n = RESULTS_MAX);
    lua_xmove(t->co, L, n); // stack: results
    t->ops->finish(L, t, n);
    return TASK_RETURNED;
}

/* The task to run is vm->entering. Returns its end. */
static int door(lua_State *L)
{
    struct vm *vm = vm_of(L);
    struct task *t = vm->entering;
    int n_args;
    if (t->state == TASK_IDLE) {
        if (!t->co)
            new_coroutine(L, t);
        n_args = t->ops->push(L, t); // stack: function, arguments
    } else {
        n_args = push_answer(L, t); // stack: answer of the wait
        vm->answered = n_args > 0;
        if (!n_args) {
            lua_pushinteger(L, TASK_WAITS);
            return 1;
        }
    }
    int end = (int)run(L, t, n_args);
    if (end == TASK_WAITS && t->bytes && t->chunk_ref == LUA_NOREF) {
        /* The bytes are the caller's; pushing them again finds the interned string, or the memory
         * for it. */
        lua_pushlstring(L, t->bytes, t->n_bytes);
        t->chunk_ref = luaL_ref(L, LUA_REGISTRYINDEX);
        t->bytes = NULL;
    }
    lua_pushinteger(L, end);
    return 1;
}

/* Returns the time, 0 within another entry, whose time it is. */
static uint64_t count_entry(const struct task *t)
{
    const struct vm *vm = t->vm;
    if (!vm->set.stats)
        return 0;
    if (t->state == TASK_IDLE)
        count_add(&vm->set.stats->calls[t->ops->counts_as].calls, 1);
    return vm->current ? 0 : clock_now_ns();
}

static void count_exit(const struct task *t, uint64_t entered_ns, enum task_end end)
{
    struct vm *vm = t->vm;
    if (!vm->set.stats)
        return;
    struct call_stats *stats = &vm->set.stats->calls[t->ops->counts_as];
    if (end == TASK_FAILED)
        count_add(&stats->errors, 1);
    if (!entered_ns)
        return;
    count_add(&stats->ns, clock_now_ns() - entered_ns);
    heap_tell(&vm->heap, &vm->set.stats->heap_bytes);
}

/* lua_pcall() with bookkeeping. Whatever happens, the stack of the main state is as before. */
static enum task_end enter(struct task *t)
{
    struct vm *vm = t->vm;
    lua_State *L = vm->L;
    struct task *outer = vm->current;
    enum task_end end;
    uint64_t entered_ns = count_entry(t);

    vm->current = vm->entering = t;
    vm->run++;
    if (!outer)
        stay_enter(&vm->loop->stay, t->conn ? t->conn->id : 0, t->ops->name,
                   t->script_policy ? t->script_policy->about : "");
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->door); // stack: …, door
    if (!outer)
        vm->stack_base = (const char *)__builtin_frame_address(0);
    bool guarded = vm->heap.guarded;
    vm->heap.guarded = true;
    int status = lua_pcall(L, 0, 1, 0);
    vm->heap.guarded = guarded;
    if (status == 0) {
        end = (enum task_end)lua_tointeger(L, -1);
    } else { /* out of memory, or the results made no sense; stack: …, message */
        end = TASK_FAILED;
        size_t len = 0;
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : "";
        tell_failure(t, text, len);
    }
    lua_pop(L, 1);
    vm->current = outer;
    count_exit(t, entered_ns, end);
    if (vm->over_budget)
        arm_budget(L, vm);

    if (end == TASK_WAITS) {
        t->state = TASK_WAITING;
    } else {
        t->state = TASK_IDLE;
        end_wait(t); /* one that could not be answered, for lack of memory */
        if (t->co && (lua_status(t->co) != 0 || t->abandoned))
            forget_coroutine(t);
        else if (t->co)
            lua_settop(t->co, 0);
    }
    if (vm->heap.refused && !outer) { /* what the failed hook hoarded must not fail the next one */
        vm->heap.refused = false;
        lua_gc(L, LUA_GCCOLLECT, 0);
    }
    if (!outer)
        stay_leave(&vm->loop->stay);
    return end;
}

enum task_end sched_start(struct task *t)
{
    return enter(t);
}

static void resume(struct task *t)
{
    enum task_end end = enter(t);
    if (end != TASK_WAITS)
        t->ops->done(t, end);
}

bool sched_wake(struct task *t)
{
    struct vm *vm = t->vm;
    PENSTOCK_REQUIRE(t->state == TASK_WAITING);
    vm->answered = true; /* also when the answer could not be made, for lack of memory */
    enum task_end end = enter(t);
    bool went_on = vm->answered;
    if (end != TASK_WAITS)
        t->ops->done(t, end);
    vm_settle(vm);
    return went_on;
}

void sched_cancel(struct task *t)
{
    t->cancelled = true;
    if (t->state != TASK_WAITING)
        return;
    end_wait(t);
    resume(t);
}

/* ---- what cannot run at once ---- */

static void queue(struct task *t)
{
    struct vm *vm = t->vm;
    if (list_is_empty(&t->ready_node))
        list_push(&vm->ready, &t->ready_node);
    if (vm->active)
        loop_ready(vm->loop, &vm->run_ready);
}

void sched_wake_later(struct task *t)
{
    queue(t);
}

void sched_start_later(struct task *t)
{
    queue(t);
}

void sched_cancel_later(struct task *t)
{
    t->cancelled = true;
    if (t->state == TASK_WAITING)
        end_wait(t); /* others may wait for the same at once */
    queue(t);
}

static void run_one(struct task *t)
{
    list_remove(&t->ready_node);
    if (t->state == TASK_WAITING && t->cancelled)
        sched_cancel(t);
    else if (t->state == TASK_WAITING)
        sched_wake(t);
    else if (t->state == TASK_IDLE && t->cancelled) /* it ends before it has begun */
        t->ops->done(t, TASK_CANCELLED);
    else if (t->state == TASK_IDLE)
        resume(t);
}

/* Those that are queued meanwhile wait for the next round, so that two that wake each other do not
 * keep the others waiting. */
static void run_ready(struct loop_task *task)
{
    struct vm *vm = container_of(task, struct vm, run_ready);
    struct list now;
    list_take(&now, &vm->ready);
    while (!list_is_empty(&now))
        run_one(container_of(now.next, struct task, ready_node));
    vm_settle(vm);
}

void sched_activate(struct vm *vm)
{
    vm->active = true;
    if (vm->set.stats)
        count_add(&vm->set.stats->coroutines, (uint64_t)vm->n_coroutines);
    if (!list_is_empty(&vm->ready))
        loop_ready(vm->loop, &vm->run_ready);
}

void sched_end_timers(struct vm *vm)
{
    list_for_each (node, next, &vm->busy) {
        struct task *t = container_of(node, struct task, node);
        if (!t->conn)
            sched_cancel_later(t);
    }
}

void vm_settle(struct vm *vm)
{
    if (vm->settling || vm->current)
        return;
    vm->settling = true;
    while (!list_is_empty(&vm->dirty) || !list_is_empty(&vm->dirty_sockets) ||
           !list_is_empty(&vm->closing)) {
        lib_stream_flush(vm);
        policy_run_closes(vm);
    }
    vm->settling = false;
}

/* ---- waits ---- */

struct task *sched_may_wait(lua_State *L, struct vm *vm, int *n)
{
    struct task *t = vm->current;
    *n = 2;
    lua_pushboolean(L, 0);
    if (!t) {
        lua_pushstring(L, vm->loading ? while_loading : not_in_task);
    } else if (!lua_isyieldable(L)) {
        lua_pushlstring(L, boundary, sizeof boundary - 1);
    } else if (!t->cancelled) {
        lua_pop(L, 1);
        return t;
    } else if (++t->refusals < SCRIPT_REFUSALS) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, vm->cancelled);
    } else {
        t->abandoned = true;
        lua_pushlightuserdata(L, (void *)&wait_mark);
        *n = lua_yield(L, 1);
    }
    return NULL; // stack: …, false, error
}

int sched_wait(lua_State *L, struct task *t, const struct wait_kind *kind, void *on,
               uint64_t timeout_ms)
{
    t->wait = kind;
    t->wait_on = on;
    t->timed_out = false;
    if (timeout_ms)
        loop_timer(t->vm->loop, &t->wake, timeout_ms);
    lua_pushlightuserdata(L, (void *)&wait_mark);
    return lua_yield(L, 1);
}

int sched_abort_wait(lua_State *L)
{
    struct vm *vm = vm_of(L);
    if (vm->current)
        end_wait(vm->current);
    return 0;
}

int sched_push_cancelled(lua_State *L, struct vm *vm)
{
    lua_pushboolean(L, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->cancelled);
    return 2;
}

int sched_push_failure(lua_State *L, int err)
{
    lua_pushboolean(L, 1);
    lua_pushnil(L);
    lua_pushstring(L, err_word(err));
    return 3;
}

static int answer_sleep(lua_State *L, struct task *t)
{
    if (!t->timed_out)
        return 0;
    lua_pushboolean(L, 1);
    return 1;
}

static void drop_nothing(struct task *t)
{
    (void)t; /* its timer is stopped by whoever ends the wait */
}

int sched_sleep(lua_State *L, struct vm *vm, uint64_t ms)
{
    static const struct wait_kind kind = {answer_sleep, drop_nothing};
    int n;
    struct task *t = sched_may_wait(L, vm, &n);
    return t ? sched_wait(L, t, &kind, NULL, ms ? ms : 1) : n;
}

void sched_push_constants(lua_State *L)
{
    // stack: …, core
    lua_pushlightuserdata(L, (void *)&wait_mark);
    lua_setfield(L, -2, "WAIT");
    lua_pushlstring(L, boundary, sizeof boundary - 1);
    lua_setfield(L, -2, "BOUNDARY");
}

/* ---- loading ---- */

static int on_error(lua_State *L)
{
    struct vm *vm = vm_of(L);
    report_describe(L); // stack: message
    if (vm->traceback)
        report_traceback(L, L, 1);
    return 1;
}

static int open_handler(lua_State *L)
{
    struct vm *vm = lua_touserdata(L, 1);
    lua_pushlightuserdata(L, vm);
    lua_pushcclosure(L, on_error, 1); // stack: vm, handler
    return 1;
}

int sched_protect(struct vm *vm, lua_CFunction body, char *why, size_t why_cap)
{
    lua_State *L = vm->L;
    lua_pushcfunction(L, open_handler);
    lua_pushlightuserdata(L, vm);
    int err = lua_pcall(L, 1, 1, 0); // stack: handler or message
    if (!err) {
        lua_pushcfunction(L, body);
        lua_pushlightuserdata(L, vm);
        err = lua_pcall(L, 1, 0, -3); // stack: handler[, message]
    }
    if (err) {
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "out of memory";
        size_t len = strlen(text);
        if (len >= why_cap)
            len = why_cap ? why_cap - 1 : 0;
        if (why_cap) {
            memcpy(why, text, len);
            why[len] = '\0';
        }
    }
    lua_settop(L, 0);
    return err ? -EINVAL : 0;
}

void sched_open(lua_State *L, struct vm *vm)
{
    vm->run_ready.run = run_ready;
    lua_pushlightuserdata(L, vm);
    lua_setfield(L, LUA_REGISTRYINDEX, "penstock.vm");
    lua_pushlightuserdata(L, vm);
    lua_pushcclosure(L, door, 1);
    vm->door = luaL_ref(L, LUA_REGISTRYINDEX);

    lua_newtable(L);
    lua_newtable(L);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2); // stack: …, tasks
    vm->tasks = luaL_ref(L, LUA_REGISTRYINDEX);
    if (vm->budget)
        arm_budget(L, vm);
}
