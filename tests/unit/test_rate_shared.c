/* A token bucket for many: never more than it earns, whoever draws, and a turn for each who waits.
 */
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "penstock/net/rate_shared.h"

static const uint64_t S = 1000000000, MS = 1000000;

static struct rate_shared *make(double per_second, double burst)
{
    struct rate_shared *r = rate_shared_new(&(struct rate_limits){per_second, burst}, S);
    assert_non_null(r);
    return r;
}

/* Seconds, compared in nanoseconds. */
static void assert_seconds(double is, double should)
{
    assert_true(fabs(is - should) < 1e-9);
}

static void test_it_starts_full_and_fills_up_to_the_burst(void **state)
{
    (void)state;
    struct rate_shared *r = make(5, 3);
    for (int i = 0; i < 3; i++)
        assert_seconds(rate_shared_take(r, 1, S), 0);
    assert_seconds(rate_shared_take(r, 1, S), 0.2);
    assert_seconds(rate_shared_take(r, 1, S + 150 * MS), 0.05);
    assert_seconds(rate_shared_take(r, 1, S + 200 * MS), 0);
    for (int i = 0; i < 3; i++)
        assert_seconds(rate_shared_take(r, 1, 100 * S), 0);
    assert_true(rate_shared_take(r, 1, 100 * S) > 0);
    rate_shared_drop(r);
}

static void test_rates_may_be_fractions(void **state)
{
    (void)state;
    struct rate_shared *r = make(0.5, 1);
    assert_seconds(rate_shared_take(r, 1, S), 0);
    assert_seconds(rate_shared_take(r, 1, S), 2);
    assert_seconds(rate_shared_take(r, 0.25, 2 * S), 0);
    assert_seconds(rate_shared_take(r, 0.5, 2 * S), 0.5);
    rate_shared_drop(r);
}

static void test_after_the_wait_it_told_the_tokens_are_there(void **state)
{
    (void)state;
    struct rate_shared *r = make(3, 1); /* a third of a second is no whole number of anything */
    uint64_t now = S;
    assert_seconds(rate_shared_take(r, 1, now), 0);
    for (int i = 0; i < 1000; i++) {
        double wait = rate_shared_take(r, 1, now);
        assert_true(wait > 0.3 && wait < 0.34);
        now += (uint64_t)ceil(wait * 1e9);
        assert_seconds(rate_shared_take(r, 1, now), 0);
    }
    assert_in_range(now, S + 333 * S, S + 334 * S);
    rate_shared_drop(r);
}

static void test_more_than_the_burst_is_never_there_at_once(void **state)
{
    (void)state;
    struct rate_shared *r = make(5, 3);
    assert_true(isinf(rate_shared_take(r, 3.5, 100 * S)));
    assert_seconds(rate_shared_take(r, 3, 100 * S), 0);
    rate_shared_drop(r);
}

static void test_who_reserves_waits_behind_who_reserved_before(void **state)
{
    (void)state;
    struct rate_shared *r = make(10, 1);
    assert_seconds(rate_shared_reserve(r, 1, 100, S), 0);
    assert_seconds(rate_shared_reserve(r, 1, 100, S), 0.1);
    assert_seconds(rate_shared_reserve(r, 1, 100, S), 0.2);
    assert_seconds(rate_shared_reserve(r, 5, 100, S), 0.7);
    assert_true(rate_shared_take(r, 1, S + 650 * MS) > 0); /* nobody gets in before them */
    assert_seconds(rate_shared_reserve(r, 1, 0.1, S), -1); /* too long: nothing was taken */
    assert_seconds(rate_shared_reserve(r, 1, 0.8, S + 650 * MS), 0.15);
    rate_shared_drop(r);
}

static void test_what_is_given_back_is_there_for_others_up_to_the_burst(void **state)
{
    (void)state;
    struct rate_shared *r = make(1, 10);
    assert_seconds(rate_shared_take(r, 10, S), 0);
    rate_shared_give(r, 4);
    assert_seconds(rate_shared_take(r, 4, S), 0);
    rate_shared_give(r, 400);
    assert_seconds(rate_shared_take(r, 10, S), 0);
    assert_seconds(rate_shared_take(r, 1, S), 1);
    rate_shared_drop(r);
}

static void test_a_clock_that_is_behind_earns_nothing(void **state)
{
    (void)state;
    struct rate_shared *r = make(10, 1);
    assert_seconds(rate_shared_take(r, 1, 2 * S), 0);
    assert_seconds(rate_shared_take(r, 1, S), 0.1);
    assert_seconds(rate_shared_take(r, 1, 2 * S + 50 * MS), 0.05);
    rate_shared_drop(r);
}

