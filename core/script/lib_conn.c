/* conn: a connection as scripts see it. A userdata that boxes the pointer; the pointer is nulled
 * when the connection's memory goes, so that a conn kept by a script stays harmless.
 *
 * Fields are looked up in one table of names: functions are methods, numbers are fields computed
 * here. What is a table for Lua (ctx, client, log, upstream) is made at its first use and kept in
 * the userdata's environment. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "penstock/proxy/config.h"
#include "lib_tls.h"
#include "lib_tlv.h"
#include "script_priv.h"
#include "socket_priv.h"

static const char type_name[] = "penstock.conn";

/* X(name) */
#define CONN_FIELDS(X)                                                                             \
    X(id)                                                                                          \
    X(seq)                                                                                         \
    X(listener)                                                                                    \
    X(client)                                                                                      \
    X(proxy)                                                                                       \
    X(tls)                                                                                         \
    X(upstream)                                                                                    \
    X(mode)                                                                                        \
    X(bytes_up)                                                                                    \
    X(bytes_down)                                                                                  \
    X(age)                                                                                         \
    X(ctx)                                                                                         \
    X(log)

enum field {
    FIELD_NONE,
#define X(name) FIELD_##name,
    CONN_FIELDS(X)
#undef X
};

/* ---- fields ---- */

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

/* Pushes the environment of the userdata at 1. */
static void push_env(lua_State *L, struct script_conn *s)
{
    if (!s->has_env) {
        lua_newtable(L);
        lua_setfenv(L, 1);
        s->has_env = true;
    }
    lua_getfenv(L, 1);
}

static void push_client(lua_State *L, struct conn *c)
{
    char text[ADDR_TEXT_MAX];
    lua_createtable(L, 0, 3);
    set_string(L, "ip", addr_format_ip(&c->client_addr, text, sizeof text));
    set_string(L, "key", addr_format_key(&c->client_addr, text, sizeof text));
    if (addr_len(&c->client_addr)) {
        lua_pushinteger(L, addr_port(&c->client_addr));
        lua_setfield(L, -2, "port");
    }
}

/* { ip =, port = } of an address, with the path of a UNIX socket. */
static void push_address(lua_State *L, const struct addr *a, const char *path)
{
    char text[ADDR_TEXT_MAX];
    lua_createtable(L, 0, 3);
    set_string(L, "ip", addr_format_ip(a, text, sizeof text));
    if (addr_len(a)) {
        lua_pushinteger(L, addr_port(a));
        lua_setfield(L, -2, "port");
    }
    if (path && *path)
        set_string(L, "path", path);
}

static void push_proxy(lua_State *L, const struct conn_proxy *p)
{
    push_address(L, &p->peer, NULL); // stack: …, proxy
    lua_pushinteger(L, p->version);
    lua_setfield(L, -2, "version");
    lua_pushboolean(L, p->told);
    lua_setfield(L, -2, "told");
    if (p->from_path && *p->from_path)
        set_string(L, "path", p->from_path);
    if (p->told) {
        push_address(L, &p->to, p->to_path);
        lua_setfield(L, -2, "dest");
    }
    lib_tlv_push(L, p->memory, p->tlvs_len);
    lua_setfield(L, -2, "tlv");
}

static void push_upstream(lua_State *L, struct conn *c)
{
    char text[ADDR_TEXT_MAX];
    const struct target *t = c->targets ? &c->targets->items[c->target] : NULL;
    size_t n_hops = t ? target_n_hops(t) : 0;
    lua_createtable(L, 0, 3);
    set_string(L, "name", t ? t->endpoint.text : "-");
    set_string(L, "addr", addr_format(&c->upstream_addr, text, sizeof text));
    if (lib_tls_push_info(L, &c->upstream))
        lua_setfield(L, -2, "tls");
    if (n_hops == 0)
        return;
    lua_createtable(L, (int)n_hops, 0); // stack: …, upstream, via
    for (size_t i = 0; i < n_hops; i++) {
        char hop[400];
        lua_pushstring(L, hop_format(&t->options->hops[i], hop, sizeof hop));
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "via");
}

