/* Streams: the userdata behind rd and wr, the client and upstream of a handshake, and sockets. Its
 * methods' Lua half is lua/penstock/stream.lua. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "penstock/base/err.h"
#include "lib_tls.h"
#include "penstock/net/tls.h"
#include "socket_priv.h"
#include "stream_priv.h"

static const char type_name[] = "penstock.stream";

/* ---- sources and destinations ---- */

static struct buf *source_bytes(struct script_stream *s)
{
    return s->in ? &s->in->unread : s->in_queue ? &s->in_queue->bytes : NULL;
}

static bool source_ended(const struct script_stream *s)
{
    if (s->in)
        return s->in->from->eof && !s->in->from->err;
    return s->in_queue->ended;
}

/* More bytes behind those there are: as relay_fill(). `paused`: this entry into Lua has had its
 * share. */
static ssize_t source_fill(struct script_stream *s, size_t want)
{
    if (!s->in)
        return s->in_queue->ended ? 0 : -EAGAIN;
    ssize_t n = relay_fill(s->in, want);
    if (n > 0)
        s->run_bytes += (size_t)n;
    return n;
}

static void wake_later(struct task *t)
{
    if (t)
        sched_wake_later(t);
}

static void consume(struct script_stream *s, size_t n)
{
    struct buf *b = source_bytes(s);
    buf_consume(b, n);
    if (!buf_len(b))
        buf_pool_give_back(&s->vm->loop->bufs, b);
    if (!s->in_queue)
        return;
    s->in_queue->missed = 0;
    if (s->in_queue->writer)
        wake_later(s->in_queue->writer->writer);
}

void lib_conn_soil(struct script_conn *c)
{
    if (list_is_empty(&c->dirty_node))
        list_push(&c->vm->dirty, &c->dirty_node);
}

void lib_stream_soil(struct script_stream *s)
{
    if (s->script)
        lib_conn_soil(s->script);
    else if (s->socket)
        lib_socket_soil(s->socket);
}

void lib_stream_finish(struct script_stream *s)
{
    if (s->out) {
        relay_finish(s->out);
        lib_stream_soil(s);
    } else if (s->out_queue) {
        s->out_queue->ended = true;
        if (s->out_queue->reader)
            wake_later(s->out_queue->reader->reader);
    }
}

static void want_input(struct script_stream *s)
{
    if (s->in) {
        relay_want_input(s->in);
        return;
    }
    struct stream_queue *q = s->in_queue;
    const struct conn *c = s->script ? s->script->conn : NULL;
    q->missed = buf_len(&q->bytes);
    if (c &&
        (c->client.err || c->upstream.err)) /* it may have been the last one with something to do */
        lib_stream_soil(s);
    if (q->writer)
        wake_later(q->writer->writer);
}

void lib_stream_set_source(struct script_stream *s, struct relay *in, struct stream_queue *queue)
{
    s->in = in;
    s->in_queue = queue;
    if (queue)
        queue->reader = s;
    wake_later(s->reader);
}

void lib_stream_set_destination(struct script_stream *s, struct relay *out,
                                struct stream_queue *queue)
{
    s->out = out;
    s->out_queue = queue;
    if (queue)
        queue->writer = s;
    else
        lib_stream_soil(s);
    wake_later(s->writer);
}

/* ---- reading ---- */

static void push_bytes(lua_State *L, struct script_stream *s, const char *bytes, size_t n)
{
    if (s->op.kind == READ_VIEW)
        lib_view_push(L, s->vm, bytes, n);
    else
        lua_pushlstring(L, bytes, n);
}

/* The terminators of lines are made once. */
static void push_second(lua_State *L, struct script_stream *s, const char *bytes, size_t n)
{
    if (s->op.kind == READ_FRAME)
        lua_pushlstring(L, bytes, n);
    else
        lua_rawgeti(L, LUA_REGISTRYINDEX, s->vm->terminators[n]);
}

