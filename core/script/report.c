/* Script errors in the log: with traceback, and the same one only once in 10 s, followed by how
 * often it came again. What is remembered of an error is a hash and its first line. */
#include <stdio.h>
#include <string.h>

#include "script_priv.h"

/* Makes an endless message on the top of the stack a long one. */
static void cut(lua_State *L)
{
    enum { MESSAGE_MAX = 2000 };
    if (lua_objlen(L, -1) <= MESSAGE_MAX)
        return;
    lua_pushlstring(L, lua_tostring(L, -1), MESSAGE_MAX);
    lua_pushliteral(L, "…");
    lua_concat(L, 2);
    lua_remove(L, -2);
}

static void describe(lua_State *L)
{
    // stack: …, error
    if (lua_type(L, -1) == LUA_TSTRING)
        return;
    if (lua_isnumber(L, -1)) {
        lua_tostring(L, -1);
        return;
    }
    if (luaL_callmeta(L, -1, "__tostring")) { // stack: …, error, text
        if (lua_type(L, -1) == LUA_TSTRING) {
            lua_remove(L, -2);
            return;
        }
        lua_pop(L, 1);
    }
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, -1));
    lua_remove(L, -2); // stack: …, text
}

void report_describe(lua_State *L)
{
    describe(L);
    cut(L);
}

void report_traceback(lua_State *L, lua_State *co, int level)
{
    // stack: …, message
    luaL_traceback(L, co, lua_tostring(L, -1), level);
    luaL_gsub(L, lua_tostring(L, -1), "\n\t", "\n    "); // stack: …, message, text, text
    lua_insert(L, -3);
    lua_pop(L, 2); // stack: …, text
}

static uint64_t hash_of(const char *text, size_t len, const char *what)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    for (; *what; what++)
        h = (h ^ (unsigned char)*what) * 0x100000001b3u;
    return h;
}

static void tell_repeats(struct report *r)
{
    if (r->repeats)
        log_error("script error came %u more time%s in 10 s: %s", r->repeats,
                  r->repeats == 1 ? "" : "s", r->head);
    r->repeats = 0;
}

static void on_quiet_time_over(struct timer *timer)
{
    struct report *r = container_of(timer, struct report, timer);
    tell_repeats(r);
    r->hash = 0;
}

/* The record of `hash`, or else a free one (*known false), or NULL when all are in use by other
 * errors. */
static struct report *record(struct vm *vm, uint64_t hash, bool *known)
{
    struct report *vacant = NULL;
    for (size_t i = 0; i < SCRIPT_ERRORS; i++) {
        struct report *r = &vm->reports[i];
        bool used = timer_is_active(&r->timer);
        if (used && r->hash == hash) {
            *known = true;
            return r;
        }
        if (!used)
            vacant = r;
    }
    *known = false;
    return vacant;
}

/* The part of an error that tells where it came from: its traceback, or "file:line:" without one.
 * The message may hold what a peer sent, and must not make each error look new. */
static const char *place_of(const char *text, size_t *len)
{
    static const char mark[] = "\nstack traceback:";
    const char *trace = memmem(text, *len, mark, sizeof mark - 1);
    if (trace) {
        *len -= (size_t)(trace - text);
        return trace;
    }
    const char *file_end = memchr(text, ':', *len);
    const char *line_end =
        file_end ? memchr(file_end + 1, ':', *len - (size_t)(file_end + 1 - text)) : NULL;
    if (line_end)
        *len = (size_t)(line_end - text);
    return text;
}

void report_error(struct vm *vm, uint64_t conn_id, const char *what, const char *text, size_t len)
{
    if (vm->loop->options.vnet) { /* a spec counts on each */
        log_line(LOG_ERROR, conn_id, "script error in the %s: %.*s", what, (int)len, text);
        return;
    }
    bool known;
    size_t place_len = len;
    const char *place = place_of(text, &place_len);
    uint64_t hash = hash_of(place, place_len, what);
    struct report *r = record(vm, hash, &known);
    if (!r || known) { /* more kinds of errors than records: the rest is counted with the last */
        (r ? r : &vm->reports[SCRIPT_ERRORS - 1])->repeats++;
        return;
    }
    r->hash = hash;
    r->repeats = 0;
    snprintf(r->head, sizeof r->head, "%s: %.*s", what, (int)strcspn(text, "\n"), text);
    loop_timer(vm->loop, &r->timer, SCRIPT_REPEAT_MS);
    log_line(LOG_ERROR, conn_id, "script error in the %s: %.*s", what, (int)len, text);
}

void report_init(struct vm *vm)
{
    for (size_t i = 0; i < SCRIPT_ERRORS; i++)
        timer_init(&vm->reports[i].timer, on_quiet_time_over);
}

void report_deinit(struct vm *vm)
{
    for (size_t i = 0; i < SCRIPT_ERRORS; i++) {
        if (!timer_is_active(&vm->reports[i].timer))
            continue;
        tell_repeats(&vm->reports[i]);
        timers_stop(&vm->loop->timers, &vm->reports[i].timer);
    }
}
