/* TLS for scripts: contexts made of tables and kept as long as the VM, certificates for the sni
 * hook, what a connection has agreed on, and TLS that begins in the midst of a connection. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib_tls.h"
#include "penstock/base/err.h"
#include "penstock/net/tls.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/shared.h"

enum { KEPT_MAX = 256, TEXT_MAX = 4096 };

static const char cert_type[] = "penstock.certificate";

/* ---- contexts, by what the table said ---- */

struct kept {
    struct list node;
    struct tls_client *client;
    struct tls_server *server;
    char text[];
};

static void free_kept(struct kept *k)
{
    tls_client_drop(k->client);
    tls_server_drop(k->server);
    list_remove(&k->node);
    free(k);
}

void lib_tls_deinit(struct vm *vm)
{
    list_for_each (node, next, &vm->tls)
        free_kept(container_of(node, struct kept, node));
}

static struct kept *find(struct vm *vm, const char *text, size_t *n)
{
    *n = 0;
    list_for_each (node, next, &vm->tls) {
        struct kept *k = container_of(node, struct kept, node);
        if (!strcmp(k->text, text))
            return k;
        ++*n;
    }
    return NULL;
}

static struct kept *keep(struct vm *vm, const char *text)
{
    size_t len = strlen(text) + 1;
    struct kept *k = calloc(1, sizeof *k + len);
    if (!k)
        return NULL;
    memcpy(k->text, text, len);
    list_init(&k->node);
    list_push(&vm->tls, &k->node);
    return k;
}

/* ---- tables ---- */

/* What a table says; texts are on the Lua stack. */
struct said {
    const char *ca, *name, *cert, *key, *alpn, *pin, *min, *client;
    bool insecure;
};

static const struct field {
    const char *name;
    size_t offset;
    bool dial, accept, list;
} fields[] = {
    {"ca", offsetof(struct said, ca), true, false, false},
    {"name", offsetof(struct said, name), true, false, false},
    {"pin", offsetof(struct said, pin), true, false, true},
    {"cert", offsetof(struct said, cert), true, true, false},
    {"key", offsetof(struct said, key), true, true, false},
    {"alpn", offsetof(struct said, alpn), true, true, true},
    {"min", offsetof(struct said, min), true, true, false},
    {"client_ca", offsetof(struct said, ca), false, true, false},
    {"client", offsetof(struct said, client), false, true, false},
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

/* Replaces the list on the top by its items with commas between; false when it is none of texts. */
static bool join(lua_State *L)
{
    luaL_Buffer all;
    size_t n = lua_objlen(L, -1);
    int list = lua_gettop(L);
    luaL_buffinit(L, &all);
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, list, (int)i);
        if (lua_type(L, -1) != LUA_TSTRING) {
            lua_settop(L, list);
            return false;
        }
        luaL_addvalue(&all);
        if (i < n)
            luaL_addchar(&all, ',');
    }
    luaL_pushresult(&all);
    lua_replace(L, list);
    lua_settop(L, list);
    return n > 0;
}

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_cap, const char *fmt,
                                                        ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

/* Reads the value on the top, which stays there, into its field. */
static int read_field(lua_State *L, const struct field *f, struct said *said, char *why,
                      size_t why_cap)
{
    size_t len = 0;
    if (lua_istable(L, -1) && f->list && !join(L))
        return refuse(why, why_cap, "%s is a list of texts", f->name);
    if (lua_type(L, -1) == LUA_TNUMBER && !strcmp(f->name, "min")) {
        lua_pushfstring(L, "1.%d", (int)(lua_tonumber(L, -1) * 10 + 0.5) - 10);
        lua_replace(L, -2);
    }
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    if (!text || !*text || strlen(text) != len)
        return refuse(why, why_cap, "%s is a text%s", f->name,
                      f->list ? " or a list of texts" : "");
    *(const char **)((char *)said + f->offset) = text;
    return 0;
}

static bool is_known(const char *key, bool dial)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (!strcmp(key, fields[i].name) && (dial ? fields[i].dial : fields[i].accept))
            return true;
    return dial && !strcmp(key, "insecure");
}

