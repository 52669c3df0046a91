/* The virtual network: bytes, ends and aborts as sockets have them, names and failures on order,
 * and a clock that moves only when it is told to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "penstock/base/err.h"
#include "penstock/net/dial.h"
#include "penstock/net/loop.h"
#include "penstock/net/resolver.h"
#include "penstock/net/vnet.h"

enum { START_MS = 1000000 };

/* A stream that keeps what happens to it. */
struct side {
    struct stream stream;
    unsigned events;
};

struct fixture {
    struct vnet *net;
    struct loop loop;
    struct resolver *resolver;
    struct poller_entry port_entry;
    struct vnet_port *port;
    unsigned offers; /* times the port said that clients wait */
    struct side near, far;
    struct dial *dial;
    struct dial_result result;
    bool done;
};

static struct fixture f;

static void on_side(struct poller_entry *entry, unsigned events)
{
    struct side *s = container_of(entry, struct side, stream.entry);
    s->events |= events;
    stream_note_events(&s->stream, events);
}

static void on_port(struct poller_entry *entry, unsigned events)
{
    struct addr client;
    (void)entry;
    assert_int_equal(events, POLLER_IN);
    f.offers++;
    assert_int_equal(vnet_accept(f.port, &f.far.stream, &client), 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof f);
    f.net = vnet_new(NULL);
    struct loop_options options = {.vnet = f.net, .start_ms = START_MS};
    assert_int_equal(loop_init(&f.loop, &options), 0);
    assert_int_equal(resolver_new(&f.loop, NULL, &f.resolver), 0);
    f.port_entry.on_event = on_port;
    stream_init(&f.near.stream, on_side);
    stream_init(&f.far.stream, on_side);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_abort(&f.near.stream);
    stream_abort(&f.far.stream);
    if (f.port)
        vnet_port_close(f.port);
    assert_true(loop_settle(&f.loop));
    resolver_free(f.resolver);
    assert_int_equal(loop_deinit(&f.loop), 0);
    vnet_free(f.net);
    return 0;
}

static void listen_on(const char *address, size_t window)
{
    assert_int_equal(vnet_listen(f.net, address, window, &f.port_entry, &f.port), 0);
}

/* near and far are connected. */
static void join(size_t window)
{
    struct addr from = {.in = {.sin_family = AF_INET}};
    listen_on("10.0.0.1:80", window);
    assert_int_equal(vnet_connect_port(f.port, &f.near.stream, &from), 0);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.offers, 1);
    assert_true(f.near.events & POLLER_OUT);
    assert_true(f.far.events & POLLER_OUT);
    f.near.events = f.far.events = 0;
}

static void test_what_was_written_can_be_read_and_is_told_once(void **state)
{
    char buf[16];
    (void)state;
    join(VNET_WINDOW_BYTES);
    assert_int_equal(stream_write(&f.near.stream, "ping", 4), 4);
    assert_int_equal(f.far.events, 0); /* not before the loop comes round */
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.events, POLLER_IN);
    f.far.events = 0;
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.events, 0);
    assert_int_equal(stream_peek(&f.far.stream, buf, 3), 3); /* takes nothing */
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 4);
    assert_memory_equal(buf, "ping", 4);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), -EAGAIN);
}

static void test_a_full_window_blocks_the_writer_until_somebody_reads(void **state)
{
    char buf[4];
    (void)state;
    join(8);
    assert_int_equal(stream_write(&f.near.stream, "0123456789", 10), 8);
    assert_false(f.near.stream.writable);
    assert_int_equal(stream_write(&f.near.stream, "89", 2), 0);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.near.events, 0);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 4);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.near.events, POLLER_OUT);
    assert_int_equal(stream_write(&f.near.stream, "89", 2), 2);
}

static void test_an_end_comes_after_the_bytes_and_leaves_the_other_way_open(void **state)
{
    char buf[16];
    (void)state;
    join(VNET_WINDOW_BYTES);
    stream_write(&f.near.stream, "last", 4);
    assert_int_equal(stream_shutdown(&f.near.stream), 0);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.events, POLLER_IN | POLLER_END);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 4);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 0);
    assert_true(f.far.stream.eof);
    assert_int_equal(f.far.stream.err, 0);
    assert_int_equal(stream_write(&f.far.stream, "answer", 6), 6);
    assert_int_equal(stream_write(&f.near.stream, "more", 4), -EPIPE);
}

static void test_an_abort_is_an_error_after_the_bytes(void **state)
{
    char buf[16];
    (void)state;
    join(VNET_WINDOW_BYTES);
    stream_write(&f.near.stream, "last", 4);
    stream_abort(&f.near.stream);
    assert_true(loop_settle(&f.loop));
    assert_true(f.far.events & POLLER_ERROR);
    assert_int_equal(f.far.stream.err, -ECONNRESET);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 4);
    assert_int_equal(stream_read(&f.far.stream, buf, sizeof buf), 0);
    assert_int_equal(stream_write(&f.far.stream, "x", 1), -EPIPE);
}