static int push_match(lua_State *L, struct script_stream *s, const struct read_match *m)
{
    static const uint8_t pairs = 1 << READ_LINE | 1 << READ_FRAME | 1 << READ_PEEK_LINE;
    const char *bytes = buf_bytes(source_bytes(s));
    lua_pushboolean(L, 1);
    push_bytes(L, s, bytes, m->first);
    bool pair = pairs & (1 << s->op.kind);
    if (pair)
        push_second(L, s, bytes + m->first, m->second);
    if (m->consumed)
        consume(s, m->consumed);
    return pair ? 3 : 2;
}

/* A read of what there is, while nothing is left over: straight from the socket to Lua. */
static int read_straight(lua_State *L, struct script_stream *s)
{
    char *bytes;
    ssize_t n = relay_read(s->in, &bytes, s->op.max);
    if (n <= 0)
        return (int)n;
    s->run_bytes += (size_t)n;
    lua_pushboolean(L, 1);
    push_bytes(L, s, bytes, (size_t)n);
    return 2;
}

/* The source was aborted. A connection's hooks are not told: its end cancels them. */
static int failed(lua_State *L, struct script_stream *s, ssize_t err)
{
    return s->socket ? sched_push_failure(L, err_from_errno((int)err)) : 0;
}

static int parse(lua_State *L, struct script_stream *s, bool ended)
{
    struct buf *b = source_bytes(s);
    lua_pushboolean(L, 1);
    int n = s->op.parse(L, buf_bytes(b), buf_len(b));
    if (n)
        return n + 1;
    lua_pop(L, 1);
    if (ended)
        return sched_push_failure(L, PS_EEOF);
    return buf_len(b) >= s->op.max ? sched_push_failure(L, PS_ETOO_LONG) : 0;
}

/* Looks at the bytes there are. Returns the number of results, 0 when more are needed. */
static int look(lua_State *L, struct script_stream *s, bool ended)
{
    struct read_match m;
    struct buf *b = source_bytes(s);
    if (s->op.kind == READ_PARSED)
        return parse(L, s, ended);
    switch (read_look(&s->op, buf_bytes(b), buf_len(b), ended, &m)) {
    case READ_FOUND:
        return push_match(L, s, &m);
    case READ_TOO_LONG:
        return sched_push_failure(L, PS_ETOO_LONG);
    case READ_ENDED:
        if (s->op.kind != READ_SOME && s->op.kind != READ_VIEW)
            return sched_push_failure(L, PS_EEOF);
        lua_pushboolean(L, 1);
        lua_pushnil(L);
        return 2;
    default:
        return 0;
    }
}

static bool has_had_its_share(struct script_stream *s)
{
    if (s->run != s->vm->run) {
        s->run = s->vm->run;
        s->run_bytes = 0;
    }
    return s->run_bytes >= STREAM_TURN_BYTES;
}

/* Answers the read when that is possible now: pushes true and the results, returns how many; 0 when
 * it must wait. `pause`: a script that reads on and on gives others a turn. */
static int try_read(lua_State *L, struct script_stream *s, bool pause)
{
    if (s->op.kind == READ_TLS)
        return lib_tls_shake(L, s);
    bool straight = s->op.kind == READ_SOME || s->op.kind == READ_VIEW;
    for (;;) {
        bool ended = source_ended(s);
        int n = look(L, s, ended);
        if (n)
            return n;
        if (has_had_its_share(s) && pause)
            return 0;
        if (straight && s->in) {
            n = read_straight(L, s);
            if (n > 0)
                return n;
        } else {
            n = (int)source_fill(s, BUF_POOL_LARGE);
        }
        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return failed(L, s, n);
    }
}

static int answer_read(lua_State *L, struct task *t)
{
    struct script_stream *s = t->wait_on;
    if (!s->in && !s->in_queue)
        return sched_push_failure(L, PS_ECLOSED);
    int n = try_read(L, s, false);
    if (!n && t->timed_out)
        return sched_push_failure(L, PS_ETIMEOUT);
    if (!n)
        want_input(s);
    return n;
}

