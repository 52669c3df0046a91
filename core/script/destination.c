/* Destinations as scripts write them: a text, a table with options, a server of a pool, a pool, or
 * a list of these. What makes no sense is an error that says what does. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "lib_pool.h"
#include "lib_tls.h"
#include "lib_tlv.h"

#define EXAMPLE "{ \"host:port\", via = \"socks5://10.0.0.1:1080\", timeout = 4 }"

enum { POOL_TRIES = 3 }; /* servers that a pool stands for: they share the time of the dial */

static const char type_name[] = "penstock.destination";

/* What is being made. In a userdata, so that nothing is lost when something raises. */
struct making {
    struct targets *list; /* complete so far; NULL: none */
    struct targets *part; /* of the item that is being read */
    struct target_options *options;
};

/* Where it is read from. */
struct reading {
    lua_State *L;
    const char *what; /* "the connect hook returned" */
    struct making *making;
};

static int making_gc(lua_State *L)
{
    struct making *m = lua_touserdata(L, 1);
    targets_drop(m->list);
    targets_drop(m->part);
    target_options_free(m->options);
    *m = (struct making){0};
    return 0;
}

static struct making *push_making(lua_State *L)
{
    struct making *m = lua_newuserdata(L, sizeof *m);
    *m = (struct making){0};
    if (luaL_newmetatable(L, type_name)) {
        lua_pushcfunction(L, making_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return m;
}

/* ---- complaints ---- */

/* Raises "<what> a destination with <fault>". */
static _Noreturn void complain(struct reading *r, const char *fault)
{
    luaL_error(r->L, "%s a destination %s", r->what, fault);
    __builtin_unreachable();
}

static _Noreturn void complain_of_option(struct reading *r, const char *option, const char *right)
{
    luaL_error(r->L, "%s a destination whose option \"%s\" makes no sense: %s", r->what, option,
               right);
    __builtin_unreachable();
}

static _Noreturn void complain_of_memory(struct reading *r)
{
    luaL_error(r->L, "%s", err_text(-ENOMEM));
    __builtin_unreachable();
}

/* ---- options: each reads the value on the top of the stack ---- */

/* The text at the top, NULL when it is none or has a zero byte in it. */
static const char *text_at_top(lua_State *L)
{
    size_t len;
    const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    return s && strlen(s) == len ? s : NULL;
}

static void read_proxy(struct reading *r)
{
    const char *version = text_at_top(r->L);
    if (version && strcmp(version, "v1") == 0)
        r->making->options->proxy = TARGET_PROXY_V1;
    else if (version && strcmp(version, "v2") == 0)
        r->making->options->proxy = TARGET_PROXY_V2;
    else
        complain_of_option(r, "proxy", "write proxy = \"v1\" or proxy = \"v2\"");
}

static void read_tlv(struct reading *r)
{
    lua_State *L = r->L;
    target_options_clear_tlvs(r->making->options); /* of the server that these are written for */
    if (!lua_istable(L, -1))
        complain_of_option(r, "tlv", "write tlv = { authority = \"a.lab\", [0xE0] = \"bytes\" }");
    const char *wrong = lib_tlv_read(L, lua_gettop(L));
    if (wrong)
        complain_of_option(r, "tlv", wrong);
    // stack: …, tlv, by type
    for (int type = 0; type <= 255; type++) { /* the header is the same each time */
        lua_rawgeti(L, -1, type);             // stack: …, tlv, by type, value
        size_t len;
        const char *value = lua_tolstring(L, -1, &len);
        int err = value ? target_options_add_tlv(r->making->options, (uint8_t)type, value, len) : 0;
        if (err == -ENOMEM)
            complain_of_memory(r);
        if (err)
            complain_of_option(r, "tlv", "all together may have 4080 bytes, 3 for each head");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void add_hop_text(struct reading *r)
{
    char why[300];
    const char *url = text_at_top(r->L);
    if (!url)
        complain_of_option(r, "via", "write via = \"socks5://host:1080\" or a list of such texts");
    if (target_options_add_hop(r->making->options, url, why, sizeof why))
        complain_of_option(r, "via", why);
}

static void add_hop(struct reading *r)
{
    lua_State *L = r->L;
    struct pool_server *server = lib_pool_server(L, -1);
    if (!server) {
        add_hop_text(r);
        return;
    }
    lua_getfenv(L, -1);
    lua_getfield(L, -1, "url"); // stack: …, server, environment, url
    if (lua_isnil(L, -1))
        complain_of_option(r, "via",
                           "this server of a pool is no proxy: it was given without socks5:// or "
                           "http://");
    add_hop_text(r);
    struct target_options *o = r->making->options;
    o->hops[o->n_hops - 1].account = account_hold(pool_server_account(server));
    lua_pop(L, 2);
}

static void read_via(struct reading *r)
{
    lua_State *L = r->L;
    target_options_clear_hops(r->making->options);
    if (!lua_istable(L, -1)) {
        add_hop(r);
        return;
    }
    size_t n = lua_objlen(L, -1), keys = 0;
    lua_pushnil(L); // stack: …, via, key
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        keys++;
    }
    if (keys != n)
        complain_of_option(r, "via", "it is a list: { \"socks5://a:1080\", \"http://b:3128\" }");
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, (int)i);
        add_hop(r);
        lua_pop(L, 1);
    }
}

static void read_bind(struct reading *r)
{
    const char *ip = text_at_top(r->L);
    if (!ip || addr_parse_ip(ip, &r->making->options->source))
        complain_of_option(r, "bind", "write an IP address of this host: bind = \"192.0.2.1\"");
}

static void read_timeout(struct reading *r)
{
    uint64_t ms = 0;
    if (!lib_read_time(r->L, lua_gettop(r->L), &ms) || ms == 0)
        complain_of_option(r, "timeout",
                           "write seconds over 0 or a text: timeout = 4 or \"500ms\"");
    r->making->options->timeout_ms = ms;
}

static void read_tls(struct reading *r)
{
    char why[600];
    struct tls_client *client;
    const char *name;
    struct target_options *o = r->making->options;
    int top = lua_gettop(r->L);
    if (lib_tls_client(r->L, top, &client, &name, why, sizeof why))
        complain_of_option(r, "tls", why);
    tls_client_drop(o->tls); /* of the server that this is written for */
    o->tls = tls_client_hold(client);
    free(o->tls_name);
    o->tls_name = name ? strdup(name) : NULL;
    if (name && !o->tls_name)
        complain_of_memory(r);
    lua_settop(r->L, top);
}

static void read_via_tls(struct reading *r)
{
    char why[600];
    struct tls_client *client;
    const char *name;
    int top = lua_gettop(r->L);
    if (lib_tls_client(r->L, top, &client, &name, why, sizeof why))
        complain_of_option(r, "via_tls", why);
    if (name)
        complain_of_option(r, "via_tls", "a proxy's certificate is for its host: leave out name");
    tls_client_drop(r->making->options->via_tls);
    r->making->options->via_tls = tls_client_hold(client);
    lua_settop(r->L, top);
}

static const struct option {
    const char *name;
    void (*read)(struct reading *r);
} options[] = {{"tls", read_tls},        {"proxy", read_proxy}, {"tlv", read_tlv},
               {"via", read_via},        {"bind", read_bind},   {"timeout", read_timeout},
               {"via_tls", read_via_tls}};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

/* Pushes the option that the key on the top was meant to be, nil when none is near. */
static void push_nearest(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "penstock.nearest");
    if (!lua_isfunction(L, -1)) {
        lua_pushnil(L);
        return;
    }
    lua_pushvalue(L, -3);
    lua_createtable(L, N_OPTIONS, 0); // stack: key, loaded, nearest, key, names
    for (int i = 0; i < N_OPTIONS; i++) {
        lua_pushstring(L, options[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    lua_call(L, 2, 1);
}

/* Raises for the key below the value on the top. */
static _Noreturn void complain_of_key(struct reading *r)
{
    lua_State *L = r->L;
    lua_pop(L, 1); // stack: …, key
    if (lua_type(L, -1) != LUA_TSTRING)
        complain(
            r,
            "with more than one address, or none, in a table with options; it is written " EXAMPLE);
    const char *key = lua_tostring(L, -1);
    push_nearest(L);
    const char *near = lua_tostring(L, -1);
    luaL_error(L,
               "%s a destination with the option \"%s\"%s%s%s, which is not known; options are "
               "tls, proxy, tlv, via, via_tls, bind and timeout",
               r->what, key, near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
    __builtin_unreachable();
}

static const struct option *find_option(lua_State *L, int index)
{
    const char *key = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "";
    for (int i = 0; i < N_OPTIONS; i++)
        if (strcmp(options[i].name, key) == 0)
            return &options[i];
    return NULL;
}

static void need_options(struct reading *r)
{
    if (!r->making->options)
        r->making->options = target_options_new();
    if (!r->making->options)
        complain_of_memory(r);
}

/* Reads the options of the destination table on the top. */
static void read_options(struct reading *r)
{
    lua_State *L = r->L;
    need_options(r);
    lua_pushnil(L); // stack: …, table, key
    while (lua_next(L, -2)) {
        bool is_address = lua_type(L, -2) == LUA_TNUMBER && lua_tonumber(L, -2) == 1;
        const struct option *option = find_option(L, -2);
        if (option)
            option->read(r);
        else if (!is_address)
            complain_of_key(r);
        lua_pop(L, 1);
    }
}

/* ---- destinations ---- */

/* tls:// without a word on how. */
static void give_tls(struct reading *r, struct targets *part, const char *text)
{
    char why[600];
    struct tls_client *client;
    const char *name;
    int top = lua_gettop(r->L);
    if (!part || !targets_lack_tls(part))
        return;
    if (lib_tls_client(r->L, 0, &client, &name, why, sizeof why))
        luaL_error(r->L, "%s \"%s\": %s", r->what, text, why);
    if (targets_give_tls(part, client))
        complain_of_memory(r);
    for (size_t i = 0; i < part->n; i++)
        if (target_check(&part->items[i], why, sizeof why))
            luaL_error(r->L, "%s \"%s\": %s", r->what, text, why);
    lua_settop(r->L, top);
}

/* Adds the addresses of the text on the top, with the options read before, if any. */
static void add_text(struct reading *r)
{
    struct making *m = r->making;
    char why[300];
    const char *text = text_at_top(r->L);
    if (!text || !*text)
        complain(r, "that is no text, is empty, or has a zero byte in it; write \"host:port\", "
                    "\"unix:/path\", or " EXAMPLE);
    m->part = targets_parse(text, 0, why, sizeof why);
    if (!m->part || targets_set_options(m->part, m->options, why, sizeof why))
        luaL_error(r->L, "%s \"%s\": %s", r->what, text, why);
    give_tls(r, m->part, text);
    target_options_free(m->options);
    m->options = NULL;
    struct targets *part = m->part;
    m->part = NULL; /* taken over, whatever happens */
    if (targets_join(&m->list, part))
        complain_of_memory(r);
}

/* Replaces the server on the top by its address, with its options read. */
static void read_server(struct reading *r, struct pool_server *server)
{
    lua_State *L = r->L;
    lua_getfenv(L, -1);
    lua_getfield(L, -1, "spec"); // stack: …, server, environment, spec
    read_options(r);
    r->making->options->account = account_hold(pool_server_account(server));
    lua_rawgeti(L, -1, 1);
    lua_replace(L, -4);
    lua_pop(L, 2); // stack: …, address
}

/* Adds the text or server on the top, with the options in the table at `table`; 0: without. */
static void add_address(struct reading *r, int table)
{
    lua_State *L = r->L;
    lua_pushvalue(L, -1); // stack: …, address, address
    struct pool_server *server = lib_pool_server(L, -1);
    if (server)
        read_server(r, server);
    if (table) {
        lua_pushvalue(L, table);
        read_options(r);
        lua_pop(L, 1);
    }
    add_text(r);
    lua_pop(L, 1);
}

/* Adds the first servers of the pool on the top. */
static void add_pool(struct reading *r, int table)
{
    lua_State *L = r->L;
    size_t n = lib_pool_push_order(L, lua_gettop(L)); // stack: …, pool, servers
    for (size_t i = 1; i <= n && i <= POOL_TRIES; i++) {
        lua_rawgeti(L, -1, (int)i);
        add_address(r, table);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Adds the one destination on the top, or a table around one. */
static void add_one(struct reading *r)
{
    lua_State *L = r->L;
    int table = lua_istable(L, -1) ? lua_gettop(L) : 0;
    if (table)
        lua_rawgeti(L, table, 1);
    if (lib_pool_is(L, -1))
        add_pool(r, table);
    else
        add_address(r, table);
    if (table)
        lua_pop(L, 1);
}

/* Whether the table on the top has keys that are no numbers: options, so it is one destination. */
static bool has_options(lua_State *L)
{
    lua_pushnil(L); // stack: …, table, key
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TNUMBER) {
            lua_pop(L, 1);
            return true;
        }
    }
    return false;
}

static void add_list(struct reading *r)
{
    lua_State *L = r->L;
    size_t n = lua_objlen(L, -1);
    if (n == 0)
        luaL_error(L,
                   "%s an empty list; a destination is \"host:port\", \"unix:/path\", " EXAMPLE
                   ", or a list of these",
                   r->what);
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, (int)i);
        add_one(r);
        lua_pop(L, 1);
    }
}

struct targets *destination_read(lua_State *L, int index, const char *what)
{
    luaL_checkstack(L, 20, "a destination");
    lua_pushvalue(L, index);
    struct reading r = {L, what, push_making(L)};
    lua_insert(L, -2); // stack: …, making, value
    if (lua_istable(L, -1) && !has_options(L))
        add_list(&r);
    else
        add_one(&r);
    struct targets *list = r.making->list;
    r.making->list = NULL;
    lua_pop(L, 2);
    return list;
}
