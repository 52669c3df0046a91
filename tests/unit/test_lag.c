/* The lag of a loop: the longest round is told for one window at least, and not for ever. */
#include "support.h"

#include "penstock/base/lag.h"

#define MS UINT64_C(1000000)
#define WINDOW (LAG_WINDOW_MS * MS)

static const uint64_t start = 1000 * WINDOW;

/* A round of `ms`, from `at` after the start on. */
static void round_of(struct lag *lag, uint64_t at, uint64_t ms)
{
    lag_begin(lag, start + at);
    lag_end(lag, start + at + ms * MS);
}

static uint64_t longest_ms(const struct lag *lag, uint64_t at)
{
    return lag_longest_ns(lag, start + at) / MS;
}

static void the_longest_round_counts(void **state)
{
    (void)state;
    struct lag lag = {0};
    assert_int_equal(longest_ms(&lag, 0), 0);
    round_of(&lag, 0, 3);
    round_of(&lag, 10 * MS, 50);
    round_of(&lag, 100 * MS, 7);
    assert_int_equal(longest_ms(&lag, 200 * MS), 50);
}

static void the_round_that_runs_counts(void **state)
{
    (void)state;
    struct lag lag = {0};
    round_of(&lag, 0, 20);
    lag_begin(&lag, start + 100 * MS);
    assert_int_equal(longest_ms(&lag, 110 * MS), 20);
    assert_int_equal(longest_ms(&lag, 400 * MS), 300);
    lag_end(&lag, start + 400 * MS);
    assert_int_equal(longest_ms(&lag, 500 * MS), 300);
}

static void a_peak_is_told_for_a_window_and_forgotten_after_two(void **state)
{
    (void)state;
    struct lag lag = {0};
    round_of(&lag, 0, 50);
    for (uint64_t at = MS; at < WINDOW; at += WINDOW / 10) {
        round_of(&lag, at, 1);
        assert_int_equal(longest_ms(&lag, at), 50);
    }
    round_of(&lag, WINDOW + 100 * MS, 2);
    assert_int_equal(longest_ms(&lag, WINDOW + 200 * MS), 50);
    round_of(&lag, 2 * WINDOW + 200 * MS, 3);
    assert_int_equal(longest_ms(&lag, 2 * WINDOW + 300 * MS), 3);
}

static void a_loop_that_sleeps_forgets_too(void **state)
{
    (void)state;
    struct lag lag = {0};
    round_of(&lag, 0, 50);
    assert_int_equal(longest_ms(&lag, WINDOW), 50);
    assert_int_equal(longest_ms(&lag, 3 * WINDOW), 0);
    round_of(&lag, 5 * WINDOW, 4);
    assert_int_equal(longest_ms(&lag, 5 * WINDOW + 10 * MS), 4);
}

static void a_clock_that_is_late_makes_no_round_negative(void **state)
{
    (void)state;
    struct lag lag = {0};
    lag_begin(&lag, start);
    lag_end(&lag, start - 3 * MS);
    assert_int_equal(longest_ms(&lag, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_round_counts),
        cmocka_unit_test(the_round_that_runs_counts),
        cmocka_unit_test(a_peak_is_told_for_a_window_and_forgotten_after_two),
        cmocka_unit_test(a_loop_that_sleeps_forgets_too),
        cmocka_unit_test(a_clock_that_is_late_makes_no_round_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
