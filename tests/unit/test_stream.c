/* One endpoint: what reads, writes and closes do to its flags, and what the other side sees of
 * them. */
#include "support.h"

#include "penstock/net/stream.h"

static struct stream s;
static int far; /* the other side */

static void on_event(struct poller_entry *entry, unsigned events)
{
    stream_note_events(container_of(entry, struct stream, entry), events);
}

static void connect_stream(enum pair_kind kind)
{
    int fds[2];
    make_pair(kind, fds);
    stream_init(&s, on_event);
    assert_false(stream_is_open(&s));
    s.entry.fd = fds[0];
    far = fds[1];
    s.readable = true;
}

static int connect_tcp(void **state)
{
    (void)state;
    connect_stream(PAIR_TCP);
    return 0;
}

static int connect_unix(void **state)
{
    (void)state;
    connect_stream(PAIR_UNIX);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    stream_close(&s);
    if (far >= 0)
        close(far);
    return 0;
}

static void test_a_fresh_stream_takes_bytes_and_waits_for_the_first_event(void **state)
{
    (void)state;
    struct stream fresh;
    stream_init(&fresh, on_event);
    assert_false(stream_is_open(&fresh));
    assert_true(fresh.writable);
    assert_false(fresh.readable || fresh.eof || fresh.shut || fresh.read_on || fresh.urgent);
    assert_int_equal(fresh.err, 0);
}

static void test_events_say_what_may_be_tried(void **state)
{
    (void)state;
    static const struct {
        unsigned events;
        bool readable, writable, read_on, urgent;
    } cases[] = {
        {0, false, false, false, false},         {POLLER_IN, true, false, false, false},
        {POLLER_OUT, false, true, false, false}, {POLLER_END, true, true, true, false},
        {POLLER_ERROR, true, true, true, false}, {POLLER_URGENT, true, false, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stream t;
        stream_init(&t, on_event);
        t.writable = false;
        stream_note_events(&t, cases[i].events);
        assert_int_equal(t.readable, cases[i].readable);
        assert_int_equal(t.writable, cases[i].writable);
        assert_int_equal(t.read_on, cases[i].read_on);
        assert_int_equal(t.urgent, cases[i].urgent);
    }
}

static void test_a_short_read_means_drained(void **state)
{
    (void)state;
    char buf[16];
    send_all(far, "hello", 5);
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 5);
    assert_memory_equal(buf, "hello", 5);
    assert_false(s.readable);
}

static void test_a_full_read_does_not(void **state)
{
    (void)state;
    char buf[5];
    send_all(far, "hello", 5);
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_read(&s, buf, 5), 5);
    assert_true(s.readable);
    assert_int_equal(stream_read(&s, buf, 5), -EAGAIN);
    assert_false(s.readable);
    assert_false(s.eof);
    assert_int_equal(s.err, 0);
}

static void test_a_peek_takes_nothing(void **state)
{
    (void)state;
    char buf[8];
    send_all(far, "hello", 5);
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_peek(&s, buf, 3), 3);
    assert_int_equal(stream_peek(&s, buf, sizeof buf), 5);
    assert_true(s.readable);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 5);
    assert_memory_equal(buf, "hello", 5);
    s.readable = true;
    assert_int_equal(stream_peek(&s, buf, sizeof buf), -EAGAIN);
    assert_false(s.readable || s.eof);
    shutdown(far, SHUT_WR);
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_peek(&s, buf, sizeof buf), 0);
    assert_true(s.eof);
}

static void test_a_short_read_after_an_end_reads_on(void **state)
{
    (void)state;
    char buf[16];
    send_all(far, "bye", 3);
    shutdown(far, SHUT_WR);
    await(s.entry.fd, POLLRDHUP);
    stream_note_events(&s, POLLER_IN | POLLER_END);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 3);
    assert_true(s.readable);
    assert_false(s.eof);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 0);
    assert_true(s.eof);
    assert_int_equal(s.err, 0);
    assert_false(s.readable);
}

