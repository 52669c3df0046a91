/* What a script adds to the command line: the sink of ps.listen{} and ps.options{}. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "options_priv.h"
#include "penstock/base/err.h"

bool options_script(const struct options *o, struct script_options *out)
{
    const struct config *c = &o->draft.config;
    out->path = c->policy;
    out->preset = c->preset;
    out->allow = c->allow;
    out->auth = c->auth;
    out->config = o->command == COMMAND_RUN || (o->command == COMMAND_CHECK && !o->of_policy);
    out->operands = o->operands;
    out->unsafe = c->unsafe_lua;
    out->modules = c->lua_modules;
    out->jit = c->jit;
    out->seed = c->seed;
    out->accept_proxy = o->draft.each.accept_proxy.from != NULL;
    for (size_t i = 0; i < c->n_listeners; i++)
        out->target |= c->listeners[i].to != NULL;
    return c->policy != NULL;
}

static int add_listener(void *arg, const struct script_listener *l, char *why, size_t why_cap)
{
    struct options *o = arg;
    return options_add_script_listener(&o->draft, l, why, why_cap);
}

/* The command line wins: its value stays, the script's is only looked at. */
static int set_option(void *arg, const struct script_setting *s, char *why, size_t why_cap)
{
    struct options *o = arg;
    const struct option_spec *spec = options_find(s->option);
    size_t n;
    PENSTOCK_REQUIRE(spec && spec->type); /* lua/penstock/listen.lua knows which there are */
    if (o->given[spec - options_table(&n)])
        return 0;
    return options_store(&o->draft, spec, s->label, s->value, why, why_cap);
}

struct script_sink options_sink(struct options *o)
{
    return (struct script_sink){.listen = add_listener, .option = set_option, .arg = o};
}
