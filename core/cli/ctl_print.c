/* Tables of 80 columns. What an answer holds may be anybody's bytes: controls never reach the
 * terminal. */
#include "ctl_print.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_cells.h"

/* --- answers
 * -----------------------------------------------------------------------------------------------
 */

static int finish(cJSON *answer, bool good)
{
    cJSON_Delete(answer);
    return good ? 0 : -EPROTO;
}

int ctl_print_status(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    char up[16];
    bool good = cJSON_HasObjectItem(a, "status");
    if (good) {
        cell_text(member_text(a, "status"), 0, true);
        printf("up %s, configuration %" PRIu64 ", %" PRIu64 " workers\n"
               "connections: %" PRIu64 " now, at most %" PRIu64 ", %" PRIu64 " so far\n",
               cell_time(member_number(a, "uptime_ms"), up, sizeof up),
               member_number(a, "configuration"), member_number(a, "workers"),
               member_number(a, "connections"), member_number(a, "max_connections"),
               member_number(a, "served"));
    }
    return finish(a, good);
}

int ctl_print_version(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "version");
    if (good) {
        fputs("penstock ", stdout);
        cell_text(member_text(a, "version"), 0, true);
        printf("configuration %" PRIu64 "\n", member_number(a, "configuration"));
    }
    return finish(a, good);
}

static void put_listener(const cJSON *l, const struct cell_names *columns)
{
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(l, "limits");
    char limit[24] = "-";
    if (member_number(limits, "connections"))
        snprintf(limit, sizeof limit, "%" PRIu64, member_number(limits, "connections"));
    cell_name(member_text(l, "name"), &columns[0]);
    cell_name(member_text(l, "address"), &columns[1]);
    cell_text(member_text(l, "state"), 7, false);
    cell_text(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(l, "tls")) ? "yes" : "-", 3, false);
    cell_number(member_number(l, "connections"), 6, false);
    cell_right(limit, 6, false);
    cell_number(member_number(l, "accepted"), 8, false);
    cell_number(member_number(l, "limited"), 7, true);
}

int ctl_print_listeners(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "listeners"), *l;
    struct cell_names columns[] = {{.title = "NAME", .usual = 14},
                                   {.title = "ADDRESS", .usual = 21}};
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(l, list)
    {
        names_count(&columns[0], member_text(l, "name"));
        names_count(&columns[1], member_text(l, "address"));
    }
    if (good) {
        names_fit(columns, 2, 44);
        names_titles(columns, 2);
        printf("%-7s %-3s %6s %6s %8s %7s\n", "STATE", "TLS", "CONNS", "LIMIT", "ACCEPTED",
               "LIMITED");
    }
    cJSON_ArrayForEach(l, list) put_listener(l, columns);
    return finish(a, good);
}

/* The first word of a state tells enough. */
static void put_state(const char *state)
{
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(state, " "), state);
    cell_text(word, 8, false);
}

/* Bytes of both directions. */
static void put_bytes(const cJSON *c)
{
    const cJSON *up = cJSON_GetObjectItemCaseSensitive(c, "up");
    const cJSON *down = cJSON_GetObjectItemCaseSensitive(c, "down");
    char text[24];
    cell_right(cell_size(member_number(up, "bytes"), text, sizeof text), 5, false);
    cell_right(cell_size(member_number(down, "bytes"), text, sizeof text), 5, true);
}

/* Bytes a second, as wide. */
static void put_rates(const cJSON *c)
{
    const cJSON *up = cJSON_GetObjectItemCaseSensitive(c, "up");
    const cJSON *down = cJSON_GetObjectItemCaseSensitive(c, "down");
    char text[24];
    cell_right(cell_size(member_number(up, "rate"), text, sizeof text), 4, false);
    cell_right(cell_size(member_number(down, "rate"), text, sizeof text), 6, true);
}

/* An id that takes more has them from the upstream: 20 digits at most. */
enum { ID_COLUMNS = 7, UPSTREAM_COLUMNS = 19 };

static void put_conn(const cJSON *c)
{
    char text[24];
    int over = printf("%*" PRIu64, ID_COLUMNS, member_number(c, "id")) - ID_COLUMNS;
    putchar(' ');
    cell_text(member_text(c, "client"), 21, false);
    cell_text(member_text(c, "upstream"), (size_t)(UPSTREAM_COLUMNS - over), false);
    put_state(member_text(c, "state"));
    cell_right(cell_time(member_number(c, "age_ms"), text, sizeof text), 4, false);
    cell_right(cell_time(member_number(c, "idle_ms"), text, sizeof text), 4, false);
}

