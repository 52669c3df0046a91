/* What a script may do with the chunks of a direction: replace, drop, wait, pass, fail. */
#include "relay_world.h"

static bool drop_all(struct world *w, const char *bytes, size_t n, enum relay_verdict *verdict)
{
    (void)w, (void)bytes, (void)n, (void)verdict;
    return true;
}

static void test_a_script_may_drop_what_comes_and_the_end_still_passes(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = drop_all;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    feed(w, 5000);
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->received, 0);
    assert_int_equal(w->relay.bytes, 5000);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

/* Instead of each chunk, ten times as many bytes of the test pattern. */
static bool replace(struct world *w, const char *bytes, size_t n, enum relay_verdict *verdict)
{
    static unsigned char more[10 * BUF_POOL_LARGE];
    (void)bytes, (void)verdict;
    fill_bytes(more, 10 * n, w->script_left);
    w->script_left += 10 * n;
    assert_int_equal(relay_write(&w->relay, more, 10 * n), 0);
    return true;
}

static void test_a_script_may_replace_a_chunk_with_more_than_the_destination_takes(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = replace;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    uint64_t fed = 0, started = w->f->loop.now_ms;
    while (fed < 300000)
        fed += feed(w, 1 << 16), run_ready(w->f);
    end_source(w);
    unsigned chunks = w->n_chunks;
    for (unsigned i = 0; i < 5 && relay_held(&w->relay); i++)
        run_ready(w->f);
    assert_true(!relay_held(&w->relay) ||
                w->n_chunks == chunks); /* no chunk while bytes are held */
    while (!w->sink_ended && !is_late(w, started)) {
        run_ready(w->f);
        while (drain(w, 1 << 20))
            ;
    }
    assert_int_equal(w->received, 10 * fed);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static bool wait_for_ever(struct world *w, const char *bytes, size_t n, enum relay_verdict *verdict)
{
    (void)w, (void)bytes, (void)n, (void)verdict;
    return false;
}

static void test_nothing_is_read_while_the_script_waits_and_its_end_waits_too(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = wait_for_ever;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    feed(w, 10);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    assert_int_equal(w->n_chunks, 1);
    uint64_t taken = w->relay.bytes;
    feed(w, 1000);
    end_source(w);
    await(w->from.entry.fd, POLLRDHUP);
    for (unsigned i = 0; i < 5; i++)
        run_ready(w->f);
    assert_int_equal(w->relay.bytes, taken);
    assert_int_equal(w->relay.state, RELAY_OPEN);
    w->script = drop_all;
    unsigned char bytes[10];
    fill_bytes(bytes, 10, 0);
    assert_int_equal(relay_write(&w->relay, bytes, 10), 0);
    relay_data_done(&w->relay, RELAY_GO_ON);
    relay_pump(&w->relay);
    settle_until_end(w);
    assert_int_equal(w->received, 10);
    assert_int_equal(w->relay.bytes, 1010);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static bool pass_after_some(struct world *w, const char *bytes, size_t n,
                            enum relay_verdict *verdict)
{
    assert_int_equal(relay_write(&w->relay, bytes, n), 0);
    if (--w->script_left == 0)
        *verdict = RELAY_PASS;
    return true;
}

static void test_a_script_may_leave_the_rest_to_c(void **state)
{
    static const enum relay_choice choices[] = {RELAY_CHOICE_AUTO, RELAY_CHOICE_SPLICE};
    struct fixture *f = *state;
    for (size_t i = 0; i < 2; i++) {
        struct world *w = open_world(state, PAIR_TCP);
        w->script = pass_after_some;
        w->script_left = 3;
        relay_start(&w->relay, choices[i], RELAY_SCRIPT);
        assert_string_equal(relay_mode_name(&w->relay), "lua");
        relay_at_random(w, 1000000, 5000, 20000, 5);
        assert_int_equal(w->n_chunks, 3);
        assert_int_not_equal(w->relay.mode, RELAY_SCRIPT);
        discard_world(f);
    }
}

static bool fail_at_once(struct world *w, const char *bytes, size_t n, enum relay_verdict *verdict)
{
    (void)w, (void)bytes, (void)n;
    *verdict = RELAY_FAIL;
    return true;
}

static void test_a_script_that_fails_breaks_the_direction(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = fail_at_once;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    feed(w, 10);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    assert_int_equal(w->relay.state, RELAY_BROKEN);
    assert_int_equal(w->from.err, 0);
    assert_int_equal(w->to.err, 0);
}

static void test_a_script_that_fails_after_a_wait_breaks_the_direction(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = wait_for_ever;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    feed(w, 10);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    relay_data_done(&w->relay, RELAY_FAIL);
    assert_int_equal(w->relay.state, RELAY_BROKEN);
}

/* ---- STREAM mode ---- */

static struct world *open_stream(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_STREAM);
    assert_string_equal(relay_mode_name(&w->relay), "lua");
    return w;
}

/* Feeds n bytes and waits until they are there to be read. */
static void feed_and_await(struct world *w, size_t n)
{
    assert_int_equal(feed(w, n), n);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
}

static void put_pattern(struct world *w, size_t n, uint64_t at)
{
    unsigned char *bytes = malloc(n);
    assert_non_null(bytes);
    fill_bytes(bytes, n, at);
    assert_int_equal(relay_put(&w->relay, bytes, n), 0);
    free(bytes);
}

static void test_a_stream_reads_nothing_that_nobody_asks_for(void **state)
{
    struct world *w = open_stream(state);
    feed_and_await(w, 1000);
    assert_int_equal(w->relay.bytes, 0);
    assert_int_equal(w->n_inputs, 0);
    relay_want_input(&w->relay);
    run_ready(w->f);
    assert_int_equal(w->n_inputs, 1);
    assert_int_equal(w->relay.bytes, 0);
    assert_int_equal(relay_fill(&w->relay, 300), 300);
    assert_int_equal(relay_fill(&w->relay, 10000), 700);
    assert_int_equal(relay_fill(&w->relay, 10000), -EAGAIN);
    assert_int_equal(buf_len(&w->relay.unread), 1000);
    assert_bytes((const unsigned char *)buf_bytes(&w->relay.unread), 1000, 0);
}

static void test_what_is_unread_comes_first_and_in_order(void **state)
{
    struct world *w = open_stream(state);
    unsigned char bytes[100];
    feed_and_await(w, 1000);
    assert_int_equal(relay_fill(&w->relay, 400), 400);
    buf_consume(&w->relay.unread, 100);
    fill_bytes(bytes, 100, 0);
    assert_int_equal(relay_unread(&w->relay, bytes, 100), 0); /* where they were */
    buf_consume(&w->relay.unread, 400);
    fill_bytes(bytes, 100, 300);
    assert_int_equal(relay_unread(&w->relay, bytes, 100), 0);
    fill_bytes(bytes, 100, 200);
    assert_int_equal(relay_unread(&w->relay, bytes, 100), 0);
    assert_int_equal(relay_unread(&w->relay, bytes, 0), 0);
    put_pattern(w, 200, 0);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY); /* C goes on with the rest */
    relay_pump(&w->relay);
    settle(w);
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->received, 1000);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static void test_an_end_is_told_once_all_is_read(void **state)
{
    struct world *w = open_stream(state);
    char *bytes;
    feed_and_await(w, 10);
    end_source(w);
    await(w->from.entry.fd, POLLRDHUP);
    run_ready(w->f);
    assert_int_equal(relay_read(&w->relay, &bytes, 100), 10);
    assert_bytes((const unsigned char *)bytes, 10, 0);
    assert_int_equal(relay_read(&w->relay, &bytes, 100), 0);
    assert_int_equal(relay_fill(&w->relay, 100), 0);
    assert_int_equal(w->relay.state, RELAY_OPEN); /* the script may go on writing */
    put_pattern(w, 20, 0);
    relay_finish(&w->relay);
    relay_pump(&w->relay);
    settle_until_end(w);
    assert_int_equal(w->received, 20);
    assert_int_equal(w->sink_err, 0);
}

