/* A connection's life. The order of its states, and the one place that ends it; what it decides
 * with is policy.h, what it moves bytes with is relay.h. Deadlines are in conn_deadline.c, what a
 * log line needs in conn_log.c. */
#include "penstock/proxy/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "conn_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/tls.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/clients.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/acceptor.h"
#include "penstock/proxy/stats.h"
#include "penstock/proxy/worker.h"

/* A policy that chooses again and again must not keep a client for ever. */
enum { CHOICES_MAX = 16, LINGER_POLL_MS = 10 };

/* Which state may follow which. */
static const uint16_t legal[] = {
#define BIT(state) (1u << CONN_##state)
    [CONN_ACCEPT] = BIT(PROXY) | BIT(TLS) | BIT(CONNECT) | BIT(HANG) | BIT(GOODBYE) | BIT(CLOSED),
    [CONN_PROXY] = BIT(TLS) | BIT(CONNECT) | BIT(CLOSED),
    [CONN_TLS] = BIT(CONNECT) | BIT(CLOSED),
    [CONN_CONNECT] = BIT(DIAL) | BIT(SERVE) | BIT(HANG) | BIT(GOODBYE) | BIT(CLOSED),
    [CONN_DIAL] = BIT(FAILED) | BIT(CONNECTED) | BIT(CLOSED),
    [CONN_FAILED] = BIT(DIAL) | BIT(HANG) | BIT(GOODBYE) | BIT(CLOSED),
    [CONN_CONNECTED] = BIT(HANDSHAKE) | BIT(RELAY) | BIT(HANG) | BIT(CLOSED),
    [CONN_HANDSHAKE] = BIT(RELAY) | BIT(HANG) | BIT(LINGER) | BIT(CLOSED),
    [CONN_SERVE] = BIT(GOODBYE) | BIT(CLOSED),
    [CONN_RELAY] = BIT(LINGER) | BIT(CLOSED),
    [CONN_HANG] = BIT(CLOSED),
    [CONN_LINGER] = BIT(CLOSED),
    [CONN_GOODBYE] = BIT(CLOSED),
    [CONN_CLOSED] = 0,
#undef BIT
};

void conn_set_state(struct conn *c, enum conn_state state)
{
    PENSTOCK_REQUIRE(legal[c->state] & (1u << state));
    c->state = (uint8_t)state;
}

struct loop *conn_loop(const struct conn *c)
{
    return &c->worker->loop;
}

/* --- the end
 * --------------------------------------------------------------------------------------------- */

static void free_conn(struct loop_task *task)
{
    struct conn *c = container_of(task, struct conn, free_task);
    struct worker *w = c->worker;
    struct generation *generation = c->generation;
    if (c->policy)
        c->policy->ops->forget(c->policy, c);
    list_remove(&c->node);
    targets_drop(c->targets);
    free(c->own_timeouts);
    conn_capture_end(c);
    conn_free_tags(c);
    conn_free_proxy(c);
    free(c->failed_hop);
    listener_drop(c->listener);
    free(c);
    worker_conn_freed(w, generation);
}

void conn_hold(struct conn *c)
{
    c->refs++;
}

void conn_drop(struct conn *c)
{
    PENSTOCK_REQUIRE(c->refs > 0);
    if (--c->refs == 0)
        loop_defer(conn_loop(c), &c->free_task); /* an event of this batch may still point here */
}

static void leave_counts(struct conn *c)
{
    struct listener *l = c->listener;
    atomic_fetch_sub(&l->conns, 1);
    atomic_fetch_sub(&c->worker->counts->conns, 1);
    if (c->counted)
        clients_leave(l->clients, &c->client_addr);
}

static void close_streams(struct conn *c, bool reset)
{
    if (reset) {
        stream_abort(&c->client);
        stream_abort(&c->upstream);
    } else {
        stream_close(&c->client);
        stream_close(&c->upstream);
    }
}

static void finish(struct conn *c)
{
    conn_set_state(c, CONN_CLOSED);
    timers_stop(&conn_loop(c)->timers, &c->deadline);
    conn_leave_handshakes(c);
    conn_count_end(c);
    if (c->dial)
        dial_cancel(c->dial);
    c->dial = NULL;
    if (c->connected_ns)
        target_leave(&c->targets->items[c->target]);
    if (c->policy)
        c->policy->ops->cancel(c->policy, c);
    relay_deinit(&c->up);
    relay_deinit(&c->down);
    close_streams(c, c->reset);
    leave_counts(c);
    conn_report(c);
    worker_slot_freed(c->worker);
    conn_drop(c); /* held by conn_start */
}

