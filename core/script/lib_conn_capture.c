/* conn:capture(): what goes over a connection, into a file for Wireshark. */
#include <errno.h>
#include <string.h>

#include "penstock/base/err.h"
#include "script_priv.h"

/* Words for what is wrong with the file. */
static const char *why_not(int err)
{
    if (err == -EEXIST)
        return "there is a file of this name that is no capture";
    return err == -EINVAL ? "it is no regular file" : err_text(err);
}

int lib_conn_capture(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "conn:capture(\"path.pcapng\")");
    const char *side = luaL_checkstring(L, 5);
    struct conn_capture_options options = {
        .path = luaL_checkstring(L, 2),
        .max_bytes = (uint64_t)luaL_checknumber(L, 3),
        .first_bytes = (uint64_t)luaL_checknumber(L, 4),
        .client = strcmp(side, "upstream") != 0,
        .upstream = strcmp(side, "client") != 0,
    };
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    int err = conn_capture(c, &options);
    if (!err)
        return lib_conn_push_result(L, 0);
    lua_pushnil(L);
    lua_pushstring(L, err_word(PS_ESYSTEM));
    lua_pushfstring(L, "%s: %s", options.path, why_not(err));
    return 3;
}

int lib_conn_capture_end(lua_State *L)
{
    struct conn *c = lib_conn_live(L, lib_conn_check(L, "conn:capture(false)"));
    if (!c)
        return 2;
    conn_capture_end(c);
    return lib_conn_push_result(L, 0);
}
