/* Deadlines of a relaying connection: idle, first byte, half-closed, life. One timer; it is never
 * re-armed when bytes move but looks, when it fires, at when they last did. */
#include <stdlib.h>

#include "conn_priv.h"
#include "penstock/base/hash.h"
#include "penstock/proxy/config.h"

enum {
    HALF_CLOSED_MIN = 16 * 1024, /* bytes in each half-closed window that prove a transfer */
    QUIET_MS = 1000,             /* without a byte: a pause between two requests, not within one */
    LINGER_MS = 60000, /* for a reader that drains slowly, when there is no half-closed timeout */
};

const struct config_timeouts *conn_timeouts(const struct conn *c)
{
    return c->own_timeouts ? c->own_timeouts : &c->config->timeouts;
}

struct config_timeouts *conn_change_timeouts(struct conn *c)
{
    if (!c->own_timeouts) {
        struct config_timeouts *own = malloc(sizeof *own);
        if (!own)
            return NULL;
        *own = *conn_timeouts(c);
        c->own_timeouts = own;
    }
    return c->own_timeouts;
}

/* Bytes may flow that idleness is measured by. */
static bool moves_bytes(const struct conn *c)
{
    return c->state == CONN_RELAY || c->state == CONN_SERVE;
}

static uint64_t moved_bytes(const struct conn *c)
{
    return c->up.bytes + c->down.bytes - relay_held(&c->up) - relay_held(&c->down);
}

static void earlier(uint64_t *due, uint64_t from_ms, uint64_t timeout_ms)
{
    if (timeout_ms && (!*due || from_ms + timeout_ms < *due))
        *due = from_ms + timeout_ms;
}

/* Has it so long and no longer, whatever bytes come? */
static bool is_handshake(const struct conn *c)
{
    return c->state == CONN_HANDSHAKE || c->state == CONN_TLS || c->state == CONN_PROXY;
}

static uint64_t next_due(const struct conn *c)
{
    const struct config_timeouts *t = conn_timeouts(c);
    uint64_t due = c->end_ms;
    earlier(&due, c->accepted_ns / 1000000, t->life_ms);
    if (is_handshake(c))
        earlier(&due, c->relay_ms, t->handshake_ms);
    if (!moves_bytes(c))
        return due;
    earlier(&due, c->active_ms, t->idle_ms);
    if (!c->up.bytes && c->up.state == RELAY_OPEN)
        earlier(&due, c->relay_ms, t->first_byte_ms);
    if (c->half_closed_ms)
        earlier(&due, c->half_closed_ms, t->half_closed_ms);
    return due;
}

static bool has_passed(const struct conn *c, uint64_t from_ms, uint64_t timeout_ms)
{
    return timeout_ms && conn_loop(c)->now_ms >= from_ms + timeout_ms;
}

/* Nothing was written for a while, but the sockets' queues went down: a slow reader, not an idle
 * one. */
static bool is_draining(struct conn *c)
{
    uint32_t unsent = (uint32_t)(stream_unsent(&c->client) + stream_unsent(&c->upstream));
    bool changed = unsent && unsent != c->unsent;
    c->unsent = unsent;
    return changed;
}

static bool first_byte_passed(const struct conn *c)
{
    return !c->up.bytes && c->up.state == RELAY_OPEN &&
           has_passed(c, c->relay_ms, conn_timeouts(c)->first_byte_ms);
}

/* The name of the deadline that has passed, NULL when none has. A window with enough traffic is
 * followed by another. */
static const char *passed_deadline(struct conn *c)
{
    const struct config_timeouts *t = conn_timeouts(c);
    uint64_t now = conn_loop(c)->now_ms;
    if (has_passed(c, c->accepted_ns / 1000000, t->life_ms))
        return "life";
    if (is_handshake(c) && has_passed(c, c->relay_ms, t->handshake_ms))
        return c->state == CONN_TLS ? "tls" : c->state == CONN_PROXY ? "proxy_header" : "handshake";
    if (!moves_bytes(c))
        return NULL;
    if (first_byte_passed(c))
        return "first_byte";
    bool half_closed = c->half_closed_ms && has_passed(c, c->half_closed_ms, t->half_closed_ms);
    bool idle = has_passed(c, c->active_ms, t->idle_ms);
    bool draining = (half_closed || idle) && is_draining(c);
    if (half_closed && !draining && moved_bytes(c) - c->half_closed_bytes < HALF_CLOSED_MIN)
        return "half_closed";
    if (idle && !draining)
        return "idle";
    if (half_closed) {
        c->half_closed_ms = now;
        c->half_closed_bytes = moved_bytes(c);
    }
    if (idle)
        c->active_ms = now;
    return NULL;
}

static void arm(struct conn *c)
{
    uint64_t due = next_due(c);
    if (due)
        timers_start(&conn_loop(c)->timers, &c->deadline, due);
    else
        timers_stop(&conn_loop(c)->timers, &c->deadline);
}

