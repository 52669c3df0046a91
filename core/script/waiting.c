/* Which hook of a connection waits, and where in its file. */
#include <stdio.h>

#include "script_priv.h"

enum { LEVELS_MAX = 50 };

/* The innermost line that is no line of the library. */
static void find_line(lua_State *co, char *line, size_t cap)
{
    lua_Debug frame;
    line[0] = '\0';
    for (int level = 0; level < LEVELS_MAX && lua_getstack(co, level, &frame); level++) {
        if (!lua_getinfo(co, "Sl", &frame) || frame.currentline <= 0 ||
            vm_is_of_library(frame.source))
            continue;
        snprintf(line, cap, "%s:%d", frame.short_src, frame.currentline);
        return;
    }
}

static bool waits(const struct task *t)
{
    return t->state == TASK_WAITING && t->co && t->ops->counts_as != CALL_TASK;
}

bool waiting_hook(struct policy *policy, const struct conn *c, struct policy_place *out)
{
    const struct script_conn *script = c->script;
    (void)policy;
    if (!script)
        return false;
    list_for_each (node, next, &script->tasks) {
        const struct task *t = container_of(node, struct task, of_conn);
        if (!waits(t))
            continue;
        if (t->ops->counts_as >= CALL_HOOK)
            out->hook = policy_hook_name((enum policy_hook)t->hook);
        else
            out->hook = t->dir == RELAY_UP ? "filter.up" : "filter.down";
        find_line(t->co, out->line, sizeof out->line);
        return true;
    }
    return false;
}