static void close_with(struct conn *c, enum close_reason reason, enum conn_side side,
                       const char *detail, bool reset)
{
    if (c->ending || conn_is_closed(c))
        return;
    c->ending = true;
    c->reason = (uint8_t)reason;
    c->side = (uint8_t)side;
    c->reset = reset;
    snprintf(c->detail, sizeof c->detail, "%s", detail ? detail : "");
    if (!c->serving)
        finish(c);
}

void conn_close(struct conn *c, enum close_reason reason, enum conn_side side, const char *detail)
{
    /* A FIN says "that was all". Only where it was, or where nothing had begun, may it be said. */
    bool clean = reason == REASON_EOF || reason == REASON_DENIED ||
                 (reason == REASON_CLOSED && !relay_unsent(&c->up) && !relay_unsent(&c->down));
    close_with(c, reason, side, detail, !clean);
}

void conn_reset(struct conn *c, enum close_reason reason, enum conn_side side, const char *detail)
{
    close_with(c, reason, side, detail, true);
}

void conn_close_after_alert(struct conn *c, const char *why)
{
    close_with(c, REASON_TLS, SIDE_CLIENT, why, false);
}

/* --- relaying
 * -------------------------------------------------------------------------------------------- */

static struct stream *stream_of(struct conn *c, enum conn_side side)
{
    return side == SIDE_CLIENT ? &c->client : &c->upstream;
}

static const char *abort_detail(const struct stream *failed)
{
    int err = failed->err;
    if (err == PS_ETLS || err == PS_ETRUNCATED)
        return err == PS_ETLS ? tls_why(failed) : "";
    return err == 0 || err == -ECONNRESET || err == -EPIPE ? "" : err_word(err);
}

static void mirror_abort(struct conn *c, enum conn_side side);

static void on_linger(struct timer *timer)
{
    struct conn *c = container_of(timer, struct conn, deadline);
    if (!conn_end_if_due(c))
        mirror_abort(c, (enum conn_side)c->side);
}

/* The other side's socket still holds bytes for a slow reader: an abort now would throw them away.
 * Look again soon. */
static void linger(struct conn *c)
{
    if (c->state != CONN_LINGER) {
        conn_set_state(c, CONN_LINGER);
        if (c->policy) /* its end is decided; hooks that wait would only disturb */
            c->policy->ops->cancel(c->policy, c);
        conn_start_linger(c);
        conn_use_timer(c, on_linger);
    }
    /* No event tells that a send queue is empty. */
    loop_timer(conn_loop(c), &c->deadline, LINGER_POLL_MS);
}

/* `side` was aborted, and all that was received from it has been given to the other socket. */
static void mirror_abort(struct conn *c, enum conn_side side)
{
    const struct stream *failed = stream_of(c, side);
    const struct stream *other = stream_of(c, side == SIDE_CLIENT ? SIDE_UPSTREAM : SIDE_CLIENT);
    size_t unsent = other->err ? 0 : stream_unsent(other);
    if (unsent && (c->state != CONN_LINGER || conn_may_linger(c, unsent))) {
        c->side = (uint8_t)side;
        linger(c);
        return;
    }
    enum close_reason reason = reason_from_err(failed->err);
    conn_reset(c, reason == REASON_REFUSED ? REASON_RESET : reason, side, abort_detail(failed));
}

/* Nobody may have read there since: a hook that waits for something else does not. */
static bool is_read_to_its_end(const struct relay *from)
{
    char next;
    if (!from->from->eof && !buf_len(&from->unread) && from->from->readable)
        stream_peek(from->from, &next, 1);
    return from->from->eof;
}

/* Side `side` reported an error: is there nothing more to take from it? A script that has not read
 * all yet may go on. */
