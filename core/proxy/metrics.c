/* The metrics there are and what has been counted. The text format is in metrics_text.c. */
#include "penstock/proxy/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "penstock/base/err.h"
#include "penstock/base/keyed.h"
#include "penstock/base/log.h"

enum { KEY_MAX = METRICS_LABELS_MAX * (METRICS_VALUE_MAX + (int)sizeof(uint16_t)) };

struct series {
    struct keyed node; /* first; the key is each value, its length before it */
    double value;
    uint64_t *counts; /* in this block; NULL for counter and gauge */
};

struct metric {
    struct list node;
    const struct hash_key *hash;
    struct metric_info info; /* owned; help changes under the lock of `all` */
    uv_mutex_t lock;         /* of the following */
    struct keyed_table series;
    bool overflowed; /* it has been said */
};

struct metrics {
    const struct hash_key *hash;
    uv_mutex_t lock; /* of the list, the source and every help; taken before a metric's */
    struct metrics_source source; /* visit NULL: none */
    struct list list;
    size_t n;
};

const char *metric_type_name(enum metric_type type)
{
    static const char *const names[] = {
#define X(name, word) [METRIC_##name] = word,
        METRIC_TYPES(X)
#undef X
    };
    return names[type];
}

const struct metric_info *metric_info(const struct metric *m)
{
    return &m->info;
}

/* ---- life ---- */

struct metrics *metrics_new(const struct hash_key *hash)
{
    struct metrics *all = calloc(1, sizeof *all);
    if (!all || uv_mutex_init(&all->lock)) {
        free(all);
        return NULL;
    }
    all->hash = hash;
    list_init(&all->list);
    return all;
}

static void free_info(struct metric_info *info)
{
    for (size_t i = 0; info->labels && i < info->n_labels; i++)
        free((void *)info->labels[i]);
    free((void *)info->labels);
    free((void *)info->bounds);
    free((void *)info->help);
    free((void *)info->name);
}

static void metric_free(struct metric *m)
{
    for (struct keyed *k; (k = keyed_oldest(&m->series));) {
        keyed_remove(&m->series, k);
        free(k);
    }
    keyed_deinit(&m->series);
    uv_mutex_destroy(&m->lock);
    free_info(&m->info);
    free(m);
}

void metrics_set_source(struct metrics *all, const struct metrics_source *source)
{
    uv_mutex_lock(&all->lock);
    all->source = source ? *source : (struct metrics_source){0};
    uv_mutex_unlock(&all->lock);
}

void metrics_free(struct metrics *all)
{
    if (!all)
        return;
    list_for_each (node, next, &all->list)
        metric_free(container_of(node, struct metric, node));
    uv_mutex_destroy(&all->lock);
    free(all);
}

static int copy_labels(struct metric_info *to, const struct metric_info *from)
{
    const char **labels = calloc(from->n_labels + 1, sizeof *labels);
    to->labels = labels;
    to->n_labels = from->n_labels;
    for (size_t i = 0; labels && i < from->n_labels; i++) {
        labels[i] = strdup(from->labels[i]);
        if (!labels[i])
            return -ENOMEM;
    }
    return labels ? 0 : -ENOMEM;
}

static int copy_info(struct metric_info *to, const struct metric_info *from)
{
    double *bounds = calloc(from->n_bounds + 1, sizeof *bounds);
    *to = (struct metric_info){.type = from->type, .bounds = bounds};
    if (bounds && from->n_bounds)
        memcpy(bounds, from->bounds, from->n_bounds * sizeof *bounds);
    to->n_bounds = from->n_bounds;
    to->name = strdup(from->name);
    to->help = strdup(from->help);
    return bounds && to->name && to->help ? copy_labels(to, from) : -ENOMEM;
}

static struct series *add_series(struct metric *m, uint64_t hash, const char *key, size_t len);

static struct metric *metric_new(const struct metric_info *info, const struct hash_key *hash)
{
    struct metric *m = calloc(1, sizeof *m);
    if (!m || uv_mutex_init(&m->lock)) {
        free(m);
        return NULL;
    }
    m->hash = hash;
    list_init(&m->node);
    keyed_init(&m->series);
    /* Without labels there is one series, which begins at 0. */
    if (copy_info(&m->info, info) ||
        (!info->n_labels && !add_series(m, hash_bytes(hash, "", 0), "", 0))) {
        metric_free(m);
        return NULL;
    }
    return m;
}

/* ---- declarations ---- */

static bool is_name(const char *name, bool colon)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    size_t len = strlen(name), n = 0;
    if (!len || (!strchr(letters, name[0]) && !(colon && name[0] == ':')))
        return false;
    while (n < len && (strchr(letters, name[n]) || (name[n] >= '0' && name[n] <= '9') ||
                       (colon && name[n] == ':')))
        n++;
    return n == len;
}

