/* The methods of streams that write, and the one that lets bytes pass. */
#include <errno.h>

#include "penstock/base/err.h"
#include "stream_priv.h"

static size_t held(const struct script_stream *s)
{
    return s->out ? relay_unsent(s->out) : s->out_queue ? buf_len(&s->out_queue->bytes) : 0;
}

static int put(struct script_stream *s, const char *bytes, size_t n)
{
    if (s->out) {
        lib_stream_soil(s);
        return relay_put(s->out, bytes, n);
    }
    if (s->out_queue->ended)
        return PS_ECLOSED;
    int err = buf_append(&s->out_queue->bytes, bytes, n);
    if (!err && s->out_queue->reader && s->out_queue->reader->reader)
        sched_wake_later(s->out_queue->reader->reader);
    return err;
}

/* ---- writing ---- */

static struct script_stream *check_writer(lua_State *L, const char *call)
{
    struct script_stream *s = lib_stream_check(L, 1, call);
    if (s->script && !s->out && !s->out_queue)
        luaL_error(L, "%s: this stream is for reading", call);
    return s;
}

/* The bytes of the string, number or view at `index`. */
static const char *check_bytes(lua_State *L, int index, struct vm *vm, size_t *n)
{
    int type = lua_type(L, index);
    if (type == LUA_TSTRING || type == LUA_TNUMBER)
        return lua_tolstring(L, index, n);
    const char *view = type == LUA_TUSERDATA ? lib_view_bytes(L, index, vm, n) : NULL;
    if (view)
        return view;
    if (type == LUA_TUSERDATA && luaL_callmeta(L, index, "__tostring")) { /* a string.buffer */
        lua_replace(L, index);
        return luaL_checklstring(L, index, n);
    }
    luaL_error(L, "wr:write(…): strings, numbers and buffers are written, argument %d is %s",
               index - 1, type == LUA_TNIL ? "nil" : luaL_typename(L, index));
    return NULL;
}

static int push_true(lua_State *L)
{
    lua_pushboolean(L, 1);
    lua_pushboolean(L, 1);
    return 2;
}

static int out_error(const struct script_stream *s)
{
    if (s->socket && s->out && s->out->to->err)
        return s->out->to->err;
    if (s->out)
        return s->out->state == RELAY_BROKEN ? (s->out->to->err ? s->out->to->err : -EPIPE) : 0;
    return s->out_queue && s->out_queue->ended ? PS_ECLOSED : 0;
}

/* True results when no more than s->mark bytes are held. */
static int try_write(lua_State *L, struct script_stream *s)
{
    int err = out_error(s);
    if (err && s->socket)
        return sched_push_failure(L, err_from_errno(err));
    if (err == PS_ECLOSED) /* the filters behind it want no more */
        return sched_push_failure(L, PS_ECLOSED);
    size_t missing = s->out_queue ? s->out_queue->missed : 0;
    return !err && held(s) <= s->mark + missing ? push_true(L) : 0;
}

static int answer_write(lua_State *L, struct task *t)
{
    struct script_stream *s = t->wait_on;
    if (!s->out && !s->out_queue)
        return sched_push_failure(L, PS_ECLOSED);
    int n = try_write(L, s);
    if (!n && t->timed_out)
        return sched_push_failure(L, PS_ETIMEOUT);
    if (!n && s->out)
        relay_want_room(s->out, s->mark);
    return n;
}

static void drop_write(struct task *t)
{
    struct script_stream *s = t->wait_on;
    s->writer = NULL;
    if (s->out)
        s->out->wants_room = false;
}

static int wait_for_room(lua_State *L, struct script_stream *s, size_t mark)
{
    static const struct wait_kind write_wait = {answer_write, drop_write};
    int n;
    struct task *t = sched_may_wait(L, s->vm, &n);
    if (!t)
        return n;
    s->writer = t;
    s->mark = mark;
    if (s->out)
        relay_want_room(s->out, mark);
    return sched_wait(L, t, &write_wait, s, s->timeout_ms);
}

/* No destination, or none that may still be written to: pushes why and returns how many. */
static int cannot_write(lua_State *L, struct script_stream *s)
{
    struct task *t = s->vm->current;
    if ((!s->out && !s->out_queue) || (t && t->cancelled))
        return lib_stream_over(L, s->vm);
    return s->writer ? lib_stream_taken(L, "writes to") : 0;
}

