/* ps.pool: a userdata for the pool as this VM has declared it, and one for each of its servers.
 * What a server is to destinations is in its environment: `spec`, a destination table, and, when it
 * is a proxy, `url`. The rest of it is in lua/penstock/pool.lua. */
#include "lib_pool.h"

#include <string.h>

#include "lib_shared.h"
#include "penstock/base/err.h"
#include "penstock/base/hash.h"

static const char pool_type[] = "ps.pool", server_type[] = "ps.pool server";

struct script_server {
    struct pool_server *server; /* one reference */
};

/* Its environment is the list of its servers, in the order of the members. */
struct script_pool {
    struct list node; /* in vm->pools */
    struct vm *vm;
    struct pool *pool;
    enum pool_algo algo;
    bool checks, used; /* used: pool_use() was told */
    struct pool_eject eject;
    size_t n;
    struct pool_member members[]; /* each a reference; texts of tables that servers keep */
};

/* The same in every process: a key stays with its server over a restart. */
static const struct hash_key key_hash = {0x6b6579, 0x706f6f6c};

/* ---- servers ---- */

static int server_gc(lua_State *L)
{
    struct script_server *s = lua_touserdata(L, 1);
    pool_server_drop(s->server);
    s->server = NULL;
    return 0;
}

static struct pool_server *self(lua_State *L, const char *call)
{
    return ((struct script_server *)lib_self(L, server_type, call))->server;
}

static int server_drain(lua_State *L)
{
    pool_drain(self(L, "server:drain()"));
    return 0;
}

static int server_up(lua_State *L)
{
    pool_restore(self(L, "server:up()"));
    return 0;
}

static int server_tostring(lua_State *L)
{
    lua_pushstring(L, pool_server_name(self(L, "tostring(server)")));
    return 1;
}

/* Fields; upvalues: the VM, the methods. */
static int server_index(lua_State *L)
{
    struct pool_server *s = self(L, "server.name, server.state, server.conns");
    const char *key = lua_tostring(L, 2);
    if (key && !strcmp(key, "name")) {
        lua_pushstring(L, pool_server_name(s));
    } else if (key && !strcmp(key, "state")) {
        lua_pushstring(L, pool_state_name(pool_state(s, lib_now_ms(vm_of(L)))));
    } else if (key && !strcmp(key, "conns")) {
        lua_pushnumber(L, pool_active(s));
    } else {
        lua_settop(L, 2);
        lua_rawget(L, lua_upvalueindex(2));
    }
    return 1;
}

/* checked(server, success, fall, rise) -> has that changed its state? */
static int core_checked(lua_State *L)
{
    struct pool_server *s = self(L, "checked");
    bool success = lua_toboolean(L, 2);
    lua_pushboolean(
        L, pool_checked(s, success, (uint32_t)lua_tonumber(L, 3), (uint32_t)lua_tonumber(L, 4)));
    return 1;
}

/* spec(server) -> the destination that it stands for, on which nothing is booked */
static int core_spec(lua_State *L)
{
    self(L, "spec");
    lua_getfenv(L, 1);
    lua_getfield(L, -1, "spec");
    return 1;
}

/* Takes name, spec and url from the table on the top, which is left there; pushes the userdata. */
static struct pool_server *push_server(lua_State *L, struct pool *p)
{
    struct script_server *s = lua_newuserdata(L, sizeof *s); // stack: …, table, server
    s->server = NULL;
    luaL_getmetatable(L, server_type);
    lua_setmetatable(L, -2);
    lua_getfield(L, -2, "name");
    s->server = pool_server(p, luaL_checkstring(L, -1));
    lua_pop(L, 1);
    if (!s->server)
        luaL_error(L, "%s", err_text(-ENOMEM));
    lua_pushvalue(L, -2);
    lua_setfenv(L, -2);
    return s->server;
}

/* ---- in force ---- */