static void test_a_reset_is_an_end_with_an_error_after_what_came_before(void **state)
{
    (void)state;
    char buf[16];
    send_all(far, "last", 4);
    await(s.entry.fd, POLLIN);
    abort_socket(far);
    far = -1;
    await(s.entry.fd, POLLRDHUP);
    stream_note_events(&s, POLLER_IN | POLLER_END | POLLER_ERROR);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 4);
    assert_memory_equal(buf, "last", 4);
    assert_true(s.readable);
    assert_int_equal(s.err, -ECONNRESET); /* told by the event, and kept */
    assert_true(stream_read(&s, buf, sizeof buf) <= 0);
    assert_true(s.eof);
    assert_int_equal(s.err, -ECONNRESET);
}

static void test_a_reset_that_no_event_has_told_is_seen_by_the_read(void **state)
{
    (void)state;
    char buf[16];
    abort_socket(far);
    far = -1;
    await(s.entry.fd, POLLRDHUP);
    assert_int_equal(stream_read(&s, buf, sizeof buf), -ECONNRESET);
    assert_true(s.eof);
    assert_int_equal(s.err, -ECONNRESET);
}

static void test_a_reset_behind_an_end_is_still_an_abort(void **state)
{
    (void)state;
    char buf[16];
    send_all(far, "last", 4);
    shutdown(far, SHUT_WR);
    await(s.entry.fd, POLLRDHUP);
    abort_socket(far);
    far = -1;
    await(s.entry.fd, POLLERR);
    stream_note_events(&s, POLLER_IN | POLLER_END | POLLER_ERROR);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 4);
    assert_true(stream_read(&s, buf, sizeof buf) <= 0);
    assert_true(s.eof && s.err);
}

static void test_a_blocked_write_clears_writable_and_the_next_event_sets_it(void **state)
{
    (void)state;
    static unsigned char bytes[65536];
    struct poller poller;
    assert_int_equal(poller_init(&poller), 0);
    assert_int_equal(poller_add_edge(&poller, &s.entry), 0);
    size_t sent = 0, got = 0;
    while (s.writable) {
        fill_bytes(bytes, sizeof bytes, sent);
        ssize_t n = stream_write(&s, bytes, sizeof bytes);
        assert_true(n >= 0);
        sent += (size_t)n;
    }
    assert_true(sent > 0);
    poller_wait(&poller, 0, NULL, NULL);
    s.writable = false; /* the first edge may have come late */
    assert_int_equal(stream_write(&s, bytes, 1), 0);
    assert_false(s.writable);
    while (got < sent) {
        await(far, POLLIN);
        ssize_t n = recv(far, bytes, sizeof bytes, 0);
        assert_true(n > 0);
        assert_bytes(bytes, (size_t)n, got);
        got += (size_t)n;
    }
    poller_wait(&poller, GUARD_MS, NULL, NULL);
    assert_true(s.writable);
    assert_int_equal(s.err, 0);
    poller_deinit(&poller);
}

static void
test_a_write_to_an_aborted_side_fails_without_a_signal_and_keeps_the_first_error(void **state)
{
    (void)state;
    send_all(s.entry.fd, "x", 1); /* unread at close: a reset, for UNIX sockets too */
    await(far, POLLIN);
    close(far);
    far = -1;
    await(s.entry.fd, POLLRDHUP);
    s.readable = false;
    ssize_t n = stream_write(&s, "y", 1);
    assert_true(n == -ECONNRESET || n == -EPIPE);
    assert_int_equal(s.err, n);
    assert_true(s.readable && s.read_on); /* what it sent before may still be there */
    assert_int_equal(stream_write(&s, "y", 1), -EPIPE);
    assert_int_equal(s.err, n);
}

static void test_what_was_sent_before_an_abort_can_be_read_after_the_failed_write(void **state)
{
    (void)state;
    char buf[16];
    send_all(far, "reply", 5);
    await(s.entry.fd, POLLIN);
    abort_socket(far);
    far = -1;
    await(s.entry.fd, POLLRDHUP);
    assert_true(stream_write(&s, "y", 1) < 0);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 5);
    assert_true(s.err != 0);
    while (!s.eof)
        assert_true(stream_read(&s, buf, sizeof buf) <= 0);
}

