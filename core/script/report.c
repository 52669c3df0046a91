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

#define HASH_SEED UINT64_C(0xcbf29ce484222325)

/* FNV-1a, going on from `h`. */
static uint64_t hash_of(const char *text, size_t len, uint64_t h)
{
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
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

/* The length of "file:line" at the beginning of a message, 0 without; *file: that of "file:". */
static size_t position_len(const char *text, size_t len, size_t *file)
{
    const char *colon = memchr(text, ':', len);
    if (!colon)
        return 0;
    *file = (size_t)(colon + 1 - text);
    size_t n = *file;
    while (n < len && text[n] >= '0' && text[n] <= '9')
        n++;
    return n > *file && n < len && text[n] == ':' ? n : 0;
}

/* A hash of where an error came from: "file:line" of its message and its traceback, which lacks the
 * line of the innermost function. The rest of the message may hold what a peer sent, and must not
 * make each error look new; nor must a message that only looks like a position, so its file has to
 * be in the traceback. */
static uint64_t place_of(const char *text, size_t len, const char *what)
{
    static const char mark[] = "\nstack traceback:";
    const char *trace = memmem(text, len, mark, sizeof mark - 1);
    size_t file, position = position_len(text, len, &file);
    uint64_t h = hash_of(what, strlen(what), HASH_SEED);
    if (!trace)
        return hash_of(text, position ? position : len, h);
    size_t trace_len = len - (size_t)(trace - text);
    if (position && memmem(trace, trace_len, text, file))
        h = hash_of(text, position, h);
    return hash_of(trace, trace_len, h);
}

void report_error(struct vm *vm, uint64_t conn_id, const char *what, const char *text, size_t len)
{
    if (vm->loop->options.vnet) { /* a spec counts on each */
        log_line(LOG_ERROR, conn_id, "script error in the %s: %.*s", what, (int)len, text);
        return;
    }
    bool known;
    uint64_t hash = place_of(text, len, what);
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
