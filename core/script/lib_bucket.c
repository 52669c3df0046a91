/* ps.bucket: a userdata with a pointer to named buckets, and one with a counted reference to the
 * bucket of a key. bucket:wait() is in lua/penstock/shared.lua. */
#include <math.h>

#include "lib_shared.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"

static const char type[] = "ps.bucket", key_type[] = "bucket:key";

static struct buckets *self(lua_State *L, const char *call)
{
    return *(struct buckets **)lib_self(L, type, call);
}

/* The key at 2; n is above BUCKETS_KEY_MAX for one that is too long. */
static struct buckets_key key_of(lua_State *L, const char *call)
{
    struct lib_bytes key = lib_key(L, call);
    return (struct buckets_key){key.bytes, key.n};
}

/* The count at 3, 1 without. */
static double count_of(lua_State *L, const char *call)
{
    double n = lua_isnoneornil(L, 3) ? 1 : lua_type(L, 3) == LUA_TNUMBER ? lua_tonumber(L, 3) : -1;
    if (!(n >= 0) || isinf(n))
        luaL_error(L, "%s: n is a number of tokens, 0 or more", call);
    return n;
}

static int too_long(lua_State *L)
{
    return lib_fail(L, err_word(PS_ETOO_LONG));
}

static int bucket_take(lua_State *L)
{
    static const char call[] = "bucket:take(key, n)";
    struct buckets *b = self(L, call);
    struct buckets_key key = key_of(L, call);
    double n = count_of(L, call);
    if (key.n > BUCKETS_KEY_MAX)
        return too_long(L);
    double wait = buckets_take(b, key, n, lib_now_ns(vm_of(L)));
    lua_pushboolean(L, wait == 0);
    if (wait == 0)
        return 1;
    lua_pushnumber(L, wait);
    return 2;
}

static int bucket_key(lua_State *L)
{
    static const char call[] = "bucket:key(key)";
    struct buckets *b = self(L, call);
    struct buckets_key key = key_of(L, call);
    if (key.n > BUCKETS_KEY_MAX)
        return too_long(L);
    struct rate_shared **box = lua_newuserdata(L, sizeof(struct rate_shared *));
    *box = NULL;
    luaL_getmetatable(L, key_type);
    lua_setmetatable(L, -2);
    *box = buckets_key(b, key, lib_now_ns(vm_of(L))); /* dropped in key_gc() */
    return *box ? 1 : lib_fail(L, err_word(-ENOMEM));
}

static int bucket_forgotten(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)buckets_forgotten(self(L, "bucket:forgotten()")));
    return 1;
}

static int key_gc(lua_State *L)
{
    struct rate_shared **box = lua_touserdata(L, 1);
    rate_shared_drop(*box);
    *box = NULL;
    return 0;
}

struct rate_shared *lib_bucket_key_at(lua_State *L, int arg)
{
    struct rate_shared **box = luaL_testudata(L, arg, key_type);
    return box ? *box : NULL;
}

/* reserve(bucket, key, n, max_ms) -> milliseconds after which the tokens may be used, or nil and an
 * error word. The arguments have been checked. */
static int core_reserve(lua_State *L)
{
    struct buckets *b = self(L, "bucket:wait(key, n, max)");
    struct buckets_key key = key_of(L, "bucket:wait(key, n, max)");
    double n = luaL_checknumber(L, 3), max_s = luaL_optnumber(L, 4, HUGE_VAL) / 1000;
    uint64_t now_ns = lib_now_ns(vm_of(L));
    if (key.n > BUCKETS_KEY_MAX)
        return too_long(L);
    struct rate_shared *rate = buckets_key(b, key, now_ns);
    if (!rate)
        return lib_fail(L, err_word(-ENOMEM));
    double wait = rate_shared_reserve(rate, n, max_s, now_ns);
    rate_shared_drop(rate);
    if (wait < 0)
        return lib_fail(L, err_word(PS_ETIMEOUT));
    lua_pushnumber(L, ceil(wait * 1000));
    return 1;
}

/* give(bucket, key, n): tokens that were reserved and are not wanted any more. */
static int core_give(lua_State *L)
{
    struct buckets *b = self(L, "bucket:wait(key, n, max)");
    struct buckets_key key = key_of(L, "bucket:wait(key, n, max)");
    struct rate_shared *rate = buckets_key(b, key, lib_now_ns(vm_of(L)));
    if (rate)
        rate_shared_give(rate, luaL_checknumber(L, 3));
    rate_shared_drop(rate);
    return 0;
}

/* bucket(name, rate, burst, keys) -> bucket, or nil and why */
static int core_bucket(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    struct buckets_limits limits = {{luaL_checknumber(L, 2), luaL_checknumber(L, 3)},
                                    (uint64_t)luaL_checknumber(L, 4)};
    struct buckets **b = lua_newuserdata(L, sizeof(struct buckets *));
    int err = shared_buckets(vm->shared, name, &limits, lib_now_ns(vm), b);
    if (err)
        return lib_fail(L, err_text(err));
    luaL_getmetatable(L, type);
    lua_setmetatable(L, -2);
    return 1;
}

/* size(value) -> a number, also from "64K"; nil when it is none */
static int core_size(lua_State *L)
{
    uint64_t bytes;
    if (lua_type(L, 1) == LUA_TNUMBER)
        lua_settop(L, 1);
    else if (lua_type(L, 1) == LUA_TSTRING && !units_parse_size(lua_tostring(L, 1), &bytes))
        lua_pushnumber(L, (lua_Number)bytes);
    else
        lua_pushnil(L);
    return 1;
}

void lib_bucket_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[] = {
        {"take", bucket_take},
        {"key", bucket_key},
        {"forgotten", bucket_forgotten},
        {NULL, NULL},
    };
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"bucket", core_bucket},
        {"reserve", core_reserve},
        {"give", core_give},
        {"size", core_size},
        {NULL, NULL},
    };
    lib_type(L, vm, key_type, none);
    lua_pop(L, 1);
    luaL_getmetatable(L, key_type);
    lua_pushcfunction(L, key_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lib_type(L, vm, type, methods);
    lua_setfield(L, -2, "bucket_methods");
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
}
