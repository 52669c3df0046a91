/* One Lua VM: opening it, loading the policy file, closing it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "lua_modules.h"
#include "penstock/proxy/shared.h"
#include "lib_pool.h"
#include "lib_tls.h"
#include "script_priv.h"
#include "socket_priv.h"

/* ---- opening ---- */

static int on_panic(lua_State *L)
{
    log_error("Lua failed outside of any protection: %s", lua_tostring(L, -1));
    log_close(1000);
    return 0; /* LuaJIT exits */
}

/* A module of the binary; upvalue: its index. Called by require. */
static int load_module(lua_State *L)
{
    const struct lua_module *m = &lua_modules[lua_tointeger(L, lua_upvalueindex(1))];
    if (luaL_loadbufferx(L, (const char *)m->bytecode, m->size, m->name, "b"))
        return lua_error(L);
    lua_pushstring(L, m->name);
    lua_call(L, 1, 1);
    return 1;
}

static bool is_main_module(const struct lua_module *m)
{
    return !strcmp(m->name, "penstock");
}

void vm_preload_modules(lua_State *L)
{
    lua_getfield(L, LUA_GLOBALSINDEX, "package");
    lua_getfield(L, -1, "preload"); // stack: …, package, preload
    for (size_t i = 0; i < sizeof lua_modules / sizeof *lua_modules; i++) {
        if (is_main_module(&lua_modules[i]))
            continue;
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, load_module, 1);
        lua_setfield(L, -2, lua_modules[i].name);
    }
    lua_pop(L, 2);
}

/* Keeps field `key` of the table on the top. */
static int take_ref(lua_State *L, const char *key)
{
    lua_getfield(L, -1, key);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

void vm_load_module(lua_State *L, const char *name)
{
    for (size_t i = 0; i < sizeof lua_modules / sizeof *lua_modules; i++) {
        const struct lua_module *m = &lua_modules[i];
        if (!strcmp(m->name, name) &&
            luaL_loadbufferx(L, (const char *)m->bytecode, m->size, m->name, "b"))
            lua_error(L);
    }
}

bool vm_is_of_library(const char *source)
{
    char name[80];
    size_t n = strlen(source);
    if (source[0] != '@' || n < 5 || n > sizeof name || strcmp(source + n - 4, ".lua") != 0)
        return false;
    snprintf(name, sizeof name, "%.*s", (int)(n - 5), source + 1);
    for (char *s = name; (s = strchr(s, '/'));)
        *s = '.';
    for (size_t i = 0; i < sizeof lua_modules / sizeof *lua_modules; i++)
        if (!strcmp(lua_modules[i].name, name))
            return true;
    return !strcmp(name, "penstock.init");
}

/* Runs lua/penstock/init.lua; leaves the function that checks policies on the stack. */
static void open_penstock(lua_State *L, struct vm *vm)
{
    vm_load_module(L, "penstock");
    lib_core_push(L, vm);
    lua_call(L, 1, 2); // stack: …, ps, internals
    vm->deny_meta = take_ref(L, "deny_meta");
    vm->reply_meta = take_ref(L, "reply_meta");
    vm->pass = take_ref(L, "pass");
    vm->cancelled = take_ref(L, "cancelled");
    vm->replay = take_ref(L, "replay");
    lua_getfield(L, -1, "globals"); // stack: …, ps, internals, globals
    vm->globals = luaL_checkstring(L, -1);
    luaL_ref(L, LUA_REGISTRYINDEX); /* as long as the VM */
    lua_getfield(L, -1, "finish");  // stack: …, ps, internals, finish
    lua_insert(L, -3);
    lua_pop(L, 1); // stack: …, finish, ps
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_insert(L, -2);
    lua_setfield(L, -2, "penstock");
    lua_pop(L, 1); // stack: …, finish
}

/* ---- the file ---- */

static void load_file(lua_State *L, struct vm *vm)
{
    const char *path = vm->options->path;
    script_files_add(vm->options->files, path);
    int status = luaL_loadfilex(L, path,
                                vm->options->unsafe ? NULL : "t"); // stack: …, chunk or message
    if (status && strstr(lua_tostring(L, -1), "wrong mode"))
        luaL_error(L, "%s is bytecode, which is loaded with --unsafe-lua only", path);
    if (status)
        lua_error(L);
}

/* The function that stands for a file: lua/penstock/preset.lua with what it needs. */
static void load_preset(lua_State *L, const struct script_options *o)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "penstock.preset");
    lua_call(L, 1, 1);
    lua_pushstring(L, o->preset);
    lua_pushstring(L, o->allow);
    lua_pushstring(L, o->auth);
    lua_call(L, 3, 1); // stack: …, function
}