void lib_stream_drop_read(struct task *t)
{
    struct script_stream *s = t->wait_on;
    s->reader = NULL;
    if (s->in)
        s->in->wants_input = false;
    if (s->in && s->op.kind == READ_TLS) {
        tls_give_up(s->in->from); /* nothing could be made of it */
        loop_ready(s->vm->loop, &s->in->task);
    }
}

static const struct wait_kind read_wait = {answer_read, lib_stream_drop_read};

int lib_stream_over(lua_State *L, struct vm *vm)
{
    struct task *t = vm->current;
    return t && t->cancelled ? sched_push_cancelled(L, vm) : sched_push_failure(L, PS_ECLOSED);
}

int lib_stream_taken(lua_State *L, const char *what)
{
    lua_pushboolean(L, 0);
    lua_pushfstring(L, "another coroutine already %s this stream", what);
    return 2;
}

/* What is left of the time for a wait of timeout_ms, which may be 0: no limit. */
static uint64_t time_left(const struct script_stream *s, uint64_t timeout_ms)
{
    uint64_t now = s->vm->loop->now_ms;
    if (!s->deadline_ms)
        return timeout_ms;
    uint64_t left = s->deadline_ms > now ? s->deadline_ms - now : 1; /* 0 would be none */
    return timeout_ms && timeout_ms < left ? timeout_ms : left;
}

int lib_stream_read_or_wait(lua_State *L, struct script_stream *s, uint64_t timeout_ms)
{
    int n;
    struct task *t = s->vm->current;
    if ((!s->in && !s->in_queue) || (t && t->cancelled))
        return lib_stream_over(L, s->vm);
    if (s->reader)
        return lib_stream_taken(L, "reads");
    n = try_read(L, s, lua_isyieldable(L));
    if (n)
        return n;
    t = sched_may_wait(L, s->vm, &n);
    if (!t)
        return n;
    s->reader = t;
    want_input(s);
    return sched_wait(L, t, &read_wait, s, time_left(s, timeout_ms));
}

bool lib_stream_on_input(struct script_stream *s)
{
    return s->reader ? sched_wake(s->reader) : false;
}

void lib_stream_on_room(struct script_stream *s)
{
    if (s->vm->current) /* what a hook has just put has been written at once */
        wake_later(s->writer);
    else if (s->writer)
        sched_wake(s->writer);
}

/* ---- the userdata ---- */

static struct script_stream *push_stream(lua_State *L, struct vm *vm, bool reads)
{
    size_t size = reads ? sizeof(struct script_stream) : offsetof(struct script_stream, run);
    struct script_stream *s = lua_newuserdata(L, size); // stack: …, stream
    memset(s, 0, size);
    s->vm = vm;
    s->ref = LUA_NOREF;
    s->reads = reads;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->stream_meta);
    lua_setmetatable(L, -2);
    return s;
}

struct script_stream *lib_stream_push_loose(lua_State *L, struct vm *vm)
{
    return push_stream(L, vm, true);
}

struct script_stream *lib_stream_push_new(lua_State *L, struct vm *vm, bool reads)
{
    struct script_stream *s = push_stream(L, vm, reads);
    lua_pushvalue(L, -1);
    s->ref = luaL_ref(L, LUA_REGISTRYINDEX); // stack: …, stream
    return s;
}

void lib_stream_detach(struct script_stream *s)
{
    if (s->in)
        s->in->wants_input = false;
    if (s->out)
        s->out->wants_room = false;
    if (s->in_queue && s->in_queue->reader == s)
        s->in_queue->reader = NULL;
    if (s->out_queue && s->out_queue->writer == s)
        s->out_queue->writer = NULL;
    s->in = s->out = NULL;
    s->in_queue = s->out_queue = NULL;
    s->script = NULL;
    wake_later(s->reader);
    wake_later(s->writer);
    luaL_unref(s->vm->L, LUA_REGISTRYINDEX, s->ref);
    s->ref = LUA_NOREF;
}