static int check_keys(lua_State *L, int table, bool dial, char *why, size_t why_cap)
{
    lua_pushnil(L);
    while (lua_next(L, table)) {
        lua_pop(L, 1); // stack: …, key
        const char *key = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "[…]";
        if (!is_known(key, dial))
            return refuse(why, why_cap, "it has no option \"%.64s\"; options are %s", key,
                          dial ? "ca, name, cert, key, alpn, pin, insecure and min"
                               : "cert, key, client_ca, client, alpn and min");
    }
    return 0;
}

/* Reads the table at `table`; its texts are pushed. */
static int read_table(lua_State *L, int table, bool dial, struct said *said, char *why,
                      size_t why_cap)
{
    luaL_checkstack(L, N_FIELDS + 8, "TLS options");
    int err = check_keys(L, table, dial, why, why_cap);
    for (size_t i = 0; i < N_FIELDS && !err; i++) {
        lua_getfield(L, table, fields[i].name);
        if ((dial ? fields[i].dial : fields[i].accept) && !lua_isnil(L, -1))
            err = read_field(L, &fields[i], said, why, why_cap);
    }
    if (err)
        return err;
    lua_getfield(L, table, "insecure");
    said->insecure = lua_toboolean(L, -1);
    if (said->min && strcmp(said->min, "1.2") != 0 && strcmp(said->min, "1.3") != 0)
        return refuse(why, why_cap, "min is \"1.2\" or \"1.3\"");
    return 0;
}

/* What makes one context differ from another, as a text on the stack. */
static const char *push_text(lua_State *L, char kind, const struct said *s)
{
    const char *parts[] = {s->ca, s->cert, s->key, s->alpn, s->pin, s->min, s->client};
    luaL_Buffer all;
    luaL_buffinit(L, &all);
    luaL_addchar(&all, kind);
    luaL_addchar(&all, s->insecure ? '1' : '0');
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        luaL_addchar(&all, '\n');
        luaL_addstring(&all, parts[i] ? parts[i] : "");
    }
    luaL_pushresult(&all);
    return lua_tostring(L, -1);
}

static enum tls_version min_of(const struct said *s)
{
    return s->min && !strcmp(s->min, "1.3") ? TLS_1_3 : TLS_1_2;
}

/* ---- dialling ---- */

static int make_client(struct vm *vm, const char *text, const struct said *s,
                       struct tls_client **out, char *why, size_t why_cap)
{
    size_t n;
    struct kept *k = find(vm, text, &n);
    if (!k && n >= KEPT_MAX)
        return refuse(why, why_cap,
                      "%d different sets of TLS options are in use: make tables of "
                      "them while the file loads, not from what clients say",
                      KEPT_MAX);
    struct tls_client_options o = {.ca = s->ca,
                                   .cert = s->cert,
                                   .key = s->key,
                                   .alpn = s->alpn,
                                   .pin = s->pin,
                                   .insecure = s->insecure,
                                   .min = min_of(s)};
    int err = k ? 0 : tls_client_new(&o, out, why, why_cap);
    if (err)
        return err;
    if (!k) {
        k = keep(vm, text);
        if (!k) {
            tls_client_drop(*out);
            return refuse(why, why_cap, "%s", err_text(-ENOMEM));
        }
        k->client = *out;
        if (s->insecure && !s->pin)
            log_warn("tls = { insecure = true }: an upstream's certificate is NOT checked: whoever "
                     "sits between can read and change everything");
    }
    *out = k->client;
    return 0;
}

int lib_tls_client(lua_State *L, int index, struct tls_client **client, const char **name,
                   char *why, size_t why_cap)
{
    struct said said = {0};
    int err = 0;
    *name = NULL;
    if (index && lua_istable(L, index))
        err = read_table(L, index, true, &said, why, why_cap);
    else if (index && !(lua_isboolean(L, index) && lua_toboolean(L, index)))
        err = refuse(why, why_cap,
                     "write tls = true, or tls = { ca = \"ca.pem\", name = \"db.lab\" }");
    if (!err)
        err = make_client(vm_of(L), push_text(L, 'c', &said), &said, client, why, why_cap);
    *name = said.name;
    return err;
}

