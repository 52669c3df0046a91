/* What rd:buffer() gives: bytes in Lua's memory that are not made into a string. */
#include <string.h>

#include "stream_priv.h"

struct view {
    size_t n;
    char bytes[];
};

void lib_view_push(lua_State *L, struct vm *vm, const char *bytes, size_t n)
{
    struct view *v = lua_newuserdata(L, sizeof *v + n);
    v->n = n;
    memcpy(v->bytes, bytes, n);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->view_meta);
    lua_setmetatable(L, -2);
}

static bool is_view(lua_State *L, int index, struct vm *vm)
{
    if (!lua_getmetatable(L, index))
        return false;
    bool is = lua_topointer(L, -1) == vm->view_meta_at;
    lua_pop(L, 1);
    return is;
}

const char *lib_view_bytes(lua_State *L, int index, struct vm *vm, size_t *n)
{
    if (!is_view(L, index, vm))
        return NULL;
    struct view *v = lua_touserdata(L, index);
    *n = v->n;
    return v->bytes;
}

/* ---- methods ---- */

/* The range of string.sub and string.byte in 1 … n; false when it is empty. */
static bool range(lua_State *L, const struct view *v, int index, ptrdiff_t i, ptrdiff_t j,
                  size_t *from, size_t *to)
{
    i = luaL_optinteger(L, index, i);
    j = luaL_optinteger(L, index + 1, j);
    if (i < 0)
        i = (ptrdiff_t)v->n + i + 1;
    if (j < 0)
        j = (ptrdiff_t)v->n + j + 1;
    *from = i < 1 ? 1 : (size_t)i;
    *to = j > (ptrdiff_t)v->n ? v->n : j < 0 ? 0 : (size_t)j;
    return *from <= *to;
}

static struct view *check_view(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TUSERDATA || !is_view(L, 1, vm_of(L)))
        luaL_error(L, "call it with a colon: buffer:sub(i, j)");
    return lua_touserdata(L, 1);
}

static int view_sub(lua_State *L)
{
    struct view *v = check_view(L);
    size_t from, to;
    if (range(L, v, 2, 1, -1, &from, &to))
        lua_pushlstring(L, v->bytes + from - 1, to - from + 1);
    else
        lua_pushliteral(L, "");
    return 1;
}

static int view_byte(lua_State *L)
{
    struct view *v = check_view(L);
    size_t from, to;
    ptrdiff_t i = luaL_optinteger(L, 2, 1);
    if (!range(L, v, 2, 1, i, &from, &to))
        return 0;
    luaL_checkstack(L, (int)(to - from + 1), "string slice too long");
    for (size_t at = from; at <= to; at++)
        lua_pushinteger(L, (unsigned char)v->bytes[at - 1]);
    return (int)(to - from + 1);
}

static int view_len(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_view(L)->n);
    return 1;
}

/* find(text, [init]): plain text, no pattern */
static int view_find(lua_State *L)
{
    struct view *v = check_view(L);
    size_t len, from, to;
    const char *text = luaL_checklstring(L, 2, &len);
    lua_settop(L, 3);
    if (!range(L, v, 3, 1, -1, &from, &to))
        return 0;
    const char *hit = memmem(v->bytes + from - 1, v->n - from + 1, text, len);
    if (!hit)
        return 0;
    lua_pushinteger(L, hit - v->bytes + 1);
    lua_pushinteger(L, hit - v->bytes + (ptrdiff_t)len);
    return 2;
}

static int view_tostring(lua_State *L)
{
    struct view *v = check_view(L);
    lua_pushlstring(L, v->bytes, v->n);
    return 1;
}

void lib_view_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[] = {{"sub", view_sub},
                                       {"byte", view_byte},
                                       {"len", view_len},
                                       {"find", view_find},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__len", view_len}, {"__tostring", view_tostring}, {NULL, NULL}};
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, meta, 1); // stack: …, metatable
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, methods, 1);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "buffer");
    lua_setfield(L, -2, "__metatable");
    vm->view_meta_at = lua_topointer(L, -1);
    vm->view_meta = luaL_ref(L, LUA_REGISTRYINDEX);
}
