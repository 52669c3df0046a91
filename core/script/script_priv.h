/* What the files of core/script share. lua.h appears in this folder only.
 *
 * One VM belongs to one worker: it is loaded on the main thread and used and freed on the worker's.
 * Hooks run in coroutines from a pool (struct task); sched.c is the only file that calls into Lua.
 *
 * Nothing here closes a connection while Lua is on the C stack: conn:close() notes the wish (struct
 * script_conn), and policy_run_closes() grants it once the hook has ended or waits. */
#ifndef PENSTOCK_SCRIPT_PRIV_H
#define PENSTOCK_SCRIPT_PRIV_H

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

#include <stdbool.h>
#include <stdint.h>

#include "penstock/base/list.h"
#include "penstock/base/log.h"
#include "penstock/net/loop.h"
#include "penstock/net/timers.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/policy.h"
#include "penstock/script/script.h"

enum {
    SCRIPT_BUDGET_MS = 100,     /* computing without waiting, then the hook is interrupted */
    SCRIPT_BUDGET_COUNT = 5000, /* VM instructions between two looks at the clock */
    SCRIPT_CLOSE_MS = 5000,     /* how long a close hook may wait */
    SCRIPT_IDLE_TASKS = 256,    /* coroutines kept for reuse */
    SCRIPT_REFUSALS = 16,       /* waits refused to a cancelled task before it is abandoned */
    SCRIPT_REPEAT_MS = 10000,   /* the same error is logged once in that time */
    SCRIPT_ERRORS = 16,         /* errors remembered for that */
};

struct vm;
struct task;

/* ---- policies (policy_lua.c) ---- */

/* The hooks of one listener. Owned by its VM. */
struct script_policy {
    struct policy policy; /* first: what the proxy layer sees */
    struct vm *vm;
    int hooks[HOOK_COUNT]; /* registry references, LUA_NOREF without */
};

/* ---- connections as Lua sees them (lib_conn.c) ---- */

/* The userdata itself; LuaJIT never moves it. Anchored by `ref` from the first hook to
 * policy_ops.forget. */
struct script_conn {
    struct conn *conn; /* NULL once forgotten */
    struct vm *vm;
    struct list tasks;      /* struct task: running or waiting for it */
    struct list close_node; /* in vm->closing */
    uint64_t id, seq;       /* copies, to answer after the end */
    int ref;
    bool has_env; /* its environment table holds ctx, client, log, upstream */
    bool closing; /* the script asked for its end: methods answer "closed" from now on */
    bool reset;   /* … by RST */
};

/* Pushes the userdata of `c`, made at its first use and kept in c->script. May raise. */
struct script_conn *lib_conn_push(lua_State *L, struct vm *vm, struct conn *c);
/* Takes the connection away from its userdata. Does not raise. */
void lib_conn_forget(struct vm *vm, struct conn *c);
/* Registers the metatable. May raise. */
void lib_conn_open(lua_State *L, struct vm *vm);

/* ---- tasks (sched.c) ---- */

enum task_state { TASK_IDLE, TASK_RUNNING, TASK_WAITING };

enum task_end {
    TASK_WAITS,     /* not over: `done` is called later */
    TASK_RETURNED,  /* `finish` has seen the results */
    TASK_FAILED,    /* error, already reported */
    TASK_CANCELLED, /* ended by ps.CANCELLED, or abandoned */
};

/* What a kind of task does. */
struct task_ops {
    const char *name; /* for messages: "connect hook" */
    /* Pushes the function and its arguments, returns the number of arguments. May raise. */
    int (*push)(lua_State *L, struct task *t);
    /* Reads the results, which are at the stack indices 1 to n. May raise what is then reported. */
    void (*finish)(lua_State *L, struct task *t, int n);
    /* A task that waited is over. Lua is not running; may close connections. Must end with
     * sched_release(). */
    void (*done)(struct task *t, enum task_end end);
};

struct task {
    struct list node;    /* in vm->idle or vm->busy */
    struct list of_conn; /* in script_conn->tasks */
    struct vm *vm;
    const struct task_ops *ops;
    lua_State *co; /* NULL until started, and after an error */
    int co_ref;
    uint8_t state;  /* enum task_state */
    bool cancelled; /* its waits raise ps.CANCELLED */
    bool abandoned; /* it went on waiting after that: never resumed again */
    uint8_t refusals;
    uint8_t resume_error; /* next resume: 0 go on, 1 raise ps.CANCELLED */
    struct timer wake;    /* of ps.sleep */
    struct timer limit;   /* of the close hook */
    /* What the hooks of a connection need (policy_lua.c). */
    const struct script_policy *script_policy; /* whose hook it is */
    struct conn *conn;
    struct script_conn *script;
    const struct conn_info *info; /* close: valid while pushing */
    const char *bytes;            /* data: the chunk, until the hook waits */
    size_t n_bytes;
    int chunk_ref;         /* data: the chunk while the hook waits */
    uint8_t hook;          /* enum policy_hook */
    uint8_t dir;           /* enum relay_direction */
    uint8_t relay_verdict; /* enum relay_verdict */
    bool held;             /* holds a reference on conn */
    struct verdict verdict;
};

/* A task from the pool, NULL when out of memory. Give it back with sched_release(). */
struct task *sched_take(struct vm *vm, const struct task_ops *ops);
void sched_release(struct task *t);
/* Starts it. TASK_WAITS: it lives on and ends with ops->done; otherwise it is over and `done` is
 * not called. */
enum task_end sched_start(struct task *t);
/* Goes on after a wait; calls ops->done at its end. */
void sched_wake(struct task *t);
/* From now on its waits raise ps.CANCELLED; one that waits is resumed at once and has ended when
 * this returns. */