static void test_an_abort_is_no_end(void **state)
{
    struct world *w = open_stream(state);
    char *bytes;
    struct linger at_once = {.l_onoff = 1};
    setsockopt(w->source, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(w->source);
    w->source = -1;
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    ssize_t n = relay_read(&w->relay, &bytes, 100);
    while (n == 0 && !w->from.err)
        n = relay_read(&w->relay, &bytes, 100);
    assert_true(w->from.eof);
    assert_int_equal(w->from.err, -ECONNRESET);
    assert_int_equal(relay_fill(&w->relay, 100), -ECONNRESET);
}

static void test_room_is_told_once_most_has_gone(void **state)
{
    struct world *w = open_stream(state);
    uint64_t at = 0;
    while (relay_held(&w->relay) < RELAY_HIGH_WATER) {
        put_pattern(w, 100000, at);
        at += 100000;
    }
    assert_false(w->to.writable);
    relay_want_room(&w->relay, RELAY_HIGH_WATER / 2);
    run_ready(w->f);
    assert_int_equal(w->n_rooms, 0);
    w->sent = at;
    uint64_t started = w->f->loop.now_ms;
    while (!w->n_rooms && !is_late(w, started)) {
        drain(w, 50000);
        run_ready(w->f);
    }
    assert_int_equal(w->n_rooms, 1);
    assert_true(relay_held(&w->relay) <= RELAY_HIGH_WATER / 2);
    relay_finish(&w->relay);
    relay_pump(&w->relay);
    settle_until_end(w);
    assert_int_equal(w->received, at);
    assert_int_equal(w->n_rooms, 1);
}

static void test_a_corked_stream_holds_what_is_put_and_still_reads(void **state)
{
    struct world *w = open_stream(state);
    w->relay.corked = true;
    put_pattern(w, 100000, 0);
    feed_and_await(w, 10);
    relay_flush(&w->relay);
    relay_want_input(&w->relay);
    run_ready(w->f);
    assert_int_equal(relay_held(&w->relay), 100000);
    assert_int_equal(w->n_inputs, 1);
    assert_int_equal(relay_fill(&w->relay, 100), 10);
    w->relay.corked = false;
    w->sent = 100000;
    relay_finish(&w->relay);
    relay_pump(&w->relay);
    settle_until_end(w);
    assert_int_equal(w->received, 100000);
}

/* Goes on to let the rest pass. */
static bool pass_the_rest(struct world *w)
{
    relay_pass(&w->relay, UINT64_MAX);
    return true;
}

static void test_some_bytes_pass_in_c_and_then_the_script_reads_on(void **state)
{
    struct world *w = open_stream(state);
    feed_and_await(w, 1000);
    assert_int_equal(relay_fill(&w->relay, 10), 10);
    relay_pass(&w->relay, 5); /* of what is unread */
    run_ready(w->f);
    assert_int_equal(w->n_inputs, 1);
    assert_int_equal(buf_len(&w->relay.unread), 5);
    relay_pass(&w->relay, 600); /* and of the socket */
    run_ready(w->f);
    assert_int_equal(w->n_inputs, 2);
    assert_int_equal(w->relay.mode, RELAY_STREAM);
    assert_int_equal(w->relay.bytes, 605);
    w->input = pass_the_rest;
    relay_want_input(&w->relay);
    run_ready(w->f);
    settle(w);
    w->input = NULL;
    end_source(w);
    await(w->from.entry.fd, POLLRDHUP);
    run_ready(w->f);
    assert_int_equal(w->relay.mode, RELAY_STREAM); /* the script is told of the end */
    assert_int_equal(w->relay.state, RELAY_OPEN);
    assert_int_equal(w->received, 1000);
}

static void test_a_destination_that_is_gone_refuses_what_is_put(void **state)
{
    struct world *w = open_stream(state);
    struct linger at_once = {.l_onoff = 1};
    static const char bytes[BUF_POOL_LARGE];
    setsockopt(w->sink, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(w->sink);
    w->sink = -1;
    int err = 0;
    for (unsigned i = 0; i < 100 && !err; i++) {
        err = relay_put(&w->relay, bytes, sizeof bytes);
        run_ready(w->f);
    }
    assert_true(err < 0);
    assert_int_equal(w->relay.state, RELAY_BROKEN);
    assert_true(relay_put(&w->relay, bytes, 1) < 0);
}

static void test_what_is_discarded_is_read_to_its_end(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_COPY, RELAY_DISCARD);
    w->to.writable = false;
    feed_and_await(w, 100000);
    end_source(w);
    uint64_t started = w->f->loop.now_ms;
    while (w->relay.state == RELAY_OPEN && !is_late(w, started))
        run_ready(w->f);
    assert_int_equal(w->relay.bytes, 100000);
    assert_int_equal(w->relay.state, RELAY_ENDED);
    assert_false(w->to.shut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_a_script_may_drop_what_comes_and_the_end_still_passes),
        test(test_a_script_may_replace_a_chunk_with_more_than_the_destination_takes),
        test(test_nothing_is_read_while_the_script_waits_and_its_end_waits_too),
        test(test_a_script_may_leave_the_rest_to_c),
        test(test_a_script_that_fails_breaks_the_direction),
        test(test_a_script_that_fails_after_a_wait_breaks_the_direction),
        test(test_a_stream_reads_nothing_that_nobody_asks_for),
        test(test_what_is_unread_comes_first_and_in_order),
        test(test_an_end_is_told_once_all_is_read),
        test(test_an_abort_is_no_end),
        test(test_room_is_told_once_most_has_gone),
        test(test_a_corked_stream_holds_what_is_put_and_still_reads),
        test(test_some_bytes_pass_in_c_and_then_the_script_reads_on),
        test(test_a_destination_that_is_gone_refuses_what_is_put),
        test(test_what_is_discarded_is_read_to_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