/* The same, and nothing may have been finished there. */
static int cannot_add(lua_State *L, struct script_stream *s, const char *call)
{
    int wrong = cannot_write(L, s);
    if (!wrong && s->out && s->out->finishing)
        luaL_error(L, "%s after wr:finish()", call);
    return wrong;
}

static int method_write(lua_State *L)
{
    static const char call[] = "wr:write(…)";
    struct script_stream *s = check_writer(L, call);
    int n_args = lua_gettop(L);
    size_t n = 0;
    for (int i = 2; i <= n_args; i++) /* all or nothing */
        if (lua_type(L, i) != LUA_TSTRING)
            check_bytes(L, i, s->vm, &n);
    int wrong = cannot_add(L, s, call);
    if (wrong)
        return wrong;
    for (int i = 2; i <= n_args; i++) {
        const char *bytes = check_bytes(L, i, s->vm, &n);
        int err = n ? put(s, bytes, n) : 0;
        if (err == -ENOMEM && s->out_queue)
            return luaL_error(L, "not enough memory");
        if (err)
            break;
    }
    s->mark = RELAY_HIGH_WATER - 1;
    int answered = try_write(L, s);
    return answered ? answered : wait_for_room(L, s, RELAY_HIGH_WATER / 2);
}

static int method_flush(lua_State *L)
{
    struct script_stream *s = check_writer(L, "wr:flush()");
    int wrong = cannot_write(L, s);
    if (wrong)
        return wrong;
    if (s->out) {
        relay_flush(s->out);
        lib_stream_soil(s);
    }
    s->mark = 0;
    int answered = try_write(L, s);
    return answered ? answered : wait_for_room(L, s, 0);
}

static int method_finish(lua_State *L)
{
    struct script_stream *s = check_writer(L, "wr:finish()");
    int wrong = cannot_write(L, s);
    if (wrong)
        return wrong;
    lib_stream_finish(s);
    return push_true(L);
}

/* ---- letting pass ---- */

static int answer_pass(lua_State *L, struct task *t)
{
    struct script_stream *s = t->wait_on;
    if (!s->in)
        return sched_push_failure(L, PS_ECLOSED);
    return s->in->passing ? 0 : push_true(L);
}

static void drop_pass(struct task *t)
{
    struct script_stream *s = t->wait_on;
    if (s->in && s->in->passing) { /* given up half-way */
        s->in->passing = false;
        s->in->mode = RELAY_STREAM;
    }
    lib_stream_drop_read(t);
}

/* pass(wr, rd, n): lets n bytes pass in C, or returns true, nil when these ends are not joined
 * there. */
static int method_pass(lua_State *L)
{
    static const char call[] = "wr:pass(rd, [n])";
    static const struct wait_kind pass_wait = {answer_pass, drop_pass};
    struct script_stream *wr = check_writer(L, call), *rd = lib_stream_check(L, 2, call);
    int n;
    int wrong = cannot_add(L, wr, call);
    if (wrong)
        return wrong;
    if (rd->script && !rd->in && !rd->in_queue)
        return luaL_error(L, "%s: the first stream is written to, the second one read", call);
    if (!rd->in && !rd->in_queue)
        return lib_stream_over(L, rd->vm);
    if (rd->reader)
        return lib_stream_taken(L, "reads");
    double bytes = lua_isnoneornil(L, 3) ? 0x1p64 : lua_tonumber(L, 3);
    if (!rd->in || rd->in != wr->out) {
        lua_pushboolean(L, 1);
        lua_pushnil(L);
        return 2;
    }
    struct task *t = sched_may_wait(L, rd->vm, &n);
    if (!t)
        return n;
    rd->reader = t;
    relay_pass(rd->in, bytes >= 0x1p63 ? UINT64_MAX : (uint64_t)bytes);
    return sched_wait(L, t, &pass_wait, rd, 0);
}

const luaL_Reg lib_stream_writers[] = {{"write", method_write},
                                       {"flush", method_flush},
                                       {"finish", method_finish},
                                       {"pass", method_pass},
                                       {NULL, NULL}};
