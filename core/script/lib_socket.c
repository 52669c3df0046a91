/* ps.tcp and ps.dns: sockets that scripts open. A socket is a stream with two relays, one that only
 * reads and one that only writes, and a dial while it connects. It belongs to the connection whose
 * hook opened it and ends with it; its memory goes once the poller cannot mean it any more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "penstock/base/err.h"
#include "penstock/net/dial.h"
#include "penstock/net/resolver.h"
#include "socket_priv.h"
#include "stream_priv.h"

enum {
    CONNECT_MS = 5000, /* when the script sets no time limit */
    LINGER_MS = 5000,  /* for what was written before close() */
};

struct script_socket {
    struct vm *vm;
    struct stream stream;
    struct relay in, out;
    struct script_stream *s; /* the userdata; NULL while lingering */
    struct dial *dial;
    struct targets *targets;
    size_t target;           /* index of the one connected */
    struct task *connecting; /* waits for the dial */
    struct list node;        /* in script_conn->sockets or vm->sockets */
    struct list dirty_node;  /* in vm->dirty_sockets */
    struct timer timer;      /* lingering, or idle in a pool */
    struct loop_task free_task;
    int err; /* of the dial */
    const char *why;
    char *hop; /* which proxy on the way failed and why; NULL without one */
    bool connected;
};

static const struct dial_socket socket_options = {.nodelay = true};

/* ---- life ---- */

static void free_socket(struct loop_task *task)
{
    struct script_socket *k = container_of(task, struct script_socket, free_task);
    free(k->hop);
    free(k);
}

static bool has_unsent(const struct script_socket *k)
{
    return relay_held(&k->out) || stream_staged(&k->stream);
}

static void close_now(struct script_socket *k)
{
    if (!list_is_empty(&k->free_task.node))
        return;
    if (k->dial)
        dial_cancel(k->dial);
    k->dial = NULL;
    if (k->s) {
        k->s->socket = NULL;
        lib_stream_detach(k->s);
    }
    k->s = NULL;
    timers_stop(&k->vm->loop->timers, &k->timer);
    bool lost = k->connected && has_unsent(k);
    relay_deinit(&k->in);
    relay_deinit(&k->out);
    k->in.state = k->out.state = RELAY_BROKEN; /* a pump may be on the stack */
    if (lost)                                  /* a FIN would say that this was all */
        stream_abort(&k->stream);
    else
        stream_close(&k->stream);
    if (k->connected)
        target_leave(&k->targets->items[k->target]);
    targets_drop(k->targets);
    k->targets = NULL;
    list_remove(&k->node);
    list_remove(&k->dirty_node);
    k->connected = false;
    loop_defer(k->vm->loop, &k->free_task);
}

static void on_timer(struct timer *timer)
{
    close_now(container_of(timer, struct script_socket, timer));
}

/* Closes once what was written has gone. */
static void close_softly(struct script_socket *k)
{
    if (k->s) { /* first: nobody is to be told of room */
        k->s->socket = NULL;
        lib_stream_detach(k->s);
    }
    k->s = NULL;
    if (k->connected)
        relay_flush(&k->out);
    if (!k->connected || !has_unsent(k) || k->out.state != RELAY_OPEN) {
        close_now(k);
        return;
    }
    list_remove(&k->node); /* of the connection: it may end before */
    list_push(&k->vm->sockets, &k->node);
    loop_timer(k->vm->loop, &k->timer, LINGER_MS);
}

static void pump(struct script_socket *k)
{
    relay_flush(&k->out);
    relay_pump(&k->in);
    relay_pump(&k->out);
    if (k->s && k->s->writer && k->out.state == RELAY_BROKEN)
        sched_wake(k->s->writer);
    if (!k->s && k->connected && (!has_unsent(k) || k->out.state != RELAY_OPEN))
        close_now(k);
}

static void on_event(struct poller_entry *entry, unsigned events)
{
    struct script_socket *k = container_of(entry, struct script_socket, stream.entry);
    struct vm *vm = k->vm;
    if (k->dial) {
        dial_on_stream(k->dial, events);
        return;
    }
    stream_note_events(&k->stream, events);
    pump(k);
    vm_settle(vm);
}

