/* The C primitives under lua/penstock/init.lua, and the log functions of ps and conn. Scripts do
 * not see the table itself. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "penstock/base/units.h"
#include "script_priv.h"
#include "lib_tls.h"
#include "socket_priv.h"
#include "text_priv.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "0.1.0"
#endif

/* ---- times ---- */

bool lib_read_time(lua_State *L, int arg, uint64_t *ms)
{
    int type = lua_type(L, arg);
    char text[40];
    const char *s = "";
    if (type == LUA_TNUMBER) {
        double seconds = lua_tonumber(L, arg);
        snprintf(text, sizeof text, "%.6f", seconds < 1e12 ? seconds : 1e12);
        if (seconds >= 0) /* and no NaN */
            s = text;
    } else if (type == LUA_TSTRING) {
        s = lua_tostring(L, arg);
    }
    if (units_parse_time_ms(s, ms) == 0)
        return true;
    if (type == LUA_TSTRING || type == LUA_TNUMBER)
        lua_pushfstring(
            L, "%s is not a time; write seconds (0.5) or \"200ms\", \"5s\", \"2m\", \"1h\"",
            lua_tostring(L, arg));
    else
        lua_pushfstring(L, "a time is a number of seconds or a string such as \"200ms\", not %s",
                        lua_isnoneornil(L, arg) ? "nil" : luaL_typename(L, arg));
    return false;
}

/* time_ms(value) -> milliseconds, or nil and what is wrong. */
static int core_time_ms(lua_State *L)
{
    uint64_t ms;
    if (lib_read_time(L, 1, &ms)) {
        lua_pushnumber(L, (lua_Number)ms);
        return 1;
    }
    lua_pushnil(L);
    lua_insert(L, -2); // stack: …, nil, message
    return 2;
}

/* sleep(ms) -> true, or false and what to raise */
static int core_sleep(lua_State *L)
{
    double ms = luaL_checknumber(L, 1);
    return sched_sleep(L, vm_of(L), (uint64_t)ms);
}

/* ---- random numbers: xoshiro256** by Blackman and Vigna ---- */

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t random_next(uint64_t s[4])
{
    uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t lib_random(struct vm *vm)
{
    return random_next(vm->random);
}

/* In [0, n), without bias. n > 0. */
static uint64_t random_below(uint64_t s[4], uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, r;
    do {
        r = random_next(s);
    } while (r >= limit);
    return r % n;
}

static double whole(lua_State *L, int arg)
{
    double n = luaL_checknumber(L, arg);
    if (floor(n) != n || fabs(n) > 9007199254740992.0)
        luaL_argerror(L, arg,
                      "a whole number is expected: ps.random(), ps.random(n), ps.random(a, b)");
    return n;
}

/* random() in [0, 1), random(n) in 1…n, random(a, b) in a…b */
static int core_random(lua_State *L)
{
    struct vm *vm = vm_of(L);
    if (lua_isnoneornil(L, 1)) {
        lua_pushnumber(L, (double)(random_next(vm->random) >> 11) * 0x1p-53);
        return 1;
    }
    double first = 1, last = whole(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        first = last;
        last = whole(L, 2);
    }
    if (last < first || last - first > 9007199254740991.0)
        return luaL_error(
            L, "ps.random: the interval is empty or too wide; write ps.random(n) with n >= 1 or "
               "ps.random(a, b) with a <= b");
    uint64_t n = (uint64_t)(last - first) + 1;
    lua_pushnumber(L, first + (double)random_below(vm->random, n));
    return 1;
}

/* ---- logging ---- */

/* The message, when it stands alone, is no format: a % in it is a %, and %% is one too. */
static void push_alone(lua_State *L)
{
    size_t len;
    const char *text = lua_tolstring(L, 1, &len);
    if (!memmem(text, len, "%%", 2))
        return;
    luaL_gsub(L, text, "%%", "%"); // stack: message, text
}

/* log(fmt, …); upvalues: level, connection, string.format */
static int log_write(lua_State *L)
{
    enum log_level level = (enum log_level)lua_tointeger(L, lua_upvalueindex(1));
    int n = lua_gettop(L);
    if (!lua_isstring(L, 1))
        return luaL_error(
            L, "the first argument is a text or a format: log.info(\"%%s bytes\", n); it was %s",
            n ? luaL_typename(L, 1) : "missing");
    if (!log_enabled(level))
        return 0;
    if (n == 1) {
        push_alone(L);
    } else {
        lua_pushvalue(L, lua_upvalueindex(3));
        lua_insert(L, 1);
        lua_call(L, n, 1); // stack: text
    }
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    log_bytes(level, (uint64_t)lua_tonumber(L, lua_upvalueindex(2)), text, len);
    return 0;
}

/* Registry key of string.format as it was before any policy could change it. */
#define FORMAT "penstock.format"

void lib_log_push(lua_State *L, uint64_t conn_id)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
#define X(name, word, priority) {word, LOG_##name},
        LOG_LEVELS(X)
#undef X
    };
    lua_createtable(L, 0, sizeof levels / sizeof *levels);
    lua_getfield(L, LUA_REGISTRYINDEX, FORMAT); // stack: …, log, format
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        lua_pushinteger(L, levels[i].level);
        lua_pushnumber(L, (lua_Number)conn_id);
        lua_pushvalue(L, -3);
        lua_pushcclosure(L, log_write, 3); // stack: …, log, format, function
        lua_setfield(L, -3, levels[i].name);
    }
    lua_pop(L, 1); // stack: …, log
}

/* write(text, [level]): what print() became, and ngx.log(); level: a word, "info" unless given.
 * What is printed goes to the operator whose chunk runs. */