/* Runs it, and the function `finish` of lua/penstock/listen.lua, popped, with what it returned. */
static void run_file(lua_State *L, struct vm *vm)
{
    const struct script_options *o = vm->options;
    if (!policy_lua_add(vm)) /* number 0 */
        luaL_error(L, "not enough memory");
    if (o->preset)
        load_preset(L, o);
    else
        load_file(L, vm);       // stack: …, finish, chunk
    vm->traceback = !o->preset; /* from here on it tells something */
    vm->loading = true;
    lua_pushstring(L, o->path);
    lua_call(L, 1, 1); // stack: …, finish, value
    vm->loading = false;
    vm->traceback = false;
    lua_pushstring(L, o->path);
    lua_pushboolean(L, o->config);
    lua_pushboolean(L, o->operands);
    lua_pushboolean(L, o->target);
    lua_call(L, 5, 1); // stack: …, text
    vm->configured = luaL_checkstring(L, -1);
    luaL_ref(L, LUA_REGISTRYINDEX); /* as long as the VM */
}

/* The option was given by the file itself. */
static void switch_jit_on(lua_State *L, struct vm *vm)
{
    vm->budget = false;
    lua_sethook(L, NULL, 0, 0);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_ON);
}

/* Everything that may raise; called protected. */
static int load_body(lua_State *L)
{
    struct vm *vm = lua_touserdata(L, 1);
    luaL_openlibs(L);
    if (!vm->options->jit) /* only now: opening its library switches the compiler on */
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    sched_open(L, vm);
    lib_conn_open(L, vm);
    lua_pushliteral(L, "up");
    vm->dirs[RELAY_UP] = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushliteral(L, "down");
    vm->dirs[RELAY_DOWN] = luaL_ref(L, LUA_REGISTRYINDEX);
    vm_preload_modules(L);
    open_penstock(L, vm); // stack: vm, finish
    run_file(L, vm);
    if (vm->want_jit)
        switch_jit_on(L, vm);
    return 0;
}

/* ---- life ---- */

/* splitmix64 spreads one seed over the generator's state. */
static void seed_random(struct vm *vm, uint64_t seed)
{
    if (!seed && uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL))
        seed = uv_hrtime() ^ (uint64_t)(uintptr_t)vm;
    for (size_t i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        vm->random[i] = z ^ (z >> 31);
    }
}

static struct vm *vm_new(const struct script_options *options)
{
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return NULL;
    vm->set.ops = &policy_lua_set_ops;
    vm->options = options;
    vm->configured = "";
    vm->stop = vm->prompt_env = vm->prompt_show = LUA_NOREF;
    vm->budget = !options->jit;
    list_init(&vm->idle);
    list_init(&vm->busy);
    list_init(&vm->closing);
    list_init(&vm->dirty);
    list_init(&vm->dirty_sockets);
    list_init(&vm->sockets);
    list_init(&vm->ready);
    list_init(&vm->chunks);
    list_init(&vm->tls);
    list_init(&vm->pools);
    list_init(&vm->run_ready.node);
    report_init(vm);
    seed_random(vm, options->seed);
    vm->own_shared = options->shared ? NULL : shared_new();
    vm->shared = options->shared ? options->shared : vm->own_shared;
    vm->L = vm->shared ? heap_new_state(&vm->heap) : NULL;
    if (!vm->L) {
        shared_free(vm->own_shared);
        free(vm);
        return NULL;
    }
    lua_atpanic(vm->L, on_panic);
    return vm;
}

int script_load(const struct script_options *options, struct policy_set **out, char *why,
                size_t why_cap)
{
    *out = NULL;
    struct vm *vm = vm_new(options);
    if (!vm) {
        snprintf(why, why_cap, "out of memory for a Lua VM");
        return -ENOMEM;
    }
    int err = sched_protect(vm, load_body, why, why_cap);
    vm->options = NULL; /* the caller's */
    if (err) {
        vm_free(vm);
        return err;
    }
    *out = &vm->set;
    return 0;
}

void script_activate(struct vm *vm, struct loop *loop, bool again)
{
    vm->loop = loop;
    vm->again = again;
    if (vm->set.stats)
        heap_tell(&vm->heap, &vm->set.stats->heap_bytes);
    lib_pool_use(vm, true);
    sched_activate(vm);
}

void script_retire(struct vm *vm, bool replaced)
{
    if (vm->retired)
        return;
    vm->retired = true;
    if (replaced) {
        lib_pool_use(vm, false);
        prompt_retire(vm);
        sched_end_timers(vm);
        lua_gc(vm->L, LUA_GCCOLLECT,
               0); /* it will allocate little from now on, and so collect little */
    }
    lib_task_stop(vm);
}

void vm_free(struct vm *vm)
{
    if (vm->loop)
        stay_forget(&vm->loop->stay); /* script_policy.about */
    prompt_deinit(vm);
    lib_socket_close_all(&vm->sockets);
    report_deinit(vm);
    sched_deinit(vm);
    heap_close_state(&vm->heap, vm->L);
    if (vm->set.stats)
        heap_tell(&vm->heap, &vm->set.stats->heap_bytes);
    policy_lua_free_all(vm);
    lib_tls_deinit(vm);
    shared_free(vm->own_shared);
    free(vm);
}

const char *script_configured(const struct policy_set *set)
{
    return ((const struct vm *)set)->configured; /* its first member */
}

const char *script_hooks(const struct policy_set *set, size_t number)
{
    return ((const struct script_policy *)policy_set_get(set, number))->about;
}

const char *script_engine(void)
{
    return LUAJIT_VERSION;
}
