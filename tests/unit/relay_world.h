/* A relay between real sockets on a real loop, driven by hand: what the tests of net/relay share.
 */
#ifndef PENSTOCK_TESTS_RELAY_WORLD_H
#define PENSTOCK_TESTS_RELAY_WORLD_H

#include "support.h"

#include "penstock/net/relay.h"

/* A test writes into `source` and reads from `sink`; the relay moves from `from` to `to`. */
struct world {
    struct fixture *f;
    struct stream from, to;
    struct relay relay;
    int source, sink;
    uint64_t sent, received;
    unsigned n_ready; /* calls of on_ready */
    bool sink_ended;
    int sink_err;
    /* the script */
    bool (*script)(struct world *w, const char *bytes, size_t n, enum relay_verdict *verdict);
    unsigned n_chunks;
    char kept[BUF_POOL_LARGE];
    size_t n_kept;
    uint64_t script_left; /* chunks until RELAY_PASS */
    /* STREAM mode */
    bool (*input)(struct world *w);
    unsigned n_inputs, n_rooms;
};

static inline void on_event(struct poller_entry *entry, unsigned events)
{
    stream_note_events(container_of(entry, struct stream, entry), events);
}

static inline void on_from(struct poller_entry *entry, unsigned events)
{
    on_event(entry, events);
    relay_pump(&container_of(entry, struct world, from.entry)->relay);
}

static inline void on_to(struct poller_entry *entry, unsigned events)
{
    on_event(entry, events);
    relay_pump(&container_of(entry, struct world, to.entry)->relay);
}

static inline void on_ready(struct relay *r)
{
    container_of(r, struct world, relay)->n_ready++;
    relay_pump(r);
}

static inline bool on_data(struct relay *r, const char *bytes, size_t n,
                           enum relay_verdict *verdict)
{
    struct world *w = container_of(r, struct world, relay);
    w->n_chunks++;
    return w->script(w, bytes, n, verdict);
}

static inline bool on_input(struct relay *r)
{
    struct world *w = container_of(r, struct world, relay);
    w->n_inputs++;
    return w->input && w->input(w);
}

static inline void on_room(struct relay *r)
{
    container_of(r, struct world, relay)->n_rooms++;
}

static const struct relay_ops ops = {
    .on_ready = on_ready, .on_data = on_data, .on_input = on_input, .on_room = on_room};

static inline struct world *open_world(void **state, enum pair_kind kind)
{
    struct fixture *f = *state;
    struct world *w = calloc(1, sizeof *w);
    int up[2], down[2];
    assert_non_null(w);
    w->f = f;
    f->own = w;
    make_pair(kind, up);
    make_pair(kind, down);
    w->source = up[0];
    w->sink = down[1];
    stream_init(&w->from, on_from);
    stream_init(&w->to, on_to);
    w->from.entry.fd = up[1];
    w->to.entry.fd = down[0];
    assert_int_equal(poller_add_edge(&f->loop.poller, &w->from.entry), 0);
    assert_int_equal(poller_add_edge(&f->loop.poller, &w->to.entry), 0);
    relay_init(&w->relay, RELAY_UP, &f->loop, &w->from, &w->to, &ops);
    return w;
}

/* --- driving ---------------------------------------------------------------------------------- */

static inline size_t feed(struct world *w, size_t n)
{
    static unsigned char bytes[1 << 20];
    n = n < sizeof bytes ? n : sizeof bytes;
    fill_bytes(bytes, n, w->sent);
    ssize_t put = send(w->source, bytes, n, MSG_NOSIGNAL);
    if (put < 0)
        assert_int_equal(errno, EAGAIN);
    else
        w->sent += (uint64_t)put;
    return put < 0 ? 0 : (size_t)put;
}

