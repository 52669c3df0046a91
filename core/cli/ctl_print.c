/* Tables of 80 columns. What an answer holds may be anybody's bytes: controls never reach the
 * terminal. */
#include "ctl_print.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "penstock/base/utf8.h"

/* --- values
 * ------------------------------------------------------------------------------------------------
 */

static const char *text_of(const cJSON *o, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return text ? text : "-";
}

static uint64_t number_of(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? (uint64_t)item->valuedouble : 0;
}

/* At most five columns: "950", "9.5K", "512K", "12G". */
static const char *size_text(uint64_t bytes, char *buf, size_t cap)
{
    static const char units[] = " KMGTPE";
    double n = (double)bytes;
    size_t unit = 0;
    for (; n >= 1000 && units[unit + 1]; unit++)
        n /= 1024;
    if (unit == 0)
        snprintf(buf, cap, "%" PRIu64, bytes);
    else
        snprintf(buf, cap, n < 9.95 ? "%.1f%c" : "%.0f%c", n, units[unit]);
    return buf;
}

/* At most four columns: "0.3s", "59s", "90m", "71h", "12d". */
static const char *time_text(uint64_t ms, char *buf, size_t cap)
{
    uint64_t s = ms / 1000;
    if (ms < 10000)
        snprintf(buf, cap, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
    else if (s < 100)
        snprintf(buf, cap, "%" PRIu64 "s", s);
    else if (s < UINT64_C(100) * 60)
        snprintf(buf, cap, "%" PRIu64 "m", s / 60);
    else if (s < UINT64_C(100) * 3600)
        snprintf(buf, cap, "%" PRIu64 "h", s / 3600);
    else
        snprintf(buf, cap, "%" PRIu64 "d", s / 86400);
    return buf;
}

/* --- cells
 * -------------------------------------------------------------------------------------------------
 */

/* Length of the next character that may be shown; 0: show a question mark for one byte. */
static size_t shown(const unsigned char *s, size_t left)
{
    size_t n = utf8_len(s, left);
    bool control = n == 1 ? (*s < ' ' || *s == 0x7f) : n == 2 && s[0] == 0xc2 && s[1] < 0xa0;
    return control ? 0 : n;
}

/* Prints `text` in `width` columns, cut with … when it is longer, and a blank unless it is the last
 * in its line. A width of 0 is as long as it is. */
static void put_text(const char *text, size_t width, bool last)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strlen(text), columns = 0, all = 0;
    for (size_t i = 0; i < left; i++)
        all += !utf8_is_continuation(s[i]);
    while (left && (!width || columns < width)) {
        if (width && all > width && columns == width - 1) {
            fputs("…", stdout);
            columns++;
            break;
        }
        size_t n = shown(s, left);
        if (n)
            fwrite(s, 1, n, stdout);
        else
            putchar('?');
        n = n ? n : 1;
        s += n;
        left -= n;
        columns++;
    }
    for (; !last && columns < width; columns++)
        putchar(' ');
    fputs(last ? "\n" : " ", stdout);
}

static void put_right(const char *text, int width, bool last)
{
    printf("%*s%s", width, text, last ? "\n" : " ");
}

static void put_number(uint64_t n, int width, bool last)
{
    printf("%*" PRIu64 "%s", width, n, last ? "\n" : " ");
}

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
        put_text(text_of(a, "status"), 0, true);
        printf("up %s, configuration %" PRIu64 ", %" PRIu64 " workers\n"
               "connections: %" PRIu64 " now, at most %" PRIu64 ", %" PRIu64 " so far\n",
               time_text(number_of(a, "uptime_ms"), up, sizeof up), number_of(a, "configuration"),
               number_of(a, "workers"), number_of(a, "connections"),
               number_of(a, "max_connections"), number_of(a, "served"));
    }
    return finish(a, good);
}

int ctl_print_version(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "version");
    if (good) {
        fputs("penstock ", stdout);
        put_text(text_of(a, "version"), 0, true);
        printf("configuration %" PRIu64 "\n", number_of(a, "configuration"));
    }
    return finish(a, good);
}

static void put_listener(const cJSON *l)
{
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(l, "limits");
    char limit[24] = "-";
    if (number_of(limits, "connections"))
        snprintf(limit, sizeof limit, "%" PRIu64, number_of(limits, "connections"));
    put_text(text_of(l, "name"), 16, false);
    put_text(text_of(l, "address"), 21, false);
    put_text(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(l, "tls")) ? "yes" : "-", 3, false);
    put_number(number_of(l, "connections"), 6, false);
    put_right(limit, 6, false);
    put_number(number_of(l, "accepted"), 9, false);
    put_number(number_of(l, "limited"), 8, true);
}

int ctl_print_listeners(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "listeners"), *l;
    bool good = cJSON_IsArray(list);
    if (good)
        printf("%-16s %-21s %-3s %6s %6s %9s %8s\n", "NAME", "ADDRESS", "TLS", "CONNS", "LIMIT",
               "ACCEPTED", "LIMITED");
    cJSON_ArrayForEach(l, list) put_listener(l);
    return finish(a, good);
}

/* The first word of a state tells enough. */
static void put_state(const char *state)
{
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(state, " "), state);
    put_text(word, 8, false);
}

static void put_conn(const cJSON *c)
{
    char text[24];
    put_number(number_of(c, "id"), 5, false);
    put_text(text_of(c, "client"), 21, false);
    put_text(text_of(c, "upstream"), 21, false);
    put_state(text_of(c, "state"));
    put_right(time_text(number_of(c, "age_ms"), text, sizeof text), 4, false);
    put_right(time_text(number_of(c, "idle_ms"), text, sizeof text), 4, false);
    const cJSON *up = cJSON_GetObjectItemCaseSensitive(c, "up");
    const cJSON *down = cJSON_GetObjectItemCaseSensitive(c, "down");
    put_right(size_text(number_of(up, "bytes"), text, sizeof text), 5, false);
    put_right(size_text(number_of(down, "bytes"), text, sizeof text), 5, true);
}

int ctl_print_conns(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "connections"), *c;
    bool good = cJSON_IsArray(list);
    if (good)
        printf("%5s %-21s %-21s %-8s %4s %4s %5s %5s\n", "ID", "CLIENT", "UPSTREAM", "STATE", "AGE",
               "IDLE", "UP", "DOWN");
    cJSON_ArrayForEach(c, list) put_conn(c);
    if (number_of(a, "next"))
        printf("there are more: --after %" PRIu64 "\n", number_of(a, "next"));
    return finish(a, good);
}

int ctl_print_killed(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "killed");
    uint64_t n = number_of(a, "killed");
    if (good)
        printf("%" PRIu64 " connection%s killed\n", n, n == 1 ? "" : "s");
    return finish(a, good);
}

int ctl_print_reload(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "configuration");
    if (good)
        printf("configuration %" PRIu64 " is in force\n", number_of(a, "configuration"));
    return finish(a, good);
}

int ctl_print_level(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "level");
    if (good) {
        fputs("the log level is ", stdout);
        put_text(text_of(a, "level"), 0, true);
    }
    return finish(a, good);
}

void ctl_print_lines(const char *text, FILE *to)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t left = strlen(text); left;) {
        size_t n = *s == '\n' || *s == '\t' ? 1 : shown(s, left);
        if (n)
            fwrite(s, 1, n, to);
        else
            fputc('?', to);
        n = n ? n : 1;
        s += n;
        left -= n;
    }
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
