/* require "penstock_text": text_replace() of core/script/text.c for the specs. */
#include <lauxlib.h>
#include <lua.h>

#include "text_priv.h"

int luaopen_penstock_text(lua_State *L);

int luaopen_penstock_text(lua_State *L)
{
    lua_pushnil(L);
    lua_pushcclosure(L, text_replace, 1);
    return 1;
}
