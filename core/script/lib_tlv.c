/* The table holds bytes by type, and nothing else: names are another way to write its keys, and an
 * SSL option is taken apart when it is asked for. So it can be handed on as it came. */
#include "lib_tlv.h"

#include <math.h>
#include <string.h>

#include "penstock/proto/proxy_protocol.h"
#include "script_priv.h"

static const char type_name[] = "penstock.tlv";

struct name {
    const char *text;
    int type;
};

#define X(name, type, text) {text, type},
static const struct name names[] = {PROXY_TLVS(X){NULL, -1}};
static const struct name ssl_names[] = {PROXY_SSL_TLVS(X){NULL, -1}};
#undef X

/* The type that the key at `index` means; -1: none. */
static int type_of_key(lua_State *L, int index, const struct name *list)
{
    if (lua_type(L, index) == LUA_TNUMBER) {
        double n = lua_tonumber(L, index);
        return n >= 0 && n <= 255 && floor(n) == n ? (int)n : -1;
    }
    if (lua_type(L, index) != LUA_TSTRING)
        return -1;
    while (list->text && strcmp(list->text, lua_tostring(L, index)) != 0)
        list++;
    return list->type;
}

/* ---- out of a header ---- */

/* Sets what there is of `tlvs` in the table on the top, by name where `list` has one. */
static void set_all(lua_State *L, const uint8_t *tlvs, size_t n, const struct name *list)
{
    struct proxy_tlv tlv;
    for (size_t at = 0; proxy_tlv_at(tlvs, n, &at, &tlv);) {
        const struct name *name = list;
        while (name && name->text && name->type != tlv.type)
            name++;
        if (name && name->text)
            lua_pushstring(L, name->text);
        else
            lua_pushinteger(L, tlv.type);
        lua_pushvalue(L, -1);
        lua_rawget(L, -3); // stack: …, table, key, value before
        bool first = lua_isnil(L, -1);
        lua_pop(L, 1);
        lua_pushlstring(L, tlv.len ? (const char *)tlv.value : "", tlv.len);
        if (first)
            lua_rawset(L, -3);
        else
            lua_pop(L, 2);
    }
}

void lib_tlv_push(lua_State *L, const uint8_t *tlvs, size_t n)
{
    lua_newtable(L);
    set_all(L, tlvs, n, NULL);
    luaL_getmetatable(L, type_name);
    lua_setmetatable(L, -2);
}

/* Pushes { client =, verify =, version =, … }, nil for what is no SSL option. */
static void push_ssl(lua_State *L, const char *value, size_t n)
{
    struct proxy_ssl ssl;
    if (!value || !proxy_read_ssl((const uint8_t *)value, n, &ssl)) {
        lua_pushnil(L);
        return;
    }
    lua_newtable(L);
    lua_pushinteger(L, ssl.client);
    lua_setfield(L, -2, "client");
    lua_pushnumber(L, ssl.verify);
    lua_setfield(L, -2, "verify");
    set_all(L, ssl.tlvs, ssl.tlvs_len, ssl_names);
}

/* __index */
static int tlv_index(lua_State *L)
{
    int type = lua_type(L, 2) == LUA_TSTRING ? type_of_key(L, 2, names) : -1;
    if (type < 0)
        return 0;
    lua_rawgeti(L, 1, type);
    if (type != PROXY_TLV_SSL)
        return 1;
    size_t n;
    const char *value = lua_tolstring(L, -1, &n);
    push_ssl(L, value, n);
    return 1;
}

/* ---- into a header ---- */

static void add_tlv(luaL_Buffer *b, int type, const char *value, size_t n)
{
    luaL_addchar(b, (char)type);
    luaL_addchar(b, (char)(n >> 8));
    luaL_addchar(b, (char)n);
    luaL_addlstring(b, value, n);
}

/* The number at `key` of the table at `index`; `or_else` without one, -1 when it is none. */
static double number_at(lua_State *L, int index, const char *key, double most, double or_else)
{
    lua_getfield(L, index, key);
    double n = lua_isnil(L, -1)                 ? or_else
               : lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1)
                                                : -1;
    lua_pop(L, 1);
    return n >= 0 && n <= most && floor(n) == n ? n : -1;
}

static const char ssl_wrong[] =
    "ssl is written { version = \"TLSv1.3\", cn = \"name\", client = 1, verify = 0 }, with cipher, "
    "sig_alg, key_alg, group, sig_scheme and client_cert, all strings of at most 4080 bytes";

