/* What the files of core/script share. lua.h appears in this folder only.
 *
 * One VM belongs to one worker: it is loaded on the main thread and used and freed on the worker's.
 * Hooks run in coroutines from a pool (struct task); sched.c is the only file that calls into Lua.
 *
 * Nothing here closes a connection while Lua is on the C stack: conn:close() notes the wish (struct
 * script_conn), and vm_settle() grants it once the hook has ended or waits. */
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

enum { RESULTS_MAX = 10 }; /* of a coroutine; what is more is dropped */

enum {
    SCRIPT_BUDGET_MS = 100,     /* computing without waiting, then the hook is interrupted */
    SCRIPT_BUDGET_COUNT = 5000, /* VM instructions between two looks at the clock */
    SCRIPT_CLOSE_MS = 5000,     /* how long a close hook may wait */
    SCRIPT_IDLE_TASKS = 256,    /* coroutines kept for reuse */
    SCRIPT_REFUSALS = 16,       /* waits refused to a cancelled task before it is abandoned */
    SCRIPT_REPEAT_MS = 10000,   /* the same error is logged once in that time */
    SCRIPT_ERRORS = 16,         /* errors remembered for that */
};

struct script_stream;
struct task;
struct vm;

/* ---- policies (policy_lua.c) ---- */

/* The hooks of one listener. Owned by its VM. */
struct script_policy {
    struct policy policy; /* first: what the proxy layer sees */
    struct vm *vm;
    int hooks[HOOK_COUNT]; /* registry references, LUA_NOREF without */
    int filters[2];        /* by direction: the list of its filters, LUA_NOREF without */
    size_t n_filters[2];
    bool pass_on_error; /* on_error = "pass" */
    const char *about;  /* its hooks and where they stand, for people */
};

/* ---- connections as Lua sees them (lib_conn.c) ---- */

/* The userdata itself; LuaJIT never moves it. Anchored by `ref` from the first hook to
 * policy_ops.forget. */
struct script_conn {
    struct conn *conn; /* NULL once forgotten */
    struct vm *vm;
    struct list tasks;          /* struct task: running or waiting for it */
    struct list sockets;        /* struct script_socket that its hooks have made */
    struct list close_node;     /* in vm->closing */
    struct list dirty_node;     /* in vm->dirty */
    struct filters *filters[2]; /* by direction: those that run */
    struct script_stream *readers[2], *writers[2]; /* by direction: who has its ends */
    uint64_t look_ms; /* when its hooks first looked at the client; 0: not yet */
    uint64_t id, seq; /* copies, to answer after the end */
    int ref;
    bool has_env;     /* its environment table holds ctx, client, proxy, log, upstream */
    bool knows_proxy; /* its client is that of the PROXY header */
    bool closing;     /* the script asked for its end: methods answer "closed" from now on */
    bool reset;       /* … by RST */
    uint8_t why;      /* … for that enum close_reason; conn->detail says more, unless CLOSED */
    bool passed[2];   /* by direction: conn:pass() was called while a data hook waits */
};

/* Pushes the userdata of `c`, made at its first use and kept in c->script. May raise. */
struct script_conn *lib_conn_push(lua_State *L, struct vm *vm, struct conn *c);
/* Takes the connection away from its userdata. Does not raise. */
void lib_conn_forget(struct vm *vm, struct conn *c);
/* Registers the metatable. May raise. */
void lib_conn_open(lua_State *L, struct vm *vm);
/* The fields tls and upstream of the conn at 1 are made anew at their next use. */
void lib_conn_forget_tls(lua_State *L, struct script_conn *s);
/* The conn at 1, or an error that shows the right call. */
struct script_conn *lib_conn_check(lua_State *L, const char *call);
/* The connection when it can still be acted on, else NULL with nil, "closed" pushed: return 2. */
struct conn *lib_conn_live(lua_State *L, struct script_conn *s);
/* Pushes true, or nil, word and text of `err`; returns how many. */
int lib_conn_push_result(lua_State *L, int err);
/* Notes that the connection shall end once Lua is left. */
void lib_conn_ask_close(struct script_conn *s, struct conn *c, bool reset);
/* What a hook does with a connection's bytes (lib_conn_io.c): its methods, for the table of names
 * on the top, and the primitives for lua/penstock/conn.lua, for the one below it. May raise. */
extern const luaL_Reg lib_conn_io_methods[];
/* capture(conn, path, max bytes, first bytes, side), capture_end(conn): the Lua half has checked
 * the options. */
int lib_conn_capture(lua_State *L);
int lib_conn_capture_end(lua_State *L);
void lib_conn_io_open(lua_State *L, struct vm *vm);

/* ---- tasks (sched.c) ---- */

enum task_state { TASK_IDLE, TASK_RUNNING, TASK_WAITING };

