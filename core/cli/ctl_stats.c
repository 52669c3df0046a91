/* `penstock ctl stats` and `penstock ctl config`: summaries of 80 columns. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl_cells.h"
#include "ctl_shared.h"

static int finish(cJSON *answer, bool good)
{
    cJSON_Delete(answer);
    return good ? 0 : -EPROTO;
}

static const cJSON *member(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* --- statistics
 * -------------------------------------------------------------------------------------------- */

/* "  ended: eof 13, reset 1": those that are not zero, in as many lines as it takes; nothing when
 * all are. */
static void put_counts(const char *what, const cJSON *counts)
{
    const cJSON *c;
    int column = 0;
    if (!cJSON_IsObject(counts))
        return;
    cJSON_ArrayForEach(c, counts)
    {
        char item[64];
        uint64_t n = member_number(counts, c->string);
        if (!n)
            continue;
        int len = snprintf(item, sizeof item, "%.30s %" PRIu64, c->string, n);
        if (column == 0)
            column = printf("  %s:", what);
        else if (column + len + 3 > CELLS_WIDTH)
            column = printf(",\n   ") - 2; /* the line before has taken two */
        else
            column += printf(",");
        putchar(' ');
        for (const char *at = item; *at; at++) /* words of penstock: plain ASCII */
            putchar(*at >= ' ' && *at < 0x7f ? *at : '?');
        column += len + 1;
    }
    if (column)
        putchar('\n');
}

static void put_listener(const cJSON *l)
{
    const cJSON *bytes = member(l, "bytes");
    char text[16];
    cell_text(member_text(l, "name"), 32, false);
    cell_number(member_number(l, "connections"), 8, false);
    cell_number(member_number(l, "opened"), 11, false);
    cell_right(cell_size(member_number(bytes, "up"), text, sizeof text), 7, false);
    cell_right(cell_size(member_number(bytes, "down"), text, sizeof text), 7, false);
    cell_number(member_number(l, "limited"), 10, true);
    put_counts("ended", member(l, "ended"));
    put_counts("dialled", member(l, "dials"));
    put_counts("handshakes", member(l, "handshakes"));
}

static void put_hook(const cJSON *h)
{
    char text[32];
    const cJSON *ms = member(h, "ms");
    if (!member_number(h, "calls"))
        return;
    snprintf(text, sizeof text, "%.1f", cJSON_IsNumber(ms) ? ms->valuedouble : 0.0);
    cell_text(h->string, 16, false);
    cell_number(member_number(h, "calls"), 12, false);
    cell_number(member_number(h, "errors"), 8, false);
    cell_right(text, 12, true);
}

static void put_hooks(const cJSON *hooks)
{
    const cJSON *h;
    bool any = false;
    cJSON_ArrayForEach(h, hooks) any |= member_number(h, "calls") > 0;
    if (any)
        printf("\n%-16s %12s %8s %12s\n", "HOOK", "CALLS", "ERRORS", "MS IN LUA");
    cJSON_ArrayForEach(h, hooks) put_hook(h);
}

static void put_workers(const cJSON *workers)
{
    const cJSON *w;
    unsigned i = 0;
    printf("\n%-8s %10s %10s %10s\n", "WORKER", "LUA HEAP", "COROUTINES", "LAG MS");
    cJSON_ArrayForEach(w, workers)
    {
        char text[32], number[16];
        const cJSON *lag = member(w, "loop_lag_ms");
        snprintf(number, sizeof number, "%u", i++);
        cell_text(number, 8, false);
        cell_right(cell_size(member_number(w, "lua_heap_bytes"), text, sizeof text), 10, false);
        cell_number(member_number(w, "coroutines"), 10, false);
        snprintf(text, sizeof text, "%.1f", cJSON_IsNumber(lag) ? lag->valuedouble : 0.0);
        cell_right(text, 10, true);
    }
}

static void put_process(const cJSON *a)
{
    const cJSON *fds = member(a, "descriptors"), *reloads = member(a, "reloads");
    char up[16];
    printf("up %s, configuration %" PRIu64 ", reloads: %" PRIu64 " good, %" PRIu64 " failed\n",
           cell_time(member_number(a, "uptime_ms"), up, sizeof up),
           member_number(a, "configuration"), member_number(reloads, "ok"),
           member_number(reloads, "failed"));
    printf("descriptors: %" PRIu64 " open, at most %" PRIu64 "\n", member_number(fds, "open"),
           member_number(fds, "max"));
}

int ctl_print_stats(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = member(a, "listeners"), *l, *dns = member(a, "dns");
    bool good = cJSON_IsArray(list);
    if (good) {
        put_process(a);
        printf("names: %" PRIu64 " found, %" PRIu64 " missing, %" PRIu64 " failed\n",
               member_number(dns, "found"), member_number(dns, "missing"),
               member_number(dns, "failed"));
        printf("\n%-32s %8s %11s %7s %7s %10s\n", "LISTENER", "CONNS", "OPENED", "UP", "DOWN",
               "LIMITED");
        cJSON_ArrayForEach(l, list) put_listener(l);
        put_hooks(member(a, "hooks"));
        put_workers(member(a, "workers"));
    }
    return finish(a, good);
}

/* --- configuration
 * ----------------------------------------------------------------------------------------- */

enum { NAME_COLUMNS = 22 };

static void append(char *buf, size_t cap, const char *text)
{
    size_t len = strlen(buf);
    snprintf(buf + len, cap - len, "%s", text);
}

/* A value in a line: lists with commas, null as "-". Returns `buf`. */
static const char *value_text(const cJSON *v, char *buf, size_t cap)
{
    const cJSON *item;
    if (cJSON_IsString(v))
        return v->valuestring;
    if (cJSON_IsNumber(v))
        snprintf(buf, cap, "%.17g", v->valuedouble);
    else if (cJSON_IsBool(v))
        snprintf(buf, cap, "%s", cJSON_IsTrue(v) ? "yes" : "no");
    else
        snprintf(buf, cap, "%s", cJSON_IsArray(v) && cJSON_GetArraySize(v) ? "" : "-");
    if (!cJSON_IsArray(v))
        return buf;
    cJSON_ArrayForEach(item, v)
    {
        append(buf, cap, *buf && item != v->child ? "," : "");
        append(buf, cap, cJSON_IsString(item) ? item->valuestring : "");
    }
    return buf;
}

static void put_options(const cJSON *options)
{
    const cJSON *o;
    char text[1024];
    cJSON_ArrayForEach(o, options)
    {
        fputs("  ", stdout);
        cell_text(o->string, NAME_COLUMNS, false);
        cell_text(value_text(o, text, sizeof text), 0, true);
    }
}

int ctl_print_config(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = member(a, "listeners"), *l;
    char text[1024];
    bool good = cJSON_IsArray(list);
    if (good) {
        printf("configuration %" PRIu64 ", log level ", member_number(a, "configuration"));
        cell_text(member_text(a, "log_level"), 0, true);
        put_options(member(a, "process"));
    }
    cJSON_ArrayForEach(l, list)
    {
        putchar('\n');
        cell_text(value_text(member(l, "names"), text, sizeof text), CELLS_WIDTH, true);
        put_options(member(l, "options"));
    }
    return finish(a, good);
}