static void test_other_limits_hold_from_then_on(void **state)
{
    (void)state;
    struct rate_shared *r = make(10, 100);
    assert_seconds(rate_shared_take(r, 50, S), 0);
    rate_shared_set(r, &(struct rate_limits){1, 20}, S); /* 50 were left */
    assert_seconds(rate_shared_take(r, 20, S), 0);
    assert_seconds(rate_shared_take(r, 1, S), 1);
    rate_shared_set(r, &(struct rate_limits){10, 20}, S);
    assert_seconds(rate_shared_take(r, 1, S), 0.1);
    rate_shared_drop(r);

    r = make(10, 5);
    rate_shared_set(r, &(struct rate_limits){10, 50}, S); /* full stays full */
    assert_seconds(rate_shared_take(r, 50, S), 0);
    rate_shared_drop(r);
}

static void test_it_tells_when_it_will_be_full(void **state)
{
    (void)state;
    struct rate_shared *r = make(10, 5);
    assert_true(rate_shared_full_ns(r, S) <= S);
    assert_seconds(rate_shared_take(r, 4, S), 0);
    uint64_t full = rate_shared_full_ns(r, S);
    assert_in_range(full, S + 400 * MS, S + 400 * MS + 1);
    assert_true(rate_shared_full_ns(r, full) <= full);
    rate_shared_drop(r);
}

static void test_a_draw_takes_what_is_there_then_portions_for_the_future(void **state)
{
    (void)state;
    struct rate_shared *r = make(100000, 50000);
    uint64_t wait_ms;
    assert_int_equal(rate_shared_draw(r, 20000, S, &wait_ms), 20000);
    assert_int_equal(wait_ms, 0);
    assert_int_equal(rate_shared_draw(r, 1000000, S, &wait_ms), 30000);
    assert_int_equal(wait_ms, 0);
    assert_int_equal(rate_shared_draw(r, 1000000, S, &wait_ms), 2000); /* 20 ms' worth */
    assert_int_equal(wait_ms, 21);
    assert_int_equal(rate_shared_draw(r, 1000000, S, &wait_ms), 2000);
    assert_int_equal(wait_ms, 41);
    rate_shared_drop(r);
}

static void test_a_draw_is_at_least_one_byte_however_slow_the_rate(void **state)
{
    (void)state;
    struct rate_shared *r = make(0.1, 1);
    uint64_t wait_ms;
    assert_int_equal(rate_shared_draw(r, 10, S, &wait_ms), 1);
    assert_int_equal(wait_ms, 0);
    assert_int_equal(rate_shared_draw(r, 10, S, &wait_ms), 1);
    assert_int_equal(wait_ms, 10001);
    rate_shared_drop(r);
}

enum { THREADS = 4, TURNS = 20000, BURST = 10000 };

struct contest {
    struct rate_shared *rate;
    atomic_uint taken;
};

/* Nothing is earned meanwhile: the clock stands. */
static void *take_and_give(void *arg)
{
    struct contest *c = arg;
    for (int i = 0; i < TURNS; i++) {
        if (rate_shared_take(c->rate, 1, S) == 0)
            atomic_fetch_add(&c->taken, 1);
        if (i % 4 == 0 && rate_shared_take(c->rate, 2, S) == 0)
            rate_shared_give(c->rate, 2);
        rate_shared_drop(rate_shared_hold(c->rate));
    }
    return NULL;
}

static void test_threads_together_get_what_there_is_and_no_more(void **state)
{
    (void)state;
    struct contest c = {.rate = make(1, BURST)};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &c), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&c.taken), BURST);
    assert_true(rate_shared_is_alone(c.rate));
    rate_shared_drop(c.rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_starts_full_and_fills_up_to_the_burst),
        cmocka_unit_test(test_rates_may_be_fractions),
        cmocka_unit_test(test_after_the_wait_it_told_the_tokens_are_there),
        cmocka_unit_test(test_more_than_the_burst_is_never_there_at_once),
        cmocka_unit_test(test_who_reserves_waits_behind_who_reserved_before),
        cmocka_unit_test(test_what_is_given_back_is_there_for_others_up_to_the_burst),
        cmocka_unit_test(test_a_clock_that_is_behind_earns_nothing),
        cmocka_unit_test(test_other_limits_hold_from_then_on),
        cmocka_unit_test(test_it_tells_when_it_will_be_full),
        cmocka_unit_test(test_a_draw_takes_what_is_there_then_portions_for_the_future),
        cmocka_unit_test(test_a_draw_is_at_least_one_byte_however_slow_the_rate),
        cmocka_unit_test(test_threads_together_get_what_there_is_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