struct script_stream *lib_stream_check(lua_State *L, int index, const char *call)
{
    struct script_stream *s = lua_touserdata(L, index);
    bool is = false;
    if (s && lua_getmetatable(L, index)) {
        is = lua_topointer(L, -1) == vm_of(L)->stream_meta_at;
        lua_pop(L, 1);
    }
    if (!is)
        luaL_error(L, "call it with a colon: %s", call);
    return s;
}

/* ---- methods that read ---- */

/* A stream that reads, at 1. */
static struct script_stream *check_reader(lua_State *L, const char *call)
{
    struct script_stream *s = lib_stream_check(L, 1, call);
    if (!s->reads)
        luaL_error(L, "%s: this stream is for writing", call);
    return s;
}

static size_t check_size(lua_State *L, int index, size_t least, size_t or_else, const char *call)
{
    if (lua_isnoneornil(L, index) && or_else)
        return or_else;
    double n = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;
    if (!(n >= (double)least && n <= STREAM_READ_MAX && floor(n) == n))
        luaL_error(L, "%s: a whole number of bytes from %d to %d is expected", call, (int)least,
                   STREAM_READ_MAX);
    return (size_t)n;
}

static int read_sized(lua_State *L, enum read_kind kind, size_t or_else, const char *call)
{
    struct script_stream *s = check_reader(L, call);
    /* A body of no bytes is one, too. */
    size_t max = check_size(L, 2, kind == READ_EXACTLY ? 0 : 1, or_else, call);
    if (!s->reader)
        s->op = (struct read_op){.kind = kind, .max = max};
    return lib_stream_read_or_wait(L, s, s->timeout_ms);
}

static int method_read(lua_State *L)
{
    return read_sized(L, READ_SOME, BUF_POOL_SMALL, "rd:read([max])");
}

static int method_buffer(lua_State *L)
{
    return read_sized(L, READ_VIEW, BUF_POOL_SMALL, "rd:buffer([max])");
}

static int method_exactly(lua_State *L)
{
    return read_sized(L, READ_EXACTLY, 0, "rd:exactly(n)");
}

static int method_peek(lua_State *L)
{
    return read_sized(L, READ_PEEK, 0, "rd:peek(n)");
}

static int method_line(lua_State *L)
{
    static const char call[] = "rd:line([max])";
    struct script_stream *s = check_reader(L, call);
    size_t max = check_size(L, 2, 0, STREAM_LINE_MAX, call);
    if (!s->reader)
        s->op = (struct read_op){.kind = READ_LINE, .max = max};
    return lib_stream_read_or_wait(L, s, s->timeout_ms);
}

static int method_upto(lua_State *L)
{
    static const char call[] = "rd:upto(delimiter, [max])";
    struct script_stream *s = check_reader(L, call);
    size_t len = 0;
    const char *delim = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &len) : NULL;
    if (!delim || len == 0 || len > STREAM_DELIM_MAX)
        return luaL_error(L, "%s: the delimiter is a string of 1 to %d bytes", call,
                          STREAM_DELIM_MAX);
    size_t max = check_size(L, 3, 0, STREAM_LINE_MAX, call);
    if (s->reader)
        return lib_stream_taken(L, "reads");
    s->op = (struct read_op){.kind = READ_UPTO, .max = max, .delim_len = (uint8_t)len};
    memcpy(s->op.delim, delim, len);
    return lib_stream_read_or_wait(L, s, s->timeout_ms);
}

/* frame(stream, skip, length bytes (0: varint), little endian, adjust, max): the Lua half has
 * checked them. */
static int method_frame(lua_State *L)
{
    struct script_stream *s = check_reader(L, "rd:frame{ len = \"u32be\" }");
    if (s->reader)
        return lib_stream_taken(L, "reads");
    s->op = (struct read_op){.kind = READ_FRAME,
                             .skip = (size_t)lua_tonumber(L, 2),
                             .len_bytes = (uint8_t)lua_tointeger(L, 3),
                             .little_endian = lua_toboolean(L, 4),
                             .adjust = (int64_t)lua_tonumber(L, 5),
                             .max = (size_t)lua_tonumber(L, 6)};
    return lib_stream_read_or_wait(L, s, s->timeout_ms);
}