static int put_conns(const char *json, const char *columns, void (*put_columns)(const cJSON *c))
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "connections"), *c;
    bool good = cJSON_IsArray(list);
    if (good)
        printf("%*s %-21s %-*s %-8s %4s %4s %s\n", ID_COLUMNS, "ID", "CLIENT", UPSTREAM_COLUMNS,
               "UPSTREAM", "STATE", "AGE", "IDLE", columns);
    cJSON_ArrayForEach(c, list)
    {
        put_conn(c);
        put_columns(c);
    }
    if (member_number(a, "next"))
        printf("there are more: --after %" PRIu64 "\n", member_number(a, "next"));
    return finish(a, good);
}

int ctl_print_conns(const char *json)
{
    return put_conns(json, "   UP  DOWN", put_bytes);
}

int ctl_print_rates(const char *json)
{
    return put_conns(json, "UP/s DOWN/s", put_rates);
}

int ctl_print_listener_state(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "state");
    if (good) {
        cell_text(member_text(a, "listener"), 0, false);
        fputs("is ", stdout);
        cell_text(member_text(a, "state"), 0, true);
    }
    return finish(a, good);
}

int ctl_print_killed(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "killed");
    uint64_t n = member_number(a, "killed");
    if (good)
        printf("%" PRIu64 " connection%s killed\n", n, n == 1 ? "" : "s");
    return finish(a, good);
}

int ctl_print_reload(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "configuration");
    if (good)
        printf("configuration %" PRIu64 " is in force\n", member_number(a, "configuration"));
    return finish(a, good);
}

int ctl_print_upgrade(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "pid");
    if (good)
        printf("process %" PRIu64 " has taken over\n", member_number(a, "pid"));
    return finish(a, good);
}

int ctl_print_level(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "level");
    if (good) {
        fputs("the log level is ", stdout);
        cell_text(member_text(a, "level"), 0, true);
    }
    return finish(a, good);
}

void ctl_print_lines(const char *text, FILE *to)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t left = strlen(text); left;) {
        size_t n = *s == '\n' || *s == '\t' ? 1 : cell_shown(s, left);
        if (n)
            fwrite(s, 1, n, to);
        else
            fputc('?', to);
        n = n ? n : 1;
        s += n;
        left -= n;
    }
}

/* --- chunks of Lua
 * -----------------------------------------------------------------------------------------------
 */

/* cJSON's strings end at a zero: another character stands for it. */
static cJSON *parse_with_zeros(const char *json)
{
    char *copy = strdup(json);
    for (char *s = copy; s && (s = strchr(s, '\\')); s += s[1] ? 2 : 1)
        if (strncmp(s, "\\u0000", 6) == 0)
            s[5] = '1';
    cJSON *parsed = copy ? cJSON_Parse(copy) : NULL;
    free(copy);
    return parsed;
}

/* With a line's end behind it, unless it is empty or has one. */
static void put_lines(const char *text, FILE *to)
{
    size_t n = strlen(text);
    ctl_print_lines(text, to);
    if (n && text[n - 1] != '\n')
        fputc('\n', to);
}

static void put_chunk(const cJSON *c, bool several)
{
    const char *result = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "result"));
    const char *error = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "error"));
    if (several)
        printf("worker %" PRIu64 ":\n", member_number(c, "worker"));
    put_lines(member_text(c, "output"), stdout);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c, "truncated")))
        puts("(and more)");
    if (result)
        put_lines(*result ? result : "\n", stdout);
    fflush(stdout);
    if (error)
        put_lines(error, stderr);
}

int ctl_print_lua(const char *json)
{
    cJSON *a = parse_with_zeros(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "results"), *c;
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(c, list) put_chunk(c, cJSON_GetArraySize(list) > 1);
    return finish(a, good);
}

bool ctl_lua_has_failed(const char *json)
{
    cJSON *a = parse_with_zeros(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "results"), *c;
    bool failed = false;
    cJSON_ArrayForEach(c, list) failed |=
        cJSON_IsString(cJSON_GetObjectItemCaseSensitive(c, "error"));
    cJSON_Delete(a);
    return failed;
}

bool ctl_lua_is_incomplete(const char *json)
{
    cJSON *a = parse_with_zeros(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "results");
    const cJSON *first = cJSON_GetArrayItem(list, 0);
    bool is = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(first, "incomplete"));
    cJSON_Delete(a);
    return is;
}

void ctl_print_error(const char *json, const char *otherwise)
{
    cJSON *a = cJSON_Parse(json);
    const char *error = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "error"));
    fputs("penstock ctl: ", stderr);
    ctl_print_lines(error ? error : otherwise, stderr);
    fputc('\n', stderr);
    cJSON_Delete(a);
}