static bool is_exhausted(struct conn *c, enum conn_side side)
{
    const struct relay *from = side == SIDE_CLIENT ? &c->up : &c->down;
    const struct relay *to = side == SIDE_CLIENT ? &c->down : &c->up;
    if (from->state != RELAY_OPEN)
        return true;
    if (c->state != CONN_RELAY && to->state == RELAY_BROKEN && to->wants_room)
        return true; /* a hook that has both ends waits for what cannot be sent any more */
    if (from->mode != RELAY_STREAM || relay_held(from) || !is_read_to_its_end(from))
        return false;
    if (side == SIDE_CLIENT && c->state != CONN_RELAY)
        return true; /* as before the relay: whom a hook is busy for has gone */
    return c->policy->ops->starved(c->policy, c, (enum relay_direction)from->direction);
}

static void look_at_ends(struct conn *c)
{
    bool aborted = c->client.err || c->upstream.err;
    if (c->up.state == RELAY_OPEN && c->down.state == RELAY_OPEN && !aborted)
        return;
    if (c->script_failed) {
        conn_reset(c, REASON_SCRIPT, SIDE_NONE, "data");
    } else if (c->client.err && is_exhausted(c, SIDE_CLIENT)) {
        mirror_abort(c, SIDE_CLIENT);
    } else if (c->upstream.err && is_exhausted(c, SIDE_UPSTREAM)) {
        mirror_abort(c, SIDE_UPSTREAM);
    } else if (c->up.state == RELAY_ENDED && c->down.state == RELAY_ENDED) {
        conn_close(c, REASON_EOF, c->half_closed_side, "");
    } else if (!c->half_closed_side) {
        /* One side has ended, or was aborted while the other is slow to take what it had sent. */
        bool up_first = c->up.state == RELAY_ENDED || c->client.err;
        c->half_closed_side = up_first ? SIDE_CLIENT : SIDE_UPSTREAM;
        (up_first ? &c->down : &c->up)->last = true;
        conn_half_closed(c);
    }
}

/* In these states the ends of both sides matter; before them only that of the client. */
static bool is_relaying(const struct conn *c)
{
    return c->state == CONN_RELAY || c->state == CONN_HANDSHAKE || c->state == CONN_SERVE;
}

static void look_at_state(struct conn *c)
{
    if (c->state == CONN_GOODBYE)
        conn_look_at_goodbye(c);
    else if (c->state == CONN_TLS)
        conn_look_at_tls(c);
    else if (is_relaying(c))
        look_at_ends(c);
    else if (c->client.err && c->state != CONN_LINGER)
        conn_reset(c, REASON_RESET, SIDE_CLIENT, "");
}

/* Pumps both directions as far as they go now. The connection is not freed underneath: closing is
 * put off. */
static void serve(struct conn *c)
{
    if (c->serving || conn_is_closed(c))
        return;
    c->serving = true;
    bool moved = relay_pump(&c->up);
    moved |= relay_pump(&c->down);
    /* A write that failed has made the other direction readable to its end. */
    if (c->client.err || c->upstream.err) {
        relay_pump(&c->up);
        relay_pump(&c->down);
    }
    if (moved) {
        c->active_ms = conn_loop(c)->now_ms;
        conn_count_bytes(c);
    }
    if (!c->ending)
        look_at_state(c);
    c->serving = false;
    if (c->ending)
        finish(c);
}

static struct conn *conn_of_relay(struct relay *r)
{
    return r->direction == RELAY_UP ? container_of(r, struct conn, up)
                                    : container_of(r, struct conn, down);
}

static void on_relay_ready(struct relay *r)
{
    serve(conn_of_relay(r));
}

static bool on_relay_data(struct relay *r, const char *bytes, size_t n, enum relay_verdict *verdict)
{
    struct conn *c = conn_of_relay(r);
    if (c->policy->ops->data(c->policy, c, (enum relay_direction)r->direction, bytes, n, verdict) ==
        POLICY_WAIT)
        return false;
    c->script_failed |= *verdict == RELAY_FAIL;
    return true;
}

static bool on_relay_input(struct relay *r)
{
    struct conn *c = conn_of_relay(r);
    return c->policy->ops->input(c->policy, c, (enum relay_direction)r->direction);
}

static void on_relay_room(struct relay *r)
{
    struct conn *c = conn_of_relay(r);
    c->policy->ops->room(c->policy, c, (enum relay_direction)r->direction);
}

static const struct relay_ops relay_ops = {.on_ready = on_relay_ready,
                                           .on_data = on_relay_data,
                                           .on_input = on_relay_input,
                                           .on_room = on_relay_room};