/* pending(stream): bytes that have arrived and are not read. */
static int method_pending(lua_State *L)
{
    struct script_stream *s = check_reader(L, "pending(rd)");
    if (!s->in && !s->in_queue)
        return lib_stream_over(L, s->vm);
    if (!buf_len(source_bytes(s)))
        source_fill(s, BUF_POOL_SMALL);
    lua_pushboolean(L, 1);
    lua_pushnumber(L, (lua_Number)buf_len(source_bytes(s)));
    return 2;
}

static int method_unread(lua_State *L)
{
    static const char call[] = "rd:unread(bytes)";
    struct script_stream *s = check_reader(L, call);
    size_t n;
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "%s: a string is expected", call);
    const char *bytes = lua_tolstring(L, 2, &n);
    if (!s->in && !s->in_queue)
        return lib_stream_over(L, s->vm);
    struct relay queue = {.loop = s->vm->loop}; /* relay_unread() needs no more */
    struct relay *r = s->in ? s->in : &queue;
    if (!s->in)
        queue.unread = s->in_queue->bytes;
    int err = relay_unread(r, bytes, n);
    if (!s->in)
        s->in_queue->bytes = queue.unread;
    if (err)
        return luaL_error(L, "not enough memory");
    s->op.scanned = 0; /* of who waits: there are other bytes in front now */
    wake_later(s->reader);
    lua_pushboolean(L, 1);
    lua_pushboolean(L, 1);
    return 2;
}

/* ---- opening ---- */

static void open_terminators(lua_State *L, struct vm *vm)
{
    static const char *const texts[] = {"", "\n", "\r\n"};
    for (size_t n = 0; n < 3; n++) {
        lua_pushlstring(L, texts[n], n);
        vm->terminators[n] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
}

static int method_tostring(lua_State *L)
{
    struct script_stream *s = lib_stream_check(L, 1, "tostring(stream)");
    const char *what = s->in || s->in_queue     ? "reads"
                       : s->out || s->out_queue ? "writes"
                                                : "closed";
    if ((s->in || s->in_queue) && (s->out || s->out_queue))
        what = "reads and writes";
    lua_pushfstring(L, "stream (%s)", what);
    return 1;
}

static int method_gc(lua_State *L)
{
    struct script_stream *s = lua_touserdata(L, 1);
    if (s->socket)
        lib_socket_collected(s->socket);
    return 0;
}

/* set_methods(table): what a stream answers to. */
static int set_methods(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->stream_meta);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "__index");
    return 0;
}

void lib_stream_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"read", method_read},
        {"exactly", method_exactly},
        {"upto", method_upto},
        {"line", method_line},
        {"frame", method_frame},
        {"buffer", method_buffer},
        {"peek", method_peek},
        {"unread", method_unread},
        {"set_methods", set_methods},
        {"pending", method_pending},
        {NULL, NULL},
    };
    // stack: …, core
    luaL_newmetatable(L, type_name);
    lua_pushlightuserdata(L, vm);
    lua_pushcclosure(L, method_tostring, 1);
    lua_setfield(L, -2, "__tostring");
    lua_pushcfunction(L, method_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "stream");
    lua_setfield(L, -2, "__metatable");
    vm->stream_meta_at = lua_topointer(L, -1);
    vm->stream_meta = luaL_ref(L, LUA_REGISTRYINDEX);
    lib_view_open(L, vm);
    open_terminators(L, vm);
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, lib_stream_writers, 1);
    lua_setfield(L, -2, "stream"); // stack: …, core
}

/* ---- of a connection ---- */

void lib_stream_flush(struct vm *vm)
{
    while (!list_is_empty(&vm->dirty)) {
        struct script_conn *c = container_of(vm->dirty.next, struct script_conn, dirty_node);
        list_remove(&c->dirty_node);
        if (c->conn)
            conn_pump(c->conn);
    }
    lib_socket_flush(vm);
}
