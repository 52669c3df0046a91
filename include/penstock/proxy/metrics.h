/* Counters, gauges and histograms with labels, shared by all workers, after the model of
 * Prometheus. Each metric has a small lock. Bounded: of a metric with labels METRICS_SERIES_MAX
 * combinations of values are kept; whatever else comes counts in one more, whose values are
 * "other". */
#ifndef PENSTOCK_PROXY_METRICS_H
#define PENSTOCK_PROXY_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/buf.h"
#include "penstock/base/hash.h"

enum {
    METRICS_MAX = 1000,
    METRICS_SERIES_MAX = 1000, /* of a metric */
    METRICS_LABELS_MAX = 16,   /* of a metric */
    METRICS_VALUE_MAX = 256,   /* bytes of a label's value; longer ones count as "other" */
    METRICS_BOUNDS_MAX = 64,   /* of a histogram */
};

/* X(NAME, word) */
#define METRIC_TYPES(X)                                                                            \
    X(COUNTER, "counter")                                                                          \
    X(GAUGE, "gauge")                                                                              \
    X(HISTOGRAM, "histogram")

enum metric_type {
#define X(name, word) METRIC_##name,
    METRIC_TYPES(X)
#undef X
};

const char *metric_type_name(enum metric_type type);

struct metrics;
struct metric;

struct metric_info {
    const char *name;
    const char *help; /* "" without */
    const char *const *labels;
    size_t n_labels;
    const double *bounds; /* histogram: upper bounds of its buckets, ascending, without +Inf */
    size_t n_bounds;
    enum metric_type type;
    bool own; /* not a script's: only then may it have one of penstock's own names */
};

/* The value of a label. */
struct metric_label {
    const char *bytes;
    size_t n;
};

/* What has been counted for one combination of label values. */
struct metric_series {
    struct metric_label labels[METRICS_LABELS_MAX]; /* info->n_labels of them */
    double value;                                   /* histogram: the sum */
    const uint64_t *counts; /* histogram: of each bucket by itself, the last is +Inf */
};

struct metrics_visitor {
    void *arg;
    /* A metric, before its series. */
    void (*metric)(void *arg, const struct metric_info *info);
    void (*series)(void *arg, const struct metric_info *info, const struct metric_series *series);
};

/* Metrics that are not declared here, but known elsewhere and shown to whoever visits. */
struct metrics_source {
    void *arg;
    void (*visit)(void *arg, const struct metrics_visitor *visitor); /* on the visitor's thread */
};

/* NULL when out of memory. `hash` must outlive it. */
struct metrics *metrics_new(const struct hash_key *hash);
void metrics_free(struct metrics *all);

/* Shows these, too, before its own; NULL: none. The only way to change it while others visit. */
void metrics_set_source(struct metrics *all, const struct metrics_source *source);

/* The metric of that name, made when there is none; lives as long as `all`. A metric that is there
 * takes the new help; type, labels and bounds stay what they were. Returns 0; -EINVAL with the
 * reason in `why` when the declaration is wrong or is another than before; -ENOMEM; PS_ELIMIT for
 * more than METRICS_MAX. */
int metrics_declare(struct metrics *all, const struct metric_info *info, struct metric **out,
                    char *why, size_t why_cap);

/* Type, name, labels and bounds never change, and may be read without a lock; `help` may not. */
const struct metric_info *metric_info(const struct metric *m);

/* `labels` has a value for each label. When memory for a new series is out, nothing is counted. */
/* Counter, gauge: adds `n`. */
void metric_add(struct metric *m, const struct metric_label *labels, double n);
/* Gauge. */
void metric_set(struct metric *m, const struct metric_label *labels, double value);
/* Histogram. */
void metric_observe(struct metric *m, const struct metric_label *labels, double value);

/* Visits all, in the order of their making. What is passed is valid during the call; the visitor
 * must not come back here. */
void metrics_visit(struct metrics *all, const struct metrics_visitor *visitor);

/* Writes all in Prometheus' text format (version 0.0.4) to `out`, as far as `cap` goes, without a
 * final zero. Returns how long the whole is: more than `cap` when it was cut. */
size_t metrics_text(struct metrics *all, char *out, size_t cap);
/* The same, appended to `out` as a whole. From any thread. Returns 0, or -ENOMEM and nothing is
 * appended. */
int metrics_write(struct metrics *all, struct buf *out);

#endif
