/* Pools, stores and buckets in `penstock ctl`: which words are which request, and their tables. */
#include "ctl_shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl_cells.h"
#include "ctl_print.h"

/* --- answers
 * -----------------------------------------------------------------------------------------------
 */

static int finish(cJSON *answer, bool good)
{
    cJSON_Delete(answer);
    return good ? 0 : -EPROTO;
}

static const char *number_text(const cJSON *o, const char *key, char *buf, size_t cap)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    snprintf(buf, cap, "%.4g", cJSON_IsNumber(item) ? item->valuedouble : 0.0);
    return buf;
}

static void put_server(const char *pool, const cJSON *s, const struct cell_names *columns)
{
    char text[32];
    bool used = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(s, "in_force"));
    cell_name(pool, &columns[0]);
    cell_name(member_text(s, "name"), &columns[1]);
    cell_text(used ? member_text(s, "state") : "old", 7, false);
    cell_text(member_text(s, "check"), 7, false);
    cell_right(number_text(s, "weight", text, sizeof text), 6, false);
    cell_number(member_number(s, "connections"), 6, false);
    cell_number(member_number(s, "dialled"), 8, false);
    cell_number(member_number(s, "failed"), 6, true);
}

int ctl_print_pools(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "pools"), *p, *s;
    struct cell_names columns[] = {{.title = "POOL", .usual = 12},
                                   {.title = "SERVER", .usual = 21}};
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(p, list)
    {
        names_count(&columns[0], member_text(p, "name"));
        cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(p, "servers"))
            names_count(&columns[1], member_text(s, "name"));
    }
    if (good) {
        names_fit(columns, 2, 47);
        names_titles(columns, 2);
        printf("%-7s %-7s %6s %6s %8s %6s\n", "STATE", "CHECK", "WEIGHT", "CONNS", "DIALLED",
               "FAILED");
    }
    cJSON_ArrayForEach(p, list)
    {
        cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(p, "servers"))
            put_server(member_text(p, "name"), s, columns);
    }
    return finish(a, good);
}

static int print_state(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "state");
    uint64_t n = member_number(a, "connections"), ending = member_number(a, "ending");
    if (good) {
        cell_text(member_text(a, "server"), 0, false);
        fputs("is ", stdout);
        cell_text(member_text(a, "state"), 0, false);
        printf("with %" PRIu64 " connection%s", n, n == 1 ? "" : "s");
        if (ending)
            printf(", of which %" PRIu64 " %s to end", ending, ending == 1 ? "is" : "are");
        putchar('\n');
    }
    return finish(a, good);
}

static int print_weight(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    char text[32];
    bool good = cJSON_HasObjectItem(a, "weight");
    if (good) {
        cell_text(member_text(a, "server"), 0, false);
        printf("has the weight %s\n", number_text(a, "weight", text, sizeof text));
    }
    return finish(a, good);
}

static void put_store(const cJSON *s, const struct cell_names *column)
{
    char text[16];
    cell_name(member_text(s, "name"), column);
    cell_number(member_number(s, "items"), 10, false);
    cell_number(member_number(s, "max_items"), 10, false);
    cell_right(cell_size(member_number(s, "bytes"), text, sizeof text), 8, false);
    cell_right(cell_size(member_number(s, "max_bytes"), text, sizeof text), 8, false);
    cell_number(member_number(s, "evicted"), 10, true);
}

int ctl_print_stores(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "stores"), *s;
    struct cell_names column = {.title = "STORE", .usual = 28};
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(s, list) names_count(&column, member_text(s, "name"));
    if (good) {
        names_fit(&column, 1, 51);
        names_titles(&column, 1);
        printf("%10s %10s %8s %8s %10s\n", "ITEMS", "AT MOST", "BYTES", "AT MOST", "EVICTED");
    }
    cJSON_ArrayForEach(s, list) put_store(s, &column);
    return finish(a, good);
}

static void put_bucket(const cJSON *b, const struct cell_names *column)
{
    char text[32];
    cell_name(member_text(b, "name"), column);
    cell_right(number_text(b, "rate", text, sizeof text), 10, false);
    cell_right(number_text(b, "burst", text, sizeof text), 10, false);
    cell_number(member_number(b, "keys"), 8, false);
    cell_number(member_number(b, "max_keys"), 8, false);
    cell_number(member_number(b, "forgotten"), 9, true);
}

int ctl_print_buckets(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "buckets"), *b;
    struct cell_names column = {.title = "BUCKET", .usual = 30};
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(b, list) names_count(&column, member_text(b, "name"));
    if (good) {
        names_fit(&column, 1, 50);
        names_titles(&column, 1);
        printf("%10s %10s %8s %8s %9s\n", "RATE", "BURST", "KEYS", "AT MOST", "FORGOTTEN");
    }
    cJSON_ArrayForEach(b, list) put_bucket(b, &column);
    return finish(a, good);
}

