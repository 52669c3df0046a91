/* From what a hook returned to a plain C verdict. What makes no sense is an error that says what
 * does. */
#include <stdio.h>
#include <string.h>

#include "lib_pool.h"
#include "penstock/proxy/config.h"
#include "lib_tls.h"
#include "penstock/net/tls_cert.h"

#define DESTINATION                                                                                \
    "a destination (\"host:port\", \"unix:/path\", a table with options, a server of a pool, a "   \
    "pool, or a list of them)"

static const char *const rights[HOOK_COUNT] = {
    [HOOK_ACCEPT] = "it returns nothing to go on, or false or ps.deny{…} to turn the client away",
    [HOOK_SNI] = "it returns nothing for the configured certificate, one of ps.certificate{…}, or "
                 "false to refuse the handshake",
    [HOOK_CONNECT] = "it returns nothing for the configured target, " DESTINATION
                     ", ps.deny{…} or ps.reply(bytes)",
    [HOOK_FAILED] = "it returns nothing to give up, " DESTINATION ", ps.deny{…} or ps.reply(bytes)",
    [HOOK_CONNECTED] = "it returns nothing to go on, or ps.deny{…}",
    [HOOK_HANDSHAKE] = "it returns nothing to go on, or ps.deny{…}",
    [HOOK_SERVE] = "it returns nothing; what it has written is delivered",
};

void verdict_nonsense(lua_State *L, const char *hook, const char *right)
{
    switch (lua_type(L, 1)) {
    case LUA_TSTRING:
        lua_pushfstring(L, "\"%s\"", lua_tostring(L, 1));
        break;
    case LUA_TNUMBER:
        lua_pushfstring(L, "the number %s", lua_tostring(L, 1));
        break;
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, 1) ? "true" : "false");
        break;
    default:
        lua_pushfstring(L, "a %s", luaL_typename(L, 1));
    }
    lua_pushfstring(L, "the %s hook returned %s; %s", hook, lua_tostring(L, -1), right);
    lua_error(L);
    __builtin_unreachable();
}

static _Noreturn void nonsense(lua_State *L, const struct task *t)
{
    verdict_nonsense(L, policy_hook_name((enum policy_hook)t->hook), rights[t->hook]);
}

/* Has the value at 1 this metatable (a registry reference)? */
static bool is_of(lua_State *L, int meta)
{
    if (!lua_getmetatable(L, 1))
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, meta); // stack: …, metatable, wanted
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

/* Takes over the bytes under `key` of the table at `index`, if there are any. */
static void take_reply(lua_State *L, int index, const char *key, struct verdict *v)
{
    size_t n;
    lua_pushstring(L, key);
    lua_rawget(L, index);
    const char *bytes = lua_tolstring(L, -1, &n);
    if (bytes && buf_append(&v->reply, bytes, n))
        luaL_error(L, "not enough memory");
    lua_pop(L, 1);
}

void verdict_read_deny(lua_State *L, int index, struct verdict *v)
{
    lua_pushliteral(L, "reason");
    lua_rawget(L, index);
    lua_pushliteral(L, "reset");
    lua_rawget(L, index);
    lua_pushliteral(L, "hang_ms");
    lua_rawget(L, index); // stack: deny, …, reason, reset, hang_ms
    const char *reason = lua_tostring(L, -3);
    double hang_ms = lua_tonumber(L, -1);
    snprintf(v->reason, sizeof v->reason, "%s", reason ? reason : "");
    v->reset = lua_toboolean(L, -2);
    v->hang_ms = hang_ms > 0 ? (uint64_t)hang_ms : 0;
    v->kind = VERDICT_DENY;
    lua_pop(L, 3);
}

static void read_reply(lua_State *L, struct verdict *v)
{
    take_reply(L, 1, "bytes", v);
    v->kind = VERDICT_REPLY;
}

/* A denial, which may come with an answer as long as nobody else speaks with the client. */
static void read_deny(lua_State *L, struct task *t)
{
    struct verdict *v = &t->extra->verdict;
    take_reply(L, 1, "reply", v);
    if (buf_len(&v->reply) && t->hook == HOOK_ACCEPT && t->conn->config->tls) {
        buf_deinit(&v->reply);
        luaL_error(L, "the accept hook returned ps.deny{ reply = … }, but nothing can be said "
                      "before the TLS handshake; return it from the connect hook");
    }
    if (buf_len(&v->reply) && t->hook > HOOK_FAILED) {
        buf_deinit(&v->reply);
        luaL_error(L,
                   "the %s hook returned ps.deny{ reply = … }, which is for accept, connect and "
                   "failed; here conn:inject(\"down\", bytes) puts the answer",
                   policy_hook_name((enum policy_hook)t->hook));
    }
    verdict_read_deny(L, 1, v);
}

static void read_destination(lua_State *L, struct task *t)
{
    const char *what =
        lua_pushfstring(L, "the %s hook returned", policy_hook_name((enum policy_hook)t->hook));
    t->extra->verdict.targets = destination_read(L, 1, what);
    t->extra->verdict.kind = t->extra->verdict.targets ? VERDICT_DIAL : VERDICT_DENY;
    if (!t->extra->verdict.targets)
        snprintf(t->extra->verdict.reason, sizeof t->extra->verdict.reason, LIB_POOL_UNAVAILABLE);
    lua_pop(L, 1);
}

static void read_cert(lua_State *L, struct verdict *v)
{
    v->cert = tls_cert_hold(lib_tls_cert_at(L, 1));
    v->kind = VERDICT_CERT;
}

void verdict_read(lua_State *L, struct task *t)
{
    bool dials = t->hook == HOOK_CONNECT || t->hook == HOOK_FAILED;
    int type = lua_gettop(L) ? lua_type(L, 1) : LUA_TNIL;

    if (type == LUA_TNIL || t->hook == HOOK_SERVE)
        t->extra->verdict.kind = VERDICT_CONTINUE;
    else if (t->hook == HOOK_SNI && lib_tls_cert_at(L, 1))
        read_cert(L, &t->extra->verdict);
    else if (type == LUA_TBOOLEAN && t->hook == HOOK_SNI && !lua_toboolean(L, 1))
        t->extra->verdict.kind = VERDICT_DENY;
    else if (type == LUA_TBOOLEAN && t->hook == HOOK_ACCEPT)
        t->extra->verdict.kind = lua_toboolean(L, 1) ? VERDICT_CONTINUE : VERDICT_DENY;
    else if (type == LUA_TTABLE && t->hook != HOOK_SNI && is_of(L, t->vm->deny_meta))
        read_deny(L, t);
    else if (dials && type == LUA_TTABLE && is_of(L, t->vm->reply_meta))
        read_reply(L, &t->extra->verdict);
    else if (dials && (type == LUA_TSTRING || type == LUA_TTABLE || lib_pool_is(L, 1) ||
                       lib_pool_server(L, 1)))
        read_destination(L, t);
    else
        nonsense(L, t);
}
