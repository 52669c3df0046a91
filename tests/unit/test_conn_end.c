/* Ends that were ordered (conn_end_by, conn_end_within): a whole connection on a virtual network,
 * whose clock moves only when it is told to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "penstock/net/loop.h"
#include "penstock/net/vnet.h"
#include "penstock/proxy/acceptor.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/worker.h"

enum { START_MS = 1000000, WINDOW = 65536, PAUSE_MS = 1000 };

struct fixture {
    struct vnet *net;
    struct server_counts counts;
    struct worker worker;
    struct config config;
    struct listener *listener;
    struct poller_entry server; /* the upstream's port */
    struct vnet_port *port;
    struct stream client, upstream;
};

static struct fixture f;

static void on_stream(struct poller_entry *entry, unsigned events)
{
    stream_note_events(container_of(entry, struct stream, entry), events);
}

static void on_dialled(struct poller_entry *entry, unsigned events)
{
    struct addr from;
    (void)entry;
    (void)events;
    assert_int_equal(vnet_accept(f.port, &f.upstream, &from), 0);
}

static void configure(void)
{
    char why[256];
    config_init(&f.config);
    struct config_listener *l = config_add_listener(&f.config);
    assert_non_null(l);
    assert_int_equal(endpoint_parse("10.0.0.1:80", ENDPOINT_LISTEN, &l->bind, why, sizeof why), 0);
    l->to = targets_parse("10.0.0.2:90", 0, why, sizeof why);
    assert_non_null(l->to);
    config_settle(&f.config);
}

static void open_worker(void)
{
    static const size_t from[] = {SIZE_MAX};
    int err;
    assert_int_equal(worker_init_virtual(&f.worker, &f.config, &f.counts, f.net, START_MS), 0);
    struct worker_change *change = worker_change_new(&f.config, NULL, 1, from);
    assert_non_null(change);
    assert_int_equal(
        listener_open_virtual(&f.listener, &f.config.listeners[0], f.worker.loop.now_ns), 0);
    change->acceptors[0] = acceptor_new(f.listener, &f.worker, &err);
    assert_non_null(change->acceptors[0]);
    worker_change(&f.worker, change);
    worker_open(&f.worker);
}

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof f);
    f.net = vnet_new(NULL);
    configure();
    open_worker();
    f.server.on_event = on_dialled;
    stream_init(&f.client, on_stream);
    stream_init(&f.upstream, on_stream);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_abort(&f.client);
    stream_abort(&f.upstream);
    vnet_port_close(f.port);
    worker_end_conns(&f.worker);
    assert_true(loop_settle(&f.worker.loop));
    acceptor_close(f.worker.acceptors[0]);
    assert_int_equal(worker_deinit(&f.worker), 0);
    listener_drop(f.listener);
    config_deinit(&f.config);
    vnet_free(f.net);
    return 0;
}

static void advance(uint64_t ms)
{
    assert_true(loop_advance(&f.worker.loop, ms));
}

/* The client and the upstream, relayed. */
static struct conn *relayed(void)
{
    struct addr from = {.in = {.sin_family = AF_INET}};
    assert_int_equal(vnet_listen(f.net, "10.0.0.2:90", WINDOW, &f.server, &f.port), 0);
    assert_int_equal(vnet_connect_port(f.worker.acceptors[0]->port, &f.client, &from), 0);
    assert_true(loop_settle(&f.worker.loop));
    assert_int_equal(f.worker.n_conns, 1);
    struct conn *c = container_of(f.worker.conns.next, struct conn, node);
    assert_int_equal(c->state, CONN_RELAY);
    return c;
}

static void pass_a_byte(void)
{
    char byte;
    assert_int_equal(stream_write(&f.client, "x", 1), 1);
    assert_true(loop_settle(&f.worker.loop));
    assert_int_equal(stream_read(&f.upstream, &byte, 1), 1);
}

static bool is_open(void)
{
    return f.worker.n_conns == 1;
}

static void test_it_ends_at_its_time_by_a_reset_of_both_sides(void **state)
{
    (void)state;
    conn_end_by(relayed(), START_MS + 5000, "drain");
    advance(4999);
    assert_true(is_open());
    advance(1);
    assert_false(is_open());
    assert_int_equal(f.client.err, -ECONNRESET);
    assert_int_equal(f.upstream.err, -ECONNRESET);
}

static void test_the_earlier_of_two_times_holds(void **state)
{
    (void)state;
    struct conn *c = relayed();
    conn_end_by(c, START_MS + 5000, "drain");
    conn_end_by(c, START_MS + 9000, "drain");
    conn_end_by(c, START_MS + 3000, "drain");
    advance(2999);
    assert_true(is_open());
    advance(1);
    assert_false(is_open());
}

static void test_what_was_taken_back_does_not_happen(void **state)
{
    (void)state;
    struct conn *c = relayed();
    conn_end_within(c, START_MS + 5000, "drain");
    conn_end_never(c);
    advance(60000);
    assert_true(is_open());
}

static void test_an_idle_one_ends_within_the_time(void **state)
{
    (void)state;
    struct conn *c = relayed();
    advance(PAUSE_MS); /* quiet since then */
    conn_end_within(c, START_MS + 61000, "drain");
    assert_true(c->end_ms >= START_MS + PAUSE_MS && c->end_ms <= START_MS + 61000);
    uint64_t at_ms = c->end_ms;
    if (at_ms > f.worker.loop.now_ms)
        advance(at_ms - f.worker.loop.now_ms);
    assert_false(is_open());
}

static void test_while_bytes_move_it_is_put_off_to_the_next_pause(void **state)
{
    (void)state;
    struct conn *c = relayed();
    conn_end_within(c, START_MS + 60000, "drain");
    uint64_t first_ms = c->end_ms;
    while (f.worker.loop.now_ms < first_ms + 3000 &&
           f.worker.loop.now_ms < START_MS + 59000) { /* a byte each half second, past its time */
        pass_a_byte();
        advance(500);
    }
    assert_true(is_open());
    pass_a_byte();
    advance(2 * PAUSE_MS);
    assert_false(is_open());
}

static void test_at_the_end_of_the_time_it_is_put_off_no_more(void **state)
{
    (void)state;
    conn_end_within(relayed(), START_MS + 5000, "drain");
    for (int i = 0; i < 9; i++) {
        pass_a_byte();
        advance(500);
    }
    assert_true(is_open());
    pass_a_byte();
    advance(500);
    assert_false(is_open());
}

/* The upstream's window is full. */
static void test_bytes_that_the_other_side_has_not_taken_put_it_off(void **state)
{
    static char bytes[WINDOW];
    (void)state;
    conn_end_within(relayed(), START_MS + 30000, "drain");
    for (int i = 0; i < 2; i++) {
        assert_true(stream_write(&f.client, bytes, WINDOW) > 0);
        assert_true(loop_settle(&f.worker.loop));
    }
    advance(29999);
    assert_true(is_open());
    advance(1);
    assert_false(is_open());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_ends_at_its_time_by_a_reset_of_both_sides, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_earlier_of_two_times_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_taken_back_does_not_happen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_idle_one_ends_within_the_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_bytes_move_it_is_put_off_to_the_next_pause,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_at_the_end_of_the_time_it_is_put_off_no_more, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_the_other_side_has_not_taken_put_it_off,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