void conn_pump(struct conn *c)
{
    if (c->ending)
        return;
    c->active_ms = conn_loop(c)->now_ms;
    relay_flush(&c->up); /* serve() may be on the stack already */
    relay_flush(&c->down);
    serve(c);
}

void conn_data_decided(struct conn *c, enum relay_direction dir, enum relay_verdict verdict)
{
    if (c->ending || c->state != CONN_RELAY)
        return;
    c->script_failed |= verdict == RELAY_FAIL;
    relay_data_done(conn_relay(c, dir), verdict);
    serve(c);
}

static enum relay_mode first_mode(const struct conn *c, enum relay_direction dir)
{
    if (c->policy && c->policy->filters[dir])
        return RELAY_STREAM;
    return policy_has(c->policy, HOOK_DATA) ? RELAY_SCRIPT : RELAY_COPY;
}

static void start_filters(struct conn *c)
{
    for (int dir = RELAY_UP; dir <= RELAY_DOWN && !c->ending; dir++)
        if (c->policy && c->policy->filters[dir])
            c->policy->ops->filter(c->policy, c, (enum relay_direction)dir);
}

void conn_filtered(struct conn *c, enum relay_direction dir)
{
    if (c->ending || c->state != CONN_RELAY)
        return;
    relay_start(conn_relay(c, dir), c->config->relay, RELAY_COPY);
    loop_ready(conn_loop(c), &conn_relay(c, dir)->task);
}

static void start_relay(struct conn *c)
{
    const struct config_listener *config = c->config;
    conn_set_state(c, CONN_RELAY);
    c->relay_ms = c->active_ms = conn_loop(c)->now_ms;
    /* A hook may have set limits of its own already. */
    if ((config->limits.up_bytes && !c->up.rate && relay_limit(&c->up, config->limits.up_bytes)) ||
        (config->limits.down_bytes && !c->down.rate &&
         relay_limit(&c->down, config->limits.down_bytes))) {
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
        return;
    }
    relay_start(&c->up, config->relay, first_mode(c, RELAY_UP));
    relay_start(&c->down, config->relay, first_mode(c, RELAY_DOWN));
    conn_watch(c);
    conn_hold(c); /* dropped below: a filter may close its connection */
    start_filters(c);
    if (c->serving) { /* a handshake has ended in the midst of a pump */
        loop_ready(conn_loop(c), &c->up.task);
        loop_ready(conn_loop(c), &c->down.task);
    } else if (!c->ending) {
        serve(c);
    }
    conn_drop(c);
}

/* Before anything is relayed the policy may speak with both sides. */
static void start_handshake(struct conn *c)
{
    if (!conn_has_hook(c, HOOK_HANDSHAKE)) {
        start_relay(c);
        return;
    }
    conn_set_state(c, CONN_HANDSHAKE);
    c->relay_ms = c->active_ms = conn_loop(c)->now_ms;
    relay_start(&c->up, RELAY_CHOICE_AUTO, RELAY_STREAM);
    relay_start(&c->down, RELAY_CHOICE_AUTO, RELAY_STREAM);
    conn_watch(c);
    conn_decide(c, HOOK_HANDSHAKE);
}

/* --- deciding and dialling
 * -------------------------------------------------------------------------------- */

static void on_dialled(void *arg, const struct dial_result *result);

static void start_dial(struct conn *c)
{
    if (!c->targets) {
        log_line(LOG_WARN, c->id, "no destination: LISTEN has no TARGET and no hook named one");
        conn_close(c, REASON_DENIED, SIDE_NONE, "no_destination");
        return;
    }
    conn_set_state(c, CONN_DIAL);
    c->dial_ns = conn_loop(c)->now_ns;
    struct dial_options options = {.loop = conn_loop(c),
                                   .resolver = c->worker->resolver,
                                   .targets = c->targets->items,
                                   .n_targets = c->targets->n,
                                   .timeout_ms = conn_timeouts(c)->connect_ms,
                                   .socket = &c->config->dial_socket,
                                   .stream = &c->upstream,
                                   .proxy = conn_dial_proxy(c)};
    if (dial_start(&options, on_dialled, c, &c->dial))
        conn_reset(c, REASON_SYSTEM, SIDE_NONE, "out of memory");
}

