/* Shows what has been counted as metrics: sums over workers, and what is looked up now. */
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/proxy/shared.h"
#include "stats_list.h"
#include "stats_priv.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "unknown"
#endif

/* The labels of an entry of the list, and how many. */
#define LABELS(...)                                                                                \
    (const char *const[]){__VA_ARGS__},                                                            \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)
#define NO_LABELS NULL, 0

static const struct metric_info infos[] = {
#define X(name, type, text, labels, help)                                                          \
    [OWN_##name] = {text, help, labels, NULL, 0, METRIC_##type, true},
    OWN_METRICS(X)
#undef X
};

const struct metric_info *stats_proxy_refused(void)
{
    return &infos[OWN_PROXY_REFUSED];
}

/* ---- one metric ---- */

struct page {
    struct stats *stats;
    const struct metrics_visitor *visitor;
    struct metric_info info; /* of the metric that is shown now */
    size_t n;                /* series of it so far */
};

static void begin(struct page *p, enum own_metric metric)
{
    p->info = infos[metric];
    p->n = 0;
    p->visitor->metric(p->visitor->arg, &p->info);
}

static void begin_durations(struct page *p, enum own_metric metric, const double *bounds)
{
    p->info = infos[metric];
    p->info.bounds = bounds;
    p->info.n_bounds = DURATION_BOUNDS;
    p->n = 0;
    p->visitor->metric(p->visitor->arg, &p->info);
}

/* `labels` ends with NULL. */
static void put_series(struct page *p, struct metric_series *series, const char *const *labels)
{
    size_t n = 0;
    for (; labels[n]; n++) {
        PENSTOCK_REQUIRE(n < p->info.n_labels);
        series->labels[n] = (struct metric_label){labels[n], strlen(labels[n])};
    }
    PENSTOCK_REQUIRE(n == p->info.n_labels);
    p->n++;
    p->visitor->series(p->visitor->arg, &p->info, series);
}

static const char *const no_labels[] = {NULL};

/* A number, with a value for each label of the metric. */
#define PUT(page, number, ...) put(page, number, (const char *const[]){__VA_ARGS__, NULL})

static void put(struct page *p, double number, const char *const *labels)
{
    struct metric_series series = {.value = number};
    put_series(p, &series, labels);
}

/* ---- listeners ---- */

/* The sum over workers of the count that is `at` bytes into each record. */
static uint64_t total(const struct stats *s, const struct listener_name *l, size_t at)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < s->n_workers; i++)
        sum += count_get((const struct count *)((const char *)&l->workers[i] + at));
    return sum;
}

#define TOTAL(page, l, member) total((page)->stats, l, offsetof(struct listener_stats, member))

#define FOR_EACH_LISTENER(l, page)                                                                 \
    list_for_each (node, next, &(page)->stats->listeners)                                          \
        for (struct listener_name *l = container_of(node, struct listener_name, node); l; l = NULL)

static uint64_t total_at(const struct page *p, const struct listener_name *l, size_t at, size_t i)
{
    return total(p->stats, l, at + i * sizeof(struct count));
}

static void show_closed(struct page *p)
{
    begin(p, OWN_CONNECTIONS_TOTAL);
    FOR_EACH_LISTENER(l, p)
    for (size_t i = 0; i < REASON_COUNT; i++)
        PUT(p, (double)total_at(p, l, offsetof(struct listener_stats, closed), i), l->name,
            reason_word((enum close_reason)i));
}

static void show_open(struct page *p)
{
    begin(p, OWN_CONNECTIONS);
    FOR_EACH_LISTENER(l, p)
    {
        uint64_t closed = 0;
        for (size_t i = 0; i < REASON_COUNT; i++)
            closed += total_at(p, l, offsetof(struct listener_stats, closed), i);
        uint64_t opened = TOTAL(p, l, opened);
        PUT(p, opened > closed ? (double)(opened - closed) : 0, l->name);
    }
}

static void show_bytes(struct page *p)
{
    begin(p, OWN_BYTES);
    FOR_EACH_LISTENER(l, p)
    {
        PUT(p, (double)TOTAL(p, l, bytes[RELAY_UP]), l->name, "up");
        PUT(p, (double)TOTAL(p, l, bytes[RELAY_DOWN]), l->name, "down");
    }
}

