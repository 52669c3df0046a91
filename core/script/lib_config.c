/* What ps.listen{} and ps.options{} hand over: policies into the VM, everything else to the sink of
 * script_options. Called by lua/penstock/listen.lua, which has checked the form. */
#include <stdlib.h>
#include <string.h>

#include "script_priv.h"

enum { WHY_MAX = 1024 };

/* ---- policies ---- */

/* Anchors the value on the top, popped. */
static int keep(lua_State *L)
{
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void take_hooks(lua_State *L, struct script_policy *p)
{
    for (int i = 0; i < HOOK_COUNT; i++) {
        lua_pushstring(L, policy_hook_name((enum policy_hook)i));
        lua_rawget(L, 1); // stack: policy, …, hook
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        p->hooks[i] = keep(L);
        p->policy.hooks |= 1u << i;
    }
}

/* The list of a direction's filters. */
static void take_filters(lua_State *L, struct script_policy *p, int dir)
{
    lua_getfield(L, 1, dir == RELAY_UP ? "up" : "down");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return;
    }
    p->n_filters[dir] = lua_objlen(L, -1);
    p->policy.filters[dir] = true;
    p->filters[dir] = keep(L);
}

/* Takes the policy table at 1 and the text about it at 2. */
static void take_policy(lua_State *L, struct script_policy *p)
{
    take_hooks(L, p);
    for (int dir = RELAY_UP; dir <= RELAY_DOWN; dir++)
        take_filters(L, p, dir);
    p->about = luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    keep(L); /* as long as the VM */
}

/* set_main(policy, about): what the file returned */
static int config_set_main(lua_State *L)
{
    struct vm *vm = vm_of(L);
    take_policy(L, (struct script_policy *)vm->set.policies[0]);
    return 0;
}

/* add_policy(policy, about, pass_on_error) -> its number */
static int config_add_policy(lua_State *L)
{
    struct vm *vm = vm_of(L);
    size_t number = vm->set.n;
    struct script_policy *p = policy_lua_add(vm);
    if (!p)
        return luaL_error(L, "not enough memory");
    p->pass_on_error = lua_toboolean(L, 3);
    take_policy(L, p);
    lua_pushinteger(L, (lua_Integer)number);
    return 1;
}

/* ---- settings ---- */

static int push_answer(lua_State *L, int err, const char *why)
{
    if (!err) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* The string at `i` in the list at stack index `list`; it stays in the list. */
static const char *item(lua_State *L, int list, size_t i)
{
    lua_rawgeti(L, list, (int)i);
    size_t len = 0;
    const char *text = lua_tolstring(L, -1, &len);
    if (!text || strlen(text) != len)
        luaL_error(L, "a text has a zero byte in it");
    lua_pop(L, 1);
    return text;
}

/* Arrays are userdata: what raises must hold no malloc'ed memory. */
static void read_binds(lua_State *L, struct script_listener *l)
{
    l->n_binds = lua_objlen(L, 2);
    const char **binds = lua_newuserdata(L, (l->n_binds + 1) * sizeof *binds);
    for (size_t i = 0; i < l->n_binds; i++)
        binds[i] = item(L, 2, i + 1);
    l->binds = binds;
}

static void read_settings(lua_State *L, struct script_listener *l)
{
    l->n_settings = lua_objlen(L, 4) / 3;
    struct script_setting *settings = lua_newuserdata(L, (l->n_settings + 1) * sizeof *settings);
    for (size_t i = 0; i < l->n_settings; i++)
        settings[i] = (struct script_setting){
            .option = item(L, 4, 3 * i + 1),
            .value = item(L, 4, 3 * i + 2),
            .label = item(L, 4, 3 * i + 3),
        };
    l->settings = settings;
}

/* listen(name, binds, to, settings, policy) -> true, or nil and what is wrong */
static int config_listen(lua_State *L)
{
    struct vm *vm = vm_of(L);
    char why[WHY_MAX] = "";
    struct script_listener l = {.name = luaL_optstring(L, 1, NULL),
                                .to = luaL_optstring(L, 3, NULL),
                                .policy = (size_t)luaL_checkinteger(L, 5)};
    read_binds(L, &l);
    read_settings(L, &l);
    const struct script_sink *sink = vm->options->sink;
    return push_answer(L, sink ? sink->listen(sink->arg, &l, why, sizeof why) : 0, why);
}

/* option(option, value, label) -> true, or nil and what is wrong */
static int config_option(lua_State *L)
{
    struct vm *vm = vm_of(L);
    char why[WHY_MAX] = "";
    struct script_setting s = {.option = luaL_checkstring(L, 1),
                               .value = luaL_checkstring(L, 2),
                               .label = luaL_checkstring(L, 3)};
    const struct script_sink *sink = vm->options->sink;
    int err = sink ? sink->option(sink->arg, &s, why, sizeof why) : 0;
    if (!err && !strcmp(s.option, "jit"))
        vm->want_jit = true;
    return push_answer(L, err, why);
}

/* check_destination(value): raises when it makes no sense, before the first client would tell */
static int config_check_destination(lua_State *L)
{
    targets_drop(destination_read(L, 1, "ps.listen: to is"));
    return 0;
}

/* note_file(path): it has been read while loading */
static int config_note_file(lua_State *L)
{
    struct vm *vm = vm_of(L);
    const char *path = luaL_checkstring(L, 1);
    if (vm->options)
        script_files_add(vm->options->files, path);
    return 0;
}

void lib_config_open(lua_State *L, struct vm *vm)
{
    static const luaL_Reg functions[] = {
        {"set_main", config_set_main},
        {"add_policy", config_add_policy},
        {"listen", config_listen},
        {"option", config_option},
        {"note_file", config_note_file},
        {"check_destination", config_check_destination},
        {NULL, NULL},
    };
    // stack: …, core
    lua_pushlightuserdata(L, vm);
    luaL_setfuncs(L, functions, 1);
}

/* ---- files ---- */

void script_files_add(struct script_files *files, const char *path)
{
    for (size_t i = 0; files && i < files->n; i++)
        if (!strcmp(files->paths[i], path))
            return;
    if (!files)
        return;
    char **grown = realloc(files->paths, (files->n + 1) * sizeof *grown), *copy = strdup(path);
    if (grown)
        files->paths = grown;
    if (grown && copy)
        grown[files->n++] = copy;
    else
        free(copy); /* it is not watched, then */
}

void script_files_deinit(struct script_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        free(files->paths[i]);
    free(files->paths);
    *files = (struct script_files){0};
}