/* Pushes nil for a connection without. */
static void push_tls(lua_State *L, struct conn *c)
{
    if (c->config->tls && conn_loop(c)->options.vnet)
        lib_tls_push_virtual(L);
    else if (!lib_tls_push_info(L, &c->client))
        lua_pushnil(L);
}

static void push_mode(lua_State *L, struct conn *c)
{
    lua_createtable(L, 0, 2);
    set_string(L, "up", relay_mode_name(&c->up));
    set_string(L, "down", relay_mode_name(&c->down));
}

/* Pushes a field that is kept once made; nil when it cannot be made (any more, or yet). */
static void push_kept(lua_State *L, struct script_conn *s, enum field field)
{
    struct conn *c = s->conn;
    push_env(L, s);                              // stack: conn, key, …, env
    if (c && conn_proxy(c) && !s->knows_proxy) { /* the client is another now */
        lua_pushnil(L);
        lua_setfield(L, -2, "client");
        s->knows_proxy = true;
    }
    lua_pushvalue(L, 2);
    lua_rawget(L, -2); // stack: …, env, value
    if (!lua_isnil(L, -1))
        return;
    if (field == FIELD_ctx)
        lua_newtable(L);
    else if (field == FIELD_log)
        lib_log_push(L, s->id);
    else if (field == FIELD_client && c)
        push_client(L, c);
    else if (field == FIELD_proxy && c && conn_awaits_proxy(c)) {
        lua_pushboolean(L, 0);
        return; // stack: …, env, nil, false
    } else if (field == FIELD_proxy && c && conn_proxy(c))
        push_proxy(L, conn_proxy(c));
    else if (field == FIELD_upstream && c && c->connected_ns)
        push_upstream(L, c);
    else if (field == FIELD_tls && c)
        push_tls(L, c);
    else
        return; // stack: …, env, nil
    if (lua_isnil(L, -1))
        return;
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5); // stack: …, env, nil, value
}

void lib_conn_forget_tls(lua_State *L, struct script_conn *s)
{
    if (!s->has_env)
        return;
    lua_getfenv(L, 1); // stack: conn, …, env
    lua_pushnil(L);
    lua_setfield(L, -2, "tls");
    lua_pushnil(L);
    lua_setfield(L, -2, "upstream");
    lua_pop(L, 1);
}

static void push_field(lua_State *L, struct script_conn *s, enum field field)
{
    struct conn *c = s->conn;
    switch (field) {
    case FIELD_id:
        lua_pushnumber(L, (lua_Number)s->id);
        return;
    case FIELD_seq:
        lua_pushnumber(L, (lua_Number)s->seq);
        return;
    case FIELD_ctx:
    case FIELD_log:
    case FIELD_client:
    case FIELD_proxy:
    case FIELD_upstream:
    case FIELD_tls:
        push_kept(L, s, field);
        return;
    default:
        break;
    }
    if (c && field == FIELD_listener)
        lua_pushstring(L, conn_listener_name(c));
    else if (c && field == FIELD_mode)
        push_mode(L, c);
    else if (c && field == FIELD_bytes_up)
        lua_pushnumber(L, (lua_Number)c->up.bytes);
    else if (c && field == FIELD_bytes_down)
        lua_pushnumber(L, (lua_Number)c->down.bytes);
    else if (c && field == FIELD_age)
        lua_pushnumber(L, (lua_Number)(conn_loop(c)->now_ns - c->accepted_ns) / 1e9);
    else
        lua_pushnil(L);
}

/* __index; upvalue: names */
static int conn_index(lua_State *L)
{
    struct script_conn *s = lua_touserdata(L, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); // stack: conn, key, member
    if (lua_type(L, -1) == LUA_TNUMBER)
        push_field(L, s, (enum field)lua_tointeger(L, -1));
    return 1;
}

/* __newindex; upvalue: names */
static int conn_newindex(lua_State *L)
{
    struct script_conn *s = lua_touserdata(L, 1);
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "a conn has no numbered fields; keep your own values in conn.ctx");
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); // stack: conn, key, value, member
    bool known = !lua_isnil(L, -1), ctx = lua_tointeger(L, -1) == FIELD_ctx;
    const char *name = lua_tostring(L, 2);
    if (known && !ctx)
        return luaL_error(L, "conn.%s cannot be set", name);
    if (!known)
        return luaL_error(
            L, "conn has no field \"%s\" to set; keep your own values in conn.ctx: conn.ctx.%s = …",
            name, name);
    if (!lua_istable(L, 3))
        return luaL_error(L, "conn.ctx is a table; set fields in it: conn.ctx.name = value");
    push_env(L, s);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
    return 0;
}

