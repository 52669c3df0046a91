/* Userdata types for what workers share. */
#include "lib_shared.h"

#include <string.h>

static int type_tostring(lua_State *L)
{
    lua_pushfstring(L, "%s: %p", lua_tostring(L, lua_upvalueindex(1)), lua_topointer(L, 1));
    return 1;
}

void lib_type(lua_State *L, struct vm *vm, const char *type, const luaL_Reg *methods)
{
    luaL_newmetatable(L, type);
    lua_pushstring(L, type);
    lua_pushcclosure(L, type_tostring, 1);
    lua_setfield(L, -2, "__tostring");
    lua_pushstring(L, type);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, methods, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index"); // stack: …, metatable, methods
    lua_remove(L, -2);
}

void *lib_self(lua_State *L, const char *type, const char *call)
{
    void *it = luaL_testudata(L, 1, type);
    if (!it)
        luaL_error(L, "call it with a colon: %s", call);
    return it;
}

struct lib_bytes lib_key(lua_State *L, const char *call)
{
    struct lib_bytes key = {0};
    if (!lua_isstring(L, 2))
        luaL_error(L, "%s: the key is a string, not %s", call,
                   lua_isnone(L, 2) ? "nothing" : luaL_typename(L, 2));
    key.bytes = lua_tolstring(L, 2, &key.n);
    return key;
}

int lib_fail(lua_State *L, const char *word)
{
    lua_pushnil(L);
    lua_pushstring(L, word);
    return 2;
}

void lib_shared_push(lua_State *L, struct vm *vm)
{
    lib_store_open(L, vm);
    lib_bucket_open(L, vm);
    lib_metrics_open(L, vm);
    lib_pool_open(L, vm);
}
