/* The text of a request: what stands in its path and behind its question mark, decoded. Either may
 * hold any bytes, slashes and zeros included. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"

struct request_memory {
    struct request_memory *next;
    char bytes[];
};

void *request_alloc(struct request *r, size_t n)
{
    struct request_memory *m = malloc(sizeof *m + n);
    if (!m)
        return NULL;
    m->next = r->memory;
    r->memory = m;
    return m->bytes;
}

void request_free_memory(struct request *r)
{
    while (r->memory) {
        struct request_memory *m = r->memory;
        r->memory = m->next;
        free(m);
    }
}

static int hex_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c | ('A' <= c && c <= 'F' ? 0x20 : 0)) : NULL;
    return at ? (int)(at - digits) : -1;
}

int request_decode(struct request *r, const char *raw, size_t n, struct text *out)
{
    char *bytes = request_alloc(r, n + 1);
    size_t len = 0;
    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        int high = raw[i] == '%' && n - i > 2 ? hex_of(raw[i + 1]) : -1;
        int low = high >= 0 ? hex_of(raw[i + 2]) : -1;
        if (raw[i] == '%' && low < 0)
            return -EINVAL;
        bytes[len++] = (char)(low < 0 ? raw[i] : high << 4 | low);
        i += low < 0 ? 0 : 2;
    }
    bytes[len] = '\0';
    *out = (struct text){bytes, len};
    return 0;
}

struct reading {
    struct request *request;
    const struct argument *arguments;
    size_t n;
    void *arg;
};

/* "a, b and c" */
static const char *list_names(const struct reading *reading, char *buf, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < reading->n && len < cap; i++) {
        const char *before = !i ? "" : i + 1 == reading->n ? " and " : ", ";
        len += (size_t)snprintf(buf + len, cap - len, "%s%s", before, reading->arguments[i].name);
    }
    return buf;
}

static enum MHD_Result refuse(const struct reading *reading, const char *key)
{
    char names[200];
    if (reading->n)
        request_fail(reading->request, MHD_HTTP_BAD_REQUEST, "there is no argument %s; there %s %s",
                     key, reading->n == 1 ? "is" : "are", list_names(reading, names, sizeof names));
    else
        request_fail(reading->request, MHD_HTTP_BAD_REQUEST, "it has no arguments, so no %s", key);
    return MHD_NO;
}

static enum MHD_Result take(void *arg, enum MHD_ValueKind kind, const char *key, const char *raw)
{
    struct reading *reading = arg;
    struct request *r = reading->request;
    (void)kind;
    for (size_t i = 0; i < reading->n; i++) {
        const struct argument *a = &reading->arguments[i];
        struct text value;
        if (strcmp(a->name, key) != 0)
            continue;
        int err = raw ? request_decode(r, raw, strlen(raw), &value) : -EINVAL;
        if (!err)
            err = a->set(reading->arg, &value);
        if (err == -ENOMEM)
            request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(err));
        else if (err)
            request_fail(r, MHD_HTTP_BAD_REQUEST, "%s is %s", key, a->good);
        return err ? MHD_NO : MHD_YES;
    }
    return refuse(reading, key);
}

bool request_arguments(struct request *r, const struct argument *arguments, size_t n, void *arg)
{
    struct reading reading = {r, arguments, n, arg};
    MHD_get_connection_values(r->http, MHD_GET_ARGUMENT_KIND, take, &reading);
    return !r->status;
}

int argument_over(void *arg, const struct text *value)
{
    enum { OVER_MAX_MS = 24 * 3600 * 1000 };
    uint64_t *over_ms = arg;
    bool good = text_is_whole(value) && units_parse_time_ms(value->bytes, over_ms) == 0 &&
                *over_ms <= OVER_MAX_MS;
    return good ? 0 : -EINVAL;
}
