/* Prometheus' text format. Writes into a buffer of any size and counts what the whole takes. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/utf8.h"
#include "penstock/proxy/metrics.h"

struct text {
    char *out;
    size_t cap, n; /* n may be beyond cap */
};

static void put(struct text *t, const char *bytes, size_t n)
{
    if (t->n < t->cap) {
        size_t room = t->cap - t->n;
        memcpy(t->out + t->n, bytes, n < room ? n : room);
    }
    t->n += n;
}

static void put_text(struct text *t, const char *text)
{
    put(t, text, strlen(text));
}

/* The shortest decimal number that reads back as the same. */
static void put_number(struct text *t, double value)
{
    char text[40];
    if (isnan(value))
        put_text(t, "NaN");
    else if (isinf(value))
        put_text(t, value > 0 ? "+Inf" : "-Inf");
    else {
        snprintf(text, sizeof text, "%.15g", value);
        if (strtod(text, NULL) != value)
            snprintf(text, sizeof text, "%.17g", value);
        put_text(t, text);
    }
}

static void put_count(struct text *t, uint64_t count)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, count);
    put_text(t, text);
}

/* Everything that is not UTF-8 becomes U+FFFD, or no reader would take the page. */
static void put_escaped(struct text *t, const char *bytes, size_t len, const char *special)
{
    for (size_t at = 0, n; at < len; at += n) {
        char c = bytes[at];
        n = utf8_len((const unsigned char *)bytes + at, len - at);
        if (c == '\0')
            n = 0; /* readers would take it for the end of the page */
        if (c == '\n') {
            put_text(t, "\\n");
        } else if (n && strchr(special, c)) {
            put_text(t, "\\");
            put(t, &c, 1);
        } else if (n) {
            put(t, bytes + at, n);
        } else {
            put_text(t, "\xef\xbf\xbd");
            n = 1;
        }
    }
}

static void put_label(struct text *t, const char *name, const char *value, size_t n, bool first)
{
    put_text(t, first ? "{" : ",");
    put_text(t, name);
    put_text(t, "=\"");
    put_escaped(t, value, n, "\\\"");
    put_text(t, "\"");
}

/* Name and labels of a line; `le` NULL but in a histogram's bucket. */
static void put_head(struct text *t, const struct metric_info *info,
                     const struct metric_series *series, const char *suffix, const char *le)
{
    put_text(t, info->name);
    put_text(t, suffix);
    for (size_t i = 0; i < info->n_labels; i++)
        put_label(t, info->labels[i], series->labels[i].bytes, series->labels[i].n, i == 0);
    if (le)
        put_label(t, "le", le, strlen(le), info->n_labels == 0);
    put_text(t, info->n_labels || le ? "} " : " ");
}

static void put_histogram(struct text *t, const struct metric_info *info,
                          const struct metric_series *series)
{
    uint64_t sum = 0;
    for (size_t i = 0; i <= info->n_bounds; i++) {
        char le[40];
        struct text bound = {le, sizeof le - 1, 0};
        put_number(&bound, i < info->n_bounds ? info->bounds[i] : HUGE_VAL);
        le[bound.n] = '\0';
        sum += series->counts[i];
        put_head(t, info, series, "_bucket", le);
        put_count(t, sum);
        put_text(t, "\n");
    }
    put_head(t, info, series, "_sum", NULL);
    put_number(t, series->value);
    put_text(t, "\n");
    put_head(t, info, series, "_count", NULL);
    put_count(t, sum);
    put_text(t, "\n");
}

static void on_metric(void *arg, const struct metric_info *info)
{
    struct text *t = arg;
    if (info->help[0]) {
        put_text(t, "# HELP ");
        put_text(t, info->name);
        put_text(t, " ");
        put_escaped(t, info->help, strlen(info->help), "\\");
        put_text(t, "\n");
    }
    put_text(t, "# TYPE ");
    put_text(t, info->name);
    put_text(t, " ");
    put_text(t, metric_type_name(info->type));
    put_text(t, "\n");
}

static void on_series(void *arg, const struct metric_info *info, const struct metric_series *series)
{
    struct text *t = arg;
    if (info->type == METRIC_HISTOGRAM) {
        put_histogram(t, info, series);
        return;
    }
    put_head(t, info, series, "", NULL);
    put_number(t, series->value);
    put_text(t, "\n");
}

size_t metrics_text(struct metrics *all, char *out, size_t cap)
{
    struct text t = {out, cap, 0};
    struct metrics_visitor visitor = {&t, on_metric, on_series};
    metrics_visit(all, &visitor);
    return t.n;
}

int metrics_write(struct metrics *all, struct buf *out)
{
    size_t n = metrics_text(all, NULL, 0);
    for (;;) {
        size_t cap = n + n / 8 + 1; /* there may be more meanwhile */
        char *text = buf_reserve(out, cap);
        if (!text)
            return -ENOMEM;
        n = metrics_text(all, text, cap);
        if (n <= cap) {
            buf_commit(out, n);
            return 0;
        }
    }
}
