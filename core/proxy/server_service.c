/* What the service manager is told while we run: that all threads live, and how many connections
 * there are. Does nothing where there is none. */
#include <stdio.h>
#include <string.h>

#include "penstock/proxy/notify.h"
#include "server_priv.h"

enum {
    PULSES = 4, /* in the time that the watchdog allows: a worker may miss two */
    STATUS_MS = 2000
};

/* One that has waited for its turn since the last pulse keeps the sign from being given. */
static bool all_answer(const struct server *s)
{
    for (uint32_t i = 0; i < s->n_workers; i++)
        if (!worker_has_answered(&s->workers[i]))
            return false;
    return true;
}

void server_notify(const struct server *s, const char *state)
{
    if (!s->quiet)
        notify_service(state);
}

static void on_pulse(uv_timer_t *timer)
{
    struct server *s = timer->data;
    if (s->quiet || !all_answer(s))
        return;
    notify_service("WATCHDOG=1");
    for (uint32_t i = 0; i < s->n_workers; i++)
        worker_ask(&s->workers[i]);
}

void server_tell_status(struct server *s)
{
    char text[sizeof s->told];
    unsigned n = atomic_load(&s->counts.conns);
    const char *plural = n == 1 ? "" : "s";
    if (s->order == WORKER_SERVE)
        snprintf(text, sizeof text, "STATUS=%u connection%s, version %u", n, plural, s->number);
    else
        snprintf(text, sizeof text, "STATUS=stopping, %u connection%s left", n, plural);
    if (s->quiet || strcmp(text, s->told) == 0)
        return;
    memcpy(s->told, text, sizeof text);
    notify_service(text);
}

static void on_status(uv_timer_t *timer)
{
    server_tell_status(timer->data);
}

void server_open_service(struct server *s)
{
    uint64_t allowed_ms = notify_watchdog_ms();
    uint64_t pulse_ms = allowed_ms < PULSES ? 1 : allowed_ms / PULSES;
    uv_timer_init(&s->loop, &s->pulse);
    s->pulse.data = s;
    uv_timer_init(&s->loop, &s->status);
    s->status.data = s;
    if (!notify_is_wanted())
        return;
    uv_timer_start(&s->status, on_status, STATUS_MS, STATUS_MS);
    if (allowed_ms)
        uv_timer_start(&s->pulse, on_pulse, 0, pulse_ms);
}