/* The text of a key or value; where it is none, its bytes in base64. */
static const char *bytes_of(const cJSON *o, const char *key, bool *text)
{
    char base64[40];
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    snprintf(base64, sizeof base64, "%s_base64", key);
    *text = value != NULL;
    return value ? value : member_text(o, base64);
}

static void put_key(const cJSON *k)
{
    const cJSON *ttl = cJSON_GetObjectItemCaseSensitive(k, "ttl_ms");
    char text[16];
    bool is_text;
    const char *key = bytes_of(k, "key", &is_text);
    cell_text(member_text(k, "type"), 7, false);
    cell_right(cJSON_IsNumber(ttl) ? cell_time(member_number(k, "ttl_ms"), text, sizeof text) : "-",
               4, false);
    cell_text(is_text ? "" : "base64", is_text ? 0 : 6, false);
    cell_text(key, 0, true);
}

static int print_keys(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(a, "keys"), *k;
    const char *next = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "next"));
    bool good = cJSON_IsArray(list);
    if (good)
        printf("%-7s %4s  KEY\n", "TYPE", "TTL");
    cJSON_ArrayForEach(k, list) put_key(k);
    if (next) {
        fputs("there are more: --after ", stdout);
        cell_text(next, 0, true);
    }
    return finish(a, good);
}

void ctl_read_keys(const char *json, struct ctl_keys *out)
{
    cJSON *a = cJSON_Parse(json);
    const char *next = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "next"));
    out->n = (size_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(a, "keys"));
    snprintf(out->next, sizeof out->next, "%s", next ? next : "");
    cJSON_Delete(a);
}

/* Moves keys, and where they go on, from one to the other. */
static bool move_keys(cJSON *all, cJSON *page)
{
    cJSON *to = cJSON_GetObjectItemCaseSensitive(all, "keys");
    cJSON *from = cJSON_GetObjectItemCaseSensitive(page, "keys");
    cJSON *next = cJSON_DetachItemFromObjectCaseSensitive(page, "next");
    bool good = cJSON_IsArray(to) && cJSON_IsArray(from) && next;
    while (good && from->child)
        cJSON_AddItemToArray(to, cJSON_DetachItemViaPointer(from, from->child));
    if (good && cJSON_ReplaceItemInObjectCaseSensitive(all, "next", next))
        return true;
    cJSON_Delete(next);
    return false;
}

int ctl_join_keys(struct buf *all, const char *page)
{
    cJSON *a = cJSON_Parse(buf_bytes(all)), *b = cJSON_Parse(page);
    int err = move_keys(a, b) ? 0 : -EPROTO;
    char *text = err ? NULL : cJSON_PrintUnformatted(a);
    cJSON_Delete(a);
    cJSON_Delete(b);
    if (!err) {
        buf_deinit(all);
        err = text ? buf_append(all, text, strlen(text) + 1) : -ENOMEM;
        if (!err)
            all->end--; /* the zero is there, and does not count */
    }
    cJSON_free(text);
    return err;
}

static void put_number(double n)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", n);
    printf("%.*g\n", strtod(text, NULL) == n ? 15 : 17, n);
}

/* Writes the bytes that `text` is the base64 of, up to what is none. */
static void put_decoded(const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0, n_bits = 0;
    const char *digit;
    for (; *text && (digit = strchr(digits, *text)); text++) {
        bits = bits << 6 | (unsigned)(digit - digits);
        n_bits += 6;
        if (n_bits < 8)
            continue;
        n_bits -= 8;
        putchar((int)(bits >> n_bits & 0xff));
    }
}

/* Positive: told, and not done. */
static int put_bytes(const cJSON *item)
{
    bool is_text;
    const char *value = bytes_of(item, "value", &is_text);
    if (is_text) {
        ctl_print_lines(value, stdout);
        putchar('\n');
    } else if (isatty(STDOUT_FILENO)) {
        fputs("penstock ctl: the value is no text; write it into a file: > FILE\n", stderr);
        return 1;
    } else {
        put_decoded(value);
    }
    return 0;
}

static int print_value(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(a, "value");
    int told = 0;
    if (value && cJSON_IsNumber(value))
        put_number(value->valuedouble);
    else if (cJSON_IsBool(value))
        puts(cJSON_IsTrue(value) ? "true" : "false");
    else if (value)
        told = put_bytes(a);
    int err = finish(a, value != NULL);
    return err ? err : told;
}

static int print_set(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "set");
    if (good)
        puts("set");
    return finish(a, good);
}

static int print_deleted(const char *json)
{
    cJSON *a = cJSON_Parse(json);
    bool good = cJSON_HasObjectItem(a, "deleted");
    if (good)
        puts("deleted");
    return finish(a, good);
}

