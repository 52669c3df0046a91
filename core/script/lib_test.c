/* What lua/penstock/test.lua is made of: worlds and peers as Lua sees them. The harness VM is not
 * one of a policy: it is unrestricted, and nothing but its own script runs in it.
 *
 * A world is a userdata; peers and services are light userdata that live as long as their world.
 * The Lua half gives nothing else to these functions. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "script_priv.h"
#include "testbed.h"

#define WORLD "penstock.test.world"
enum { WHY_MAX = 8192 };

static struct testbed *bed_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static struct world *world_at(lua_State *L, int arg)
{
    struct world **box = luaL_checkudata(L, arg, WORLD);
    if (!*box)
        luaL_error(L, "this policy has ended with the test that loaded it; load it in the test "
                      "itself or in before_each");
    return *box;
}

/* The peer at index 2 of the world at index 1. */
static struct peer *peer_at(lua_State *L)
{
    world_at(L, 1);
    return lua_touserdata(L, 2);
}

static int settled(lua_State *L, int err)
{
    if (err == -ELOOP)
        return luaL_error(L, "this goes on for ever without time passing");
    if (err)
        return luaL_error(L, "%s", err_text(err));
    return 0;
}

/* ---- worlds ---- */

static uint64_t number_field(lua_State *L, const char *key, uint64_t otherwise)
{
    lua_getfield(L, 1, key);
    uint64_t n = lua_isnil(L, -1) ? otherwise : (uint64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return n;
}

/* The string stays where it is: in the table. */
static const char *string_field(lua_State *L, const char *key)
{
    lua_getfield(L, 1, key);
    const char *text = lua_tostring(L, -1);
    lua_pop(L, 1);
    return text;
}

static void read_options(lua_State *L, struct world_options *o)
{
    struct config defaults;
    config_init(&defaults);
    struct config_listener *l = config_add_listener(&defaults);
    if (l)
        o->timeouts = l->timeouts;
    config_deinit(&defaults);
    o->path = string_field(L, "path");
    o->name = string_field(L, "name");
    o->to = string_field(L, "to");
    o->own = number_field(L, "own", 0) != 0;
    o->unsafe = number_field(L, "unsafe", 0) != 0;
    o->seed = number_field(L, "seed", 1);
    o->start_ms = number_field(L, "start_ms", 1);
    o->limits.conns = (uint32_t)number_field(L, "conns", 0);
    o->limits.per_ip = (uint32_t)number_field(L, "per_ip", 0);
    o->limits.rate = (uint32_t)number_field(L, "rate", 0);
    o->limits.up_bytes = number_field(L, "up", 0);
    o->limits.down_bytes = number_field(L, "down", 0);
    struct config_timeouts *t = &o->timeouts;
    t->connect_ms = number_field(L, "connect", t->connect_ms);
    t->handshake_ms = number_field(L, "handshake", t->handshake_ms);
    t->first_byte_ms = number_field(L, "first_byte", t->first_byte_ms);
    t->idle_ms = number_field(L, "idle", t->idle_ms);
    t->half_closed_ms = number_field(L, "half_closed", t->half_closed_ms);
    t->life_ms = number_field(L, "life", t->life_ms);
}

/* open(options) -> world, or nil and why */
static int test_open(lua_State *L)
{
    struct world_options o = {0};
    char why[WHY_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    read_options(L, &o);
    struct world **box = lua_newuserdata(L, sizeof(void *)); // stack: options, world
    *box = NULL;
    luaL_setmetatable(L, WORLD);
    if (world_open(bed_of(L), &o, box, why, sizeof why)) {
        lua_pushnil(L);
        lua_pushstring(L, why);
        return 2;
    }
    (*box)->handle = box;
    return 1;
}

static int test_forget(lua_State *L)
{
    struct world **box = luaL_checkudata(L, 1, WORLD);
    if (*box)
        (*box)->handle = NULL;
    return 0;
}

/* close(world) */
static int test_close(lua_State *L)
{
    struct world **box = luaL_checkudata(L, 1, WORLD);
    if (*box)
        world_close(*box);
    return 0;
}

/* begin(): the next test starts from nothing */
static int test_begin(lua_State *L)
{
    testbed_begin(bed_of(L));
    return 0;
}

/* advance(ms) */
static int test_advance(lua_State *L)
{
    return settled(L, testbed_advance(bed_of(L), (uint64_t)luaL_checknumber(L, 1)));
}

/* elapsed() -> seconds since the test began */
static int test_elapsed(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)bed_of(L)->elapsed_ms / 1000);
    return 1;
}

/* ---- what was written down ---- */

static int push_lines(lua_State *L, const struct buf *lines)
{
    size_t len = buf_len(lines);
    const char *text = len ? buf_bytes(lines) : NULL;
    lua_newtable(L);
    for (int n = 1; len; n++) {
        size_t size = strlen(text) + 1;
        lua_pushlstring(L, text, size - 1);
        lua_rawseti(L, -2, n);
        text += size;
        len -= size;
    }
    return 1; // stack: …, lines
}

