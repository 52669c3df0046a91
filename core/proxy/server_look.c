/* What a server tells of itself while it runs. On the main thread. */
#include "penstock/base/clock.h"
#include "server_priv.h"

uv_loop_t *server_loop(struct server *s)
{
    return &s->loop;
}

void server_get_status(const struct server *s, struct server_status *out)
{
    *out = (struct server_status){
        .open = s->open,
        .draining = s->order != WORKER_SERVE,
        .version = s->number,
        .workers = s->n_workers,
        .conns = atomic_load(&s->counts.conns),
        .max_conns = s->counts.max_conns,
        .served = atomic_load(&s->counts.ids),
        .uptime_ms = (clock_now_ns() - s->started_ns) / 1000000,
    };
}

struct stats *server_stats(struct server *s)
{
    return s->counts.stats;
}

struct config *server_config(struct server *s)
{
    return s->version.config;
}

size_t server_n_listeners(const struct server *s)
{
    return s->listeners.n;
}

const struct listener *server_listener(const struct server *s, size_t i,
                                       const struct config_listener **config)
{
    *config = &s->version.config->listeners[i];
    return s->listeners.items[i];
}

struct worker *server_worker(struct server *s, unsigned i)
{
    return &s->workers[i];
}