/* Pushes a table by type of the options of the SSL table at `index`; NULL, or what is wrong. */
static const char *push_ssl_types(lua_State *L, int index)
{
    lua_newtable(L);
    int types = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, index)) { // stack: …, types, key, value
        int type = type_of_key(L, -2, ssl_names);
        bool head =
            type < 0 && lua_type(L, -2) == LUA_TSTRING &&
            (!strcmp(lua_tostring(L, -2), "client") || !strcmp(lua_tostring(L, -2), "verify"));
        if (!head &&
            (type < 0 || lua_type(L, -1) != LUA_TSTRING || lua_objlen(L, -1) > PROXY_TLVS_MAX)) {
            lua_settop(L, types - 1);
            return ssl_wrong;
        }
        if (head)
            lua_pop(L, 1);
        else
            lua_rawseti(L, types, type);
    }
    return NULL;
}

/* Pushes the bytes of the SSL table at `index`; NULL, or what is wrong. */
static const char *push_ssl_bytes(lua_State *L, int index)
{
    double client = number_at(L, index, "client", 255, 1);
    double verify = number_at(L, index, "verify", UINT32_MAX, 0);
    if (client < 0 || verify < 0)
        return ssl_wrong;
    const char *wrong = push_ssl_types(L, index);
    if (wrong)
        return wrong;
    int types = lua_gettop(L);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, (char)(int)client);
    for (int shift = 24; shift >= 0; shift -= 8)
        luaL_addchar(&b, (char)((uint32_t)verify >> shift));
    for (int type = 0; type <= 255; type++) {
        lua_rawgeti(L, types, type);
        size_t n = 0;
        const char *value = lua_tolstring(L, -1, &n);
        lua_pop(L, 1); /* the table has it */
        if (value)
            add_tlv(&b, type, value, n);
    }
    luaL_pushresult(&b);
    lua_remove(L, types);
    return NULL;
}

/* Replaces the value on the top by its bytes; NULL, or what is wrong, the value still there. */
static const char *to_bytes(lua_State *L, int type)
{
    int value = lua_gettop(L);
    if (type == PROXY_TLV_CRC32C &&
        (lua_type(L, value) == LUA_TSTRING || lua_toboolean(L, value))) {
        lua_pushlstring(L, "\0\0\0\0", 4); /* computed when the header is made */
    } else if (type == PROXY_TLV_SSL && lua_istable(L, value)) {
        const char *wrong = push_ssl_bytes(L, value);
        if (wrong)
            return wrong;
    } else if (lua_type(L, value) != LUA_TSTRING) {
        return "its keys are types from 0 to 255, or alpn, authority, crc32c, noop, unique_id, ssl "
               "and netns, and its values strings: tlv = { authority = \"a.lab\", [0xE0] = "
               "\"bytes\" }";
    }
    if (lua_gettop(L) > value)
        lua_replace(L, value);
    size_t n;
    const char *bytes = lua_tolstring(L, value, &n);
    struct proxy_ssl ssl;
    if (type == PROXY_TLV_SSL && !proxy_read_ssl((const uint8_t *)bytes, n, &ssl))
        return ssl_wrong;
    return NULL;
}

/* __newindex */
static int tlv_newindex(lua_State *L)
{
    int type = type_of_key(L, 2, names);
    const char *wrong = NULL;
    lua_settop(L, 3);
    if (!lua_isnil(L, 3))
        wrong = type < 0 ? "its keys are types from 0 to 255, or alpn, authority, crc32c, noop, "
                           "unique_id, ssl and netns"
                         : to_bytes(L, type);
    if (wrong)
        return luaL_error(L, "conn.proxy.tlv: %s", wrong);
    if (type >= 0)
        lua_rawseti(L, 1, type);
    return 0;
}

const char *lib_tlv_read(lua_State *L, int index)
{
    lua_newtable(L);
    int out = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, index)) { // stack: …, out, key, value
        int type = type_of_key(L, -2, names);
        const char *wrong =
            type < 0
                ? "its keys are types from 0 to 255, or alpn, authority, crc32c, noop, "
                  "unique_id, ssl and netns: tlv = { authority = \"a.lab\", [0xE0] = \"bytes\" }"
                : to_bytes(L, type);
        if (!wrong) {
            lua_rawgeti(L, out, type);
            if (!lua_isnil(L, -1))
                wrong = "it has one type twice, by its name and by its number";
            lua_pop(L, 1);
        }
        if (wrong) {
            lua_settop(L, out - 1);
            return wrong;
        }
        lua_rawseti(L, out, type);
    }
    return NULL;
}

void lib_tlv_open(lua_State *L)
{
    luaL_newmetatable(L, type_name);
    lua_pushcfunction(L, tlv_index);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, tlv_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushliteral(L, "tlv");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
