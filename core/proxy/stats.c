/* Where penstock counts. How it is told is in stats_visit.c. */
#include "penstock/proxy/stats.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "penstock/base/log.h"
#include "penstock/proxy/shared.h"
#include "stats_priv.h"

enum { CACHE_LINE = 64 };

const double stats_short_bounds[DURATION_BOUNDS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                    0.1,    0.25,  0.5,    1,     2.5,  5,     10};
const double stats_long_bounds[DURATION_BOUNDS] = {0.01, 0.05, 0.1, 0.5,  1,    5,     10,
                                                   30,   60,   300, 1800, 3600, 21600, 86400};

/* `n` records that are zero, none on a cache line of another thread's. */
static void *new_records(size_t n, size_t size)
{
    size_t bytes = (n * size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    void *records = aligned_alloc(CACHE_LINE, bytes);
    if (records)
        memset(records, 0, bytes);
    return records;
}

static double wall_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct stats *stats_new(struct shared *shared, unsigned n_workers)
{
    struct metrics *metrics = shared_metrics(shared);
    char why[128];
    struct stats *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->shared = shared;
    s->n_workers = n_workers;
    s->start_time = wall_clock();
    list_init(&s->listeners);
    list_init(&s->certs);
    s->workers = new_records(n_workers, sizeof *s->workers);
    if (!s->workers || uv_mutex_init(&s->lock))
        goto fail;
    if (metrics_declare(metrics, stats_proxy_refused(), &s->refused, why, sizeof why))
        goto fail_declare;
    metrics_set_source(metrics, &(struct metrics_source){s, stats_visit});
    return s;

fail_declare:
    uv_mutex_destroy(&s->lock);
fail:
    free(s->workers);
    free(s);
    return NULL;
}

void stats_free(struct stats *s)
{
    if (!s)
        return;
    metrics_set_source(shared_metrics(s->shared), NULL);
    list_for_each (node, next, &s->listeners) {
        struct listener_name *name = container_of(node, struct listener_name, node);
        free(name->workers);
        free(name);
    }
    stats_forget_certificates(&s->certs);
    uv_mutex_destroy(&s->lock);
    free(s->workers);
    free(s);
}

struct worker_stats *stats_worker(struct stats *s, unsigned worker)
{
    return &s->workers[worker];
}

static struct listener_name *find(const struct stats *s, const char *name)
{
    list_for_each (node, next, &s->listeners) {
        struct listener_name *l = container_of(node, struct listener_name, node);
        if (!strcmp(l->name, name))
            return l;
    }
    return NULL;
}

static struct listener_name *add(struct stats *s, const char *name)
{
    size_t len = strlen(name);
    struct listener_name *l = calloc(1, sizeof *l + len + 1);
    struct listener_stats *workers = new_records(s->n_workers, sizeof *workers);
    if (!l || !workers) {
        free(l);
        free(workers);
        return NULL;
    }
    memcpy(l->name, name, len + 1);
    l->workers = workers;
    list_push(&s->listeners, &l->node);
    s->n_listeners++;
    return l;
}

static struct listener_name *find_or_add(struct stats *s, const char *name)
{
    struct listener_name *l = find(s, name);
    if (l || s->n_listeners < METRICS_SERIES_MAX)
        return l ? l : add(s, name);
    if (s->n_listeners == METRICS_SERIES_MAX)
        log_warn("metrics: more than %d listeners: further ones count as \"other\"",
                 METRICS_SERIES_MAX);
    l = find(s, "other");
    return l ? l : add(s, "other");
}

struct listener_stats *stats_listener(struct stats *s, const char *name, unsigned worker)
{
    uv_mutex_lock(&s->lock);
    struct listener_name *l = find_or_add(s, name);
    uv_mutex_unlock(&s->lock);
    return l ? &l->workers[worker] : NULL;
}

static void duration_add(struct duration *d, const double *bounds, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    size_t i = 0;
    while (i < DURATION_BOUNDS && seconds > bounds[i])
        i++;
    count_add(&d->buckets[i], 1);
    count_add(&d->ns, ns);
}

void duration_add_short(struct duration *d, uint64_t ns)
{
    duration_add(d, stats_short_bounds, ns);
}

void duration_add_long(struct duration *d, uint64_t ns)
{
    duration_add(d, stats_long_bounds, ns);
}

void stats_count_proxy_refused(struct stats *s, const char *listener, const char *why)
{
    struct metric_label labels[] = {{listener, strlen(listener)}, {why, strlen(why)}};
    metric_add(s->refused, labels, 1);
}

void stats_count_reload(struct stats *s, bool success)
{
    count_add(&s->reloads[success], 1);
}
