/* The heap of timers, against a plain array as its model. */
#include "support.h"

#include "penstock/net/timers.h"

enum { N = 200 };

static struct timers heap;
static struct timer timers[N];
static uint64_t due[N]; /* the model: 0 while stopped */
static uint64_t last_due;
static unsigned n_called;

static size_t index_of(const struct timer *t)
{
    return (size_t)(t - timers);
}

static uint64_t model_next(void)
{
    uint64_t next = 0;
    for (size_t i = 0; i < N; i++)
        if (due[i] && (!next || due[i] < next))
            next = due[i];
    return next;
}

static unsigned model_count_due(uint64_t now)
{
    unsigned n = 0;
    for (size_t i = 0; i < N; i++)
        n += due[i] && due[i] <= now;
    return n;
}

static void on_model_timer(struct timer *t)
{
    size_t i = index_of(t);
    assert_false(timer_is_active(t));
    assert_true(due[i] != 0);
    assert_int_equal(due[i], model_next());
    assert_true(due[i] >= last_due);
    last_due = due[i];
    due[i] = 0;
    n_called++;
}

static int reset(void **state)
{
    (void)state;
    heap = (struct timers){0};
    memset(due, 0, sizeof due);
    n_called = 0;
    for (size_t i = 0; i < N; i++)
        timer_init(&timers[i], on_model_timer);
    return 0;
}

static void run_model(uint64_t now)
{
    unsigned n = model_count_due(now);
    last_due = n_called = 0;
    timers_run(&heap, now);
    assert_int_equal(n_called, n);
    assert_int_equal(model_count_due(now), 0);
}

static void test_starts_stops_and_runs_in_any_order_do_what_a_sorted_list_does(void **state)
{
    (void)state;
    struct random rnd = {1};
    uint64_t now = 1000;
    for (unsigned step = 0; step < 100000; step++) {
        size_t i = random_in(&rnd, 0, N - 1);
        unsigned what = (unsigned)random_in(&rnd, 0, 9);
        if (what < 6) {
            due[i] = now + random_in(&rnd, 0, 300) - 20;
            timers_start(&heap, &timers[i], due[i]);
        } else if (what < 9) {
            due[i] = 0;
            timers_stop(&heap, &timers[i]);
        } else {
            now += random_in(&rnd, 0, 15);
            run_model(now);
        }
        assert_int_equal(timer_is_active(&timers[i]), due[i] != 0);
        uint64_t next = model_next();
        int wait = !next ? -1 : next <= now ? 0 : (int)(next - now);
        assert_int_equal(timers_next_ms(&heap, now), wait);
    }
    run_model(now + 1000);
    assert_null(heap.root);
}

static void test_a_timer_that_is_started_again_only_moves(void **state)
{
    (void)state;
    due[0] = 500;
    timers_start(&heap, &timers[0], 100);
    timers_start(&heap, &timers[0], 900);
    timers_start(&heap, &timers[0], 500);
    assert_int_equal(timers_next_ms(&heap, 400), 100);
    timers_run(&heap, 499);
    assert_int_equal(n_called, 0);
    run_model(500);
    assert_int_equal(n_called, 1);
    timers_run(&heap, 10000);
    assert_int_equal(n_called, 1);
}

static void test_stopping_what_never_started_is_harmless(void **state)
{
    (void)state;
    struct timer zeroed = {0};
    timers_stop(&heap, &zeroed);
    timers_stop(&heap, &timers[0]);
    assert_null(heap.root);
}

static void test_time_zero_is_a_time_too(void **state)
{
    (void)state;
    timers_start(&heap, &timers[0], 0);
    assert_true(timer_is_active(&timers[0]));
    assert_int_equal(timers_next_ms(&heap, 1), 0);
    timers_stop(&heap, &timers[0]);
}

static void test_the_wait_is_an_hour_at_most_and_endless_without_timers(void **state)
{
    (void)state;
    assert_int_equal(timers_next_ms(&heap, 5), -1);
    timers_start(&heap, &timers[0], UINT64_MAX);
    assert_int_equal(timers_next_ms(&heap, 5), 3600000);
    timers_start(&heap, &timers[1], 3600005);
    assert_int_equal(timers_next_ms(&heap, 5), 3600000);
    assert_int_equal(timers_next_ms(&heap, 6), 3599999);
    assert_int_equal(timers_next_ms(&heap, 4000000), 0);
}

/* Every callback stops, moves or starts some others; the model does the same. */
static struct random chaos;
static uint64_t chaos_now;

static void on_chaos(struct timer *t)
{
    on_model_timer(t);
    for (unsigned k = 0; k < 3; k++) {
        size_t i = random_in(&chaos, 0, N - 1);
        if (random_in(&chaos, 0, 1)) {
            timers_stop(&heap, &timers[i]);
            due[i] = 0;
        } else { /* never due already: that is for the next run */
            due[i] = chaos_now + random_in(&chaos, 1, 50);
            timers_start(&heap, &timers[i], due[i]);
        }
    }
}

static void test_callbacks_may_stop_and_start_any_timer(void **state)
{
    (void)state;
    chaos = (struct random){7};
    chaos_now = 100;
    for (size_t i = 0; i < N; i++) {
        timer_init(&timers[i], on_chaos);
        due[i] = chaos_now + random_in(&chaos, 1, 50);
        timers_start(&heap, &timers[i], due[i]);
    }
    unsigned sum = 0;
    for (unsigned round = 0; round < 5000 && heap.root; round++) {
        chaos_now += random_in(&chaos, 0, 10);
        last_due = n_called = 0;
        timers_run(&heap, chaos_now);
        assert_int_equal(model_count_due(chaos_now), 0);
        sum += n_called;
    }
    assert_true(sum > N);
}

static void on_again(struct timer *t)
{
    if (++n_called < 5)
        timers_start(&heap, t, 10);
}

static void
test_a_callback_that_starts_its_timer_in_the_past_is_called_in_the_same_run(void **state)
{
    (void)state;
    timer_init(&timers[0], on_again);
    timers_start(&heap, &timers[0], 10);
    timers_run(&heap, 10);
    assert_int_equal(n_called, 5);
    assert_null(heap.root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_starts_stops_and_runs_in_any_order_do_what_a_sorted_list_does,
                               reset),
        cmocka_unit_test_setup(test_a_timer_that_is_started_again_only_moves, reset),
        cmocka_unit_test_setup(test_stopping_what_never_started_is_harmless, reset),
        cmocka_unit_test_setup(test_time_zero_is_a_time_too, reset),
        cmocka_unit_test_setup(test_the_wait_is_an_hour_at_most_and_endless_without_timers, reset),
        cmocka_unit_test_setup(test_callbacks_may_stop_and_start_any_timer, reset),
        cmocka_unit_test_setup(
            test_a_callback_that_starts_its_timer_in_the_past_is_called_in_the_same_run, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
