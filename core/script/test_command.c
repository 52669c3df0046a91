/* The harness: an unrestricted Lua state in which busted and the specs run. The policies they load
 * have VMs of their own (vm.c), which see nothing of it. */
#include "penstock/script/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "script_priv.h"
#include "testbed.h"

struct harness {
    struct testbed bed;
    const struct script_test_options *options;
};

static void push_options(lua_State *L, const struct script_test_options *o)
{
    lua_createtable(L, 0, 4);
    lua_createtable(L, (int)o->n_specs, 0); // stack: …, options, specs
    for (size_t i = 0; i < o->n_specs; i++) {
        lua_pushstring(L, o->specs[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "specs");
    lua_pushnumber(L, (lua_Number)o->seed);
    lua_setfield(L, -2, "seed");
    lua_pushstring(L, o->filter); /* NULL is nil */
    lua_setfield(L, -2, "filter");
    lua_pushstring(L, o->output);
    lua_setfield(L, -2, "output");
}

/* Everything that may raise; called protected. Returns what lua/penstock/test_run.lua returns. */
static int run(lua_State *L)
{
    struct harness *h = lua_touserdata(L, 1);
    luaL_openlibs(L);
    vm_preload_modules(L);
    vm_load_module(L, "penstock.test_run");
    lua_call(L, 0, 1);
    push_options(L, h->options); // stack: harness, test_run, options
    vm_load_module(L, "penstock.test");
    lib_test_push(L, &h->bed);
    lua_call(L, 1, 2); // stack: harness, test_run, options, test, runner
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "penstock.test");
    lua_pop(L, 1);
    lua_call(L, 3, 2);
    return 2;
}

static int on_error(lua_State *L)
{
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

static int protected_run(lua_State *L, struct harness *h, char *why, size_t why_cap)
{
    lua_pushcfunction(L, on_error);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, h);
    int err = lua_pcall(L, 1, 2, 1); // stack: handler, failed, why; or handler, message
    if (!err && lua_isnumber(L, 2))
        return (int)lua_tointeger(L, 2);
    const char *text = lua_tostring(L, -1);
    snprintf(why, why_cap, "%s", text ? text : "out of memory");
    return err ? -EINVAL : -ENOENT;
}

int script_test(const struct script_test_options *options, char *why, size_t why_cap)
{
    struct harness h = {.options = options};
    lua_State *L = luaL_newstate();
    if (!L) {
        snprintf(why, why_cap, "out of memory for a Lua VM");
        return -ENOMEM;
    }
    testbed_init(&h.bed, options->load);
    int failed = protected_run(L, &h, why, why_cap);
    testbed_deinit(&h.bed);
    lua_close(L);
    return failed;
}