static int check_labels(const struct metric_info *info, char *why, size_t why_cap)
{
    if (info->n_labels > METRICS_LABELS_MAX) {
        snprintf(why, why_cap, "%s has more than %d labels", info->name, METRICS_LABELS_MAX);
        return -EINVAL;
    }
    for (size_t i = 0; i < info->n_labels; i++) {
        const char *label = info->labels[i];
        bool le = info->type == METRIC_HISTOGRAM && !strcmp(label, "le");
        if (!is_name(label, false) || !strncmp(label, "__", 2) || le) {
            snprintf(why, why_cap,
                     "\"%s\" is not a label's name: letters, digits and _, no digit first, not "
                     "beginning with __%s",
                     label, le ? "; le is a histogram's own" : "");
            return -EINVAL;
        }
        for (size_t j = 0; j < i; j++)
            if (!strcmp(label, info->labels[j])) {
                snprintf(why, why_cap, "the label \"%s\" is named twice", label);
                return -EINVAL;
            }
    }
    return 0;
}

static int check_bounds(const struct metric_info *info, char *why, size_t why_cap)
{
    bool right = info->n_bounds <= METRICS_BOUNDS_MAX;
    for (size_t i = 0; right && i < info->n_bounds; i++)
        right = isfinite(info->bounds[i]) && (i == 0 || info->bounds[i] > info->bounds[i - 1]);
    if (right)
        return 0;
    snprintf(why, why_cap, "buckets are at most %d numbers in ascending order: { 0.1, 1, 10 }",
             METRICS_BOUNDS_MAX);
    return -EINVAL;
}

static int check_info(const struct metric_info *info, char *why, size_t why_cap)
{
    if (!is_name(info->name, true)) {
        snprintf(why, why_cap,
                 "\"%s\" is not a metric's name: letters, digits, _ and :, no digit first",
                 info->name);
        return -EINVAL;
    }
    if (!info->own && (!strncmp(info->name, "penstock_", 9) ||
                       !strcmp(info->name, "process_start_time_seconds"))) {
        snprintf(why, why_cap,
                 "%s: this name and those that begin with penstock_ are penstock's own",
                 info->name);
        return -EINVAL;
    }
    int err = check_labels(info, why, why_cap);
    return err ? err : check_bounds(info, why, why_cap);
}

static bool same_labels(const struct metric_info *a, const struct metric_info *b)
{
    bool same = a->n_labels == b->n_labels;
    for (size_t i = 0; same && i < a->n_labels; i++)
        same = !strcmp(a->labels[i], b->labels[i]);
    return same;
}

static bool same_bounds(const struct metric_info *a, const struct metric_info *b)
{
    bool same = a->n_bounds == b->n_bounds;
    for (size_t i = 0; same && i < a->n_bounds; i++)
        same = a->bounds[i] == b->bounds[i];
    return same;
}

/* Is `name` one of the samples that a histogram called `histogram` writes? */
static bool is_sample_of(const char *name, const char *histogram)
{
    size_t len = strlen(histogram);
    return !strncmp(name, histogram, len) &&
           (!strcmp(name + len, "_bucket") || !strcmp(name + len, "_sum") ||
            !strcmp(name + len, "_count"));
}

/* May `info` be declared beside `old`, or again as `old`? */
static int check_against(const struct metric_info *info, const struct metric_info *old, char *why,
                         size_t why_cap)
{
    if ((old->type == METRIC_HISTOGRAM && is_sample_of(info->name, old->name)) ||
        (info->type == METRIC_HISTOGRAM && is_sample_of(old->name, info->name))) {
        snprintf(why, why_cap, "%s and %s would write the same lines", info->name, old->name);
        return -EINVAL;
    }
    if (strcmp(info->name, old->name) != 0)
        return 0;
    const char *what = info->type != old->type   ? metric_type_name(old->type)
                       : !same_labels(info, old) ? "metric with other labels"
                       : !same_bounds(info, old) ? "histogram with other buckets"
                                                 : NULL;
    if (!what)
        return 0;
    snprintf(why, why_cap,
             "%s is a %s already; that cannot change while penstock runs: choose another name, or "
             "restart it",
             info->name, what);
    return -EINVAL;
}

static int declare(struct metrics *all, const struct metric_info *info, struct metric **out,
                   char *why, size_t why_cap)
{
    struct metric *m = NULL;
    list_for_each (node, next, &all->list) {
        struct metric *other = container_of(node, struct metric, node);
        int err = check_against(info, &other->info, why, why_cap);
        if (err)
            return err;
        if (!strcmp(info->name, other->info.name))
            m = other;
    }
    if (m) {
        char *help = strdup(info->help);
        if (!help)
            return -ENOMEM;
        free((void *)m->info.help);
        m->info.help = help;
    } else {
        if (all->n >= METRICS_MAX)
            return PS_ELIMIT;
        m = metric_new(info, all->hash);
        if (!m)
            return -ENOMEM;
        list_push(&all->list, &m->node);
        all->n++;
    }
    *out = m;
    return 0;
}

int metrics_declare(struct metrics *all, const struct metric_info *info, struct metric **out,
                    char *why, size_t why_cap)
{
    int err = check_info(info, why, why_cap);
    if (err)
        return err;
    uv_mutex_lock(&all->lock);
    err = declare(all, info, out, why, why_cap);
    uv_mutex_unlock(&all->lock);
    return err;
}