enum task_end {
    TASK_WAITS,     /* not over: `done` is called later */
    TASK_RETURNED,  /* `finish` has seen the results */
    TASK_FAILED,    /* error, already reported */
    TASK_CANCELLED, /* ended by ps.CANCELLED, or abandoned */
};

/* What a task may wait for. */
struct wait_kind {
    /* Pushes what the wait answers: true and results, or false and what to raise. Returns how many;
     * 0: there is no answer yet, it goes on waiting. May raise. */
    int (*answer)(lua_State *L, struct task *t);
    /* The wait is over, or given up: whoever would wake the task forgets it. Does not raise. */
    void (*drop)(struct task *t);
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
    unsigned counts_as; /* enum policy_call, or CALL_HOOK and a hook */
    /* Is told its error, with a traceback where there is one, before `done`; `text` is valid during
     * the call. Does not raise. NULL: errors are logged. */
    void (*failed)(struct task *t, const char *text, size_t len);
};

/* What only some tasks need: filters, which wait as long as their connections live, go without. */
struct task_extra {
    struct task *task;
    struct verdict verdict; /* of a hook that decides */
    struct timer limit;     /* when it is cancelled: of a close hook, of ps.on_stop */
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
    bool timed_out; /* `wake` has fired during this wait */
    uint8_t refusals;
    const struct wait_kind *wait; /* while it waits */
    void *wait_on;                /* what of that kind */
    struct list wait_node;        /* in the list of who waits for the same */
    struct list ready_node;       /* in vm->ready: to be started, woken or cancelled */
    struct timer wake;            /* of ps.sleep, and of waits with a time limit */
    struct task_extra *extra;     /* sched_extra(): once it was needed, until the task is freed */
    struct script_handle *handle; /* lib_task.c: of a task that a script has made */
    struct list children;         /* tasks that end with this one */
    struct list sibling;          /* in the children of another */
    void *arg;                    /* of its kind */
    /* What the hooks of a connection need (policy_lua.c). */
    const struct script_policy *script_policy; /* whose hook it is */
    struct conn *conn;
    struct script_conn *script;
    const struct conn_info *info; /* close: valid while pushing */
    const char *bytes;            /* data: the chunk, until the hook waits */
    size_t n_bytes;
    int chunk_ref;         /* data: the chunk while the hook waits */
    uint8_t hook;          /* enum policy_hook, or the number of a filter */
    uint8_t dir;           /* enum relay_direction */
    uint8_t relay_verdict; /* enum relay_verdict */
    bool held;             /* holds a reference on conn */
};

/* A task from the pool, NULL when out of memory. Give it back with sched_release(). */
struct task *sched_take(struct vm *vm, const struct task_ops *ops);
void sched_release(struct task *t);
/* Its extra part, made at the first use; NULL when out of memory. */
struct task_extra *sched_extra(struct task *t);
/* Cancels it unless it has ended in that time. Cancels it at once when out of memory. */
void sched_limit(struct task *t, uint64_t ms);
/* Starts it. TASK_WAITS: it lives on and ends with ops->done; otherwise it is over and `done` is
 * not called. */
enum task_end sched_start(struct task *t);
/* What it waits for may be there: goes on if so, and calls ops->done at its end. Returns false when
 * it still waits for the same. */
bool sched_wake(struct task *t);
/* The same from within Lua, where no other task can run: later in this round. */
void sched_wake_later(struct task *t);
/* Its wait ends now; it is told later in this round. */
void sched_cancel_later(struct task *t);
/* Starts a task later in this round, or, while the file loads, once the VM serves. */
void sched_start_later(struct task *t);
/* The VM serves from now on, on its worker's thread: what waited for that starts. */
void sched_activate(struct vm *vm);
/* Another version has taken over: the tasks that belong to no connection end. */
void sched_end_timers(struct vm *vm);
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
 * running task may wait, returns it with nothing pushed: arm what will wake it, then return
 * sched_wait(). Otherwise *n results have been pushed (or the task was abandoned): return *n. */
struct task *sched_may_wait(lua_State *L, struct vm *vm, int *n);
/* timeout_ms 0: none; otherwise t->timed_out tells kind->answer that it is over. */
int sched_wait(lua_State *L, struct task *t, const struct wait_kind *kind, void *on,
               uint64_t timeout_ms);
/* Pushes false, ps.CANCELLED; returns 2. */
int sched_push_cancelled(lua_State *L, struct vm *vm);
/* Pushes true, nil, the word of `err`; returns 3. */
int sched_push_failure(lua_State *L, int err);
/* ps.sleep */
int sched_sleep(lua_State *L, struct vm *vm, uint64_t ms);
/* lua_CFunction for coroutine.resume: undoes the wait just begun. Upvalue: the VM. */
int sched_abort_wait(lua_State *L);