static void test_a_shutdown_ends_our_side_and_the_reply_still_comes(void **state)
{
    (void)state;
    char buf[16];
    assert_int_equal(stream_write(&s, "ask", 3), 3);
    assert_int_equal(stream_shutdown(&s), 0);
    assert_true(s.shut);
    await(far, POLLRDHUP);
    assert_int_equal(recv(far, buf, sizeof buf, 0), 3);
    assert_int_equal(recv(far, buf, sizeof buf, 0), 0);
    send_all(far, "answer", 6);
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_read(&s, buf, sizeof buf), 6);
}

static void test_close_delivers_what_was_written_and_then_the_end(void **state)
{
    (void)state;
    char buf[16];
    assert_int_equal(stream_write(&s, "bye", 3), 3);
    stream_close(&s);
    assert_false(stream_is_open(&s));
    await(far, POLLRDHUP);
    assert_int_equal(recv(far, buf, sizeof buf, 0), 3);
    assert_int_equal(recv(far, buf, sizeof buf, 0), 0);
    stream_close(&s); /* harmless */
}

static void test_an_abort_is_a_reset_on_the_other_side(void **state)
{
    (void)state;
    char buf[16];
    stream_abort(&s);
    assert_false(stream_is_open(&s));
    await(far, POLLRDHUP);
    assert_int_equal(recv(far, buf, sizeof buf, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    stream_abort(&s); /* harmless */
}

static void test_unsent_is_what_the_other_host_has_not_acknowledged(void **state)
{
    (void)state;
    static unsigned char bytes[65536];
    assert_int_equal(stream_unsent(&s), 0);
    size_t sent = send_until_blocked(s.entry.fd, 0), got = 0;
    assert_true(stream_unsent(&s) > 0);
    assert_true(stream_unsent(&s) <= sent);
    while (got < sent) {
        await(far, POLLIN);
        ssize_t n = recv(far, bytes, sizeof bytes, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    send_all(far, "x", 1); /* carries the acknowledgement of all */
    await(s.entry.fd, POLLIN);
    assert_int_equal(stream_unsent(&s), 0);
    stream_close(&s);
    assert_int_equal(stream_unsent(&s), 0);
}

#define on_tcp(name)                                                                               \
    {                                                                                              \
#name " (TCP)", name, connect_tcp, close_both, NULL                                        \
    }
#define on_unix(name)                                                                              \
    {                                                                                              \
#name " (UNIX)", name, connect_unix, close_both, NULL                                      \
    }
#define on_both(name) on_tcp(name), on_unix(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fresh_stream_takes_bytes_and_waits_for_the_first_event),
        cmocka_unit_test(test_events_say_what_may_be_tried),
        on_both(test_a_short_read_means_drained),
        on_both(test_a_full_read_does_not),
        on_both(test_a_peek_takes_nothing),
        on_both(test_a_short_read_after_an_end_reads_on),
        on_tcp(test_a_reset_is_an_end_with_an_error_after_what_came_before),
        on_tcp(test_a_reset_that_no_event_has_told_is_seen_by_the_read),
        on_tcp(test_a_reset_behind_an_end_is_still_an_abort),
        on_both(test_a_blocked_write_clears_writable_and_the_next_event_sets_it),
        on_both(test_a_write_to_an_aborted_side_fails_without_a_signal_and_keeps_the_first_error),
        on_tcp(test_what_was_sent_before_an_abort_can_be_read_after_the_failed_write),
        on_both(test_a_shutdown_ends_our_side_and_the_reply_still_comes),
        on_both(test_close_delivers_what_was_written_and_then_the_end),
        on_tcp(test_an_abort_is_a_reset_on_the_other_side),
        on_tcp(test_unsent_is_what_the_other_host_has_not_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
