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

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_a_script_may_drop_what_comes_and_the_end_still_passes),
        test(test_a_script_may_replace_a_chunk_with_more_than_the_destination_takes),
        test(test_nothing_is_read_while_the_script_waits_and_its_end_waits_too),
        test(test_a_script_may_leave_the_rest_to_c),
        test(test_a_script_that_fails_breaks_the_direction),
        test(test_a_script_that_fails_after_a_wait_breaks_the_direction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