/* ---- accepting ---- */

static int client_cert_of(const struct said *s, enum tls_client_cert *out, char *why,
                          size_t why_cap)
{
    *out = s->ca ? TLS_CLIENT_CERT_REQUIRE : TLS_CLIENT_CERT_NONE;
    if (s->client && !s->ca)
        return refuse(why, why_cap, "client goes with client_ca");
    if (!s->client || !strcmp(s->client, "require"))
        return 0;
    *out = TLS_CLIENT_CERT_REQUEST;
    if (strcmp(s->client, "request") != 0)
        return refuse(why, why_cap, "client is \"require\" or \"request\"");
    return 0;
}

static int new_server(struct vm *vm, const struct said *s, struct tls_server **out, char *why,
                      size_t why_cap)
{
    struct tls_cert *cert = NULL;
    enum tls_client_cert client;
    int err = client_cert_of(s, &client, why, why_cap);
    if (!err && !s->cert)
        err = refuse(why, why_cap, "cert is missing: { cert = \"cert.pem\", key = \"key.pem\" }");
    if (!err)
        err = tls_cert_load(s->cert, s->key, &cert, why, why_cap);
    if (err)
        return err;
    struct tls_named_cert named = {NULL, cert};
    struct tls_server_options o = {.certs = &named,
                                   .n_certs = 1,
                                   .client_ca = s->ca,
                                   .client_cert = client,
                                   .alpn = s->alpn,
                                   .min = min_of(s)};
    err = tls_server_new(&o, out, why, why_cap);
    tls_cert_drop(cert);
    if (!err)
        tls_server_set_tickets(*out, shared_tickets(vm->shared));
    return err;
}

/* As lib_tls_client(), for the side that accepts. */
static int server_at(lua_State *L, int index, struct tls_server **server, char *why, size_t why_cap)
{
    struct vm *vm = vm_of(L);
    struct said said = {0};
    size_t n;
    if (!lua_istable(L, index))
        return refuse(why, why_cap,
                      "options are a table: { cert = \"cert.pem\", key = \"key.pem\" }");
    int err = read_table(L, index, false, &said, why, why_cap);
    if (err)
        return err;
    const char *text = push_text(L, 's', &said);
    struct kept *k = find(vm, text, &n);
    if (!k && n >= KEPT_MAX)
        return refuse(why, why_cap, "%d different sets of TLS options are in use", KEPT_MAX);
    if (!k) {
        err = new_server(vm, &said, server, why, why_cap);
        k = err ? NULL : keep(vm, text);
        if (!k) {
            if (!err)
                tls_server_drop(*server);
            return err ? err : refuse(why, why_cap, "%s", err_text(-ENOMEM));
        }
        k->server = *server;
    }
    *server = k->server;
    return 0;
}

/* ---- certificates ---- */

/* The userdata. */
struct script_cert {
    struct tls_cert *cert;
};

static int cert_gc(lua_State *L)
{
    struct script_cert *c = lua_touserdata(L, 1);
    tls_cert_drop(c->cert);
    c->cert = NULL;
    return 0;
}

static int cert_tostring(lua_State *L)
{
    const struct script_cert *c = luaL_checkudata(L, 1, cert_type);
    lua_pushfstring(L, "certificate %s", tls_cert_path(c->cert));
    return 1;
}