static void test_a_close_with_bytes_unread_is_an_abort(void **state)
{
    (void)state;
    join(VNET_WINDOW_BYTES);
    stream_write(&f.far.stream, "unread", 6);
    stream_close(&f.near.stream);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.stream.err, -ECONNRESET);
}

static void test_writing_to_who_has_gone_is_answered_by_a_reset(void **state)
{
    (void)state;
    join(VNET_WINDOW_BYTES);
    stream_close(&f.near.stream);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.stream.err, 0);
    assert_int_equal(stream_write(&f.far.stream, "x", 1), 1);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.far.stream.err, -ECONNRESET);
}

static void test_a_port_that_is_not_watched_keeps_its_clients_waiting(void **state)
{
    struct addr from = {.in = {.sin_family = AF_INET}};
    (void)state;
    listen_on("10.0.0.1:80", 8);
    vnet_watch(f.port, false);
    assert_int_equal(vnet_connect_port(f.port, &f.near.stream, &from), 0);
    assert_int_equal(stream_write(&f.near.stream, "early", 5), 5);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.offers, 0);
    vnet_watch(f.port, true);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(f.offers, 1);
    assert_true(f.far.events & POLLER_IN); /* what came while it waited */
}

/* --- the clock -------------------------------------------------------------------------------- */

struct alarm {
    struct timer timer;
    uint64_t at_ms;
    unsigned rings;
};

static void on_alarm(struct timer *timer)
{
    struct alarm *a = container_of(timer, struct alarm, timer);
    a->at_ms = f.loop.now_ms;
    if (++a->rings < 3)
        loop_timer(&f.loop, timer, 3600 * 1000);
}

static void test_time_passes_from_timer_to_timer_and_only_on_order(void **state)
{
    struct alarm a = {.rings = 0};
    (void)state;
    timer_init(&a.timer, on_alarm);
    loop_timer(&f.loop, &a.timer, 1500);
    assert_true(loop_settle(&f.loop));
    assert_int_equal(a.rings, 0);
    assert_int_equal(f.loop.now_ms, START_MS);
    assert_true(loop_advance(&f.loop, 1499));
    assert_int_equal(a.rings, 0);
    assert_true(loop_advance(&f.loop, 1));
    assert_int_equal(a.rings, 1);
    assert_true(loop_advance(&f.loop, 10 * 3600 * 1000));
    assert_int_equal(a.rings, 3);
    assert_int_equal(a.at_ms, START_MS + 1500 + 2 * 3600 * 1000);
    assert_int_equal(f.loop.now_ms, START_MS + 1500 + 10 * 3600 * 1000);
    assert_int_equal(f.loop.now_ns, f.loop.now_ms * 1000000);
}

static void again(struct loop_task *task)
{
    loop_ready(&f.loop, task);
}

static void test_a_task_without_end_is_noticed(void **state)
{
    struct loop_task task = {.run = again};
    (void)state;
    list_init(&task.node);
    loop_ready(&f.loop, &task);
    assert_false(loop_settle(&f.loop));
    loop_forget(&task);
}

/* --- dialling --------------------------------------------------------------------------------- */

static void on_done(void *arg, const struct dial_result *result)
{
    (void)arg;
    f.result = *result;
    f.done = true;
    f.dial = NULL;
}

static void on_dialling(struct poller_entry *entry, unsigned events)
{
    if (f.dial)
        dial_on_stream(f.dial, events);
    else
        on_side(entry, events);
}

/* Dials `text` with a deadline of 5 s, until nothing happens without time passing. */
static void dial(const char *text)
{
    static const struct dial_socket socket_options = {.nodelay = true};
    static struct target target;
    char why[256];
    assert_int_equal(endpoint_parse(text, ENDPOINT_DIAL, &target.endpoint, why, sizeof why), 0);
    struct dial_options options = {.loop = &f.loop,
                                   .resolver = f.resolver,
                                   .targets = &target,
                                   .n_targets = 1,
                                   .timeout_ms = 5000,
                                   .socket = &socket_options,
                                   .stream = &f.near.stream};
    stream_init(&f.near.stream, on_dialling);
    assert_int_equal(dial_start(&options, on_done, NULL, &f.dial), 0);
    assert_true(loop_settle(&f.loop));
    if (!f.done)
        assert_true(loop_advance(&f.loop, 5000));
    assert_true(f.done);
    endpoint_deinit(&target.endpoint);
}

static void test_a_dial_reaches_a_port(void **state)
{
    (void)state;
    listen_on("10.0.0.1:80", 8);
    dial("10.0.0.1:80");
    assert_int_equal(f.result.err, 0);
    assert_int_equal(f.offers, 1);
    assert_int_equal(f.loop.now_ms, START_MS);
}

