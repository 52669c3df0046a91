/* The client's TLS handshake, between the accept hook and the connect hook: under a deadline that
 * nothing extends, and no more of them at once than the listener allows. */
#include <stdio.h>

#include "conn_priv.h"
#include "penstock/base/clock.h"
#include "penstock/base/log.h"
#include "penstock/net/tls.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/worker.h"

static void go_on(struct conn *c)
{
    conn_set_state(c, CONN_CONNECT);
    conn_capture_begin(c);
    conn_decide(c, HOOK_CONNECT);
}

bool conn_awaits_tls(const struct conn *c)
{
    return c->config->tls &&
           (c->state == CONN_ACCEPT || c->state == CONN_PROXY || c->state == CONN_TLS);
}

void conn_leave_handshakes(struct conn *c)
{
    if (!c->shaking)
        return;
    c->shaking = false;
    atomic_fetch_sub(&c->listener->handshakes, 1);
    conn_count_handshake(c);
}

static bool enter_handshakes(struct conn *c)
{
    uint32_t most = c->config->limits.handshakes;
    unsigned now = atomic_fetch_add(&c->listener->handshakes, 1) + 1;
    c->shaking = true;
    c->shake_ns = clock_now_ns();
    return !most || now <= most;
}

static void fail(struct conn *c)
{
    const char *why = tls_why(&c->client);
    char client[ADDR_TEXT_MAX];
    log_line(LOG_DEBUG, c->id, "%s: TLS with %s failed: %s", conn_listener_name(c),
             addr_format(&c->client_addr, client, sizeof client), why);
    enum close_reason reason = reason_from_err(c->client.err);
    if (reason != REASON_TLS)
        conn_reset(c, reason, SIDE_CLIENT, "tls");
    else /* by a FIN: an RST could destroy the alert on its way */
        conn_close_after_alert(c, why);
}

static void step(struct conn *c)
{
    switch (tls_step(&c->client)) {
    case TLS_OPEN:
        conn_leave_handshakes(c);
        c->down.corked = false;
        relay_flush(&c->down); /* what hooks have put meanwhile */
        go_on(c);
        conn_watch_again(c); /* without the handshake's deadline */
        break;
    case TLS_ASKS:
        if (c->asking)
            break;
        c->asking = true;
        conn_decide(c, HOOK_SNI);
        break;
    case TLS_WAITS:
        break;
    case TLS_FAILED:
        fail(c);
    }
}

void conn_start_tls(struct conn *c)
{
    /* A virtual network has nobody to hide from; policies are tested, not OpenSSL. */
    if (!c->config->tls || conn_loop(c)->options.vnet) {
        c->down.corked = false;
        go_on(c);
        return;
    }
    conn_set_state(c, CONN_TLS);
    if (!enter_handshakes(c)) {
        conn_reset(c, REASON_LIMIT, SIDE_NONE, "handshakes");
        return;
    }
    if (tls_accept(&c->client, conn_loop(c), c->config->tls, policy_has(c->policy, HOOK_SNI))) {
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    c->relay_ms = conn_loop(c)->now_ms;
    conn_watch(c);
    step(c);
}

void conn_look_at_tls(struct conn *c)
{
    step(c);
}

void conn_tls_chosen(struct conn *c, struct tls_cert *cert, bool refuse)
{
    tls_choose(&c->client, cert, refuse);
    tls_cert_drop(cert);
    step(c);
}
