/* Buckets by key: each its own rate, none forgotten that still counts before those that do not. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "penstock/proxy/buckets.h"

static const struct hash_key hash = {5, 6};
static const uint64_t S = 1000000000, MS = 1000000;

static struct buckets *make(double per_second, double burst, uint64_t keys)
{
    struct buckets_limits limits = {{per_second, burst}, keys};
    struct buckets *b = buckets_new(&limits, &hash);
    assert_non_null(b);
    return b;
}

static bool take(struct buckets *b, const char *name, double n, uint64_t now_ns)
{
    return buckets_take(b, (struct buckets_key){name, strlen(name)}, n, now_ns) == 0;
}

static bool take_numbered(struct buckets *b, unsigned i, double n, uint64_t now_ns)
{
    char name[16];
    snprintf(name, sizeof name, "%u", i);
    return take(b, name, n, now_ns);
}

static void test_each_key_has_a_bucket_of_its_own(void **state)
{
    (void)state;
    struct buckets *b = make(1, 2, 100);
    assert_true(take(b, "a", 2, S));
    assert_false(take(b, "a", 1, S));
    assert_true(take(b, "b", 2, S));
    assert_true(take(b, "a", 1, 2 * S));
    assert_true(buckets_take(b, (struct buckets_key){"a", 1}, 1, 2 * S) == 1.0);
    buckets_free(b);
}

static void test_full_ones_are_forgotten_first_however_recently_used(void **state)
{
    (void)state;
    struct buckets *b = make(1, 10, 4);
    assert_true(take(b, "slow", 10, S));
    assert_true(take(b, "slower", 10, S));
    assert_true(take(b, "full", 1, S));
    assert_true(take(b, "full too", 1, S));
    assert_true(take(b, "new", 1, 3 * S)); /* for which the two go that are full again */
    assert_int_equal(buckets_len(b), 3);
    assert_int_equal(buckets_forgotten(b), 0);
    assert_false(take(b, "slow", 10, 3 * S));
    assert_false(take(b, "slower", 10, 3 * S));
    buckets_free(b);
}

static void test_when_none_is_full_the_longest_unused_goes_and_is_counted(void **state)
{
    (void)state;
    struct buckets *b = make(1, 10, 3);
    assert_true(take(b, "a", 10, S));
    assert_true(take(b, "b", 10, S));
    assert_true(take(b, "c", 10, S));
    assert_false(take(b, "a", 10, S)); /* a use, all the same */
    assert_true(take(b, "d", 10, S));
    assert_int_equal(buckets_len(b), 3);
    assert_int_equal(buckets_forgotten(b), 1);
    assert_false(take(b, "a", 10, S));
    assert_false(take(b, "c", 10, S));
    assert_true(take(b, "b", 10, S)); /* it was b */
    buckets_free(b);
}

static void test_what_is_drawn_from_is_not_forgotten(void **state)
{
    (void)state;
    struct buckets *b = make(1, 10, 2);
    struct rate_shared *held = buckets_key(b, (struct buckets_key){"held", 4}, S);
    for (unsigned i = 0; i < 100; i++)
        assert_true(take_numbered(b, i, 10, S));
    struct rate_shared *again = buckets_key(b, (struct buckets_key){"held", 4}, S);
    assert_ptr_equal(held, again);
    assert_true(rate_shared_take(held, 10, S) == 0);
    assert_false(take(b, "held", 1, S));
    rate_shared_drop(again);
    buckets_free(b);
    assert_true(rate_shared_is_alone(held)); /* and outlives the table */
    rate_shared_drop(held);
}

static void test_the_number_of_keys_is_bounded(void **state)
{
    (void)state;
    enum { KEYS = 2000, MANY = 50000 };
    struct buckets *b = make(1, 10, KEYS);
    for (unsigned i = 0; i < MANY; i++) {
        assert_true(take_numbered(b, i, 10, S));
        assert_true(buckets_len(b) <= KEYS);
    }
    assert_true(buckets_len(b) > KEYS * 9 / 10);
    assert_int_equal(buckets_len(b) + buckets_forgotten(b), MANY);
    buckets_free(b);
}

static void test_other_limits_hold_for_the_buckets_there_are(void **state)
{
    (void)state;
    struct buckets *b = make(1, 10, 100);
    assert_true(take(b, "a", 10, S));
    buckets_set_limits(b, &(struct buckets_limits){{20, 40}, 100}, S);
    assert_false(take(b, "a", 1, S));
    assert_true(take(b, "a", 20, 2 * S));
    assert_true(take(b, "new", 40, 2 * S));
    buckets_free(b);
}

enum { THREADS = 4, TURNS = 20000, KEYS = 50, BURST = 100 };

struct contest {
    struct buckets *buckets;
    atomic_uint taken[KEYS];
};

/* The clock stands: what is there is the burst of each. */
static void *contend(void *arg)
{
    struct contest *c = arg;
    struct random rnd = {(uint64_t)(uintptr_t)&rnd};
    for (unsigned i = 0; i < TURNS; i++) {
        unsigned k = (unsigned)random_in(&rnd, 0, KEYS - 1);
        if (take_numbered(c->buckets, k, 1, S))
            atomic_fetch_add(&c->taken[k], 1);
    }
    return NULL;
}

static void test_threads_together_get_what_there_is_and_no_more(void **state)
{
    (void)state;
    struct contest c = {.buckets = make(1, BURST, 10000)};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &c), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned k = 0; k < KEYS; k++)
        assert_int_equal(atomic_load(&c.taken[k]), BURST);
    buckets_free(c.buckets);
}

static void *crowd(void *arg)
{
    struct contest *c = arg;
    struct random rnd = {(uint64_t)(uintptr_t)&rnd};
    for (unsigned i = 0; i < TURNS; i++) {
        char name[16];
        int n = snprintf(name, sizeof name, "%u", (unsigned)random_in(&rnd, 0, 999));
        struct rate_shared *r =
            buckets_key(c->buckets, (struct buckets_key){name, (size_t)n}, S + i * MS);
        assert_non_null(r);
        rate_shared_take(r, 1, S + i * MS);
        rate_shared_drop(r);
        if (i % 1000 == 0)
            buckets_set_limits(c->buckets, &(struct buckets_limits){{1 + i, 10}, 100}, S);
    }
    return NULL;
}

static void test_threads_that_crowd_it_stay_within_its_bounds(void **state)
{
    (void)state;
    struct contest c = {.buckets = make(1, 10, 100)};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd, &c), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(buckets_len(c.buckets) <= 100 + THREADS);
    buckets_free(c.buckets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key_has_a_bucket_of_its_own),
        cmocka_unit_test(test_full_ones_are_forgotten_first_however_recently_used),
        cmocka_unit_test(test_when_none_is_full_the_longest_unused_goes_and_is_counted),
        cmocka_unit_test(test_what_is_drawn_from_is_not_forgotten),
        cmocka_unit_test(test_the_number_of_keys_is_bounded),
        cmocka_unit_test(test_other_limits_hold_for_the_buckets_there_are),
        cmocka_unit_test(test_threads_together_get_what_there_is_and_no_more),
        cmocka_unit_test(test_threads_that_crowd_it_stay_within_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
