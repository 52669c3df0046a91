/* What the two files of the statistics share. */
#ifndef PENSTOCK_PROXY_STATS_PRIV_H
#define PENSTOCK_PROXY_STATS_PRIV_H

#include <uv.h>

#include "penstock/base/list.h"
#include "penstock/proxy/stats.h"

/* A listener's name, for ever. */
struct listener_name {
    struct list node;               /* in stats->listeners */
    struct listener_stats *workers; /* one a worker */
    char name[];
};

/* A certificate that a listener shows. */
struct stats_cert {
    struct list node;
    int64_t not_after;
    const char *side; /* whom: "client" or "upstream" */
    char *file;
    char listener[];
};

struct stats {
    struct shared *shared;
    struct worker_stats *workers;
    unsigned n_workers;
    uv_mutex_t lock; /* of the lists */
    struct list listeners;
    size_t n_listeners;
    struct list certs;       /* struct stats_cert, of the configuration in force */
    struct count reloads[2]; /* failed, succeeded */
    struct metric *refused;  /* by their PROXY header */
    double start_time;
};

/* Upper bounds in seconds, DURATION_BOUNDS of them. */
extern const double stats_short_bounds[], stats_long_bounds[];

/* The declaration of penstock_proxy_refused_total, which metrics.c counts: it happens rarely, and
 * why is not known before. */
const struct metric_info *stats_proxy_refused(void);
/* Shows all of them, but those that metrics.c counts: metrics_source.visit. */
void stats_visit(void *arg, const struct metrics_visitor *visitor);

/* Frees the struct stats_cert of a list. */
void stats_forget_certificates(struct list *certs);

#endif