/* The histogram that is `at` bytes into the records of a listener. */
static void show_durations(struct page *p, size_t at)
{
    FOR_EACH_LISTENER(l, p)
    {
        uint64_t counts[DURATION_BOUNDS + 1];
        for (size_t i = 0; i <= DURATION_BOUNDS; i++)
            counts[i] = total_at(p, l, at + offsetof(struct duration, buckets), i);
        struct metric_series series = {
            .value = (double)total(p->stats, l, at + offsetof(struct duration, ns)) / 1e9,
            .counts = counts};
        put_series(p, &series, (const char *const[]){l->name, NULL});
    }
}

static void show_limited(struct page *p)
{
    begin(p, OWN_LIMITED);
    FOR_EACH_LISTENER(l, p)
    PUT(p, (double)TOTAL(p, l, limited), l->name);
}

static void show_handshakes(struct page *p)
{
    static const char *const results[][2] = {
#define X(name, word, resumed) [SHAKEN_##name] = {word, resumed},
        HANDSHAKE_RESULTS(X)
#undef X
    };
    begin(p, OWN_HANDSHAKES);
    FOR_EACH_LISTENER(l, p)
    for (size_t i = 0; i < HANDSHAKE_RESULT_COUNT; i++)
        PUT(p, (double)total_at(p, l, offsetof(struct listener_stats, handshakes), i), l->name,
            results[i][0], results[i][1]);
}

const char *stats_dial_word(size_t result)
{
    switch (result) {
    case DIAL_OK:
        return "ok";
    case DIAL_CANCELLED:
        return "cancelled";
    case REASON_TIMEOUT:
    case REASON_REFUSED:
    case REASON_UNREACHABLE:
    case REASON_RESET:
    case REASON_DNS:
    case REASON_TLS:
    case REASON_TRUNCATED:
    case REASON_SYSTEM:
        return reason_word((enum close_reason)result);
    default:
        return NULL;
    }
}

static void show_dials(struct page *p)
{
    begin(p, OWN_DIALS);
    FOR_EACH_LISTENER(l, p)
    for (size_t i = 0; i < DIAL_RESULT_COUNT; i++)
        if (stats_dial_word(i))
            PUT(p, (double)total_at(p, l, offsetof(struct listener_stats, dials), i), l->name,
                stats_dial_word(i));
}

static void show_certificates(struct page *p)
{
    begin(p, OWN_CERTIFICATE);
    list_for_each (node, next, &p->stats->certs) {
        const struct stats_cert *c = container_of(node, struct stats_cert, node);
        if (p->n < METRICS_SERIES_MAX)
            PUT(p, (double)c->not_after, c->listener, c->side, c->file);
    }
}

static void show_listeners(struct page *p)
{
    uv_mutex_lock(&p->stats->lock);
    show_closed(p);
    show_open(p);
    show_bytes(p);
    begin_durations(p, OWN_CONNECT, stats_short_bounds);
    show_durations(p, offsetof(struct listener_stats, connect));
    begin_durations(p, OWN_FIRST_BYTE, stats_short_bounds);
    show_durations(p, offsetof(struct listener_stats, first_byte));
    begin_durations(p, OWN_LIFE, stats_long_bounds);
    show_durations(p, offsetof(struct listener_stats, life));
    show_limited(p);
    show_handshakes(p);
    begin_durations(p, OWN_HANDSHAKE, stats_short_bounds);
    show_durations(p, offsetof(struct listener_stats, handshake));
    show_certificates(p);
    show_dials(p);
    uv_mutex_unlock(&p->stats->lock);
}

/* ---- workers ---- */

const char *stats_dns_word(enum resolver_result result)
{
    static const char *const words[] = {
#define X(name, word) [RESOLVER_##name] = word,
        RESOLVER_RESULTS(X)
#undef X
    };
    return words[result];
}

static void show_dns(struct page *p)
{
    begin(p, OWN_DNS);
    for (int i = 0; i < RESOLVER_RESULT_COUNT; i++)
        PUT(p, (double)stats_dns(p->stats, (enum resolver_result)i),
            stats_dns_word((enum resolver_result)i));
}

const char *stats_call_word(enum policy_call call)
{
    static const char *const words[] = {
#define X(name, lua) [CALL_HOOK + HOOK_##name] = lua,
        POLICY_HOOKS(X)
#undef X
            [CALL_FILTER] = "filter",
        [CALL_TASK] = "task"};
    return words[call];
}