void sched_cancel(struct task *t);
/* Stops timers and frees all tasks of a VM whose connections are gone. */
void sched_deinit(struct vm *vm);

/* Runs the C function `body` protected, with a traceback while vm->traceback is set. 0, or -EINVAL
 * with the message in `why`. */
int sched_protect(struct vm *vm, lua_CFunction body, char *why, size_t why_cap);
/* Makes the door and, unless the JIT is on, installs the time budget. May raise. */
void sched_open(lua_State *L, struct vm *vm);

/* For C functions that wait, called by a Lua half that raises what follows `false`. When the
 * running task may wait, returns it with nothing pushed: arm its wake-up, then return
 * sched_wait(L). Otherwise *n results have been pushed (or the task was abandoned): return *n. */
struct task *sched_may_wait(lua_State *L, struct vm *vm, int *n);
int sched_wait(lua_State *L);
/* lua_CFunction for coroutine.resume: undoes the wait just begun. Upvalue: the VM. */
int sched_abort_wait(lua_State *L);

/* Adds WAIT and BOUNDARY, for lua/penstock/coroutines.lua, to the table on the top. May raise. */
void sched_push_constants(lua_State *L);

/* The VM a C function was registered with (its first upvalue). */
static inline struct vm *vm_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* ---- errors (report.c) ---- */

struct report {
    struct vm *vm;
    struct timer timer; /* 10 s from the first line on */
    uint64_t hash;
    uint32_t repeats; /* since then */
    char head[120];   /* first line */
};

/* Replaces the error object on the top of L by text: __tostring, or what type it is. May raise. */
void report_describe(lua_State *L);
/* Adds the traceback of `co` to the message on the top of L, with spaces for the tabs that a log
 * would escape. May raise. */
void report_traceback(lua_State *L, lua_State *co, int level);
/* Logs a script error, once in 10 s; `text` ends with its traceback. */
void report_error(struct vm *vm, uint64_t conn_id, const char *what, const char *text, size_t len);
void report_init(struct vm *vm);
void report_deinit(struct vm *vm);

/* ---- return values (verdict.c) ---- */

/* Fills t->verdict from the value at index 1, of a hook that decides. Raises when it makes no
 * sense. */
void verdict_read(lua_State *L, struct task *t);
/* Raises "the x hook returned <value at index 1>; it returns <right>". */
_Noreturn void verdict_nonsense(lua_State *L, const char *hook, const char *right);

/* ---- memory (heap.c) ---- */

enum { HEAP_KEPT = 24, HEAP_CAP_BYTES = 256 << 20 };
/* C stack that Lua may use: half of a worker's (worker.c). */
enum { SCRIPT_STACK_BYTES = 4 << 20 };

struct heap {
    lua_Alloc next; /* LuaJIT's own allocator */
    void *next_arg;
    struct {
        void *block;
        size_t cap;
    } kept[HEAP_KEPT]; /* free blocks, oldest first */
    size_t n_kept, kept_bytes;
    ptrdiff_t used_bytes; /* by Lua, since the state was made */
    bool guarded;         /* protected Lua runs: over the cap, it gets no more memory */
    bool refused;         /* it has been refused some since the last collection */
};

/* A Lua state with a cap on its heap, whose large blocks are kept for reuse; `h` is zeroed and
 * outlives it. NULL when out of memory. */
lua_State *heap_new_state(struct heap *h);
void heap_close_state(struct heap *h, lua_State *L);

/* ---- the rest ---- */

struct vm {
    struct policy_set set; /* first: what the proxy layer sees; each policy a script_policy */
    lua_State *L;
    struct heap heap;
    const char *stack_base; /* where the C stack stood when Lua was entered, NULL before */
    struct loop *loop;
    struct task *current;   /* running now */
    struct task *entering;  /* argument of the door */
    struct list idle, busy; /* struct task */
    struct list closing;    /* struct script_conn: to be closed once Lua is left */
    bool closing_now;       /* policy_run_closes() is on the stack */
    bool loading;           /* the file runs */
    bool traceback;         /* sched_protect(): add one */
    bool budget;            /* the count hook is installed */
    bool over_budget;       /* it has fired for this run */
    uint32_t n_idle;
    uint64_t run, seen_run;               /* entries into Lua; the one the count hook saw last */
    uint64_t seen_ns;                     /* when it saw that one first */
    uint64_t random[4];                   /* xoshiro256** */
    const struct script_options *options; /* while loading */
    int dirs[2];                          /* "up", "down" */
    int door, conn_meta, tasks, cancelled, deny_meta, pass; /* registry references */
    struct report reports[SCRIPT_ERRORS];
};

extern const struct policy_ops policy_lua_ops;
extern const struct policy_set_ops policy_lua_set_ops;
/* Appends a policy without hooks to those of the VM; the next number is its own. NULL when out of
 * memory. */
struct script_policy *policy_lua_add(struct vm *vm);
/* Frees all policies of the VM, whose state may be closed. */
void policy_lua_free_all(struct vm *vm);
/* Name of a hook as scripts write it. */
const char *policy_hook_name(enum policy_hook hook);
/* Closes what scripts asked to close. Lua must not be on the C stack. */
void policy_run_closes(struct vm *vm);

/* Pushes the table of C primitives that lua/penstock/init.lua gets. May raise. */
void lib_core_push(lua_State *L, struct vm *vm);
/* Pushes {debug, info, warn, error}: log functions for a connection (id) or the process (0). May
 * raise. */
void lib_log_push(lua_State *L, uint64_t conn_id);

/* Frees the VM and everything in it. */
void vm_free(struct vm *vm);

#endif