static int core_write(lua_State *L)
{
    static const char *const words[] = {
#define X(name, word, priority) word,
        LOG_LEVELS(X)
#undef X
            NULL};
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    struct vm *vm = vm_of(L);
    if (lua_isnoneornil(L, 2) && prompt_print(vm, text, len))
        return 0;
    enum log_level level = (enum log_level)luaL_checkoption(L, 2, "info", words);
    struct conn *c = vm->current ? vm->current->conn : NULL;
    if (log_enabled(level))
        log_bytes(level, c ? c->id : 0, text, len);
    return 0;
}

/* check_stack(): LuaJIT does not count how deep C functions nest (a gsub callback that calls gsub,
 * a coroutine that resumes another), and an overflow would end the process. Called before each such
 * step. */
static int core_check_stack(lua_State *L)
{
    const struct vm *vm = vm_of(L);
    char here;
    ptrdiff_t deep = vm->stack_base ? vm->stack_base - &here : 0;
    if (deep > SCRIPT_STACK_BYTES || -deep > SCRIPT_STACK_BYTES)
        return luaL_error(L, "C stack overflow (callbacks or coroutines nested too deeply)");
    return 0;
}

/* now() -> seconds since 1970, of a clock that specs move */
static int core_now(lua_State *L)
{
    const struct loop *clock = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushnumber(L, (lua_Number)clock->now_ms / 1000);
    return 1;
}

/* ---- what lua/penstock/ngx.lua asks for besides ---- */

/* wall_clock() -> seconds since 1970, with fractions */
static int core_wall_clock(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    lua_pushnumber(L, (lua_Number)now.tv_sec + floor((lua_Number)now.tv_nsec / 1e6) / 1e3);
    return 1;
}

/* current_conn() -> that of the running hook, or nil */
static int core_current_conn(lua_State *L)
{
    struct task *t = vm_of(L)->current;
    if (t && t->script)
        lua_rawgeti(L, LUA_REGISTRYINDEX, t->script->ref);
    else
        lua_pushnil(L);
    return 1;
}

/* is_loading() -> whether the file runs */
static int core_is_loading(lua_State *L)
{
    lua_pushboolean(L, vm_of(L)->loading);
    return 1;
}

/* is_retired() -> whether the VM gets no new connections */
static int core_is_retired(lua_State *L)
{
    lua_pushboolean(L, vm_of(L)->retired);
    return 1;
}

/* is_over_budget() -> whether the running hook has been interrupted */
static int core_is_over_budget(lua_State *L)
{
    lua_pushboolean(L, vm_of(L)->over_budget);
    return 1;
}

/* pid() -> of the process */
static int core_pid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

/* ---- the table ---- */

/* Pushes the method table of string.buffer objects, so that the sandbox can take from it. */
static void push_buffer_methods(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "string.buffer");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "new");
    lua_call(L, 0, 1);
    lua_getmetatable(L, -1);
    lua_getfield(L, -1, "__index"); // stack: …, library, buffer, metatable, methods
    lua_replace(L, -4);
    lua_pop(L, 2); // stack: …, methods
}

/* The directory of the policy file, "." without one. */
static void push_folder(lua_State *L, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        lua_pushliteral(L, ".");
    else
        lua_pushlstring(L, path, slash == path ? 1 : (size_t)(slash - path));
}

void lib_core_push(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"time_ms", core_time_ms},
        {"sleep", core_sleep},
        {"random", core_random},
        {"abort_wait", sched_abort_wait},
        {"write", core_write},
        {"check_stack", core_check_stack},
        {"wall_clock", core_wall_clock},
        {"current_conn", core_current_conn},
        {"is_loading", core_is_loading},
        {"is_retired", core_is_retired},
        {"is_over_budget", core_is_over_budget},
        {"pid", core_pid},
        {NULL, NULL},
    };
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "format");
    lua_setfield(L, LUA_REGISTRYINDEX, FORMAT);
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1); // stack: …, core
    if (vm->options->clock) {
        lua_pushlightuserdata(L, (void *)vm->options->clock);
        lua_pushcclosure(L, core_now, 1);
        lua_setfield(L, -2, "now");
    }
    lib_config_open(L, vm);
    lib_files_open(L);
    lua_pushnil(L);
    lua_pushcclosure(L, text_replace, 1);
    lua_setfield(L, -2, "replace");
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->tasks);
    lua_setfield(L, -2, "tasks");
    sched_push_constants(L);
    lib_task_open(L, vm);
    lib_stream_open(L, vm);
    lib_socket_open(L, vm);
    lib_conn_io_open(L, vm);
    lib_tls_open(L, vm);
    lib_shared_push(L, vm);
    lib_log_push(L, 0);
    lua_setfield(L, -2, "log");
    push_buffer_methods(L);
    lua_setfield(L, -2, "buffer_methods");
    lua_pushlightuserdata(L, NULL); /* as cjson has it */
    lua_setfield(L, -2, "null");
    push_folder(L, vm->options->path);
    lua_setfield(L, -2, "folder");
    lua_pushboolean(L, vm->options->unsafe);
    lua_setfield(L, -2, "unsafe");
    lua_pushboolean(L, vm->options->accept_proxy);
    lua_setfield(L, -2, "accept_proxy");
    lua_pushstring(L, vm->options->modules ? vm->options->modules : "");
    lua_setfield(L, -2, "modules");
    lua_pushinteger(L, (lua_Integer)vm->options->worker);
    lua_setfield(L, -2, "worker");
    lua_pushliteral(L, PENSTOCK_VERSION);
    lua_setfield(L, -2, "version"); // stack: …, core
}
