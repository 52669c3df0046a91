/* ps.store: a userdata with a pointer to a store, which outlives the VM. */
#include <math.h>

#include "lib_shared.h"
#include "penstock/base/err.h"

static const char type[] = "ps.store";

enum { SMALL = 1024 }; /* strings up to that need no block to be copied to */

static struct store *self(lua_State *L, const char *call)
{
    return *(struct store **)lib_self(L, type, call);
}

static struct store_key key_of(lua_State *L, const char *call)
{
    struct lib_bytes key = lib_key(L, call);
    return (struct store_key){key.bytes, key.n};
}

/* The value at `arg`; nil is "nothing". */
static struct store_value value_of(lua_State *L, int arg, const char *call)
{
    struct store_value v = {.type = STORE_NONE};
    switch (lua_type(L, arg)) {
    case LUA_TNONE:
    case LUA_TNIL:
        break;
    case LUA_TNUMBER:
        v.type = STORE_NUMBER;
        v.number = lua_tonumber(L, arg);
        break;
    case LUA_TBOOLEAN:
        v.type = STORE_BOOLEAN;
        v.boolean = lua_toboolean(L, arg);
        break;
    case LUA_TSTRING:
        v.type = STORE_STRING;
        v.string.bytes = lua_tolstring(L, arg, &v.string.n);
        break;
    default:
        luaL_error(L, "%s: a value is a string, number or boolean, not a %s", call,
                   luaL_typename(L, arg));
    }
    return v;
}

/* The time at `arg` in milliseconds; 0 without. */
static uint64_t ttl_of(lua_State *L, int arg, const char *call)
{
    uint64_t ms = 0;
    if (!lua_isnoneornil(L, arg) && !lib_read_time(L, arg, &ms))
        luaL_error(L, "%s: ttl: %s", call, lua_tostring(L, -1));
    return ms;
}

static double number_of(lua_State *L, int arg, double otherwise, const char *what, const char *call)
{
    if (lua_isnoneornil(L, arg))
        return otherwise;
    if (lua_type(L, arg) != LUA_TNUMBER)
        luaL_error(L, "%s: %s is a number, not a %s", call, what, luaL_typename(L, arg));
    return lua_tonumber(L, arg);
}

static int answer(lua_State *L, enum store_result result)
{
    if (result != STORE_OK)
        return lib_fail(L, store_word(result));
    lua_pushboolean(L, 1);
    return 1;
}

static void push_value(lua_State *L, const struct store_value *v)
{
    switch (v->type) {
    case STORE_NUMBER:
        lua_pushnumber(L, v->number);
        break;
    case STORE_BOOLEAN:
        lua_pushboolean(L, v->boolean);
        break;
    case STORE_STRING:
        lua_pushlstring(L, v->string.bytes, v->string.n);
        break;
    default:
        lua_pushnil(L);
    }
}

static int store_get_method(lua_State *L)
{
    static const char call[] = "store:get(key)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    char small[SMALL];
    struct store_room room = {small, sizeof small};
    struct store_value v;
    uint64_t now_ms = lib_now_ms(vm_of(L));
    for (;;) {
        enum store_result result = store_get(s, key, now_ms, room, &v);
        if (result != STORE_OK)
            return lib_fail(L, store_word(result));
        if (v.type != STORE_STRING || v.string.bytes)
            break;
        /* Another worker may set a longer one meanwhile. */
        room = (struct store_room){lua_newuserdata(L, v.string.n), v.string.n};
    }
    push_value(L, &v);
    return 1;
}

static int store_set_method(lua_State *L)
{
    static const char call[] = "store:set(key, value, ttl)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    struct store_value v = value_of(L, 3, call);
    uint64_t ttl_ms = ttl_of(L, 4, call);
    return answer(L, store_set(s, key, &v, ttl_ms, lib_now_ms(vm_of(L))));
}