/* certificate(cert, key) -> certificate | nil, message */
static int tls_certificate(lua_State *L)
{
    char why[600];
    const char *path = luaL_checkstring(L, 1), *key = luaL_optstring(L, 2, NULL);
    struct script_cert *c = lua_newuserdata(L, sizeof *c);
    c->cert = NULL;
    luaL_getmetatable(L, cert_type);
    lua_setmetatable(L, -2);
    if (tls_cert_load(path, key, &c->cert, why, sizeof why) == 0) {
        tls_cert_warn(c->cert);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

struct tls_cert *lib_tls_cert_at(lua_State *L, int index)
{
    const struct script_cert *c = lua_touserdata(L, index);
    if (!c || !lua_getmetatable(L, index))
        return NULL;
    luaL_getmetatable(L, cert_type);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is ? c->cert : NULL;
}

/* ---- what was agreed on ---- */

static void set_text(lua_State *L, const char *key, const char *value)
{
    if (!value || !*value)
        return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void set_flag(lua_State *L, const char *key, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

/* In a userdata, so that nothing is lost when something raises. */
static int peer_gc(lua_State *L)
{
    tls_peer_deinit(lua_touserdata(L, 1));
    return 0;
}

static struct tls_peer *new_peer(lua_State *L)
{
    struct tls_peer *peer = lua_newuserdata(L, sizeof *peer);
    *peer = (struct tls_peer){0};
    if (luaL_newmetatable(L, "penstock.tls_peer")) {
        lua_pushcfunction(L, peer_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return peer;
}

/* Sets the field peer of the table on the top. */
static void set_peer(lua_State *L, const struct stream *s)
{
    struct tls_peer *peer = new_peer(L); // stack: …, table, peer
    if (tls_get_peer(s, peer)) {
        lua_pop(L, 1);
        return;
    }
    lua_createtable(L, 0, 5);
    set_text(L, "subject", peer->subject);
    set_text(L, "issuer", peer->issuer);
    set_text(L, "serial", peer->serial);
    set_text(L, "fingerprint", peer->fingerprint);
    lua_createtable(L, (int)peer->n_names, 0);
    for (size_t i = 0; i < peer->n_names; i++) {
        lua_pushstring(L, peer->names[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "names");
    lua_setfield(L, -3, "peer"); // stack: …, table, peer
    tls_peer_deinit(peer);
    lua_pop(L, 1);
}

void lib_tls_push_virtual(lua_State *L)
{
    lua_createtable(L, 0, 4);
    set_text(L, "version", "TLSv1.3");
    set_text(L, "cipher", "TLS_AES_128_GCM_SHA256");
    set_flag(L, "resumed", false);
    set_flag(L, "verified", false);
}

bool lib_tls_push_info(lua_State *L, const struct stream *s)
{
    struct tls_info info;
    if (!tls_get_info(s, &info))
        return false;
    lua_createtable(L, 0, 7);
    set_text(L, "version", info.version);
    set_text(L, "cipher", info.cipher);
    set_text(L, "sni", info.sni);
    set_text(L, "alpn", info.alpn);
    set_flag(L, "resumed", info.resumed);
    set_flag(L, "verified", info.verified);
    set_peer(L, s);
    return true;
}

/* ---- TLS from here on ---- */

int lib_tls_shake(lua_State *L, struct script_stream *s)
{
    struct stream *from = s->in->from;
    switch (tls_step(from)) {
    case TLS_OPEN:
        lua_pushboolean(L, 1);
        lua_pushboolean(L, 1);
        return 2;
    case TLS_FAILED:
        sched_push_failure(L, err_from_errno(from->err));
        lua_pushstring(L, tls_why(from));
        return 4;
    default:
        return 0;
    }
}

/* Plain bytes on the wrong side of the change would pass for protected ones (CVE-2011-0411). */
static const char *obstacle(struct relay *in, struct relay *out)
{
    relay_flush(out);
    if (relay_held(out))
        return "what was written before has not gone yet: call flush() first";
    return buf_len(&in->unread) ? "the other side has sent more before TLS could begin" : NULL;
}

/* Begins TLS between the streams of `in` and `out`; answers as lib_stream_read_or_wait(). */
static int start(lua_State *L, struct script_stream *s, struct relay *out,
                 struct tls_server *server, struct tls_client *client, const char *name,
                 uint64_t timeout_ms)
{
    struct relay *in = s->in;
    const char *why = obstacle(in, out);
    if (why) {
        sched_push_failure(L, PS_EDENIED);
        lua_pushstring(L, why);
        return 4;
    }
    if (s->vm->loop->options.vnet) { /* nobody to hide from */
        lua_pushboolean(L, 1);
        lua_pushboolean(L, 1);
        return 2;
    }
    if (s->reader)
        return lib_stream_taken(L, "reads");
    int err = server ? tls_accept(in->from, s->vm->loop, server, false)
                     : tls_connect(in->from, s->vm->loop, client, name);
    if (err)
        return sched_push_failure(L, err);
    s->op = (struct read_op){.kind = READ_TLS};
    return lib_stream_read_or_wait(L, s, timeout_ms);
}

static int push_wrong(lua_State *L, const char *call, const char *why)
{
    lua_pushboolean(L, 0);
    lua_pushfstring(L, "%s: %s", call, why);
    return 2;
}

/* The name that an upstream's certificate must be for. */
static const char *upstream_name(const struct conn *c, const char *name, char *buf, size_t cap)
{
    return name         ? name
           : c->targets ? target_tls_name(&c->targets->items[c->target], buf, cap)
                        : NULL;
}

/* starttls(conn, side, options) -> true; nil, word, detail */
static int tls_start(lua_State *L)
{
    static const char call[] = "conn:starttls(\"client\", { cert = …, key = … })";
    struct script_conn *sc = lib_conn_check(L, call);
    const char *side = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    bool client = !strcmp(side, "client");
    char why[600], ip[ADDR_TEXT_MAX];
    struct tls_server *server = NULL;
    struct tls_client *dials = NULL;
    const char *name = NULL;
    if (!client && strcmp(side, "upstream") != 0)
        return push_wrong(L, call, "the side is \"client\" or \"upstream\"");
    struct conn *c = sc->conn;
    if (!c || sc->closing || conn_is_closed(c))
        return sched_push_failure(L, PS_ECLOSED);
    if (c->state != CONN_HANDSHAKE && !(client && c->state == CONN_SERVE))
        return push_wrong(L, call, "it is for the handshake hook, and for the client in serve");
    if (tls_is_on(client ? &c->client : &c->upstream))
        return push_wrong(L, call, "that side has TLS already");
    int err =
        client ? server_at(L, 3, &server, why, sizeof why)
               : lib_tls_client(L, lua_isnoneornil(L, 3) ? 0 : 3, &dials, &name, why, sizeof why);
    if (err)
        return push_wrong(L, call, why);
    name = client ? NULL : upstream_name(c, name, ip, sizeof ip);
    if (dials && !name && tls_client_checks_name(dials))
        return push_wrong(L, call, "give the name that the upstream's certificate is for");
    struct script_stream *s = sc->readers[client ? RELAY_UP : RELAY_DOWN];
    if (!s || !s->in)
        return sched_push_failure(L, PS_ECLOSED);
    lib_conn_forget_tls(L, sc);
    return start(L, s, client ? &c->down : &c->up, server, dials, name,
                 conn_timeouts(c)->handshake_ms);
}

/* start_socket(socket, name, options) -> true; nil, word, detail */
static int tls_start_socket(lua_State *L)
{
    static const char call[] = "socket:sslhandshake(session, name, verify)";
    struct script_stream *s = lib_stream_check(L, 1, call);
    char why[600];
    struct tls_client *dials = NULL;
    const char *name = NULL;
    if (s->script)
        return push_wrong(L, call, "it is for sockets of ps.tcp; a connection has conn:starttls");
    if (!s->socket || !s->in || !s->out)
        return sched_push_failure(L, PS_ECLOSED);
    if (tls_is_on(s->in->from))
        return push_wrong(L, call, "this socket has TLS already");
    if (lib_tls_client(L, lua_isnoneornil(L, 2) ? 0 : 2, &dials, &name, why, sizeof why))
        return push_wrong(L, call, why);
    if (!name && tls_client_checks_name(dials))
        return push_wrong(L, call, "give the name that the certificate is for");
    return start(L, s, s->out, NULL, dials, name, s->timeout_ms);
}

void lib_tls_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {{"certificate", tls_certificate},
                                         {"start", tls_start},
                                         {"start_socket", tls_start_socket},
                                         {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", cert_gc}, {"__tostring", cert_tostring}, {NULL, NULL}};
    luaL_newmetatable(L, cert_type);
    luaL_setfuncs(L, meta, 0);
    lua_pushliteral(L, "certificate");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    // stack: …, core
    lua_newtable(L);
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
    lua_setfield(L, -2, "tls"); // stack: …, core
}
