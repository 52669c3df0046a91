/* See json.h. A library that builds a tree first would hold every answer twice, and those of Debian
 * (cJSON, json-c) pass bytes that are no UTF-8 on. */
#include "penstock/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/base64.h"
#include "penstock/base/utf8.h"

void json_init(struct json *j, struct buf *out)
{
    *j = (struct json){.out = out};
}

static void put(struct json *j, const char *bytes, size_t n)
{
    if (!j->failed && buf_append(j->out, bytes, n))
        j->failed = true;
}

static void put_text(struct json *j, const char *text)
{
    put(j, text, strlen(text));
}

/* One special character: '"', '\' or a control, C1 included. */
static void put_escape(struct json *j, unsigned char c)
{
    char text[8];
    if (c == '"' || c == '\\')
        snprintf(text, sizeof text, "\\%c", c);
    else if (c == '\n')
        snprintf(text, sizeof text, "\\n");
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    put_text(j, text);
}

static bool is_plain(unsigned char c)
{
    return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

/* The length of the sequence at `s`; runs of ordinary bytes are taken at once. */
static size_t put_some(struct json *j, const unsigned char *s, size_t left)
{
    size_t n = 0;
    while (n < left && is_plain(s[n]))
        n++;
    if (n) {
        put(j, (const char *)s, n);
        return n;
    }
    n = utf8_len(s, left);
    if (n == 1)
        put_escape(j, s[0]);
    else if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0) /* terminals obey them */
        put_escape(j, s[1]);
    else if (n)
        put(j, (const char *)s, n);
    else
        put_text(j, "\\ufffd");
    return n ? n : 1;
}

static void put_string(struct json *j, const char *text, size_t n)
{
    put(j, "\"", 1);
    for (size_t at = 0; at < n;)
        at += put_some(j, (const unsigned char *)text + at, n - at);
    put(j, "\"", 1);
}

static void begin_value(struct json *j, const char *key)
{
    if (j->comma)
        put(j, ",", 1);
    j->comma = true;
    if (!key)
        return;
    put_string(j, key, strlen(key));
    put(j, ":", 1);
}

static void begin(struct json *j, const char *key, const char *bracket)
{
    begin_value(j, key);
    put(j, bracket, 1);
    j->comma = false;
}

static void end(struct json *j, const char *bracket)
{
    put(j, bracket, 1);
    j->comma = true;
}

void json_begin_object(struct json *j, const char *key)
{
    begin(j, key, "{");
}

void json_end_object(struct json *j)
{
    end(j, "}");
}

void json_begin_list(struct json *j, const char *key)
{
    begin(j, key, "[");
}

void json_end_list(struct json *j)
{
    end(j, "]");
}

void json_bytes(struct json *j, const char *key, const char *text, size_t n)
{
    begin_value(j, key);
    if (text)
        put_string(j, text, n);
    else
        put_text(j, "null");
}

void json_text(struct json *j, const char *key, const char *text)
{
    json_bytes(j, key, text, text ? strlen(text) : 0);
}

void json_base64(struct json *j, const char *key, const void *bytes, size_t n)
{
    begin_value(j, key);
    put(j, "\"", 1);
    char *room = j->failed ? NULL : buf_reserve(j->out, BASE64_LEN(n) + 1);
    j->failed |= !room;
    if (room) {
        base64_encode(bytes, n, room);
        buf_commit(j->out, BASE64_LEN(n));
    }
    put(j, "\"", 1);
}

void json_raw(struct json *j, const char *key, const char *json)
{
    begin_value(j, key);
    put_text(j, json);
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
    char text[24];
    begin_value(j, key);
    snprintf(text, sizeof text, "%" PRIu64, value);
    put_text(j, text);
}

void json_number(struct json *j, const char *key, double value)
{
    char text[32];
    begin_value(j, key);
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof text, "%.17g", value);
    put_text(j, isfinite(value) ? text : "null");
}

void json_bool(struct json *j, const char *key, bool value)
{
    begin_value(j, key);
    put_text(j, value ? "true" : "false");
}

void json_null(struct json *j, const char *key)
{
    json_text(j, key, NULL);
}
