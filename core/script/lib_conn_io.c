/* What a hook does with the bytes and sockets of a connection, beside its streams: looking at what
 * the client sends, putting bytes in, letting a direction go, times and socket options. */
#include <stdio.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/proto/http_host.h"
#include "penstock/proto/tls_hello.h"
#include "penstock/proxy/config.h"
#include "stream_priv.h"

/* ---- looking at the client ---- */

/* How long to wait for the client, 0: for ever. Before there is an upstream nobody else watches
 * over it, so all looks together have the handshake timeout, however often a byte comes. */
static uint64_t look_timeout_ms(struct script_conn *s, const struct conn *c)
{
    uint64_t whole_ms = conn_timeouts(c)->handshake_ms, now_ms = conn_loop(c)->now_ms;
    if (c->state > CONN_CONNECT || !whole_ms)
        return whole_ms;
    if (!s->look_ms)
        s->look_ms = now_ms;
    uint64_t gone_ms = now_ms - s->look_ms;
    return gone_ms < whole_ms ? whole_ms - gone_ms : 1;
}

/* Raises while something else stands before what the client sends. */
static void check_is_first(lua_State *L, const struct conn *c, const char *call)
{
    const char *what = conn_awaits_proxy(c) ? "PROXY header" : "TLS handshake";
    if (conn_awaits_proxy(c) || conn_awaits_tls(c))
        luaL_error(L, "%s: a %s stands before what the client sends; call it in connect or later",
                   call, what);
}

/* Reads by `op` what the client sends; waits no longer than the handshake timeout. */
static int look(lua_State *L, struct script_conn *s, const char *call, const struct read_op *op)
{
    struct conn *c = s->conn;
    if (!c || s->closing || conn_is_closed(c)) {
        lua_pushboolean(L, 1);
        return 1 + (lib_conn_live(L, s) ? 0 : 2);
    }
    check_is_first(L, c, call);
    conn_open_client(c);
    if (c->up.mode != RELAY_STREAM)
        return luaL_error(L,
                          "%s: the client's bytes are relayed already; call it in accept, "
                          "connect, connected, handshake or in an up filter",
                          call);
    struct script_stream *stream = lib_stream_client(L, s);
    if (!stream->reader)
        stream->op = *op;
    return lib_stream_read_or_wait(L, stream, look_timeout_ms(s, c));
}

static size_t check_max(lua_State *L, size_t least, size_t or_else, const char *call)
{
    if (lua_isnoneornil(L, 2) && or_else)
        return or_else;
    double n = lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : -1;
    if (!(n >= (double)least && n <= RELAY_HIGH_WATER))
        luaL_error(L, "%s: a number of bytes from %d to %d is expected", call, (int)least,
                   RELAY_HIGH_WATER);
    return (size_t)n;
}

/* peek(conn, n) */
static int io_peek(lua_State *L)
{
    static const char call[] = "conn:peek(n)";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_PEEK, .max = check_max(L, 1, 0, call)};
    return look(L, s, call, &op);
}

/* peek_line(conn, max) */
static int io_peek_line(lua_State *L)
{
    static const char call[] = "conn:peek_line([max])";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_PEEK_LINE, .max = check_max(L, 1, STREAM_LINE_MAX, call)};
    return look(L, s, call, &op);
}

/* take(conn, n) */
static int io_take(lua_State *L)
{
    static const char call[] = "conn:take(n)";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_EXACTLY, .max = check_max(L, 1, 0, call)};
    return look(L, s, call, &op);
}

/* take_line(conn, max) */
static int io_take_line(lua_State *L)
{
    static const char call[] = "conn:take_line([max])";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_LINE, .max = check_max(L, 0, STREAM_LINE_MAX, call)};
    return look(L, s, call, &op);
}

/* What a parser's PROTO_BAD or PROTO_LONG is for scripts. */
static int refuse(lua_State *L, ssize_t verdict)
{
    lua_pushnil(L);
    lua_pushstring(L, verdict == PROTO_LONG ? err_word(PS_ETOO_LONG) : "mismatch");
    return 2;
}

static void push_alpn(lua_State *L, const struct tls_hello *hello)
{
    size_t at = 0, len;
    const char *name;
    lua_newtable(L);
    for (int i = 0; (name = tls_hello_alpn(hello, &at, &len));) {
        if (tls_hello_alpn_is_grease(name, len))
            continue;
        lua_pushlstring(L, name, len);
        lua_rawseti(L, -2, ++i);
    }
}

static void push_numbers(lua_State *L, const uint16_t *list, size_t n)
{
    int at = 0;
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        if (tls_is_grease(list[i]))
            continue;
        lua_pushinteger(L, list[i]);
        lua_rawseti(L, -2, ++at);
    }
}

/* "1.3" for 0x0304; what is no version is left out. */
static void push_versions(lua_State *L, const struct tls_hello *hello)
{
    size_t n = hello->n_versions ? hello->n_versions : 1;
    int at = 0;
    lua_newtable(L);
    for (size_t i = 0; i < n; i++) {
        unsigned v = hello->n_versions ? hello->versions[i] : hello->legacy_version;
        if (v >> 8 != 3)
            continue;
        if (v == 0x0300)
            lua_pushliteral(L, "ssl3");
        else
            lua_pushfstring(L, "1.%d", (int)(v & 0xff) - 1);
        lua_rawseti(L, -2, ++at);
    }
}