static void on_hang_over(struct timer *timer)
{
    struct conn *c = container_of(timer, struct conn, deadline);
    char detail[VERDICT_REASON_MAX];
    memcpy(detail, c->detail, sizeof detail);
    close_with(c, REASON_DENIED, SIDE_NONE, detail, c->reset);
}

static void deny(struct conn *c, struct verdict *v)
{
    if (buf_len(&v->reply)) {
        conn_reply(c, &v->reply, REASON_DENIED, v->reason);
        return;
    }
    if (!v->hang_ms) {
        close_with(c, REASON_DENIED, SIDE_NONE, v->reason, v->reset);
        return;
    }
    conn_set_state(c, CONN_HANG);
    snprintf(c->detail, sizeof c->detail, "%s", v->reason);
    c->reset = v->reset;
    conn_use_timer(c, on_hang_over);
    conn_start_hang(c, v->hang_ms);
}

/* A hook has no objection: on to what comes after it. */
static void go_on(struct conn *c, enum policy_hook hook)
{
    switch (hook) {
    case HOOK_ACCEPT:
        if (conn_expects_proxy(c))
            conn_start_proxy(c);
        else
            conn_start_tls(c);
        break;
    case HOOK_SNI:
        conn_tls_chosen(c, NULL, false);
        break;
    case HOOK_CONNECT:
        if (policy_has(c->policy, HOOK_SERVE)) {
            conn_start_serving(c);
            break;
        }
        if (!c->targets)
            c->targets = c->config->to ? targets_hold(c->config->to) : NULL;
        start_dial(c);
        break;
    case HOOK_FAILED:
        conn_reset(c, conn_failed_reason(c), SIDE_UPSTREAM, conn_failed_detail(c));
        break;
    case HOOK_CONNECTED:
        start_handshake(c);
        break;
    case HOOK_SERVE:
        conn_say_goodbye(c, REASON_CLOSED, "served");
        break;
    default:
        start_relay(c);
    }
}

static void use_targets(struct conn *c, enum policy_hook hook, struct verdict *v)
{
    targets_drop(c->targets);
    c->targets = v->targets;
    v->targets = NULL;
    c->target = 0;
    if (++c->choices > CHOICES_MAX)
        conn_reset(c, REASON_LIMIT, SIDE_NONE, "too_many_choices");
    else if (hook == HOOK_CONNECT || hook == HOOK_FAILED)
        start_dial(c);
    else
        go_on(c, hook);
}

static void apply(struct conn *c, enum policy_hook hook, struct verdict *v)
{
    if (c->ending) {
        targets_drop(v->targets);
        tls_cert_drop(v->cert);
        buf_deinit(&v->reply);
        return;
    }
    switch (v->kind) {
    case VERDICT_CONTINUE:
        go_on(c, hook);
        break;
    case VERDICT_DIAL:
        use_targets(c, hook, v);
        break;
    case VERDICT_DENY:
        if (hook == HOOK_SNI)
            conn_tls_chosen(c, NULL, true);
        else
            deny(c, v);
        break;
    case VERDICT_CERT:
        conn_tls_chosen(c, v->cert, false);
        break;
    case VERDICT_REPLY:
        conn_reply(c, &v->reply, REASON_CLOSED, "reply");
        break;
    case VERDICT_ERROR:
        conn_reset(c, REASON_SCRIPT, SIDE_NONE, "hook");
    }
}

void conn_decide(struct conn *c, enum policy_hook hook)
{
    struct verdict v = {.kind = VERDICT_CONTINUE};
    if (conn_has_hook(c, hook)) {
        conn_hold(c); /* dropped below: the hook may close its connection */
        enum policy_step step = c->policy->ops->decide(c->policy, c, hook, &v);
        if (step == POLICY_DONE)
            apply(c, hook, &v);
        conn_drop(c);
        return;
    }
    apply(c, hook, &v);
}

void conn_decided(struct conn *c, enum policy_hook hook, struct verdict *v)
{
    apply(c, hook, v);
}