static void on_deadline(struct timer *timer)
{
    struct conn *c = container_of(timer, struct conn, deadline);
    if (conn_end_if_due(c))
        return;
    const char *which = passed_deadline(c);
    if (!which) {
        arm(c);
        return;
    }
    if (c->state == CONN_PROXY)
        conn_proxy_is_late(c);
    conn_close(c, REASON_TIMEOUT, SIDE_NONE, which);
}

void conn_use_timer(struct conn *c, void (*on_timer)(struct timer *timer))
{
    timers_stop(&conn_loop(c)->timers, &c->deadline);
    timer_init(&c->deadline, on_timer);
}

void conn_watch(struct conn *c)
{
    conn_use_timer(c, on_deadline);
    arm(c);
}

void conn_watch_again(struct conn *c)
{
    bool other_use = c->state == CONN_HANG || c->state == CONN_LINGER || c->state == CONN_GOODBYE;
    if (!c->ending && !conn_is_closed(c) && !other_use)
        conn_watch(c);
}

/* --- ends that were ordered
 * ------------------------------------------------------------------------------------ */

static size_t waiting_bytes(const struct conn *c)
{
    return relay_held(&c->up) + relay_held(&c->down) + stream_unsent(&c->client) +
           stream_unsent(&c->upstream);
}

/* Nothing has moved for a while, and nothing waits to be delivered: a reset hurts least. */
static bool is_quiet(const struct conn *c)
{
    return !moves_bytes(c) || (has_passed(c, c->active_ms, QUIET_MS) && waiting_bytes(c) == 0);
}

bool conn_end_if_due(struct conn *c)
{
    uint64_t now = conn_loop(c)->now_ms;
    if (!c->end_ms || now < c->end_ms)
        return false;
    if (now < c->end_last_ms && !is_quiet(c)) {
        c->end_ms = now + QUIET_MS < c->end_last_ms ? now + QUIET_MS : c->end_last_ms;
        return false;
    }
    conn_reset(c, REASON_SHUTDOWN, SIDE_NONE, c->end_detail);
    return true;
}

/* LINGER and GOODBYE look again and again anyhow. */
static void note_end(struct conn *c)
{
    if (c->state != CONN_HANG)
        conn_watch_again(c);
    else if (c->end_ms && c->end_ms < c->deadline.due_ms)
        timers_start(&conn_loop(c)->timers, &c->deadline, c->end_ms);
}

void conn_start_hang(struct conn *c, uint64_t ms)
{
    loop_timer(conn_loop(c), &c->deadline, ms);
    note_end(c);
}

/* At `from_ms` or, while bytes move, later, but at `last_ms` for sure. */
static void end_between(struct conn *c, uint64_t from_ms, uint64_t last_ms, const char *detail)
{
    if (c->ending || conn_is_closed(c) || (c->end_ms && c->end_last_ms <= last_ms))
        return;
    c->end_ms = from_ms ? from_ms : 1;
    c->end_last_ms = last_ms;
    c->end_detail = detail;
    note_end(c);
}

void conn_end_by(struct conn *c, uint64_t at_ms, const char *detail)
{
    end_between(c, at_ms, at_ms, detail);
}

void conn_end_within(struct conn *c, uint64_t until_ms, const char *detail)
{
    uint64_t now = conn_loop(c)->now_ms;
    struct hash_key key = {c->accepted_ns, until_ms};
    uint64_t span = until_ms > now ? until_ms - now : 0;
    uint64_t chance = hash_bytes(&key, &c->id, sizeof c->id);
    end_between(c, span ? now + chance % (span + 1) : now, until_ms, detail);
}

void conn_end_never(struct conn *c)
{
    c->end_ms = 0;
    note_end(c);
}

void conn_half_closed(struct conn *c)
{
    if (!conn_timeouts(c)->half_closed_ms)
        return;
    c->half_closed_ms = conn_loop(c)->now_ms;
    c->half_closed_bytes = moved_bytes(c);
    arm(c);
}

void conn_start_linger(struct conn *c)
{
    c->linger_ms = conn_loop(c)->now_ms;
    c->unsent = UINT32_MAX;
}

bool conn_may_linger(struct conn *c, size_t unsent)
{
    uint64_t limit_ms =
        conn_timeouts(c)->half_closed_ms ? conn_timeouts(c)->half_closed_ms : LINGER_MS;
    if (unsent < c->unsent) { /* it takes them, if slowly */
        c->unsent = (uint32_t)unsent;
        c->linger_ms = conn_loop(c)->now_ms;
    }
    return !has_passed(c, c->linger_ms, limit_ms) &&
           !has_passed(c, c->accepted_ns / 1000000, conn_timeouts(c)->life_ms);
}
