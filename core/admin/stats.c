/* GET /v1/stats: what penstock has counted of itself. */
#include <sys/resource.h>

#include "admin_priv.h"
#include "penstock/base/clock.h"
#include "penstock/proxy/stats.h"

static void write_ended(struct json *j, const struct listener_stats *l)
{
    json_begin_object(j, "ended");
    for (int i = 0; i < REASON_COUNT; i++)
        json_uint(j, reason_word((enum close_reason)i), count_get(&l->closed[i]));
    json_end_object(j);
}

static void write_dials(struct json *j, const struct listener_stats *l)
{
    json_begin_object(j, "dials");
    for (size_t i = 0; i < DIAL_RESULT_COUNT; i++)
        if (stats_dial_word(i))
            json_uint(j, stats_dial_word(i), count_get(&l->dials[i]));
    json_end_object(j);
}

static void write_handshakes(struct json *j, const struct listener_stats *l)
{
    static const char *const words[] = {[SHAKEN_FULL] = "full",
                                        [SHAKEN_RESUMED] = "resumed",
                                        [SHAKEN_FAILED] = "failed",
                                        [SHAKEN_TIMEOUT] = "timeout",
                                        [SHAKEN_LIMIT] = "limit"};
    _Static_assert(sizeof words / sizeof *words == HANDSHAKE_RESULT_COUNT, "a word for each");
    json_begin_object(j, "handshakes");
    for (size_t i = 0; i < HANDSHAKE_RESULT_COUNT; i++)
        json_uint(j, words[i], count_get(&l->handshakes[i]));
    json_end_object(j);
}

/* A sum may have seen an end and not its beginning. */
static uint64_t open_now(const struct listener_stats *l)
{
    uint64_t closed = 0, opened = count_get(&l->opened);
    for (int i = 0; i < REASON_COUNT; i++)
        closed += count_get(&l->closed[i]);
    return opened > closed ? opened - closed : 0;
}

static void write_listener(void *arg, const char *name, const struct listener_stats *l)
{
    struct json *j = arg;
    json_begin_object(j, NULL);
    json_text(j, "name", name);
    json_uint(j, "connections", open_now(l));
    json_uint(j, "opened", count_get(&l->opened));
    write_ended(j, l);
    json_begin_object(j, "bytes");
    json_uint(j, "up", count_get(&l->bytes[0]));
    json_uint(j, "down", count_get(&l->bytes[1]));
    json_end_object(j);
    json_uint(j, "limited", count_get(&l->limited));
    write_dials(j, l);
    write_handshakes(j, l);
    json_end_object(j);
}

static void write_dns(struct json *j, const struct stats *s)
{
    json_begin_object(j, "dns");
    for (int i = 0; i < RESOLVER_RESULT_COUNT; i++)
        json_uint(j, stats_dns_word((enum resolver_result)i),
                  stats_dns(s, (enum resolver_result)i));
    json_end_object(j);
}

/* To the microsecond: what is below is noise. */
static double to_ms(uint64_t ns)
{
    uint64_t us = ns / 1000;
    return (double)us / 1000;
}

static void write_hooks(struct json *j, const struct stats *s)
{
    json_begin_object(j, "hooks");
    for (int i = 0; i < CALL_COUNT; i++) {
        struct call_sums sums = stats_calls(s, (enum policy_call)i);
        json_begin_object(j, stats_call_word((enum policy_call)i));
        json_uint(j, "calls", sums.calls);
        json_uint(j, "errors", sums.errors);
        json_number(j, "ms", to_ms(sums.ns));
        json_end_object(j);
    }
    json_end_object(j);
}

static void write_workers(struct json *j, struct stats *s, unsigned n)
{
    json_begin_list(j, "workers");
    for (unsigned i = 0; i < n; i++) {
        const struct worker_stats *w = stats_worker(s, i);
        json_begin_object(j, NULL);
        json_uint(j, "lua_heap_bytes", count_get(&w->policies.heap_bytes));
        json_uint(j, "coroutines", count_get(&w->policies.coroutines));
        json_number(j, "loop_lag_ms", to_ms(lag_longest_ns(&w->lag, clock_now_ns())));
        json_end_object(j);
    }
    json_end_list(j);
}

/* null when it is not known, or there is none. */
static void write_or_null(struct json *j, const char *key, bool known, uint64_t n)
{
    if (known)
        json_uint(j, key, n);
    else
        json_null(j, key);
}

static void write_process(struct json *j, const struct stats *s)
{
    struct rlimit limit = {0};
    bool limited = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    unsigned long open = stats_descriptors();
    json_begin_object(j, "descriptors");
    write_or_null(j, "open", open > 0, open);
    write_or_null(j, "max", limited, limit.rlim_cur);
    json_end_object(j);
    json_begin_object(j, "reloads");
    json_uint(j, "ok", stats_reloads(s, true));
    json_uint(j, "failed", stats_reloads(s, false));
    json_end_object(j);
}

void stats_show(struct request *r)
{
    struct stats *s = server_stats(r->admin->server);
    struct server_status status;
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    server_get_status(r->admin->server, &status);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, "uptime_ms", status.uptime_ms);
    json_uint(&j, "configuration", status.version);
    json_begin_list(&j, "listeners");
    stats_each_listener(s, write_listener, &j);
    json_end_list(&j);
    write_dns(&j, s);
    write_hooks(&j, s);
    write_workers(&j, s, status.workers);
    write_process(&j, s);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}