static void use(struct script_pool *p, bool used)
{
    struct pool_use what = {p->algo, p->checks, p->eject, p->members, p->n};
    if (p->used == used)
        return;
    p->used = used;
    if (used)
        pool_use(p->pool, &what);
    else
        pool_unuse(p->pool, &what);
}

void lib_pool_use(struct vm *vm, bool used)
{
    list_for_each (node, next, &vm->pools)
        use(container_of(node, struct script_pool, node), used);
}

static int pool_gc(lua_State *L)
{
    struct script_pool *p = lua_touserdata(L, 1);
    use(p, false);
    list_remove(&p->node);
    for (; p->n; p->n--)
        pool_server_drop(p->members[p->n - 1].server);
    return 0;
}

/* ---- the choice ---- */

/* The text at `arg` that a choice goes by; 0 without one. */
static uint64_t hash_of(lua_State *L, const struct script_pool *p, int arg, const char *call)
{
    size_t n;
    if (!lua_isnoneornil(L, arg) && !lua_isstring(L, arg))
        luaL_error(L, "%s: the key is a string, not a %s", call, luaL_typename(L, arg));
    if (lua_isnoneornil(L, arg) && p->algo == POOL_HASH)
        luaL_error(L, "%s: with algo = \"hash\" a key is needed, such as conn.client.key", call);
    const char *key = lua_tolstring(L, arg, &n);
    return key ? hash_bytes(&key_hash, key, n) : 0;
}

static size_t choose(struct script_pool *p, uint64_t key, uint32_t *order)
{
    struct pool_choice choice = {.algo = p->algo,
                                 .members = p->members,
                                 .n_members = p->n,
                                 .key = key,
                                 .random = lib_random(p->vm),
                                 .now_ms = lib_now_ms(p->vm)};
    return pool_choose(p->pool, &choice, order);
}

static int pool_pick(lua_State *L)
{
    static const char call[] = "pool:pick(key)";
    struct script_pool *p = lib_self(L, pool_type, call);
    uint32_t order[POOL_SERVERS_MAX];
    if (choose(p, hash_of(L, p, 2, call), order) == 0)
        return lib_fail(L, LIB_POOL_UNAVAILABLE);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, (int)order[0] + 1);
    return 1;
}

/* Pushes the list of the servers of the pool at `index` that may be used, the best first. */
static void push_order(lua_State *L, int index, uint64_t key)
{
    uint32_t order[POOL_SERVERS_MAX];
    size_t n = choose(lua_touserdata(L, index), key, order);
    lua_getfenv(L, index);
    lua_createtable(L, (int)n, 0); // stack: …, servers, list
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, -2, (int)order[i] + 1);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_remove(L, -2); // stack: …, list
}

/* order(pool, key) -> list of servers */
static int core_order(lua_State *L)
{
    static const char call[] = "pool:each(key)";
    struct script_pool *p = lib_self(L, pool_type, call);
    push_order(L, 1, hash_of(L, p, 2, call));
    return 1;
}

/* servers(pool) -> the list of all; the caller does not change it */
static int core_servers(lua_State *L)
{
    lib_self(L, pool_type, "pool:servers()");
    lua_getfenv(L, 1);
    return 1;
}

/* ---- making pools ---- */

/* pool(name, algo, servers, checks, eject fails, eject ms) -> pool, or nil and why. servers: a list
 * of { name =, address =, weight =, spec =, url = } of different names, up to POOL_SERVERS_MAX. */