static struct script_socket *socket_of(struct relay *r)
{
    return r->direction == RELAY_UP ? container_of(r, struct script_socket, out)
                                    : container_of(r, struct script_socket, in);
}

static void on_ready(struct relay *r)
{
    struct vm *vm = socket_of(r)->vm;
    pump(socket_of(r));
    vm_settle(vm);
}

static bool on_input(struct relay *r)
{
    struct script_socket *k = socket_of(r);
    return k->s && lib_stream_on_input(k->s);
}

static void on_room(struct relay *r)
{
    struct script_socket *k = socket_of(r);
    if (k->s)
        lib_stream_on_room(k->s);
}

static const struct relay_ops relay_ops = {
    .on_ready = on_ready, .on_input = on_input, .on_room = on_room};

/* Sockets of a hook end with its connection, others with the VM. */
static struct list *owner_list(struct vm *vm)
{
    struct task *t = vm->current;
    return t && t->script ? &t->script->sockets : &vm->sockets;
}

static struct script_socket *socket_new(struct vm *vm, struct script_stream *s)
{
    struct script_socket *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->vm = vm;
    k->s = s;
    k->free_task.run = free_socket;
    list_init(&k->free_task.node);
    list_init(&k->dirty_node);
    list_init(&k->node);
    list_push(owner_list(vm), &k->node);
    timer_init(&k->timer, on_timer);
    stream_init(&k->stream, on_event);
    relay_init(&k->in, RELAY_DOWN, vm->loop, &k->stream, NULL, &relay_ops);
    relay_init(&k->out, RELAY_UP, vm->loop, NULL, &k->stream, &relay_ops);
    return k;
}

void lib_socket_soil(struct script_socket *k)
{
    if (list_is_empty(&k->dirty_node))
        list_push(&k->vm->dirty_sockets, &k->dirty_node);
}

void lib_socket_flush(struct vm *vm)
{
    while (!list_is_empty(&vm->dirty_sockets)) {
        struct script_socket *k =
            container_of(vm->dirty_sockets.next, struct script_socket, dirty_node);
        list_remove(&k->dirty_node);
        pump(k);
    }
}

void lib_socket_collected(struct script_socket *k)
{
    close_softly(k);
}

void lib_socket_leave_all(struct list *list)
{
    while (!list_is_empty(list))
        close_softly(container_of(list->next, struct script_socket, node));
}

void lib_socket_close_all(struct list *list)
{
    while (!list_is_empty(list))
        close_now(container_of(list->next, struct script_socket, node));
}

/* ---- connecting ---- */

static void on_dialled(void *arg, const struct dial_result *result)
{
    struct script_socket *k = arg;
    struct task *t = k->connecting;
    k->dial = NULL;
    k->err = result->err;
    k->why = result->why;
    k->hop = result->hop ? strdup(result->hop) : NULL;
    k->connected = !result->err;
    k->target = result->target;
    if (k->connected) {
        relay_start(&k->in, RELAY_CHOICE_COPY, RELAY_STREAM);
        relay_start(&k->out, RELAY_CHOICE_COPY, RELAY_STREAM);
        k->s->in = &k->in;
        k->s->out = &k->out;
    }
    if (t)
        sched_wake(t);
}

static int answer_connect(lua_State *L, struct task *t)
{
    struct script_socket *k = t->wait_on;
    if (k->connected) {
        lua_pushboolean(L, 1);
        lua_pushboolean(L, 1);
        return 2;
    }
    if (k->dial)
        return 0;
    sched_push_failure(L, k->err);
    lua_pushstring(L, k->hop ? k->hop : k->why ? k->why : err_text(k->err));
    return 4;
}

/* Also when it has answered: a failed socket is of no use any more. */
static void drop_connect(struct task *t)
{
    struct script_socket *k = t->wait_on;
    k->connecting = NULL;
    if (!k->connected)
        close_now(k);
}

static struct script_stream *check_socket(lua_State *L, const char *call)
{
    return lib_stream_check(L, 1, call);
}