/* The metric of the member of the sums that `get` gives. */
static void show_calls(struct page *p, enum own_metric metric,
                       double (*get)(const struct call_sums *sums))
{
    begin(p, metric);
    for (int i = 0; i < CALL_COUNT; i++) {
        struct call_sums sums = stats_calls(p->stats, (enum policy_call)i);
        PUT(p, get(&sums), stats_call_word((enum policy_call)i));
    }
}

static double calls_of(const struct call_sums *sums)
{
    return (double)sums->calls;
}

static double errors_of(const struct call_sums *sums)
{
    return (double)sums->errors;
}

static double seconds_of(const struct call_sums *sums)
{
    return (double)sums->ns * 1e-9;
}

static double heap_bytes(const struct worker_stats *w)
{
    return (double)count_get(&w->policies.heap_bytes);
}

static double coroutines(const struct worker_stats *w)
{
    return (double)count_get(&w->policies.coroutines);
}

static double lag_seconds(const struct worker_stats *w)
{
    return (double)lag_longest_ns(&w->lag, clock_now_ns()) / 1e9;
}

static void show_each_worker(struct page *p, enum own_metric metric,
                             double (*get)(const struct worker_stats *w))
{
    char number[16];
    begin(p, metric);
    for (unsigned w = 0; w < p->stats->n_workers; w++) {
        snprintf(number, sizeof number, "%u", w);
        PUT(p, get(&p->stats->workers[w]), number);
    }
}

static void show_workers(struct page *p)
{
    show_each_worker(p, OWN_LUA_HEAP, heap_bytes);
    show_each_worker(p, OWN_LUA_COROUTINES, coroutines);
    show_each_worker(p, OWN_LOOP_LAG, lag_seconds);
}

/* ---- pools ---- */

static void put_server_up(void *arg, const struct pool_view *view)
{
    struct page *p = arg;
    if (p->n < METRICS_SERIES_MAX)
        PUT(p, view->state == POOL_UP, view->pool, view->server);
}

static void put_pool_connections(void *arg, const struct pool_view *view)
{
    struct page *p = arg;
    if (p->n < METRICS_SERIES_MAX)
        PUT(p, view->active, view->pool, view->server);
}

static void show_pools(struct page *p)
{
    uint64_t now_ms = clock_now_ns() / 1000000;
    begin(p, OWN_SERVER_UP);
    shared_visit_pools(p->stats->shared, now_ms, put_server_up, p);
    begin(p, OWN_POOL_CONNECTIONS);
    shared_visit_pools(p->stats->shared, now_ms, put_pool_connections, p);
}

/* ---- the process ---- */

unsigned long stats_descriptors(void)
{
    struct stat st;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0) /* Linux 6.2: it is their number */
        return (unsigned long)st.st_size;
    DIR *dir = opendir("/proc/self/fd");
    unsigned long n = 0;
    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 3; /* ".", "..", and the folder's own */
}

static void show_process(struct page *p)
{
    struct rlimit limit;
    unsigned long open = stats_descriptors();
    begin(p, OWN_DESCRIPTORS);
    if (open)
        put(p, (double)open, no_labels);
    begin(p, OWN_MAX_DESCRIPTORS);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        put(p, (double)limit.rlim_cur, no_labels);
    begin(p, OWN_RELOADS);
    PUT(p, (double)count_get(&p->stats->reloads[true]), "ok");
    PUT(p, (double)count_get(&p->stats->reloads[false]), "failed");
    begin(p, OWN_BUILD);
    PUT(p, 1, PENSTOCK_VERSION);
    begin(p, OWN_START_TIME);
    put(p, p->stats->start_time, no_labels);
}

void stats_visit(void *arg, const struct metrics_visitor *visitor)
{
    struct page page = {.stats = arg, .visitor = visitor};
    show_listeners(&page);
    show_dns(&page);
    show_pools(&page);
    show_calls(&page, OWN_HOOK_CALLS, calls_of);
    show_calls(&page, OWN_HOOK_ERRORS, errors_of);
    show_calls(&page, OWN_HOOK_SECONDS, seconds_of);
    show_workers(&page);
    show_process(&page);
}
