/* What scripts share by name: the items of stores, shown and changed, and the limits of buckets.
 * Keys and values may be any bytes. A store is walked a little at a time, with one of its shards
 * locked: whoever forwards does not wait for it. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/base/utf8.h"
#include "penstock/proxy/store.h"

enum {
    KEYS = 100, /* on a page, where it is not said */
    KEYS_MAX = 1000,
    CHAINS = 64,          /* looked at with a shard locked */
    CHAINS_MAX = 1 << 17, /* and for one page, however few of them fit */
};

static uint64_t now_ms(void)
{
    return clock_now_ns() / 1000000;
}

/* --- lists
 * -------------------------------------------------------------------------------------------------
 */

static void write_store(void *arg, const char *name, struct store *s)
{
    struct json *j = arg;
    struct store_limits limits = store_get_limits(s);
    json_begin_object(j, NULL);
    json_text(j, "name", name);
    json_uint(j, "items", store_len(s));
    json_uint(j, "bytes", store_bytes(s));
    json_uint(j, "max_items", limits.items);
    json_uint(j, "max_bytes", limits.bytes);
    json_uint(j, "evicted", store_evicted(s));
    json_end_object(j);
}

static void write_buckets(void *arg, const char *name, struct buckets *b)
{
    struct json *j = arg;
    struct buckets_limits limits = buckets_get_limits(b);
    json_begin_object(j, NULL);
    json_text(j, "name", name);
    json_number(j, "rate", limits.rate.per_second);
    json_number(j, "burst", limits.rate.burst);
    json_uint(j, "keys", buckets_len(b));
    json_uint(j, "max_keys", limits.keys);
    json_uint(j, "forgotten", buckets_forgotten(b));
    json_end_object(j);
}