/* ---- counting ---- */

static struct series *add_series(struct metric *m, uint64_t hash, const char *key, size_t len)
{
    size_t n_counts = m->info.type == METRIC_HISTOGRAM ? m->info.n_bounds + 1 : 0;
    struct series *s = calloc(1, sizeof *s + n_counts * sizeof(uint64_t) + len);
    if (!s)
        return NULL;
    uint64_t *counts = (uint64_t *)(s + 1);
    char *copy = (char *)(counts + n_counts);
    if (len)
        memcpy(copy, key, len);
    s->counts = n_counts ? counts : NULL;
    s->node.key = copy;
    s->node.key_len = len;
    s->node.hash = hash;
    if (keyed_add(&m->series, &s->node)) {
        free(s);
        return NULL;
    }
    return s;
}

static size_t put_label(char *key, const char *bytes, size_t n)
{
    uint16_t len = (uint16_t)n;
    memcpy(key, &len, sizeof len);
    memcpy(key + sizeof len, bytes, n);
    return sizeof len + n;
}

/* Returns its length; 0 when a value is too long (no key of a metric with labels is empty). */
static size_t make_key(const struct metric *m, const struct metric_label *labels, char *key)
{
    size_t at = 0;
    for (size_t i = 0; i < m->info.n_labels; i++) {
        if (labels[i].n > METRICS_VALUE_MAX)
            return 0;
        at += put_label(key + at, labels[i].bytes, labels[i].n);
    }
    return at;
}

static struct series *series_by_key(struct metric *m, const char *key, size_t len, size_t most)
{
    uint64_t hash = hash_bytes(m->hash, key, len);
    struct keyed *k = keyed_find(&m->series, hash, key, len);
    if (k)
        return (struct series *)k;
    return m->series.n < most ? add_series(m, hash, key, len) : NULL;
}

/* Where everything counts for which there is no series. */
static struct series *other_series(struct metric *m)
{
    char key[KEY_MAX];
    size_t len = 0;
    for (size_t i = 0; i < m->info.n_labels; i++)
        len += put_label(key + len, "other", 5);
    if (!m->overflowed)
        log_warn("metric %s: more than %d series, or a label over %d bytes: further ones count as "
                 "\"other\"",
                 m->info.name, METRICS_SERIES_MAX, METRICS_VALUE_MAX);
    m->overflowed = true;
    return series_by_key(m, key, len, METRICS_SERIES_MAX + 1);
}

/* The series of these values; the metric is locked. NULL when memory is out. */
static struct series *series_of(struct metric *m, const struct metric_label *labels)
{
    char key[KEY_MAX];
    size_t len = make_key(m, labels, key);
    struct series *s = NULL;
    if (len || !m->info.n_labels)
        s = series_by_key(m, key, len, METRICS_SERIES_MAX);
    return s ? s : other_series(m);
}

void metric_add(struct metric *m, const struct metric_label *labels, double n)
{
    uv_mutex_lock(&m->lock);
    struct series *s = series_of(m, labels);
    if (s)
        s->value += n;
    uv_mutex_unlock(&m->lock);
}

void metric_set(struct metric *m, const struct metric_label *labels, double value)
{
    uv_mutex_lock(&m->lock);
    struct series *s = series_of(m, labels);
    if (s)
        s->value = value;
    uv_mutex_unlock(&m->lock);
}

void metric_observe(struct metric *m, const struct metric_label *labels, double value)
{
    size_t bucket = 0;
    while (bucket < m->info.n_bounds && !(value <= m->info.bounds[bucket]))
        bucket++;
    uv_mutex_lock(&m->lock);
    struct series *s = series_of(m, labels);
    if (s) {
        s->value += value;
        s->counts[bucket]++;
    }
    uv_mutex_unlock(&m->lock);
}

/* ---- looking ---- */

static void read_key(const struct metric *m, const struct series *s, struct metric_series *out)
{
    const char *at = s->node.key;
    for (size_t i = 0; i < m->info.n_labels; i++) {
        uint16_t len;
        memcpy(&len, at, sizeof len);
        out->labels[i] = (struct metric_label){at + sizeof len, len};
        at += sizeof len + len;
    }
}

static void visit(struct metric *m, const struct metrics_visitor *visitor)
{
    visitor->metric(visitor->arg, &m->info);
    uv_mutex_lock(&m->lock);
    list_for_each (node, next, &m->series.used) {
        const struct series *s = (struct series *)container_of(node, struct keyed, used);
        struct metric_series out = {.value = s->value, .counts = s->counts};
        read_key(m, s, &out);
        visitor->series(visitor->arg, &m->info, &out);
    }
    uv_mutex_unlock(&m->lock);
}

void metrics_visit(struct metrics *all, const struct metrics_visitor *visitor)
{
    uv_mutex_lock(&all->lock);
    if (all->source.visit)
        all->source.visit(all->source.arg, visitor);
    list_for_each (node, next, &all->list)
        visit(container_of(node, struct metric, node), visitor);
    uv_mutex_unlock(&all->lock);
}