/* Adds WAIT and BOUNDARY, for lua/penstock/coroutines.lua, to the table on the top. May raise. */
void sched_push_constants(lua_State *L);

/* The VM a C function was registered with (its first upvalue). */
static inline struct vm *vm_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* ---- tasks that scripts make (lib_task.c) ---- */

/* Adds spawn, gates and their kin to the table of primitives on the top. May raise. */
void lib_task_open(lua_State *L, struct vm *vm);
/* Runs the functions of ps.on_stop, at most 5 s; the VM is busy until they have ended. */
void lib_task_stop(struct vm *vm);
/* A task with a handle is over: whoever waits for it is woken. Does not raise. */
void lib_task_ended(struct task *t);

/* ---- streams (lib_stream.c), filters (filter.c), sockets (lib_socket.c) ---- */

void lib_stream_open(lua_State *L, struct vm *vm);
/* The ends of a connection are gone: its streams answer "closed", its filters are forgotten. Its
 * tasks have ended. Does not raise. */
void lib_stream_forget(struct vm *vm, struct script_conn *s);
/* Pushes the stream of a side: it reads what comes from there and writes towards there. May raise.
 */
void lib_stream_push_side(lua_State *L, struct script_conn *s, enum conn_side side);
/* The hook is over: what it has not read is left to the relay. */
void lib_stream_detach_sides(struct script_conn *s);
/* Writes what scripts have put and not yet written. Lua must not be on the C stack. */
void lib_stream_flush(struct vm *vm);
/* Notes that a hook has put bytes into a connection: lib_stream_flush() will see to it. */
void lib_conn_soil(struct script_conn *s);

/* policy_ops.filter, input, room, starved. */
void filter_start(struct policy *policy, struct conn *c, enum relay_direction dir);
bool filter_input(struct policy *policy, struct conn *c, enum relay_direction dir);
void filter_room(struct policy *policy, struct conn *c, enum relay_direction dir);
bool filter_starved(struct policy *policy, struct conn *c, enum relay_direction dir);
/* conn:pass(): they end at their next wait, and C relays the rest. */
void filter_stop(struct script_conn *c, enum relay_direction dir);

/* Closes what scripts asked to close; of vm_settle(). */
void policy_run_closes(struct vm *vm);

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

/* policy_ops.waiting (waiting.c). */
bool waiting_hook(struct policy *policy, const struct conn *c, struct policy_place *out);

/* ---- chunks of an operator (prompt.c) ---- */

/* policy_set_ops.evaluate, abandon. */
void prompt_evaluate(struct policy_set *set, struct policy_chunk *chunk);
void prompt_abandon(struct policy_set *set, struct policy_chunk *chunk, const char *why);
/* Ends those that wait: the VM gets no more connections, since another version has replaced it. */
void prompt_retire(struct vm *vm);
/* The same without running them: the VM is about to be freed. */
void prompt_deinit(struct vm *vm);
/* Takes what is printed while a chunk runs; false when none does. */
bool prompt_print(struct vm *vm, const char *text, size_t len);

/* ---- return values (verdict.c) ---- */

/* Fills t->extra->verdict from the value at index 1, of a hook that decides. Raises when it makes
 * no sense. */
void verdict_read(lua_State *L, struct task *t);
/* Reads the ps.deny{…} at `index`. */
void verdict_read_deny(lua_State *L, int index, struct verdict *v);
/* Raises "the x hook returned <value at index 1>; it returns <right>". */
_Noreturn void verdict_nonsense(lua_State *L, const char *hook, const char *right);

/* ---- destinations (destination.c) ---- */

/* Reads the value at `index` as a destination: a text, a table with options, a server of a pool, a
 * pool, or a list of these.
 * Returns a list with one reference, which the caller keeps where an error cannot lose it; NULL for
 * pools of which no server may be used. Raises when it makes no sense, in words that begin with
 * `what`: "the connect hook returned", "ps.tcp.connect got". The value stays where it is. */
struct targets *destination_read(lua_State *L, int index, const char *what);

/* ---- memory (heap.c) ---- */

enum { HEAP_KEPT = 64, HEAP_CAP_BYTES = 256 << 20 };
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
    ptrdiff_t told_bytes; /* heap_tell() has told of */
    bool guarded;         /* protected Lua runs: over the cap, it gets no more memory */
    bool refused;         /* it has been refused some since the last collection */
};

/* A Lua state with a cap on its heap, whose large blocks are kept for reuse; `h` is zeroed and
 * outlives it. NULL when out of memory. */
lua_State *heap_new_state(struct heap *h);
void heap_close_state(struct heap *h, lua_State *L);
/* Brings the sum `total` up to date with what Lua uses now: nothing, once the state is closed. */
void heap_tell(struct heap *h, struct count *total);

/* ---- the rest ---- */