void stores_list(struct request *r)
{
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_begin_list(&j, "stores");
    shared_visit_stores(r->admin->shared, write_store, &j);
    json_end_list(&j);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

void buckets_list(struct request *r)
{
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_begin_list(&j, "buckets");
    shared_visit_buckets(r->admin->shared, write_buckets, &j);
    json_end_list(&j);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

/* --- items
 * -------------------------------------------------------------------------------------------------
 */

/* Would it come back out of JSON as it is, in any language? */
static bool is_text(const char *bytes, size_t n)
{
    const unsigned char *s = (const unsigned char *)bytes;
    for (size_t at = 0, len; at < n; at += len) {
        len = s[at] ? utf8_len(s + at, n - at) : 0;
        if (!len)
            return false;
    }
    return true;
}

/* "key": text, or null and "key_base64". */
static void write_bytes(struct json *j, const char *key, const char *bytes, size_t n)
{
    char base64[40];
    bool text = is_text(bytes, n);
    json_bytes(j, key, text ? bytes : NULL, n);
    snprintf(base64, sizeof base64, "%s_base64", key);
    if (!text)
        json_base64(j, base64, bytes, n);
}

static const char *const types[] = {[STORE_NONE] = NULL,
                                    [STORE_NUMBER] = "number",
                                    [STORE_BOOLEAN] = "boolean",
                                    [STORE_STRING] = "string"};

static void write_head(struct json *j, const struct store_item *item)
{
    write_bytes(j, "key", item->key.bytes, item->key.n);
    json_text(j, "type", types[item->value.type]);
    if (item->ttl_ms == UINT64_MAX)
        json_null(j, "ttl_ms");
    else
        json_uint(j, "ttl_ms", item->ttl_ms);
}

/* A number that JSON has no word for is a text: "inf", "-inf", "nan". */
static void write_number(struct json *j, double n)
{
    if (isfinite(n))
        json_number(j, "value", n);
    else
        json_text(j, "value", isnan(n) ? "nan" : n > 0 ? "inf" : "-inf");
}

static void write_value(struct json *j, const struct store_value *v)
{
    if (v->type == STORE_NUMBER)
        write_number(j, v->number);
    else if (v->type == STORE_BOOLEAN)
        json_bool(j, "value", v->boolean);
    else
        write_bytes(j, "value", v->string.bytes, v->string.n);
}

/* The store that the path names, or NULL and `r` has failed. */
static struct store *find_store(struct request *r)
{
    const struct text *name = &r->names[0];
    struct store *s = text_is_whole(name) ? shared_find_store(r->admin->shared, name->bytes) : NULL;
    if (!s)
        request_fail(r, MHD_HTTP_NOT_FOUND, "there is no store %s", name->bytes);
    return s;
}

/* What the arguments say. */
struct wanted {
    struct text key, prefix;
    bool has_key;
    enum store_type type;
    uint64_t ttl_ms;
    struct store_cursor after;
    uint64_t limit;
};

static int set_key(void *arg, const struct text *value)
{
    struct wanted *w = arg;
    w->key = *value;
    w->has_key = true;
    return value->n <= STORE_KEY_MAX ? 0 : -EINVAL;
}

static int set_prefix(void *arg, const struct text *value)
{
    ((struct wanted *)arg)->prefix = *value;
    return 0;
}

static int set_type(void *arg, const struct text *value)
{
    for (int i = STORE_NUMBER; i <= STORE_STRING; i++)
        if (text_is_whole(value) && strcmp(value->bytes, types[i]) == 0) {
            ((struct wanted *)arg)->type = (enum store_type)i;
            return 0;
        }
    return -EINVAL;
}

static int set_ttl(void *arg, const struct text *value)
{
    struct wanted *w = arg;
    int err = text_is_whole(value) ? units_parse_time_ms(value->bytes, &w->ttl_ms) : -EINVAL;
    return err || !w->ttl_ms ? -EINVAL : 0;
}

static int set_limit(void *arg, const struct text *value)
{
    struct wanted *w = arg;
    return text_is_whole(value) ? units_parse_uint(value->bytes, 1, KEYS_MAX, &w->limit) : -EINVAL;
}

static int set_after(void *arg, const struct text *value)
{
    struct wanted *w = arg;
    unsigned shard;
    int n = 0;
    if (value->n > 24 || sscanf(value->bytes, "%4u-%16" SCNx64 "%n", &shard, &w->after.at, &n) != 2)
        return -EINVAL;
    w->after.shard = shard;
    return (size_t)n == value->n ? 0 : -EINVAL;
}

#define GOOD_KEY "a key of at most 1024 bytes, percent-encoded"

/* Of the routes for one key. False when `r` has failed. */
static bool read_key(struct request *r, const struct argument *arguments, size_t n,
                     struct wanted *w)
{
    if (!request_arguments(r, arguments, n, w))
        return false;
    if (!w->has_key)
        request_fail(r, MHD_HTTP_BAD_REQUEST, "which key? key=KEY is missing");
    return w->has_key;
}

static struct store_key key_of(const struct wanted *w)
{
    return (struct store_key){w->key.bytes, w->key.n};
}

static void fail_without(struct request *r, const struct wanted *w)
{
    request_fail(r, MHD_HTTP_NOT_FOUND, "there is nothing at the key %s", w->key.bytes);
}

/* A copy of an item, to be written when its shard is not locked any more. */
struct found {
    struct request *request;
    struct store_item item;
    bool failed; /* out of memory */
};

static void take_item(void *arg, const struct store_item *item)
{
    struct found *found = arg;
    bool string = item->value.type == STORE_STRING;
    char *copy = string ? request_alloc(found->request, item->value.string.n + 1) : NULL;
    found->item = *item;
    found->failed = string && !copy;
    if (!copy)
        return;
    memcpy(copy, item->value.string.bytes, item->value.string.n);
    found->item.value.string.bytes = copy;
}

void stores_get(struct request *r)
{
    /* GET /v1/stores/{store} */
    static const struct argument arguments[] = {
        {"key", set_key, GOOD_KEY},
    };
    struct wanted w = {0};
    struct found found = {.request = r};
    struct json j;
    struct store *s = read_key(r, arguments, 1, &w) ? find_store(r) : NULL;
    if (!s)
        return;
    if (store_look(s, key_of(&w), now_ms(), take_item, &found) != STORE_OK) {
        fail_without(r, &w);
        return;
    }
    found.item.key = key_of(&w); /* the item's own may be gone */
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    write_head(&j, &found.item);
    write_value(&j, &found.item.value);
    json_end_object(&j);
    j.failed |= found.failed;
    request_answer_json(r, MHD_HTTP_OK, &j);
}

static int read_number(const char *body, size_t n, double *number)
{
    char *end;
    *number = strtod(body, &end);
    return n && !strchr(" \t\r\n", *body) && end == body + n ? 0 : -EINVAL;
}

static int read_boolean(const char *body, size_t n, bool *boolean)
{
    *boolean = n == 4 && memcmp(body, "true", 4) == 0;
    return *boolean || (n == 5 && memcmp(body, "false", 5) == 0) ? 0 : -EINVAL;
}

/* The body as a value of that type; 0 or -EINVAL. */
static int read_value(const struct request *r, enum store_type type, struct store_value *v)
{
    const char *body = buf_bytes(&r->body);
    size_t n = buf_len(&r->body), whole = n;
    v->type = type;
    while (n && (body[n - 1] == '\n' || body[n - 1] == '\r')) /* echo and editors add it */
        n--;
    if (type == STORE_NUMBER)
        return read_number(body, n, &v->number);
    if (type == STORE_BOOLEAN)
        return read_boolean(body, n, &v->boolean);
    v->string.bytes = body;
    v->string.n = whole;
    return 0;
}

static void answer_done(struct request *r, const char *what)
{
    struct json j;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, what, 1);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

void stores_set(struct request *r)
{
    /* PUT /v1/stores/{store} */
    static const struct argument arguments[] = {
        {"key", set_key, GOOD_KEY},
        {"type", set_type, "string, number or boolean"},
        {"ttl", set_ttl, "a time above 0: 30, 500ms, 2m or 1h"},
    };
    struct wanted w = {.type = STORE_STRING};
    struct store_value v;
    struct store *s = read_key(r, arguments, 3, &w) ? find_store(r) : NULL;
    if (!s)
        return;
    if (read_value(r, w.type, &v)) {
        request_fail(r, MHD_HTTP_BAD_REQUEST, "the body must be %s, since type=%s",
                     w.type == STORE_NUMBER ? "a number" : "true or false", types[w.type]);
        return;
    }
    enum store_result result = store_set(s, key_of(&w), &v, w.ttl_ms, now_ms());
    if (result != STORE_OK) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return;
    }
    log_info("admin: store %s: one key is set", r->names[0].bytes);
    answer_done(r, "set");
}

void stores_delete(struct request *r)
{
    /* DELETE /v1/stores/{store} */
    static const struct argument arguments[] = {
        {"key", set_key, GOOD_KEY},
    };
    struct wanted w = {0};
    struct store *s = read_key(r, arguments, 1, &w) ? find_store(r) : NULL;
    if (!s)
        return;
    if (store_del(s, key_of(&w), now_ms()) != STORE_OK) {
        fail_without(r, &w);
        return;
    }
    log_info("admin: store %s: one key is deleted", r->names[0].bytes);
    answer_done(r, "deleted");
}

/* --- keys
 * --------------------------------------------------------------------------------------------------
 */

struct page {
    struct json json;
    const struct wanted *wanted;
    uint64_t n;
};

static void write_key(void *arg, const struct store_item *item)
{
    struct page *p = arg;
    const struct text *prefix = &p->wanted->prefix;
    if (item->key.n < prefix->n ||
        (prefix->n && memcmp(item->key.bytes, prefix->bytes, prefix->n) != 0))
        return;
    json_begin_object(&p->json, NULL);
    write_head(&p->json, item);
    json_end_object(&p->json);
    p->n++;
}

/* Writes a page from the cursor on. False when that was the last. */
static bool write_page(struct page *p, struct store *s, struct store_cursor *cursor)
{
    uint64_t limit = p->wanted->limit;
    for (size_t looked = 0; p->n < limit && looked < CHAINS_MAX; looked += CHAINS) {
        uint64_t room = limit - p->n;
        if (!store_walk(s, cursor, room < CHAINS ? room : CHAINS, now_ms(), write_key, p))
            return false;
    }
    return true;
}

void stores_keys(struct request *r)
{
    /* GET /v1/stores/{store}/keys */
    static const struct argument arguments[] = {
        {"prefix", set_prefix, "the beginning of keys, percent-encoded"},
        {"after", set_after, "what the page before has as next"},
        {"limit", set_limit, "1 to 1000"},
    };
    struct wanted w = {.limit = KEYS};
    struct page p = {.wanted = &w};
    char next[48];
    struct store *s = request_arguments(r, arguments, 3, &w) ? find_store(r) : NULL;
    if (!s)
        return;
    struct store_cursor cursor = w.after;
    json_init(&p.json, &r->out);
    json_begin_object(&p.json, NULL);
    json_begin_list(&p.json, "keys");
    bool more = write_page(&p, s, &cursor);
    json_end_list(&p.json);
    snprintf(next, sizeof next, "%zu-%" PRIx64, cursor.shard, cursor.at);
    json_text(&p.json, "next", more ? next : NULL);
    json_end_object(&p.json);
    request_answer_json(r, MHD_HTTP_OK, &p.json);
}