static void on_dialled(void *arg, const struct dial_result *result)
{
    struct conn *c = arg;
    c->dial = NULL;
    c->target = result->target;
    if (result->err) {
        char text[ADDR_TEXT_MAX];
        const char *why = result->hop ? result->hop : result->why;
        conn_note_failure(c, result);
        conn_count_dial(c, (int)conn_failed_reason(c));
        log_line(LOG_WARN, c->id, "%s: cannot connect to %s (%s): %s%s%s%s%s%s",
                 conn_listener_name(c), c->targets->items[c->target].endpoint.text,
                 addr_format(&result->address, text, sizeof text), err_text(result->err),
                 why ? ": " : "", why ? why : "", result->advice ? " (" : "",
                 result->advice ? result->advice : "", result->advice ? ")" : "");
        conn_set_state(c, CONN_FAILED);
        conn_decide(c, HOOK_FAILED);
        return;
    }
    c->up.corked = false;
    c->upstream_addr = result->address;
    c->connected_ns = conn_loop(c)->now_ns;
    conn_keep_to_drain(c);
    conn_count_dial(c, DIAL_OK);
    conn_capture_begin(c);
    conn_set_state(c, CONN_CONNECTED);
    conn_decide(c, HOOK_CONNECTED);
}

/* --- events
 * -----------------------------------------------------------------------------------------------
 */

static void on_event(struct conn *c, enum conn_side side)
{
    switch (c->state) {
    case CONN_PROXY:
        conn_read_proxy(c);
        break;
    case CONN_LINGER: /* the side that was to take the last bytes has gone, too */
        if (stream_of(c, side)->err && side != (enum conn_side)c->side)
            mirror_abort(c, (enum conn_side)c->side);
        break;
    default:
        serve(c);
    }
}

static void on_client(struct poller_entry *entry, unsigned events)
{
    struct conn *c = container_of(entry, struct conn, client.entry);
    stream_note_events(&c->client, events);
    on_event(c, SIDE_CLIENT);
}

static void on_upstream(struct poller_entry *entry, unsigned events)
{
    struct conn *c = container_of(entry, struct conn, upstream.entry);
    if (c->dial) {
        dial_on_stream(c->dial, events);
        return;
    }
    stream_note_events(&c->upstream, events);
    on_event(c, SIDE_UPSTREAM);
}

/* Takes the accepted stream over, registered; it is closed on failure. */
static int take_client(struct conn *c, struct stream *accepted, struct poller *p)
{
    stream_init(&c->client, on_client);
    c->client.read_on =
        c->client_addr.sa.sa_family == AF_UNIX; /* reads stop where descriptors were sent along */
    if (accepted->ops)
        return stream_move(accepted, &c->client, p);
    c->client.entry.fd = accepted->entry.fd;
    int err = poller_add_edge(p, &c->client.entry);
    if (err)
        stream_abort(&c->client);
    return err;
}

int conn_start(struct acceptor *a, struct stream *accepted, const struct addr *client, bool counted)
{
    struct worker *w = a->worker;
    struct listener *l = a->listener;
    struct conn *c = calloc(1, sizeof *c);
    int err = -ENOMEM;
    if (!c) {
        stream_abort(accepted);
        goto fail;
    }
    c->client_addr = *client;
    stream_init(&c->upstream, on_upstream);
    err = take_client(c, accepted, &w->loop.poller);
    if (err)
        goto fail;
    relay_init(&c->up, RELAY_UP, &w->loop, &c->client, &c->upstream, &relay_ops);
    c->up.corked = true; /* until it is connected */
    relay_init(&c->down, RELAY_DOWN, &w->loop, &c->upstream, &c->client, &relay_ops);
    c->down.corked = a->config->tls; /* until that is open: nothing is said in plain */
    c->worker = w;
    c->listener = listener_hold(l); /* dropped by free_conn() */
    c->stats = a->stats;
    c->counted = counted;
    c->generation = a->generation;
    c->generation->n_conns++;
    c->config = a->config;
    c->policy = policy_set_get(c->generation->policies, c->config->policy);
    c->free_task.run = free_conn;
    list_init(&c->free_task.node);
    list_push(&w->conns, &c->node);
    w->n_conns++;
    c->id = atomic_fetch_add(&w->counts->ids, 1) + 1;
    c->seq = atomic_fetch_add(&l->seq, 1) + 1;
    c->accepted_ns = w->loop.now_ns;
    c->refs = 1; /* dropped by finish() */
    conn_count_begin(c);
    conn_watch(c);
    conn_decide(c, HOOK_ACCEPT);
    return 0;

fail:
    free(c);
    atomic_fetch_sub(&l->conns, 1);
    atomic_fetch_sub(&w->counts->conns, 1);
    if (counted)
        clients_leave(l->clients, client);
    return err;
}
