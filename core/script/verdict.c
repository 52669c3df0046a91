/* From what a hook returned to a plain C verdict. What makes no sense is an error that says what
 * does. */
#include <stdio.h>
#include <string.h>

#include "script_priv.h"

static const char *const rights[HOOK_COUNT] = {
    [HOOK_ACCEPT] = "it returns nothing to go on, or false or ps.deny{…} to turn the client away",
    [HOOK_CONNECT] = "it returns nothing for the configured target, a destination (\"host:port\", "
                     "\"unix:/path\" or a list of them), ps.deny{…} or ps.reply(bytes)",
    [HOOK_FAILED] =
        "it returns nothing to give up, a destination (\"host:port\", \"unix:/path\" or a list of "
        "them), ps.deny{…} or ps.reply(bytes)",
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
    size_t n;
    lua_pushliteral(L, "bytes");
    lua_rawget(L, 1);
    const char *bytes = lua_tolstring(L, -1, &n);
    if (buf_append(&v->reply, bytes, n))
        luaL_error(L, "not enough memory");
    v->kind = VERDICT_REPLY;
    lua_pop(L, 1);
}

/* Adds the destination on the top, popped, to the text below it. */
static void add_destination(lua_State *L, const struct task *t)
{
    // stack: …, text, destination
    size_t len;
    if (lua_type(L, -1) != LUA_TSTRING)
        nonsense(L, t);
    const char *s = lua_tolstring(L, -1, &len);
    if (len == 0 || strlen(s) != len)
        luaL_error(L, "the %s hook returned an empty destination, or one with a zero byte in it",
                   policy_hook_name((enum policy_hook)t->hook));
    if (lua_objlen(L, -2)) {
        lua_pushliteral(L, ",");
        lua_insert(L, -2); // stack: …, text, ",", destination
        lua_concat(L, 3);
    } else {
        lua_remove(L, -2);
    }
}

/* Takes the text of the one destination table on the top, in its place: {"host:port"}. */
static void open_destination(lua_State *L, const struct task *t)
{
    lua_pushnil(L); // stack: …, table, key
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING)
            luaL_error(L,
                       "the %s hook returned a destination with the option \"%s\", which this "
                       "version does not know",
                       policy_hook_name((enum policy_hook)t->hook), lua_tostring(L, -1));
        if (lua_type(L, -1) != LUA_TNUMBER)
            nonsense(L, t);
    }
    if (lua_objlen(L, -1) != 1)
        nonsense(L, t);
    lua_rawgeti(L, -1, 1);
    lua_remove(L, -2); // stack: …, value
}

/* Pushes the comma list of the string or table at 1. */
static void push_list(lua_State *L, const struct task *t)
{
    lua_pushliteral(L, ""); // stack: value, …, text
    if (lua_type(L, 1) == LUA_TSTRING) {
        lua_pushvalue(L, 1);
        add_destination(L, t);
        return;
    }
    size_t n = lua_objlen(L, 1);
    lua_pushnil(L); // stack: value, …, text, key
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TNUMBER)
            continue;
        lua_pushvalue(L, 1);
        open_destination(L, t); /* a single one with options: says so */
    }
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, (int)i); // stack: value, …, text, item
        if (lua_istable(L, -1))
            open_destination(L, t);
        add_destination(L, t);
    }
    if (n == 0)
        luaL_error(L, "the %s hook returned an empty list; %s",
                   policy_hook_name((enum policy_hook)t->hook), rights[t->hook]);
}

static void read_destination(lua_State *L, struct task *t)
{
    char why[200];
    push_list(L, t);
    struct targets *targets = targets_parse(lua_tostring(L, -1), 0, why, sizeof why);
    if (!targets)
        luaL_error(L, "the %s hook returned \"%s\": %s",
                   policy_hook_name((enum policy_hook)t->hook), lua_tostring(L, -1), why);
    t->verdict.targets = targets;
    t->verdict.kind = VERDICT_DIAL;
}

void verdict_read(lua_State *L, struct task *t)
{
    bool dials = t->hook == HOOK_CONNECT || t->hook == HOOK_FAILED;
    int type = lua_gettop(L) ? lua_type(L, 1) : LUA_TNIL;

    if (type == LUA_TNIL || t->hook == HOOK_SERVE)
        t->verdict.kind = VERDICT_CONTINUE;
    else if (type == LUA_TBOOLEAN && t->hook == HOOK_ACCEPT)
        t->verdict.kind = lua_toboolean(L, 1) ? VERDICT_CONTINUE : VERDICT_DENY;
    else if (type == LUA_TTABLE && is_of(L, t->vm->deny_meta))
        verdict_read_deny(L, 1, &t->verdict);
    else if (dials && type == LUA_TTABLE && is_of(L, t->vm->reply_meta))
        read_reply(L, &t->verdict);
    else if (dials && (type == LUA_TSTRING || type == LUA_TTABLE))
        read_destination(L, t);
    else
        nonsense(L, t);
}