static int store_add_method(lua_State *L)
{
    static const char call[] = "store:add(key, value, ttl)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    struct store_value v = value_of(L, 3, call);
    if (v.type == STORE_NONE)
        return luaL_error(L, "%s: the value is missing", call);
    uint64_t ttl_ms = ttl_of(L, 4, call);
    return answer(L, store_add(s, key, &v, ttl_ms, lib_now_ms(vm_of(L))));
}

static int store_incr_method(lua_State *L)
{
    static const char call[] = "store:incr(key, n, init, ttl)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    struct store_incr incr = {.by = number_of(L, 3, 1, "n", call),
                              .has_init = !lua_isnoneornil(L, 4),
                              .init = number_of(L, 4, 0, "init", call),
                              .ttl_ms = ttl_of(L, 5, call)};
    double n;
    enum store_result result = store_incr(s, key, &incr, lib_now_ms(vm_of(L)), &n);
    if (result != STORE_OK)
        return lib_fail(L, store_word(result));
    lua_pushnumber(L, n);
    return 1;
}

static int store_cas_method(lua_State *L)
{
    static const char call[] = "store:cas(key, old, new)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    struct store_change change = {value_of(L, 3, call), value_of(L, 4, call)};
    return answer(L, store_cas(s, key, &change, lib_now_ms(vm_of(L))));
}

static int store_del_method(lua_State *L)
{
    static const char call[] = "store:del(key)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    enum store_result result = store_del(s, key, lib_now_ms(vm_of(L)));
    if (result == STORE_TOO_LONG)
        return lib_fail(L, store_word(result));
    lua_pushboolean(L, result == STORE_OK);
    return 1;
}

static int store_ttl_method(lua_State *L)
{
    static const char call[] = "store:ttl(key)";
    struct store *s = self(L, call);
    struct store_key key = key_of(L, call);
    uint64_t ms;
    enum store_result result = store_ttl(s, key, lib_now_ms(vm_of(L)), &ms);
    if (result != STORE_OK)
        return lib_fail(L, store_word(result));
    lua_pushnumber(L, ms == UINT64_MAX ? HUGE_VAL : (lua_Number)ms / 1000);
    return 1;
}

static int store_len_method(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)store_len(self(L, "store:len()")));
    return 1;
}

static int store_evicted_method(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)store_evicted(self(L, "store:evicted()")));
    return 1;
}

/* store(name, items, bytes) -> store, or nil and why. Without items: as it is, or the defaults. */
static int core_store(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    struct store_limits limits = {(uint64_t)luaL_optnumber(L, 2, 0),
                                  (uint64_t)luaL_optnumber(L, 3, 0)};
    struct store **s = lua_newuserdata(L, sizeof(struct store *));
    int err = shared_store(vm->shared, name, limits.items ? &limits : NULL, s);
    if (err)
        return lib_fail(L, err_text(err));
    luaL_getmetatable(L, type);
    lua_setmetatable(L, -2);
    return 1;
}

void lib_store_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[] = {
        {"get", store_get_method},         {"set", store_set_method},
        {"add", store_add_method},         {"incr", store_incr_method},
        {"cas", store_cas_method},         {"del", store_del_method},
        {"ttl", store_ttl_method},         {"len", store_len_method},
        {"evicted", store_evicted_method}, {NULL, NULL},
    };
    lib_type(L, vm, type, methods);
    lua_pop(L, 1);
    lua_pushlightuserdata(L, vm);
    lua_pushcclosure(L, core_store, 1);
    lua_setfield(L, -2, "store");
    lua_pushinteger(L, STORE_ITEMS);
    lua_setfield(L, -2, "STORE_ITEMS");
    lua_pushinteger(L, STORE_BYTES);
    lua_setfield(L, -2, "STORE_BYTES");
    lua_pushinteger(L, (lua_Integer)2 * STORE_VALUE_MAX);
    lua_setfield(L, -2, "STORE_BYTES_MIN");
}