static void test_a_dial_reaches_a_unix_socket(void **state)
{
    (void)state;
    listen_on("unix:/run/x.sock", 8);
    dial("unix:/run/x.sock");
    assert_int_equal(f.result.err, 0);
}

static void test_a_port_of_a_name_gets_an_address_by_itself(void **state)
{
    char text[ADDR_TEXT_MAX];
    (void)state;
    listen_on("db.internal:80", 8);
    dial("db.internal:80");
    assert_int_equal(f.result.err, 0);
    assert_string_equal(addr_format(&f.result.address, text, sizeof text), "198.18.0.1:80");
}

static void test_nobody_there_is_refused(void **state)
{
    (void)state;
    listen_on("10.0.0.1:80", 8);
    dial("10.0.0.1:81");
    assert_int_equal(f.result.err, PS_EREFUSED);
}

static void test_failures_come_as_ordered_and_as_often(void **state)
{
    (void)state;
    listen_on("10.0.0.1:80", 8);
    assert_int_equal(vnet_fail(f.net, "10.0.0.1:80", VNET_UNREACHABLE, 1), 0);
    dial("10.0.0.1:80");
    assert_int_equal(f.result.err, PS_EUNREACHABLE);
    f.done = false;
    dial("10.0.0.1:80");
    assert_int_equal(f.result.err, 0);
}

static void test_silence_ends_with_the_deadline(void **state)
{
    (void)state;
    vnet_fail(f.net, "10.0.0.1:80", VNET_TIMEOUT, 0);
    dial("10.0.0.1:80");
    assert_int_equal(f.result.err, PS_ETIMEOUT);
    assert_int_equal(f.loop.now_ms, START_MS + 5000);
}

static void test_a_reset_comes_after_the_connection(void **state)
{
    (void)state;
    vnet_fail(f.net, "10.0.0.1:80", VNET_RESET, 0);
    dial("10.0.0.1:80");
    assert_int_equal(f.result.err, 0);
    assert_int_equal(f.near.stream.err, -ECONNRESET);
}

static void test_the_second_address_of_a_name_is_raced_when_the_first_is_silent(void **state)
{
    struct addr addrs[2];
    char text[ADDR_TEXT_MAX];
    (void)state;
    addr_parse_ip("2001:db8::1", &addrs[0]);
    addr_parse_ip("10.0.0.1", &addrs[1]);
    vnet_set_name(f.net, "two.internal", addrs, 2, VNET_NAME_GOOD);
    vnet_fail(f.net, "[2001:db8::1]:80", VNET_TIMEOUT, 0);
    listen_on("10.0.0.1:80", 8);
    dial("two.internal:80");
    assert_int_equal(f.result.err, 0);
    assert_string_equal(addr_format(&f.result.address, text, sizeof text), "10.0.0.1:80");
    f.near.events = 0;
    stream_write(&f.far.stream, "hi", 2);
    assert_true(loop_settle(&f.loop));
    assert_true(f.near.events & POLLER_IN); /* the winner's events reach the stream */
}

static void test_names_fail_as_ordered(void **state)
{
    (void)state;
    vnet_set_name(f.net, "gone.internal", NULL, 0, VNET_NAME_NXDOMAIN);
    dial("gone.internal:80");
    assert_int_equal(f.result.err, PS_EDNS);
    assert_string_equal(f.result.why, "Domain name not found");
    f.done = false;
    vnet_set_name(f.net, "gone.internal", NULL, 0, VNET_NAME_SILENCE);
    dial("gone.internal:80");
    assert_int_equal(f.result.err, PS_ETIMEOUT);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(test_what_was_written_can_be_read_and_is_told_once),
        CASE(test_a_full_window_blocks_the_writer_until_somebody_reads),
        CASE(test_an_end_comes_after_the_bytes_and_leaves_the_other_way_open),
        CASE(test_an_abort_is_an_error_after_the_bytes),
        CASE(test_a_close_with_bytes_unread_is_an_abort),
        CASE(test_writing_to_who_has_gone_is_answered_by_a_reset),
        CASE(test_a_port_that_is_not_watched_keeps_its_clients_waiting),
        CASE(test_time_passes_from_timer_to_timer_and_only_on_order),
        CASE(test_a_task_without_end_is_noticed),
        CASE(test_a_dial_reaches_a_port),
        CASE(test_a_dial_reaches_a_unix_socket),
        CASE(test_a_port_of_a_name_gets_an_address_by_itself),
        CASE(test_nobody_there_is_refused),
        CASE(test_failures_come_as_ordered_and_as_often),
        CASE(test_silence_ends_with_the_deadline),
        CASE(test_a_reset_comes_after_the_connection),
        CASE(test_the_second_address_of_a_name_is_raced_when_the_first_is_silent),
        CASE(test_names_fail_as_ordered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