/* trace() -> lines */
static int test_trace(lua_State *L)
{
    return push_lines(L, &bed_of(L)->trace);
}

/* log(world) -> lines */
static int test_log(lua_State *L)
{
    return push_lines(L, &world_at(L, 1)->log);
}

/* errors(world) -> script errors since the last call */
static int test_errors(lua_State *L)
{
    struct world *w = world_at(L, 1);
    push_lines(L, &w->errors);
    buf_deinit(&w->errors);
    return 1;
}

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, uint64_t value)
{
    lua_pushnumber(L, (lua_Number)value);
    lua_setfield(L, -2, key);
}

/* access(world, id) -> what the access line of a connection says, or nil */
static int test_access(lua_State *L)
{
    const struct world_access *a =
        world_access_of(world_at(L, 1), (uint64_t)luaL_checknumber(L, 2));
    if (!a)
        return 0;
    lua_createtable(L, 0, 8); // stack: …, access
    set_string(L, "reason", a->reason);
    set_string(L, "side", a->side);
    if (strcmp(a->detail, "-") != 0)
        set_string(L, "detail", a->detail);
    set_string(L, "upstream", a->upstream);
    set_number(L, "bytes_up", a->bytes_up);
    set_number(L, "bytes_down", a->bytes_down);
    lua_newtable(L); // stack: …, access, tags
    for (char **tag = a->tags; *tag; tag += 2)
        set_string(L, tag[0], tag[1]);
    lua_setfield(L, -2, "tags");
    return 1;
}

/* ---- the network ---- */