static int conn_tostring(lua_State *L)
{
    struct script_conn *s = luaL_checkudata(L, 1, type_name);
    char text[ADDR_TEXT_MAX] = "ended", id[24];
    if (s->conn)
        addr_format(&s->conn->client_addr, text, sizeof text);
    snprintf(id, sizeof id, "%llu", (unsigned long long)s->id);
    lua_pushfstring(L, "conn %s (%s)", id, text);
    return 1;
}

/* ---- methods ---- */

struct script_conn *lib_conn_check(lua_State *L, const char *call)
{
    struct script_conn *s = lua_touserdata(L, 1);
    bool is = false;
    if (s && lua_getmetatable(L, 1)) {
        luaL_getmetatable(L, type_name);
        is = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    if (!is)
        luaL_error(L, "call it with a colon: %s", call);
    return s;
}

struct conn *lib_conn_live(lua_State *L, struct script_conn *s)
{
    if (s->conn && !s->closing && !conn_is_closed(s->conn))
        return s->conn;
    lua_pushnil(L);
    lua_pushstring(L, err_word(PS_ECLOSED));
    return NULL;
}

int lib_conn_push_result(lua_State *L, int err)
{
    if (!err) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, err_word(err));
    lua_pushstring(L, err_text(err));
    return 3;
}

static bool key_is_word(const char *key, size_t len)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    return len && len <= 64 && strspn(key, word) == len;
}

static int conn_tag_method(lua_State *L)
{
    static const char call[] = "conn:tag(key, value)";
    struct script_conn *s = lib_conn_check(L, call);
    size_t key_len = 0, value_len = 0;
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &key_len) : NULL;
    if (!key || !key_is_word(key, key_len))
        return luaL_error(L, "%s: the key is a word of letters, digits, and _ . -", call);
    if (lua_isnil(L, 3) || lua_isboolean(L, 3)) {
        lua_pushstring(L, lua_isnil(L, 3) ? "-" : lua_toboolean(L, 3) ? "true" : "false");
        lua_replace(L, 3);
    }
    const char *value = lua_tolstring(L, 3, &value_len);
    if (!value)
        return luaL_error(L, "%s: the value is a string, number or boolean, not %s", call,
                          luaL_typename(L, 3));
    struct conn *c = s->conn; /* in the close hook, too: its tags belong into the access line */
    if (!c)
        return lib_conn_live(L, s) ? 0 : 2;
    return lib_conn_push_result(L, conn_tag(c, key, key_len, value, value_len));
}

void lib_conn_ask_close(struct script_conn *s, struct conn *c, bool reset)
{
    s->closing = true;
    s->why = REASON_CLOSED;
    s->reset = reset;
    list_for_each (node, next, &s->tasks) {
        struct task *t = container_of(node, struct task, of_conn);
        if (t->state == TASK_RUNNING)
            t->cancelled = true;
    }
    conn_hold(c); /* dropped in policy_run_closes() */
    list_push(&s->vm->closing, &s->close_node);
}

static int ask_close(lua_State *L, const char *call, bool reset)
{
    struct script_conn *s = lib_conn_check(L, call);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    lib_conn_ask_close(s, c, reset);
    return lib_conn_push_result(L, 0);
}

static int conn_close_method(lua_State *L)
{
    return ask_close(L, "conn:close()", false);
}

static int conn_reset_method(lua_State *L)
{
    return ask_close(L, "conn:reset()", true);
}

/* Reads the size at the top of the stack; 0 when it is one. */
static int read_size(lua_State *L, uint64_t *out)
{
    if (lua_type(L, -1) == LUA_TSTRING)
        return units_parse_size(lua_tostring(L, -1), out);
    double n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    if (!(n >= 0 && n < 0x1p63))
        return -EINVAL;
    *out = (uint64_t)ceil(n); /* half a byte a second is a limit, 0 would be none */
    return 0;
}