/* Reads up to n bytes from the sink, checks them; false when there was nothing. */
static inline bool drain(struct world *w, size_t n)
{
    static unsigned char bytes[1 << 20];
    if (w->sink_ended)
        return false;
    ssize_t got = recv(w->sink, bytes, n < sizeof bytes ? n : sizeof bytes, 0);
    if (got > 0) {
        assert_bytes(bytes, (size_t)got, w->received);
        w->received += (uint64_t)got;
        return true;
    }
    if (got < 0 && errno == EAGAIN)
        return false;
    w->sink_ended = true;
    w->sink_err = got < 0 ? -errno : 0;
    return false;
}

static inline void assert_bounded(const struct world *w)
{
    assert_true(buf_len(&w->relay.held) <= RELAY_HIGH_WATER);
    assert_true(relay_held(&w->relay) <= RELAY_HIGH_WATER + 1024 * 1024);
}

static inline bool is_late(const struct world *w, uint64_t started_ms)
{
    return w->f->loop.now_ms > started_ms + GUARD_MS;
}

/* Lets all that was sent arrive. */
static inline void settle(struct world *w)
{
    uint64_t started = w->f->loop.now_ms;
    while (w->received < w->sent && !is_late(w, started)) {
        run_ready(w->f);
        assert_bounded(w);
        while (drain(w, 1 << 20))
            ;
    }
    assert_int_equal(w->received, w->sent);
}

static inline void settle_until_end(struct world *w)
{
    uint64_t started = w->f->loop.now_ms;
    while (!w->sink_ended && !is_late(w, started)) {
        run_ready(w->f);
        while (drain(w, 1 << 20))
            ;
    }
    assert_true(w->sink_ended);
}

static inline void end_source(struct world *w)
{
    assert_int_equal(shutdown(w->source, SHUT_WR), 0);
}

/* `total` bytes in chunks of 1 to `chunk_max`, read in portions of 1 to `read_max`, at random
 * moments. */
static inline void relay_at_random(struct world *w, uint64_t total, size_t chunk_max,
                                   size_t read_max, uint64_t seed)
{
    struct random rnd = {seed};
    uint64_t started = w->f->loop.now_ms;
    bool ended = false;
    while (!w->sink_ended && !is_late(w, started)) {
        for (size_t n = random_in(&rnd, 0, 3); n && w->sent < total; n--) {
            size_t chunk = random_in(&rnd, 1, chunk_max);
            feed(w, chunk < total - w->sent ? chunk : (size_t)(total - w->sent));
        }
        if (w->sent == total && !ended) {
            end_source(w);
            ended = true;
        }
        run_ready(w->f);
        assert_bounded(w);
        for (size_t n = random_in(&rnd, 0, 3); n; n--)
            drain(w, random_in(&rnd, 1, read_max));
    }
    assert_int_equal(w->received, total);
    assert_true(w->sink_ended);
    assert_int_equal(w->sink_err, 0);
    assert_int_equal(w->relay.state, RELAY_ENDED);
    assert_int_equal(w->relay.bytes, total);
    assert_int_equal(relay_held(&w->relay), 0);
}

/* A script that changes nothing. */
static inline bool pass_on(struct world *w, const char *bytes, size_t n,
                           enum relay_verdict *verdict)
{
    (void)verdict; /* RELAY_GO_ON */
    assert_int_equal(relay_write(&w->relay, bytes, n), 0);
    return true;
}

static inline void discard_world(struct fixture *f)
{
    struct world *w = f->own;
    if (!w)
        return;
    relay_deinit(&w->relay);
    stream_close(&w->from);
    stream_close(&w->to);
    if (w->source >= 0)
        close(w->source);
    if (w->sink >= 0)
        close(w->sink);
    free(w);
    f->own = NULL;
}

static inline int close_world(void **state)
{
    discard_world(*state);
    return loop_teardown(state);
}

static inline int setup(void **state)
{
    signal(SIGPIPE, SIG_IGN); /* splice(2) to a closed socket raises it */
    return loop_setup(state);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, close_world)

#endif
