/* What has been counted, summed over workers, for who shows it otherwise than as metrics. */
#include "stats_priv.h"

/* A record of a listener is nothing but counts. */
enum { N_COUNTS = sizeof(struct listener_stats) / sizeof(struct count) };
_Static_assert(N_COUNTS * sizeof(struct count) == sizeof(struct listener_stats), "only counts");

static void add_up(struct listener_stats *sum, const struct listener_stats *one)
{
    for (size_t i = 0; i < N_COUNTS; i++)
        count_add((struct count *)sum + i, count_get((const struct count *)one + i));
}

void stats_each_listener(struct stats *s,
                         void (*visit)(void *arg, const char *name, const struct listener_stats *l),
                         void *arg)
{
    uv_mutex_lock(&s->lock);
    list_for_each (node, next, &s->listeners) {
        const struct listener_name *l = container_of(node, struct listener_name, node);
        struct listener_stats sum = {0};
        for (unsigned i = 0; i < s->n_workers; i++)
            add_up(&sum, &l->workers[i]);
        visit(arg, l->name, &sum);
    }
    uv_mutex_unlock(&s->lock);
}

uint64_t stats_dns(const struct stats *s, enum resolver_result result)
{
    uint64_t sum = 0;
    for (unsigned w = 0; w < s->n_workers; w++)
        sum += count_get(&s->workers[w].dns[result]);
    return sum;
}

struct call_sums stats_calls(const struct stats *s, enum policy_call call)
{
    struct call_sums sums = {0};
    for (unsigned w = 0; w < s->n_workers; w++) {
        const struct call_stats *c = &s->workers[w].policies.calls[call];
        sums.calls += count_get(&c->calls);
        sums.errors += count_get(&c->errors);
        sums.ns += count_get(&c->ns);
    }
    return sums;
}

uint64_t stats_reloads(const struct stats *s, bool success)
{
    return count_get(&s->reloads[success]);
}