static int core_pool(lua_State *L)
{
    static const char *const algos[] = {
#define X(name, word) word,
        POOL_ALGOS(X)
#undef X
            NULL};
    struct vm *vm = vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    enum pool_algo algo = (enum pool_algo)luaL_checkoption(L, 2, NULL, algos);
    struct pool_eject eject = {(uint32_t)luaL_checknumber(L, 5), (uint64_t)luaL_checknumber(L, 6)};
    size_t n = lua_objlen(L, 3);
    struct script_pool *p = lua_newuserdata(L, sizeof *p + n * sizeof p->members[0]);
    *p =
        (struct script_pool){.vm = vm, .algo = algo, .checks = lua_toboolean(L, 4), .eject = eject};
    int err = shared_pool(vm->shared, name, &p->pool);
    if (err)
        return lib_fail(L, err_text(err));
    list_push(&vm->pools, &p->node);
    luaL_getmetatable(L, pool_type);
    lua_setmetatable(L, -2);
    lua_createtable(L, (int)n, 0); // stack: …, pool, servers
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 3, (int)i + 1);
        struct pool_server *server = push_server(L, p->pool); // stack: …, table, server
        lua_getfield(L, -2, "weight");
        lua_getfield(L, -3, "address"); // stack: …, table, server, weight, address
        p->members[p->n++] = (struct pool_member){pool_server_hold(server), lua_tonumber(L, -2),
                                                  lua_tostring(L, -1)};
        lua_pop(L, 2);
        lua_rawseti(L, -3, (int)i + 1);
        lua_pop(L, 1); // stack: …, pool, servers
    }
    lua_setfenv(L, -2);
    return 1;
}

/* describe(destination or URL of a proxy) -> name, address; or nil and what is wrong. The address
 * is where a proxy listens, nil for others. */
static int core_describe(lua_State *L)
{
    char text[400], why[300];
    struct hop hop;
    const char *url = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
    if (strstr(url, "://")) {
        if (hop_parse(url, &hop, why, sizeof why))
            return lib_fail(L, why);
        hop_format(&hop, text, sizeof text);
        snprintf(why, sizeof why, "%s", hop.endpoint.text);
        hop_deinit(&hop);
        lua_pushstring(L, text);
        lua_pushstring(L, why);
        return 2;
    }
    struct targets *t = destination_read(L, 1, "it is");
    bool one = t->n == 1;
    snprintf(text, sizeof text, "%s", t->items[0].endpoint.text);
    targets_drop(t);
    if (!one)
        return lib_fail(L, "it is more than one address: give each server an item of its own");
    lua_pushstring(L, text);
    return 1;
}

/* ---- for destinations ---- */

bool lib_pool_is(lua_State *L, int index)
{
    return luaL_testudata(L, index, pool_type);
}

struct pool_server *lib_pool_server(lua_State *L, int index)
{
    struct script_server *s = luaL_testudata(L, index, server_type);
    return s ? s->server : NULL;
}

size_t lib_pool_push_order(lua_State *L, int index)
{
    struct script_pool *p = lua_touserdata(L, index);
    struct task *t = p->vm->current;
    char key[ADDR_TEXT_MAX];
    if (t && t->conn)
        lua_pushstring(L, addr_format_key(&t->conn->client_addr, key, sizeof key));
    else
        lua_pushnil(L);
    uint64_t hash = hash_of(L, p, lua_gettop(L), "pool:pick(key)");
    lua_pop(L, 1);
    push_order(L, index, hash);
    return lua_objlen(L, -1);
}

/* ---- the table ---- */

static void open_servers(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[] = {{"drain", server_drain}, {"up", server_up}, {NULL, NULL}};
    lib_type(L, vm, server_type, methods);
    luaL_getmetatable(L, server_type); // stack: …, methods, metatable
    lua_pushcfunction(L, server_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, server_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushlightuserdata(L, vm);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, server_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
}

void lib_pool_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg methods[] = {{"pick", pool_pick}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"new", core_pool},
        {"describe", core_describe},
        {"order", core_order},
        {"servers", core_servers},
        {"checked", core_checked},
        {"spec", core_spec},
        {NULL, NULL},
    };
    open_servers(L, vm);
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_pushinteger(L, POOL_SERVERS_MAX);
    lua_setfield(L, -2, "SERVERS_MAX");
    lib_type(L, vm, pool_type, methods);
    luaL_getmetatable(L, pool_type);
    lua_pushcfunction(L, pool_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_setfield(L, -2, "methods");
    lua_setfield(L, -2, "pool"); // stack: …, core
}