static int conn_limit_method(lua_State *L)
{
    static const char call[] = "conn:limit{ up = \"1M\", down = bucket:key(key) }";
    static const char *const names[] = {[RELAY_UP] = "up", [RELAY_DOWN] = "down"};
    struct script_conn *s = lib_conn_check(L, call);
    uint64_t rates[2] = {0, 0};
    struct rate_shared *buckets[2] = {NULL, NULL}; /* kept alive by the options */
    bool set[2] = {false, false};
    if (!lua_istable(L, 2))
        return luaL_error(L, "the right call is %s", call);
    lua_pushnil(L); // stack: conn, options, key
    while (lua_next(L, 2)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        int dir = !strcmp(key, names[RELAY_UP])     ? RELAY_UP
                  : !strcmp(key, names[RELAY_DOWN]) ? RELAY_DOWN
                                                    : -1;
        if (dir < 0)
            return luaL_error(L, "conn:limit has no option \"%s\"; the right call is %s", key,
                              call);
        buckets[dir] = lib_bucket_key_at(L, -1);
        if (!buckets[dir] && read_size(L, &rates[dir]))
            return luaL_error(L,
                              "conn:limit: %s is bytes a second (65536, \"64K\", \"1M\"), where 0 "
                              "takes a limit away, or what bucket:key(key) gives",
                              key);
        set[dir] = true;
        lua_pop(L, 1); // stack: conn, options, key
    }
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    int err = 0;
    for (int dir = RELAY_UP; dir <= RELAY_DOWN && !err; dir++) {
        struct relay *r = conn_relay(c, (enum relay_direction)dir);
        if (buckets[dir])
            err = relay_limit_shared(r, buckets[dir]);
        else if (set[dir])
            err = relay_limit(r, rates[dir]);
    }
    return lib_conn_push_result(L, err);
}

/* ---- the userdata ---- */

struct script_conn *lib_conn_push(lua_State *L, struct vm *vm, struct conn *c)
{
    struct script_conn *s = c->script;
    if (s) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref);
        return s;
    }
    s = lua_newuserdata(L, sizeof *s); // stack: …, conn
    memset(s, 0, sizeof *s);
    s->vm = vm;
    s->id = c->id;
    s->seq = c->seq;
    list_init(&s->tasks);
    list_init(&s->sockets);
    list_init(&s->close_node);
    list_init(&s->dirty_node);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->conn_meta);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    s->ref = luaL_ref(L, LUA_REGISTRYINDEX); // stack: …, conn
    s->conn = c;
    c->script = s;
    return s;
}

void lib_conn_forget(struct vm *vm, struct conn *c)
{
    struct script_conn *s = c->script;
    if (!s)
        return;
    PENSTOCK_REQUIRE(list_is_empty(&s->tasks) && list_is_empty(&s->close_node));
    lib_socket_leave_all(&s->sockets); /* of the close hook */
    s->conn = NULL;
    c->script = NULL;
    luaL_unref(vm->L, LUA_REGISTRYINDEX,
               s->ref); /* sets two fields that exist: allocates nothing */
}

static void push_names(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"tag", conn_tag_method},
        {"close", conn_close_method},
        {"reset", conn_reset_method},
        {"limit", conn_limit_method},
        {NULL, NULL},
    };
    luaL_newlib(L, methods);
    luaL_setfuncs(L, lib_conn_io_methods, 0);
#define X(name)                                                                                    \
    lua_pushinteger(L, FIELD_##name);                                                              \
    lua_setfield(L, -2, #name);
    CONN_FIELDS(X)
#undef X
}

void lib_conn_open(lua_State *L, struct vm *vm)
{
    lib_tlv_open(L);
    luaL_newmetatable(L, type_name);
    push_names(L); // stack: …, metatable, names
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, "penstock.conn_names");
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, conn_index, 1);
    lua_setfield(L, -3, "__index");
    lua_pushcclosure(L, conn_newindex, 1); // stack: …, metatable, function
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, conn_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "conn");
    lua_setfield(L, -2, "__metatable");
    vm->conn_meta = luaL_ref(L, LUA_REGISTRYINDEX);
}