static int start_connect(lua_State *L, struct task *t, struct script_socket *k, uint64_t timeout_ms)
{
    static const struct wait_kind connect_wait = {answer_connect, drop_connect};
    struct dial_options options = {.loop = k->vm->loop,
                                   .resolver = k->vm->loop->resolver,
                                   .targets = k->targets->items,
                                   .n_targets = k->targets->n,
                                   .timeout_ms = timeout_ms ? timeout_ms : CONNECT_MS,
                                   .socket = &socket_options,
                                   .stream = &k->stream};
    if (dial_start(&options, on_dialled, k, &k->dial)) {
        close_now(k);
        return sched_push_failure(L, -ENOMEM);
    }
    k->connecting = t;
    return sched_wait(L, t, &connect_wait, k, 0);
}

/* connect(socket, destination, timeout in ms) -> true | nil, word, detail */
static int socket_connect(lua_State *L)
{
    static const char call[] = "ps.tcp.connect(\"host:port\")";
    struct script_stream *s = check_socket(L, call);
    struct vm *vm = vm_of(L);
    int n;
    uint64_t timeout_ms = (uint64_t)lua_tonumber(L, 3);
    if (s->socket || s->script)
        return luaL_error(L, "%s: this stream is connected already", call);
    struct task *t = sched_may_wait(L, vm, &n);
    if (!t)
        return n;
    struct targets *targets = destination_read(L, 2, "ps.tcp.connect got");
    if (!targets) {
        sched_push_failure(L, PS_EUNREACHABLE);
        lua_pushliteral(L, "no server of the pool is available");
        return 4;
    }
    struct script_socket *k = socket_new(vm, s);
    if (!k) {
        targets_drop(targets);
        return sched_push_failure(L, -ENOMEM);
    }
    s->socket = k;
    k->targets = targets;
    return start_connect(L, t, k, timeout_ms);
}

/* new() -> a stream that is not connected */
static int socket_new_stream(lua_State *L)
{
    lib_stream_push_loose(L, vm_of(L));
    return 1;
}

/* close(socket): what was written is delivered */
static int socket_close(lua_State *L)
{
    struct script_stream *s = check_socket(L, "socket:close()");
    if (s->script)
        return luaL_error(L, "socket:close() is for sockets of ps.tcp; a connection ends by "
                             "conn:close() or conn:reset()");
    if (s->socket)
        close_softly(s->socket);
    lua_pushboolean(L, 1);
    return 1;
}

/* set_timeout(socket, ms): of each wait; 0: none */
static int socket_set_timeout(lua_State *L)
{
    check_socket(L, "socket:settimeout(ms)")->timeout_ms = (uint64_t)lua_tonumber(L, 2);
    return 0;
}

/* is_open(socket) -> boolean */
static int socket_is_open(lua_State *L)
{
    struct script_stream *s = check_socket(L, "socket:connect(host, port)");
    lua_pushboolean(L, s->socket && s->socket->connected);
    return 1;
}

/* ---- pools of idle connections (their Lua half: lua/penstock/tcp.lua) ---- */

static void move(struct script_socket *k, struct script_stream *from, struct script_stream *to,
                 struct list *owner)
{
    from->socket = NULL;
    lib_stream_detach(from);
    k->s = to;
    to->socket = k;
    to->in = &k->in;
    to->out = &k->out;
    list_remove(&k->node);
    list_push(owner, &k->node);
}

/* park(socket, idle ms) -> a stream that keeps the connection until it is taken, or nil when it
 * cannot be used again */
static int socket_park(lua_State *L)
{
    struct script_stream *s = check_socket(L, "socket:setkeepalive(ms)");
    struct script_socket *k = s->socket;
    uint64_t idle_ms = (uint64_t)lua_tonumber(L, 2);
    bool good = k && k->connected && !k->stream.err && !k->stream.eof && !s->reader && !s->writer &&
                !has_unsent(k) && !buf_len(&k->in.unread);
    if (!good) {
        lua_pushnil(L);
        return 1;
    }
    struct script_stream *keeper = lib_stream_push_loose(L, vm_of(L));
    move(k, s, keeper, &k->vm->sockets);
    if (idle_ms)
        loop_timer(k->vm->loop, &k->timer, idle_ms);
    return 1;
}