struct vm {
    struct policy_set set; /* first: what the proxy layer sees; each policy a script_policy */
    lua_State *L;
    struct heap heap;
    const char *stack_base; /* where the C stack stood when Lua was entered, NULL before */
    struct loop *loop;      /* NULL until it is activated */
    struct task *current;   /* running now */
    struct task *entering;  /* argument of the door */
    struct list idle, busy; /* struct task */
    struct list sockets;    /* struct script_socket that belong to no connection */
    struct list closing;    /* struct script_conn: to be closed once Lua is left */
    struct list dirty, dirty_sockets; /* struct script_conn, script_socket: hooks have put bytes
                                         there that are not yet written */
    struct list pools;                /* of lib_pool.c */
    struct list tls;                  /* contexts, by what they were made of (lib_tls.c) */
    struct list ready;                /* struct task: to be started, woken or cancelled */
    struct list chunks;               /* struct policy_chunk that wait (prompt.c) */
    struct loop_task run_ready;
    bool active;      /* it serves: not while loading */
    bool again;       /* … in the place of an earlier version */
    bool retired;     /* it gets no new connections */
    bool settling;    /* vm_settle() is on the stack */
    bool answered;    /* the wait of the task entered last has been answered */
    bool loading;     /* the file runs */
    bool want_jit;    /* ps.options{ jit = true } */
    bool traceback;   /* sched_protect(): add one */
    bool budget;      /* the count hook is installed */
    bool over_budget; /* it has fired for this run */
    uint32_t n_idle;
    int n_coroutines;                     /* of the tasks, busy and idle */
    uint64_t run, seen_run;               /* entries into Lua; the one the count hook saw last */
    uint64_t seen_ns;                     /* when it saw that one first */
    uint64_t random[4];                   /* xoshiro256** */
    const struct script_options *options; /* while loading */
    struct shared *shared;                /* of all workers, or own_shared */
    struct shared *own_shared;            /* NULL but in a VM that was given none */
    const char *globals;                  /* names of those that policies have, for checks */
    const char *configured;               /* what the file configured; "" before */
    int dirs[2];                          /* "up", "down" */
    /* Registry references. */
    int stop, door, conn_meta, stream_meta, view_meta, handle_meta, tasks, cancelled, deny_meta,
        reply_meta, pass;
    int replay; /* of lua/penstock/starttls.lua: what runs before the handshake hook of a connection
                   with a preamble */
    int terminators[3];          /* by length */
    int prompt_env, prompt_show; /* globals of an operator's chunks, and what makes text of their
                                    results; LUA_NOREF before the first */
    /* Where the metatables are: as long as the VM lives, at the same place. */
    const void *stream_meta_at, *view_meta_at;
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
/* Whenever Lua has been left: writes what scripts have put, closes what they asked to close. May
 * close connections and run other tasks. Does nothing while Lua is on the C stack. */
void vm_settle(struct vm *vm);

/* Pushes the table of C primitives that lua/penstock/init.lua gets. May raise. */
void lib_core_push(lua_State *L, struct vm *vm);
/* Reads the time at `arg`, in seconds or as a text, to *ms; false with a message pushed when it is
 * none. May raise. */
bool lib_read_time(lua_State *L, int arg, uint64_t *ms);
/* The next number of ps.random()'s row. */
uint64_t lib_random(struct vm *vm);
/* Adds the primitives of what workers share to that table, on the top (lib_shared.c). May raise. */
void lib_shared_push(lua_State *L, struct vm *vm);
/* The bucket that bucket:key() gave, at `arg`; NULL when there is something else. It is the
 * userdata's reference. Does not raise. */
struct rate_shared *lib_bucket_key_at(lua_State *L, int arg);
/* Pushes {debug, info, warn, error}: log functions for a connection (id) or the process (0). May
 * raise. */
void lib_log_push(lua_State *L, uint64_t conn_id);

/* Adds the C functions under ps.listen and ps.options to the table on the top. May raise. */
void lib_config_open(lua_State *L, struct vm *vm);
/* Adds read_private() to the table on the top (lib_files.c). May raise. */
void lib_files_open(lua_State *L);

/* Makes the binary's own modules, all but "penstock", known to require. May raise. */
void vm_preload_modules(lua_State *L);
/* Pushes the function that the module `name` of the binary is, not run yet. May raise. */
void vm_load_module(lua_State *L, const char *name);
/* Is it lua_Debug.source of a module of the binary? */
bool vm_is_of_library(const char *source);
/* The VM goes into force, on its worker's thread: what waits may be started now. */
void script_activate(struct vm *vm, struct loop *loop, bool again);
/* A later version has replaced it; connections that have it may live on for long. */
void script_retire(struct vm *vm, bool replaced);

/* Frees the VM and everything in it. */
void vm_free(struct vm *vm);

#endif