/* --- words
 * -------------------------------------------------------------------------------------------------
 */

/* A verb behind the names. */
struct verb {
    const char *name, *method, *path; /* what follows the names in the path */
    size_t operands;
    int (*print)(const char *json);
    unsigned options; /* bits of enum option */
};

enum option { OVER = 1, PREFIX = 2, TYPE = 4, TTL = 8, AFTER = 16, LIMIT = 32 };

static const struct verb server_verbs[] = {
    {"drain", "POST", "/drain", 0, print_state, OVER},
    {"up", "POST", "/up", 0, print_state, 0},
    {"weight", "PUT", "/weight", 1, print_weight, 0},
};
static const struct verb store_verbs[] = {
    {"keys", "GET", "/keys", 0, print_keys, PREFIX | AFTER | LIMIT},
    {"get", "GET", "", 1, print_value, 0},
    {"set", "PUT", "", 2, print_set, TYPE | TTL},
    {"delete", "DELETE", "", 1, print_deleted, 0},
};

static const struct verb *find_verb(const struct verb *verbs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

/* An option that the verb does not have; NULL when there is none. */
static const char *stray_option(const struct ctl_words *w, const struct verb *v)
{
    const struct {
        const char *name, *value;
        unsigned option;
    } given[] = {{"--over", w->over, OVER},    {"--prefix", w->prefix, PREFIX},
                 {"--type", w->type, TYPE},    {"--ttl", w->ttl, TTL},
                 {"--after", w->after, AFTER}, {"--limit", w->limit, LIMIT}};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i].value && !(v->options & given[i].option))
            return given[i].name;
    return NULL;
}

static int refuse(char *why, size_t why_cap, const char *text)
{
    snprintf(why, why_cap, "%s", text);
    return -EINVAL;
}

/* Finds the verb at `at` and checks what stands behind it. */
static const struct verb *read_verb(const struct ctl_words *w, size_t at, const struct verb *verbs,
                                    size_t n, char *why, size_t why_cap)
{
    const struct verb *v = w->n_words > at ? find_verb(verbs, n, w->words[at]) : NULL;
    const char *stray = v ? stray_option(w, v) : NULL;
    if (!v || w->n_words != at + 1 + v->operands)
        return NULL;
    if (!stray)
        return v;
    snprintf(why, why_cap, "%s %s has no %s; see penstock ctl --help", w->words[0], v->name, stray);
    return NULL;
}

int ctl_read_server(const struct ctl_words *w, struct ctl_call *call, char *why, size_t why_cap)
{
    size_t n = sizeof server_verbs / sizeof *server_verbs;
    refuse(
        why, why_cap,
        "write penstock ctl server POOL SERVER drain [--over TIME], … up, or … weight N; penstock "
        "ctl pools shows them");
    const struct verb *v = read_verb(w, 3, server_verbs, n, why, why_cap);
    if (!v)
        return -EINVAL;
    *call = (struct ctl_call){
        .method = v->method, .body = v->operands ? w->words[4] : "", .print = v->print};
    ctl_path_put(&call->path, "/v1/pools/");
    ctl_path_put_encoded(&call->path, w->words[1]);
    ctl_path_put(&call->path, "/servers/");
    ctl_path_put_encoded(&call->path, w->words[2]);
    ctl_path_put(&call->path, v->path);
    ctl_path_put_argument(&call->path, "over", w->over);
    return 0;
}

int ctl_read_store(const struct ctl_words *w, struct ctl_call *call, char *why, size_t why_cap)
{
    size_t n = sizeof store_verbs / sizeof *store_verbs;
    refuse(why, why_cap,
           "write penstock ctl store STORE keys [--prefix TEXT], … get KEY, … set KEY VALUE, or … "
           "delete KEY; penstock ctl stores shows them");
    const struct verb *v = read_verb(w, 2, store_verbs, n, why, why_cap);
    if (!v)
        return -EINVAL;
    *call = (struct ctl_call){
        .method = v->method, .body = v->operands == 2 ? w->words[4] : "", .print = v->print};
    call->pages = v->print == print_keys;
    ctl_path_put(&call->path, "/v1/stores/");
    ctl_path_put_encoded(&call->path, w->words[1]);
    ctl_path_put(&call->path, v->path);
    ctl_path_put_argument(&call->path, "key", v->operands ? w->words[3] : NULL);
    ctl_path_put_argument(&call->path, "prefix", w->prefix);
    ctl_path_put_argument(&call->path, "type", w->type);
    ctl_path_put_argument(&call->path, "ttl", w->ttl);
    ctl_path_put_argument(&call->path, "after", w->after);
    ctl_path_put_argument(&call->path, "limit", w->limit);
    return 0;
}