/* Nobody has spoken or hung up since it was parked. */
static bool is_fresh(struct script_socket *k)
{
    char *bytes;
    return k->in.state == RELAY_OPEN && !k->stream.err && relay_read(&k->in, &bytes, 1) == -EAGAIN;
}

/* take(socket, keeper) -> true when `socket` has the kept connection now */
static int socket_take(lua_State *L)
{
    struct script_stream *s = check_socket(L, "socket:connect(host, port)");
    struct script_stream *keeper = lib_stream_check(L, 2, "take");
    struct script_socket *k = keeper->socket;
    bool good = k && is_fresh(k);
    if (k && !good)
        close_now(k);
    if (good) {
        timers_stop(&k->vm->loop->timers, &k->timer);
        move(k, keeper, s, owner_list(k->vm));
    }
    lua_pushboolean(L, good);
    return 1;
}

/* ---- names ---- */

struct query {
    struct resolver_query query;
    struct task *task;
    struct addr *addrs;
    size_t n;
    int err;
    const char *why;
    bool done;
};

static void on_resolved(struct resolver_query *q, int err, const struct addr *addrs, size_t n,
                        const char *why)
{
    struct query *query = container_of(q, struct query, query);
    query->done = true;
    query->err = err;
    query->why = why;
    if (!err && (query->addrs = malloc(n * sizeof *addrs))) {
        memcpy(query->addrs, addrs, n * sizeof *addrs);
        query->n = n;
    } else if (!err) {
        query->err = -ENOMEM;
    }
    if (query->task)
        sched_wake_later(query->task); /* the resolver goes on after this */
}

static int answer_query(lua_State *L, struct task *t)
{
    struct query *q = t->wait_on;
    char text[ADDR_TEXT_MAX];
    if (!q->done && !t->timed_out)
        return 0;
    if (!q->done)
        return sched_push_failure(L, PS_ETIMEOUT);
    if (q->err) {
        sched_push_failure(L, q->err);
        lua_pushstring(L, q->why ? q->why : err_text(q->err));
        return 4;
    }
    lua_pushboolean(L, 1);
    lua_createtable(L, (int)q->n, 0);
    for (size_t i = 0; i < q->n; i++) {
        lua_pushstring(L, addr_format_ip(&q->addrs[i], text, sizeof text));
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 2;
}

static void drop_query(struct task *t)
{
    struct query *q = t->wait_on;
    if (!q->done)
        resolver_cancel(&q->query);
    free(q->addrs);
    free(q);
}

/* resolve(name, AAAA?, timeout in ms) -> list of addresses | nil, word, detail */
static int resolve(lua_State *L)
{
    static const struct wait_kind query_wait = {answer_query, drop_query};
    struct vm *vm = vm_of(L);
    int n;
    const char *name = luaL_checkstring(L, 1);
    int family = lua_toboolean(L, 2) ? AF_INET6 : AF_INET;
    uint64_t timeout_ms = (uint64_t)lua_tonumber(L, 3);
    struct task *t = sched_may_wait(L, vm, &n);
    if (!t)
        return n;
    struct query *q = calloc(1, sizeof *q);
    if (!q)
        return sched_push_failure(L, -ENOMEM);
    list_init(&q->query.node);
    resolver_lookup(vm->loop->resolver, &q->query, name, family, on_resolved);
    q->task = t;
    if (q->done) /* it was in the cache */
        sched_wake_later(t);
    return sched_wait(L, t, &query_wait, q, timeout_ms);
}

void lib_socket_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"new", socket_new_stream},
        {"connect", socket_connect},
        {"close", socket_close},
        {"set_timeout", socket_set_timeout},
        {"is_open", socket_is_open},
        {"park", socket_park},
        {"take", socket_take},
        {"resolve", resolve},
        {NULL, NULL},
    };
    // stack: …, core
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_setfield(L, -2, "socket"); // stack: …, core
}
