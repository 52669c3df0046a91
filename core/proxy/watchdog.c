/* Names the hook that holds up a worker. What cannot be interrupted (compiled policies, a C
 * function that goes on and on) can be told of. */
#include "penstock/proxy/watchdog.h"

#include <stdio.h>
#include <string.h>

#include "penstock/base/log.h"

#define MS 1000000u

/* How the entries of `where` call it. */
static void entry_name(const char *what, char *buf, size_t cap)
{
    if (strcmp(what, "up filter") == 0 || strcmp(what, "down filter") == 0)
        snprintf(buf, cap, "filter.%.*s (", (int)strcspn(what, " "), what);
    else
        snprintf(buf, cap, "%.*s (", (int)strcspn(what, " "), what);
}

const char *watchdog_place(const char *what, const char *where, char *buf, size_t cap)
{
    char name[64];
    entry_name(what, name, sizeof name);
    const char *entry = where;
    while (entry && strncmp(entry, name, strlen(name)) != 0) {
        entry = strstr(entry, "), ");
        entry = entry ? entry + 3 : NULL;
    }
    const char *end = entry ? strchr(entry, ')') : NULL;
    if (end)
        snprintf(buf, cap, "%.*s", (int)(end + 1 - entry), entry);
    else
        snprintf(buf, cap, "%s", where);
    return buf;
}

static void tell(const struct stay_view *view, unsigned worker, uint64_t ms)
{
    char place[512];
    watchdog_place(view->what, view->where, place, sizeof place);
    log_line(LOG_ERROR, view->conn,
             "worker %u has been in one %s for more than %u s and serves nobody meanwhile%s%s",
             worker, view->what, (unsigned)(ms / 1000), *place ? ": " : "", place);
}

void watchdog_look(struct watchdog *dog, struct stay *stay, unsigned worker, uint64_t now_ns)
{
    struct stay_view view;
    if (!stay_look(stay, &view))
        return;
    if (view.count != dog->count) {
        *dog = (struct watchdog){.count = view.count, .since_ns = now_ns};
        return;
    }
    uint64_t ms = (now_ns - dog->since_ns) / MS;
    if (ms < WATCHDOG_LOOK_MS ||
        (dog->told_ns && (now_ns - dog->told_ns) / MS < WATCHDOG_REPEAT_MS))
        return;
    dog->told_ns = now_ns;
    tell(&view, worker, ms);
}