static int parse_hello(lua_State *L, const char *bytes, size_t n)
{
    struct tls_hello hello;
    ssize_t used = tls_hello_parse(bytes, n, &hello);
    if (used == PROTO_MORE)
        return 0;
    if (used < 0)
        return refuse(L, used);
    lua_createtable(L, 0, 5);
    if (hello.sni[0]) {
        lua_pushstring(L, hello.sni);
        lua_setfield(L, -2, "sni");
    }
    push_alpn(L, &hello);
    lua_setfield(L, -2, "alpn");
    push_versions(L, &hello);
    lua_setfield(L, -2, "versions");
    push_numbers(L, hello.ciphers, hello.n_ciphers);
    lua_setfield(L, -2, "ciphers");
    push_numbers(L, hello.extensions, hello.n_extensions);
    lua_setfield(L, -2, "extensions");
    return 1;
}

/* hello(conn) */
static int io_hello(lua_State *L)
{
    static const char call[] = "conn:hello()";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_PARSED, .max = TLS_HELLO_WIRE_MAX, .parse = parse_hello};
    return look(L, s, call, &op);
}

static int parse_host(lua_State *L, const char *bytes, size_t n)
{
    struct http_host host;
    ssize_t used = http_host_parse(bytes, n, &host);
    if (used == PROTO_MORE)
        return 0;
    if (used < 0)
        return refuse(L, used);
    lua_pushstring(L, host.name);
    return 1;
}

/* http_host(conn) */
static int io_http_host(lua_State *L)
{
    static const char call[] = "conn:http_host()";
    struct script_conn *s = lib_conn_check(L, call);
    struct read_op op = {.kind = READ_PARSED, .max = HTTP_HEAD_MAX, .parse = parse_host};
    return look(L, s, call, &op);
}

/* ---- dialogues (lua/penstock/starttls.lua) ---- */

/* Does the hook that runs come before the upstream is spoken with? False in the handshake. */
static bool is_early(const struct conn *c)
{
    return c->state != CONN_HANDSHAKE;
}

static void push_early_client(lua_State *L, struct script_conn *s)
{
    struct loop *loop = s->vm->loop;
    uint64_t ms = conn_timeouts(s->conn)->handshake_ms;
    struct script_stream *old = s->readers[RELAY_UP];
    if (old && old->reader)
        luaL_error(L, "another coroutine already reads what the client sends");
    lib_stream_push_side(L, s, SIDE_CLIENT);
    s->readers[RELAY_UP]->deadline_ms = ms ? loop->now_ms + ms : 0;
    s->conn->preamble = true; /* also when the task that speaks is cancelled half-way */
}

/* dialogue(conn, call): the stream of the client, which reads and writes; in the handshake that of
 * the upstream, too, before it nil. nil, "closed" when the connection is over. End it by
 * dialogue_end(). Before the handshake its reads end with the handshake timeout. */
static int io_dialogue(lua_State *L)
{
    const char *call = luaL_checkstring(L, 2);
    struct script_conn *s = lib_conn_check(L, call);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    check_is_first(L, c, call);
    conn_open_client(c);
    if (c->up.mode != RELAY_STREAM || c->state > CONN_HANDSHAKE)
        return luaL_error(L, "%s: call it in accept, connect, connected or handshake", call);
    if (is_early(c)) {
        push_early_client(L, s);
        return 1;
    }
    if (!s->readers[RELAY_UP] || !s->readers[RELAY_DOWN])
        return luaL_error(L, "%s: the handshake hook is over", call);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->readers[RELAY_UP]->ref);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->readers[RELAY_DOWN]->ref);
    return 2;
}

/* dialogue_end(conn, preamble): what was not read stays; without `preamble` the upstream need not
 * be spoken with. */
static int io_dialogue_end(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "dialogue_end(conn)");
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    if (is_early(c))
        lib_stream_detach_sides(s);
    c->preamble = lua_toboolean(L, 2);
    return 0;
}

/* fail(conn, word): ends it for the reason "tls", with that detail. */
static int io_fail(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "fail(conn, word)");
    const char *word = luaL_checkstring(L, 2);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    snprintf(c->detail, sizeof c->detail, "%s", word);
    lib_conn_ask_close(s, c, true);
    s->why = REASON_TLS;
    return 0;
}

/* ---- directions ---- */

/* The direction named at `index`, or an error. */
static enum relay_direction check_direction(lua_State *L, int index, const char *call)
{
    const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "";
    if (!strcmp(name, "up"))
        return RELAY_UP;
    if (strcmp(name, "down") != 0)
        luaL_error(L, "%s: the direction is \"up\" (client to upstream) or \"down\"", call);
    return RELAY_DOWN;
}

