/* The parts of a connection's life in which its policy speaks to the client itself: serving, and
 * the end of an answer. */
#include <stdio.h>
#include <string.h>

#include "conn_priv.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"

enum {
    GOODBYE_POLL_MS = 500,   /* no event tells that a send queue is empty */
    GOODBYE_GRACE_MS = 2000, /* for the client to end, once it has all; its FIN makes it shorter */
};

void conn_open_client(struct conn *c)
{
    if (c->up.state == RELAY_IDLE)
        relay_start(&c->up, RELAY_CHOICE_AUTO, RELAY_STREAM);
}

void conn_start_serving(struct conn *c)
{
    conn_set_state(c, CONN_SERVE);
    c->relay_ms = c->active_ms = conn_loop(c)->now_ms;
    relay_start(&c->up, RELAY_CHOICE_AUTO, RELAY_STREAM);
    relay_start(&c->down, RELAY_CHOICE_AUTO, RELAY_STREAM);
    conn_watch(c);
    conn_decide(c, HOOK_SERVE);
}

/* ---- goodbye ---- */

static void on_goodbye_poll(struct timer *timer)
{
    struct conn *c = container_of(timer, struct conn, deadline);
    if (conn_end_if_due(c))
        return;
    loop_timer(conn_loop(c), &c->deadline, GOODBYE_POLL_MS);
    conn_look_at_goodbye(c);
}

/* close() while the client still sends would make an RST of it, which can destroy the answer on its
 * way: so its bytes are taken and thrown away until it ends, or has had time to. */
void conn_say_goodbye(struct conn *c, enum close_reason reason, const char *detail)
{
    conn_set_state(c, CONN_GOODBYE);
    c->reason = (uint8_t)reason;
    snprintf(c->detail, sizeof c->detail, "%s", detail);
    conn_start_linger(c);
    relay_start(&c->down, RELAY_CHOICE_COPY, RELAY_STREAM);
    relay_finish(&c->down);
    relay_start(&c->up, RELAY_CHOICE_COPY, RELAY_DISCARD);
    conn_use_timer(c, on_goodbye_poll);
    loop_timer(conn_loop(c), &c->deadline, GOODBYE_POLL_MS);
    conn_pump(c);
}

void conn_reply(struct conn *c, struct buf *reply, enum close_reason reason, const char *detail)
{
    int err = buf_append(&c->down.held, buf_bytes(reply),
                         buf_len(reply)); /* behind what hooks have put */
    buf_deinit(reply);
    if (err)
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
    else
        conn_say_goodbye(c, reason, detail);
}

static void end_served(struct conn *c)
{
    char detail[VERDICT_REASON_MAX];
    memcpy(detail, c->detail, sizeof detail);
    conn_close(c, (enum close_reason)c->reason, SIDE_NONE, detail);
}

/* The client has not taken all. That does not change why it was denied. */
static void break_off(struct conn *c, enum close_reason reason, const char *detail)
{
    if (c->reason == REASON_DENIED)
        end_served(c);
    else
        conn_reset(c, reason, SIDE_CLIENT, detail);
}

void conn_look_at_goodbye(struct conn *c)
{
    if (c->client.err) {
        break_off(c, reason_from_err(c->client.err), "");
        return;
    }
    size_t unsent = stream_unsent(&c->client) + relay_held(&c->down);
    bool ended = c->up.state == RELAY_ENDED;
    uint64_t now = conn_loop(c)->now_ms;
    if (!c->client.shut || (unsent && !ended)) {
        if (!conn_may_linger(c, unsent))
            break_off(c, REASON_TIMEOUT, "goodbye");
        return;
    }
    if (c->unsent) { /* it has all now: the grace begins */
        c->unsent = 0;
        c->linger_ms = now;
    }
    if (ended || now - c->linger_ms >= GOODBYE_GRACE_MS)
        end_served(c);
}