static int refused(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* Writes the canonical text of an address to dial into `out`. Returns 0, or an error and why. */
static int canonical(const char *text, char *out, size_t cap, char *why, size_t why_cap)
{
    struct endpoint e;
    int err = endpoint_parse(text, ENDPOINT_DIAL, &e, why, why_cap);
    if (err)
        return err;
    snprintf(out, cap, "%s", e.text);
    endpoint_deinit(&e);
    return 0;
}

/* upstream(world, address, window) -> service, or nil and why */
static int test_upstream(lua_State *L)
{
    struct world *w = world_at(L, 1);
    char address[300], why[512];
    struct service *s;
    if (canonical(luaL_checkstring(L, 2), address, sizeof address, why, sizeof why) ||
        world_default_to(w, address, why, sizeof why))
        return refused(L, why);
    int err = service_open(w, address, (size_t)luaL_checknumber(L, 3), &s);
    if (err == -EADDRINUSE)
        return refused(L, "there is an upstream of that address already");
    if (err)
        return refused(L, err_text(err));
    lua_pushlightuserdata(L, s);
    return 1;
}

/* connection(world, service, n) -> the nth peer or nil, how many there are */
static int test_connection(lua_State *L)
{
    world_at(L, 1);
    const struct service *s = lua_touserdata(L, 2);
    size_t n = (size_t)luaL_checknumber(L, 3);
    if (n >= 1 && n <= s->n_peers)
        lua_pushlightuserdata(L, s->peers[n - 1]);
    else
        lua_pushnil(L);
    lua_pushinteger(L, (lua_Integer)s->n_peers);
    return 2;
}

/* client(world, ip, port or nil, window, listener or nil) -> peer, or nil and why */
static int test_client(lua_State *L)
{
    struct world *w = world_at(L, 1);
    struct addr from;
    if (addr_parse_ip(luaL_checkstring(L, 2), &from))
        return refused(L, "ip is a numeric address such as \"203.0.113.7\"");
    uint16_t port = lua_isnil(L, 3) ? w->next_port++ : (uint16_t)luaL_checknumber(L, 3);
    addr_set_port(&from, port);
    int listener = lua_isnoneornil(L, 5) ? 0 : world_find_listener(w, luaL_checkstring(L, 5));
    if (listener < 0)
        return refused(L, "there is no listener of that name or address");
    struct peer *p = peer_connect(w, (size_t)listener, &from, (size_t)luaL_checknumber(L, 4));
    if (!p)
        return refused(L, "out of memory");
    lua_pushlightuserdata(L, p);
    return 1;
}

static int find_word(const char *const *words, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (words[i] && !strcmp(words[i], word))
            return (int)i;
    return -1;
}

/* fail(world, address, word, times) -> true, or nil and why */
static int test_fail(lua_State *L)
{
    static const char *const words[] = {
#define X(name, word) word,
        VNET_FAULTS(X)
#undef X
    };
    struct world *w = world_at(L, 1);
    char address[300], why[512];
    if (canonical(luaL_checkstring(L, 2), address, sizeof address, why, sizeof why))
        return refused(L, why);
    int fault = find_word(words, VNET_FAULT_COUNT, luaL_checkstring(L, 3));
    if (fault < 0)
        return refused(L, "a connection fails by \"refused\", \"timeout\", \"unreachable\" or "
                          "\"reset\"");
    if (vnet_fail(w->vnet, address, (enum vnet_fault)fault, (unsigned)luaL_checknumber(L, 4)))
        return refused(L, "out of memory");
    lua_pushboolean(L, 1);
    return 1;
}

/* dns(world, name, {ip, …} or word) -> true, or nil and why */
static int test_dns(lua_State *L)
{
    enum { ADDRS_MAX = 64 };
    static const char *const words[VNET_NAME_FAULT_COUNT] = {
#define X(name, word, why) [VNET_NAME_##name] = word,
        VNET_NAME_FAULTS(X)
#undef X
    };
    struct world *w = world_at(L, 1);
    const char *name = luaL_checkstring(L, 2);
    struct addr addrs[ADDRS_MAX];
    size_t n = 0;
    int fault = VNET_NAME_GOOD;
    if (lua_istable(L, 3)) {
        n = lua_objlen(L, 3);
        if (n == 0 || n > ADDRS_MAX)
            return refused(L, "a name has 1 to 64 addresses");
        for (size_t i = 0; i < n; i++) {
            lua_rawgeti(L, 3, (int)i + 1);
            const char *ip = lua_tostring(L, -1);
            if (!ip || addr_parse_ip(ip, &addrs[i]))
                return refused(L,
                               "a name resolves to numeric addresses: { \"10.0.0.5\", \"::1\" }");
            lua_pop(L, 1);
        }
    } else {
        fault = find_word(words, VNET_NAME_FAULT_COUNT, luaL_checkstring(L, 3));
        if (fault < 0)
            return refused(L, "a name fails by \"nxdomain\", \"servfail\" or \"timeout\"");
    }
    if (vnet_set_name(w->vnet, name, addrs, n, (enum vnet_name_fault)fault))
        return refused(L, "out of memory");
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- peers ---- */

/* send(world, peer, bytes) */
static int test_send(lua_State *L)
{
    size_t n;
    const char *bytes = luaL_checklstring(L, 3, &n);
    return settled(L, peer_send(peer_at(L), bytes, n));
}

static int test_finish(lua_State *L)
{
    return settled(L, peer_finish(peer_at(L)));
}

static int test_reset(lua_State *L)
{
    return settled(L, peer_reset(peer_at(L)));
}

/* reading(world, peer, on) */
static int test_reading(lua_State *L)
{
    return settled(L, peer_read(peer_at(L), lua_toboolean(L, 3)));
}

/* received(world, peer, from) -> the bytes after the first `from` */
static int test_received(lua_State *L)
{
    const struct peer *p = peer_at(L);
    size_t from = (size_t)luaL_checknumber(L, 3), len = buf_len(&p->in);
    if (from >= len)
        lua_pushliteral(L, "");
    else
        lua_pushlstring(L, buf_bytes(&p->in) + from, len - from);
    return 1;
}

/* state(world, peer) -> "fin", "rst" or nil; bytes not sent yet; may it still send; connection id
 * or nil */
static int test_state(lua_State *L)
{
    static const char *const ends[] = {[PEER_OPEN] = NULL, [PEER_FIN] = "fin", [PEER_RST] = "rst"};
    const struct peer *p = peer_at(L);
    lua_pushstring(L, ends[p->end]); /* NULL is nil */
    lua_pushnumber(L, (lua_Number)buf_len(&p->out));
    lua_pushboolean(L, !p->finishing);
    if (p->conn_id)
        lua_pushnumber(L, (lua_Number)p->conn_id);
    else
        lua_pushnil(L);
    return 4;
}

/* ---- units ---- */

/* time_ms(text) -> milliseconds or nil; size(text) -> bytes or nil */
static int unit(lua_State *L, int (*parse)(const char *, uint64_t *))
{
    uint64_t n;
    if (parse(luaL_checkstring(L, 1), &n))
        return 0;
    lua_pushnumber(L, (lua_Number)n);
    return 1;
}

static int test_time_ms(lua_State *L)
{
    return unit(L, units_parse_time_ms);
}

static int test_size(lua_State *L)
{
    return unit(L, units_parse_size);
}

void lib_test_push(lua_State *L, struct testbed *bed)
{
    static const luaL_Reg functions[] = {
        {"open", test_open},
        {"close", test_close},
        {"begin", test_begin},
        {"advance", test_advance},
        {"elapsed", test_elapsed},
        {"trace", test_trace},
        {"log", test_log},
        {"errors", test_errors},
        {"access", test_access},
        {"upstream", test_upstream},
        {"client", test_client},
        {"connection", test_connection},
        {"fail", test_fail},
        {"dns", test_dns},
        {"send", test_send},
        {"finish", test_finish},
        {"reset", test_reset},
        {"reading", test_reading},
        {"received", test_received},
        {"state", test_state},
        {"time_ms", test_time_ms},
        {"size", test_size},
        {NULL, NULL},
    };
    luaL_newmetatable(L, WORLD);
    lua_pushcfunction(L, test_forget);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushlightuserdata(L, bed);
    luaL_setfuncs(L, functions, 1); // stack: …, core
}