static int conn_inject(lua_State *L)
{
    static const char call[] = "conn:inject(\"down\", bytes)";
    struct script_conn *s = lib_conn_check(L, call);
    enum relay_direction dir = check_direction(L, 2, call);
    size_t n;
    if (lua_type(L, 3) != LUA_TSTRING)
        return luaL_error(L, "%s: the bytes are a string", call);
    const char *bytes = lua_tolstring(L, 3, &n);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    struct relay *r = conn_relay(c, dir);
    if (r->finishing || r->state == RELAY_ENDED || r->state == RELAY_BROKEN ||
        c->state == CONN_GOODBYE || c->state == CONN_LINGER ||
        (c->state == CONN_SERVE && dir == RELAY_UP))
        return lib_conn_push_result(L, PS_ECLOSED);
    if (buf_len(&r->held) + n > (size_t)2 * RELAY_HIGH_WATER)
        return lib_conn_push_result(L, PS_ELIMIT);
    int err = relay_put(r, bytes, n);
    lib_conn_soil(s);
    return lib_conn_push_result(L, err);
}

static int conn_pass(lua_State *L)
{
    static const char call[] = "conn:pass(\"down\")";
    struct script_conn *s = lib_conn_check(L, call);
    enum relay_direction dir = check_direction(L, 2, call);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    struct relay *r = conn_relay(c, dir);
    if (s->filters[dir])
        filter_stop(s, dir);
    else if (r->mode == RELAY_SCRIPT && !r->waiting)
        relay_start(r, c->config->relay, RELAY_COPY);
    else if (r->mode == RELAY_SCRIPT)
        s->passed[dir] = true;
    lib_conn_soil(s);
    return lib_conn_push_result(L, 0);
}

/* ---- times and options ---- */

/* X(Lua name, field) */
#define TIMEOUTS(X)                                                                                \
    X(connect, connect_ms)                                                                         \
    X(handshake, handshake_ms)                                                                     \
    X(first_byte, first_byte_ms)                                                                   \
    X(idle, idle_ms)                                                                               \
    X(half_closed, half_closed_ms)                                                                 \
    X(life, life_ms)

static uint64_t *timeout_field(struct config_timeouts *t, const char *name)
{
#define X(word, field)                                                                             \
    if (!strcmp(name, #word))                                                                      \
        return &t->field;
    TIMEOUTS(X)
#undef X
    return NULL;
}

/* timeouts(conn, table of milliseconds): the Lua half has checked names and values */
static int io_timeouts(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "conn:timeout{ idle = 60 }");
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    struct config_timeouts *own = conn_change_timeouts(c);
    if (!own)
        return lib_conn_push_result(L, PS_ESYSTEM);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        uint64_t *field = timeout_field(own, luaL_checkstring(L, -2));
        if (field)
            *field = (uint64_t)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    conn_watch_again(c);
    return lib_conn_push_result(L, 0);
}

static int conn_nodelay(lua_State *L)
{
    static const char call[] = "conn:nodelay(\"client\", true)";
    struct script_conn *s = lib_conn_check(L, call);
    const char *side = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    bool client = !strcmp(side, "client");
    if ((!client && strcmp(side, "upstream") != 0) || !lua_isboolean(L, 3))
        return luaL_error(L, "the right call is %s; the side is \"client\" or \"upstream\"", call);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    return lib_conn_push_result(
        L, stream_set_nodelay(client ? &c->client : &c->upstream, lua_toboolean(L, 3)));
}

/* deny(conn, ps.deny{…}) */
static int io_deny(lua_State *L)
{
    struct script_conn *s = lib_conn_check(L, "conn:deny{ reason = \"word\", reset = true }");
    struct verdict v = {.kind = VERDICT_DENY};
    luaL_checktype(L, 2, LUA_TTABLE);
    verdict_read_deny(L, 2, &v);
    struct conn *c = lib_conn_live(L, s);
    if (!c)
        return 2;
    memcpy(c->detail, v.reason, sizeof c->detail);
    lib_conn_ask_close(s, c, v.reset);
    s->why = REASON_DENIED;
    return lib_conn_push_result(L, 0);
}

/* ---- the tables ---- */

const luaL_Reg lib_conn_io_methods[] = {
    {"inject", conn_inject},
    {"pass", conn_pass},
    {"nodelay", conn_nodelay},
    {NULL, NULL},
};

/* add_methods(table): what the Lua half adds to conn */
static int io_add_methods(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "penstock.conn_names");
    lua_pushnil(L);
    while (lua_next(L, 1)) { // stack: table, names, key, value
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, 2); // stack: table, names, key
    }
    return 0;
}

void lib_conn_io_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"peek", io_peek},
        {"peek_line", io_peek_line},
        {"take", io_take},
        {"take_line", io_take_line},
        {"hello", io_hello},
        {"http_host", io_http_host},
        {"dialogue", io_dialogue},
        {"dialogue_end", io_dialogue_end},
        {"fail", io_fail},
        {"timeouts", io_timeouts},
        {"capture", lib_conn_capture},
        {"capture_end", lib_conn_capture_end},
        {"deny", io_deny},
        {"add_methods", io_add_methods},
        {NULL, NULL},
    };
    // stack: …, core
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_setfield(L, -2, "conn"); // stack: …, core
}
