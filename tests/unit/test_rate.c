/* The token bucket, with a clock of the tests' own. */
#include "support.h"

#include "penstock/net/rate.h"

static const uint64_t NS = 1000000000;

static void test_a_bucket_starts_full_and_with_a_tenth_of_a_second(void **state)
{
    (void)state;
    struct rate r;
    rate_init(&r, 1000, 0, 5);
    assert_int_equal(rate_available(&r, 5), 100);
    rate_init(&r, 5, 0, 5);
    assert_int_equal(rate_available(&r, 5), 1);
    rate_init(&r, 5, 77, 5);
    assert_int_equal(rate_available(&r, 5), 77);
}

static void test_taking_more_than_there_is_leaves_nothing(void **state)
{
    (void)state;
    struct rate r;
    rate_init(&r, 1000, 100, 0);
    rate_take(&r, 30);
    assert_int_equal(rate_available(&r, 0), 70);
    rate_take(&r, 1000);
    assert_int_equal(rate_available(&r, 0), 0);
}

static void test_no_more_than_the_burst_is_saved_up(void **state)
{
    (void)state;
    struct rate r;
    rate_init(&r, 1000, 100, 0);
    assert_int_equal(rate_available(&r, 3600 * NS), 100);
    rate_take(&r, 100);
    assert_int_equal(rate_available(&r, 7200 * NS), 100);
    rate_take(&r, 60);
    assert_int_equal(rate_available(&r, 7200 * NS + NS / 20), 90);
}

static void test_a_clock_that_stands_or_jumps_back_gives_nothing(void **state)
{
    (void)state;
    struct rate r;
    rate_init(&r, 1000, 100, 50 * NS);
    rate_take(&r, 100);
    assert_int_equal(rate_available(&r, 50 * NS), 0);
    assert_int_equal(rate_available(&r, 49 * NS), 0);
    assert_int_equal(rate_available(&r, 50 * NS + NS / 100), 10);
}

/* Takes what there is, at random steps; returns the sum. */
static uint64_t drain(uint64_t per_second, uint64_t burst, uint64_t step_max_ns, uint64_t until_ns,
                      unsigned *steps)
{
    struct rate r;
    struct random rnd = {per_second};
    uint64_t now = 12345, end = now + until_ns, sum = 0;
    const uint64_t start = now;
    rate_init(&r, per_second, burst, now);
    burst = r.burst;
    *steps = 0;
    while (now < end) {
        uint64_t there = rate_available(&r, now);
        uint64_t take = random_in(&rnd, 0, 3) ? there : there / 2;
        rate_take(&r, take);
        sum += take;
        /* sum <= burst + per_second * time, without overflow */
        assert_true((unsigned __int128)sum * NS <=
                    (unsigned __int128)burst * NS + (unsigned __int128)(now - start) * per_second);
        now += random_in(&rnd, 1, step_max_ns);
        ++*steps;
    }
    return sum + rate_available(&r, end);
}

static void
test_never_more_than_the_rate_and_the_burst_and_no_time_is_lost_to_rounding(void **state)
{
    (void)state;
    static const struct {
        uint64_t per_second, burst, step_ns, time_ns;
    } cases[] = {
        {1, 1, 1000000, 100000000000},
        {3, 3, 1000000, 100000000000},
        {7, 1, 999983, 60000000000},
        {999, 100, 100000, 10000000000},
        {1000, 0, 50, 3000000},
        {65536, 0, 20000, 1000000000},
        {1000003, 5000, 5000, 500000000},
        {1250000000, 0, 10000, 500000000},
        {10000000000, 0, 10000, 500000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned steps;
        uint64_t burst = cases[i].burst ? cases[i].burst : cases[i].per_second / 10;
        uint64_t sum =
            drain(cases[i].per_second, cases[i].burst, cases[i].step_ns, cases[i].time_ns, &steps);
        uint64_t right =
            burst + (uint64_t)((unsigned __int128)cases[i].per_second * cases[i].time_ns / NS);
        /* Less than a nanosecond a step. A full bucket saves nothing, so a burst of 1 may lose half
         * a step, too: those cases have steps far below the time of a token. */
        uint64_t slack = 2 + (uint64_t)((unsigned __int128)cases[i].per_second * steps / NS);
        if (burst == 1)
            slack += sum * cases[i].per_second * cases[i].step_ns / NS * 2;
        assert_true(sum <= right);
        assert_true(sum + slack >= right);
    }
}

static void test_the_wait_is_enough_and_not_a_millisecond_too_long(void **state)
{
    (void)state;
    struct random rnd = {3};
    for (unsigned i = 0; i < 20000; i++) {
        struct rate r;
        uint64_t per_second = random_in(&rnd, 1, i % 2 ? 100 : 100000000);
        uint64_t now = random_in(&rnd, 0, 1000000000);
        rate_init(&r, per_second, random_in(&rnd, 1, 1000000), now);
        rate_take(&r, random_in(&rnd, 0, r.burst));
        now += random_in(&rnd, 0, 10000000);
        uint64_t there = rate_available(&r, now);
        uint64_t want = random_in(&rnd, 1, r.burst * 2);
        uint64_t wait = rate_wait_ms(&r, want);
        uint64_t capped = want < r.burst ? want : r.burst;
        assert_true(wait >= 1);
        struct rate later = r, sooner = r;
        assert_true(rate_available(&later, now + wait * 1000000) >= capped);
        if (there < capped && wait > 2)
            assert_true(rate_available(&sooner, r.last_ns + (wait - 1) * 1000000) <= capped);
    }
}

static void test_huge_rates_and_times_do_not_overflow(void **state)
{
    (void)state;
    struct rate r;
    rate_init(&r, UINT64_MAX, UINT64_MAX, 0);
    assert_true(rate_available(&r, 1) == UINT64_MAX);
    rate_take(&r, UINT64_MAX);
    assert_true(rate_available(&r, UINT64_MAX) == UINT64_MAX);
    rate_take(&r, UINT64_MAX);
    assert_int_equal(rate_wait_ms(&r, UINT64_MAX), 1001);
    rate_init(&r, 1, UINT64_MAX, 0);
    rate_take(&r, UINT64_MAX);
    assert_true(rate_wait_ms(&r, UINT64_MAX) > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_bucket_starts_full_and_with_a_tenth_of_a_second),
        cmocka_unit_test(test_taking_more_than_there_is_leaves_nothing),
        cmocka_unit_test(test_no_more_than_the_burst_is_saved_up),
        cmocka_unit_test(test_a_clock_that_stands_or_jumps_back_gives_nothing),
        cmocka_unit_test(
            test_never_more_than_the_rate_and_the_burst_and_no_time_is_lost_to_rounding),
        cmocka_unit_test(test_the_wait_is_enough_and_not_a_millisecond_too_long),
        cmocka_unit_test(test_huge_rates_and_times_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
