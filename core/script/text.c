/* Replacing plain text in strings: what string.gsub becomes when its pattern has no magic
 * characters.
 *
 * LuaJIT's gsub tries the pattern at every byte; this searches with memmem(), and copies what lies
 * between two matches at once. Knows nothing of penstock, so that tests/lua can load it by itself.
 */
#include <lauxlib.h>
#include <lua.h>

#include <stdint.h>
#include <string.h>

#include "text_priv.h"

/* A scratch buffer larger than this is left to the collector after the call. */
enum { KEEP_MAX = 1 << 20 };

struct out {
    char *bytes; /* in a userdata at stack index `index` */
    size_t n, cap;
    int index;
};

/* Makes room for n more bytes. May raise. */
static void reserve(lua_State *L, struct out *out, size_t n)
{
    if (out->cap - out->n >= n)
        return;
    size_t cap = out->cap ? out->cap : 1024;
    while (cap - out->n < n) {
        if (cap > SIZE_MAX / 2)
            luaL_error(L, "the result is too long");
        cap *= 2;
    }
    char *bytes = lua_newuserdata(L, cap);
    if (out->n)
        memcpy(bytes, out->bytes, out->n);
    lua_replace(L, out->index); // stack: …, larger buffer in the place of the smaller one, …
    out->bytes = bytes;
    out->cap = cap;
}

static void append(lua_State *L, struct out *out, const char *bytes, size_t n)
{
    reserve(L, out, n);
    if (n)
        memcpy(out->bytes + out->n, bytes, n);
    out->n += n;
}

int text_replace(lua_State *L)
{
    size_t len, find_len, by_len;
    const char *s = luaL_checklstring(L, 1, &len);
    const char *find = luaL_checklstring(L, 2, &find_len);
    const char *by = luaL_checklstring(L, 3, &by_len);
    lua_Number most = luaL_optnumber(L, 4, (lua_Number)len + 1);
    luaL_argcheck(L, find_len > 0, 2, "empty");
    lua_settop(L, 3);

    const char *end = s + len;
    const char *hit = most > 0 ? memmem(s, len, find, find_len) : NULL;
    if (!hit) {
        lua_settop(L, 1);
        lua_pushinteger(L, 0); // stack: s, 0
        return 2;
    }
    lua_pushvalue(L, lua_upvalueindex(1)); // stack: s, find, by, scratch or nil
    struct out out = {.bytes = lua_touserdata(L, 4), .cap = lua_objlen(L, 4), .index = 4};
    if (!out.bytes)
        out.cap = 0;
    reserve(L, &out, by_len > find_len ? len + by_len : len);
    lua_Number count = 0;
    while (hit && count < most) {
        append(L, &out, s, (size_t)(hit - s));
        append(L, &out, by, by_len);
        s = hit + find_len;
        count++;
        hit = memmem(s, (size_t)(end - s), find, find_len);
    }
    append(L, &out, s, (size_t)(end - s));
    if (out.cap <= KEEP_MAX) {
        lua_pushvalue(L, 4);
        lua_replace(L, lua_upvalueindex(1));
    }
    lua_pushlstring(L, out.bytes, out.n);
    lua_pushnumber(L, count); // stack: s, find, by, buffer, text, count
    return 2;
}
