/* A bandwidth limit of a direction: never exceeded, and nothing waits longer than it says. */
#include "relay_world.h"

static void limited(void **state, enum relay_choice choice, bool script)
{
    enum { RATE = 1000000, TOTAL = 250000 };
    struct world *w = open_world(state, PAIR_TCP);
    w->script = pass_on;
    relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
    run_ready(w->f);
    assert_int_equal(relay_limit(&w->relay, RATE), 0);
    uint64_t started_ns = w->f->loop.now_ns, started_ms = w->f->loop.now_ms;
    while (w->received < TOTAL && !is_late(w, started_ms)) {
        if (w->sent < TOTAL)
            feed(w, TOTAL - w->sent);
        run_ready(w->f);
        /* the burst is a tenth of a second's worth */
        uint64_t passed = w->f->loop.now_ns - started_ns;
        assert_true(w->relay.bytes <= RATE / 10 + passed * RATE / 1000000000u);
        while (drain(w, 1 << 20))
            ;
    }
    assert_int_equal(w->received, TOTAL);
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static void test_a_limit_is_never_exceeded_in_copy(void **state)
{
    limited(state, RELAY_CHOICE_COPY, false);
}

static void test_a_limit_is_never_exceeded_in_splice(void **state)
{
    limited(state, RELAY_CHOICE_SPLICE, false);
}

static void test_a_limit_is_never_exceeded_by_a_script(void **state)
{
    limited(state, RELAY_CHOICE_AUTO, true);
}

static void test_a_limited_direction_is_woken_by_its_timer_alone(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY);
    assert_int_equal(relay_limit(&w->relay, 100000), 0);
    feed(w, 15000);
    bool done = false;
    uint64_t started = w->f->loop.now_ms;
    while (!done && !is_late(w, started)) {
        run_ready(w->f);
        while (!done && w->f->loop.timers.root) {
            w->f->loop.stopping = false;
            loop_defer(&w->f->loop, &w->f->round_end);
            loop_run(&w->f->loop); /* blocks: only the timer can end it */
        }
        while (drain(w, 1 << 20))
            ;
        done = w->received == 15000;
    }
    assert_true(done);
    assert_true(w->n_ready > 0);
}

static void test_a_limit_taken_away_while_it_holds_the_direction_lets_it_go_on(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_COPY, RELAY_COPY);
    assert_int_equal(relay_limit(&w->relay, 10), 0);
    feed(w, 1000);
    await(w->from.entry.fd, POLLIN);
    for (unsigned i = 0; i < 3; i++)
        run_ready(w->f);
    assert_non_null(w->f->loop.timers.root);
    assert_true(w->relay.bytes < 1000);
    assert_int_equal(relay_limit(&w->relay, 0), 0);
    uint64_t started = w->f->loop.now_ms;
    for (unsigned i = 0; i < 1000 && w->received < 1000 && !is_late(w, started); i++) {
        run_ready(w->f);
        drain(w, 1000);
    }
    assert_int_equal(w->received, 1000);
}

static void test_a_higher_limit_does_not_wait_for_the_old_one(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_COPY, RELAY_COPY);
    assert_int_equal(relay_limit(&w->relay, 1), 0); /* a byte a second */
    feed(w, 3);
    await(w->from.entry.fd, POLLIN);
    for (unsigned i = 0; i < 3; i++)
        run_ready(w->f);
    assert_non_null(w->f->loop.timers.root);
    assert_int_equal(w->relay.bytes, 1);
    assert_int_equal(relay_limit(&w->relay, 1000000), 0);
    for (unsigned i = 0; i < 20 && w->relay.bytes < 3; i++)
        run_ready(w->f);
    assert_int_equal(w->relay.bytes, 3);
}

static void test_two_directions_on_one_bucket_share_its_rate_and_none_starves(void **state)
{
    enum { RATE = 1000000, BURST = 100000, TOTAL = 600000 };
    struct world *w = open_world(state, PAIR_TCP);
    struct fixture *f = w->f;
    struct world *other = open_world(state, PAIR_TCP);
    struct rate_shared *bucket =
        rate_shared_new(&(struct rate_limits){RATE, BURST}, f->loop.now_ns);
    assert_non_null(bucket);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, false);
    relay_start(&other->relay, RELAY_CHOICE_AUTO, false);
    run_ready(f);
    uint64_t started_ns = f->loop.now_ns, started_ms = f->loop.now_ms;
    assert_int_equal(relay_limit_shared(&w->relay, bucket), 0);
    assert_int_equal(relay_limit_shared(&other->relay, bucket), 0);
    while (w->received + other->received < TOTAL && !is_late(w, started_ms)) {
        feed(w, 100000);
        feed(other, 100000);
        run_ready(f);
        uint64_t passed = f->loop.now_ns - started_ns;
        assert_true(w->relay.bytes + other->relay.bytes <=
                    BURST + passed * (RATE / 1000) / 1000000u + 1);
        while (drain(w, 1 << 20) || drain(other, 1 << 20))
            ;
    }
    assert_true(w->received + other->received >= TOTAL);
    /* The burst may have gone to one of them; of the rest each gets its half. */
    assert_true(w->received >= (TOTAL - BURST) * 2 / 5);
    assert_true(other->received >= (TOTAL - BURST) * 2 / 5);

    discard_world(f); /* the other one, it was opened last */
    f->own = w;
    assert_int_equal(relay_limit_shared(&w->relay, NULL), 0);
    assert_true(rate_shared_is_alone(bucket));
    rate_shared_drop(bucket);
}

static void test_what_a_direction_does_not_use_of_a_bucket_goes_back(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    uint64_t now_ns = w->f->loop.now_ns, wait_ms;
    struct rate_shared *bucket = rate_shared_new(&(struct rate_limits){0.001, 100000}, now_ns);
    relay_start(&w->relay, RELAY_CHOICE_COPY, false);
    assert_int_equal(relay_limit_shared(&w->relay, bucket), 0);
    feed(w, 1000);
    await(w->from.entry.fd, POLLIN);
    settle(w);
    assert_int_equal(rate_shared_draw(bucket, 1000000, now_ns, &wait_ms), 99000);

    rate_shared_give(bucket, 10); /* of which the relay, asking for more, waits for a portion */
    feed(w, 11);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    run_ready(w->f);
    assert_non_null(w->f->loop.timers.root);
    relay_deinit(&w->relay); /* and ends */
    assert_true(rate_shared_is_alone(bucket));
    assert_int_equal(rate_shared_draw(bucket, 1000000, now_ns, &wait_ms), 1);
    assert_int_equal(wait_ms, 1000001); /* not twice that: nothing is reserved before it */
    rate_shared_drop(bucket);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_a_limit_is_never_exceeded_in_copy),
        test(test_a_limit_is_never_exceeded_in_splice),
        test(test_a_limit_is_never_exceeded_by_a_script),
        test(test_a_limited_direction_is_woken_by_its_timer_alone),
        test(test_a_limit_taken_away_while_it_holds_the_direction_lets_it_go_on),
        test(test_a_higher_limit_does_not_wait_for_the_old_one),
        test(test_two_directions_on_one_bucket_share_its_rate_and_none_starves),
        test(test_what_a_direction_does_not_use_of_a_bucket_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
