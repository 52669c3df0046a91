/* Unknown globals of policy files: lua/penstock/globals.lua, run in a Lua state of its own. */
#include <errno.h>
#include <string.h>

#include "script_priv.h"

struct question {
    const struct vm *vm;
    const struct script_files *files;
    FILE *out;
    int n;
};

static void print_warnings(lua_State *L, struct question *q)
{
    // stack: …, list
    q->n = (int)lua_objlen(L, -1);
    for (int i = 1; i <= q->n; i++) {
        lua_rawgeti(L, -1, i);
        fprintf(q->out, "warning: %s\n", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
}

/* Called protected. */
static int ask(lua_State *L)
{
    struct question *q = lua_touserdata(L, 1);
    luaL_openlibs(L);
    vm_preload_modules(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "penstock.globals");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "warnings"); // stack: …, warnings
    lua_newtable(L);
    for (size_t i = 0; i < q->files->n; i++) {
        lua_pushstring(L, q->files->paths[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_pushstring(L, q->vm->globals);
    lua_call(L, 2, 1); // stack: …, list
    print_warnings(L, q);
    return 0;
}

int script_check_globals(const struct policy_set *set, const struct script_files *files, FILE *out,
                         char *why, size_t why_cap)
{
    struct question q = {(const struct vm *)set, files, out, 0};
    lua_State *L = luaL_newstate();
    int err = L ? lua_cpcall(L, ask, &q) : LUA_ERRMEM;
    if (err)
        snprintf(why, why_cap, "cannot look for unknown globals: %s",
                 L && lua_isstring(L, -1) ? lua_tostring(L, -1) : "out of memory");
    if (L)
        lua_close(L);
    return err ? -EINVAL : q.n;
}
