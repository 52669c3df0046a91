/* A pool: who is chosen, in which order, and who is left out. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>

#include "penstock/proxy/pool.h"

enum { MANY = 20, ROUNDS = 40000 };

struct fixture_pool {
    struct pool *pool;
    struct pool_member members[MANY];
    uint32_t order[MANY];
    struct random rnd;
    uint64_t now_ms;
};

static int setup(void **state)
{
    struct fixture_pool *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    f->pool = pool_new("test");
    for (unsigned i = 0; i < MANY; i++) {
        char name[24];
        snprintf(name, sizeof name, "10.0.0.%u:80", i);
        f->members[i] = (struct pool_member){pool_server(f->pool, name), 1, NULL};
    }
    f->rnd.x = 7;
    f->now_ms = 1000;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture_pool *f = *state;
    for (unsigned i = 0; i < MANY; i++)
        pool_server_drop(f->members[i].server);
    pool_free(f->pool);
    free(f);
    return 0;
}

static size_t choose(struct fixture_pool *f, enum pool_algo algo, size_t n, uint64_t key)
{
    struct pool_choice c = {.algo = algo,
                            .members = f->members,
                            .n_members = n,
                            .key = key,
                            .random = random_next(&f->rnd),
                            .now_ms = f->now_ms};
    return pool_choose(f->pool, &c, f->order);
}

/* A configuration with the first three servers. */
static void use_with(struct fixture_pool *f, struct pool_eject eject)
{
    pool_use(f->pool, &(struct pool_use){POOL_HASH, false, eject, f->members, 3});
}

static void test_round_robin_goes_by_turns_and_weights(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[3] = {0}, last = 3, repeats = 0;
    f->members[0].weight = 2;
    for (unsigned i = 0; i < 400; i++) {
        assert_int_equal(choose(f, POOL_ROUND_ROBIN, 3, 0), 3);
        counts[f->order[0]]++;
        repeats += f->order[0] == last;
        last = f->order[0];
        assert_int_equal(f->order[1], (f->order[0] + 1) % 3);
        assert_int_equal(f->order[2], (f->order[0] + 2) % 3);
    }
    assert_int_equal(counts[0], 200);
    assert_int_equal(counts[1], 100);
    assert_int_equal(counts[2], 100);
    assert_true(repeats <= 100); /* the heavy one's turns are spread */
}

static void test_random_goes_by_weights(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[3] = {0}, second[3] = {0};
    f->members[2].weight = 2;
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_int_equal(choose(f, POOL_RANDOM, 3, 0), 3);
        counts[f->order[0]]++;
        second[f->order[1]]++;
    }
    assert_in_range(counts[0], ROUNDS / 4 - 800, ROUNDS / 4 + 800);
    assert_in_range(counts[1], ROUNDS / 4 - 800, ROUNDS / 4 + 800);
    assert_in_range(counts[2], ROUNDS / 2 - 800, ROUNDS / 2 + 800);
    assert_true(second[0] && second[1] && second[2]);
}

static void test_least_conn_takes_who_has_fewest_for_its_weight(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[3];
    f->members[1].weight = 3;
    for (unsigned i = 0; i < 500; i++) {
        choose(f, POOL_LEAST_CONN, 3, 0);
        pool_enter(f->members[f->order[0]].server);
    }
    for (unsigned i = 0; i < 3; i++)
        counts[i] = pool_active(f->members[i].server);
    assert_in_range(counts[0], 99, 101);
    assert_in_range(counts[1], 298, 302);
    assert_in_range(counts[2], 99, 101);
    for (unsigned n = 0; n < 50; n++)
        pool_leave(f->members[2].server);
    choose(f, POOL_LEAST_CONN, 3, 0);
    assert_int_equal(f->order[0], 2);
    for (unsigned i = 0; i < 3; i++)
        while (pool_active(f->members[i].server))
            pool_leave(f->members[i].server);
}

static void test_equals_are_chosen_by_chance(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[4] = {0};
    for (unsigned i = 0; i < ROUNDS; i++) {
        choose(f, POOL_LEAST_CONN, 4, 0);
        counts[f->order[0]]++;
    }
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(counts[i], ROUNDS / 4 - 800, ROUNDS / 4 + 800);
}

static void test_a_hash_gives_a_key_the_same_server_and_each_server_its_share(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[3] = {0};
    f->members[1].weight = 2;
    for (uint64_t key = 0; key < ROUNDS; key++) {
        choose(f, POOL_HASH, 3, key);
        uint32_t first = f->order[0], second = f->order[1];
        counts[first]++;
        choose(f, POOL_HASH, 3, key);
        assert_true(f->order[0] == first && f->order[1] == second);
    }
    assert_in_range(counts[0], ROUNDS / 4 - 800, ROUNDS / 4 + 800);
    assert_in_range(counts[1], ROUNDS / 2 - 800, ROUNDS / 2 + 800);
    assert_in_range(counts[2], ROUNDS / 4 - 800, ROUNDS / 4 + 800);
}

static void test_a_server_that_goes_moves_its_own_keys_only_to_their_second(void **state)
{
    struct fixture_pool *f = *state;
    unsigned moved = 0;
    for (uint64_t key = 0; key < 10000; key++) {
        choose(f, POOL_HASH, 10, key);
        uint32_t first = f->order[0], second = f->order[1];
        pool_drain(f->members[4].server);
        assert_int_equal(choose(f, POOL_HASH, 10, key), 9);
        assert_int_equal(f->order[0], first == 4 ? second : first);
        pool_restore(f->members[4].server);
        moved += first == 4;
    }
    assert_in_range(moved, 850, 1150); /* a tenth */
}

static void test_a_server_that_comes_takes_its_share_from_all_and_moves_no_other(void **state)
{
    struct fixture_pool *f = *state;
    unsigned moved = 0;
    for (uint64_t key = 0; key < 10000; key++) {
        choose(f, POOL_HASH, 9, key);
        uint32_t first = f->order[0];
        choose(f, POOL_HASH, 10, key);
        if (f->order[0] != first)
            assert_int_equal(f->order[0], 9);
        moved += f->order[0] != first;
    }
    assert_in_range(moved, 850, 1150);
}

static void test_drained_and_down_servers_are_left_out(void **state)
{
    struct fixture_pool *f = *state;
    for (int algo = POOL_ROUND_ROBIN; algo <= POOL_HASH; algo++) {
        pool_drain(f->members[0].server);
        assert_int_equal(choose(f, (enum pool_algo)algo, 2, 1), 1);
        assert_int_equal(f->order[0], 1);
        assert_true(pool_checked(f->members[1].server, false, 1, 1));
        assert_int_equal(choose(f, (enum pool_algo)algo, 2, 1), 0);
        pool_restore(f->members[0].server);
        assert_true(pool_checked(f->members[1].server, true, 1, 1));
        assert_int_equal(choose(f, (enum pool_algo)algo, 2, 1), 2);
    }
}

static void test_checks_count_in_a_row(void **state)
{
    struct fixture_pool *f = *state;
    struct pool_server *s = f->members[0].server;
    assert_false(pool_checked(s, false, 3, 2));
    assert_false(pool_checked(s, false, 3, 2));
    assert_false(pool_checked(s, true, 3, 2)); /* from the start */
    assert_false(pool_checked(s, false, 3, 2));
    assert_false(pool_checked(s, false, 3, 2));
    assert_int_equal(pool_state(s, 1), POOL_UP);
    assert_true(pool_checked(s, false, 3, 2));
    assert_int_equal(pool_state(s, 1), POOL_DOWN);
    assert_false(pool_checked(s, true, 3, 2));
    assert_true(pool_checked(s, true, 3, 2));
    assert_int_equal(pool_state(s, 1), POOL_UP);
}

static void test_dials_that_fail_in_a_row_eject_for_a_while(void **state)
{
    struct fixture_pool *f = *state;
    struct pool_server *s = f->members[0].server;
    for (unsigned i = 0; i < 10; i++) /* unless it is asked for */
        assert_false(pool_dialled(s, false, 1000));
    assert_false(pool_dialled(s, true, 1000));
    use_with(f, (struct pool_eject){2, 500});
    assert_false(pool_dialled(s, false, 1000));
    assert_false(pool_dialled(s, true, 1000));
    assert_false(pool_dialled(s, false, 1000));
    assert_true(pool_dialled(s, false, 1000));
    assert_int_equal(pool_state(s, 1499), POOL_EJECTED);
    assert_int_equal(choose(f, POOL_HASH, 2, 1), 1);
    assert_int_equal(f->order[0], 1);
    assert_int_equal(pool_state(s, 1500), POOL_UP);
    assert_false(pool_dialled(s, false, 1500));
    assert_true(pool_dialled(s, false, 1500));
    assert_false(pool_dialled(s, true, 1600)); /* it was tried all the same, and works */
    assert_int_equal(pool_state(s, 1600), POOL_UP);
}

static void test_when_all_are_ejected_all_may_be_used(void **state)
{
    struct fixture_pool *f = *state;
    use_with(f, (struct pool_eject){1, 500});
    for (unsigned i = 0; i < 3; i++)
        assert_true(pool_dialled(f->members[i].server, false, 1000));
    assert_int_equal(choose(f, POOL_RANDOM, 3, 1), 3);
    pool_drain(f->members[2].server);
    assert_int_equal(choose(f, POOL_RANDOM, 3, 1), 2);
}

static void test_a_server_keeps_its_state_as_long_as_somebody_holds_it(void **state)
{
    struct fixture_pool *f = *state;
    struct pool_server *s = pool_server(f->pool, "a"), *again = pool_server(f->pool, "a");
    assert_ptr_equal(s, again);
    pool_drain(s);
    pool_server_drop(again);
    pool_enter(s); /* a connection */
    pool_server_drop(s);
    s = pool_server(f->pool, "a");
    assert_int_equal(pool_state(s, 1), POOL_DRAINED);
    assert_int_equal(pool_active(s), 1);
    pool_leave(s);
    pool_server_drop(s);
    s = pool_server(f->pool, "a"); /* a new one */
    assert_int_equal(pool_state(s, 1), POOL_UP);
    pool_server_drop(s);

    struct pool *pool = pool_new("other"); /* a server outlives its pool */
    s = pool_server(pool, "b");
    pool_free(pool);
    assert_string_equal(pool_server_name(s), "b");
    pool_server_drop(s);
}

static void *contend(void *arg)
{
    struct fixture_pool *f = arg;
    uint32_t order[MANY];
    struct random rnd = {(uint64_t)(uintptr_t)&rnd};
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        struct pool_choice c = {.algo = (enum pool_algo)(i % 4),
                                .members = f->members,
                                .n_members = MANY,
                                .random = random_next(&rnd),
                                .now_ms = i};
        size_t n = pool_choose(f->pool, &c, order);
        if (!n)
            continue;
        struct pool_server *s = f->members[order[0]].server;
        pool_enter(s);
        pool_dialled(s, i % 3, i);
        pool_checked(s, i % 5, 2, 1);
        if (i % 2)
            pool_leave(s);
    }
    return NULL;
}

static void test_a_weight_given_by_hand_holds_until_another_is_configured(void **state)
{
    struct fixture_pool *f = *state;
    unsigned counts[2] = {0};
    struct pool_use use = {.algo = POOL_ROUND_ROBIN, .members = f->members, .n_members = 2};
    pool_use(f->pool, &use);
    pool_set_weight(f->members[0].server, 3);
    for (unsigned i = 0; i < 400; i++) {
        choose(f, POOL_ROUND_ROBIN, 2, 0);
        counts[f->order[0]]++;
    }
    assert_int_equal(counts[0], 300);
    pool_use(f->pool, &use); /* the same once more */
    pool_unuse(f->pool, &use);
    f->members[0].weight = 2; /* who has chosen another goes by that */
    memset(counts, 0, sizeof counts);
    for (unsigned i = 0; i < 300; i++) {
        choose(f, POOL_ROUND_ROBIN, 2, 0);
        counts[f->order[0]]++;
    }
    assert_int_equal(counts[0], 200);
    pool_use(f->pool, &use);
    f->members[0].weight = 1;
    pool_use(f->pool, &use); /* the hand's is forgotten, also where the first comes back */
    memset(counts, 0, sizeof counts);
    for (unsigned i = 0; i < 400; i++) {
        choose(f, POOL_ROUND_ROBIN, 2, 0);
        counts[f->order[0]]++;
    }
    assert_int_equal(counts[0], 200);
}

static void test_what_threads_take_and_leave_adds_up(void **state)
{
    struct fixture_pool *f = *state;
    pthread_t threads[4];
    use_with(f, (struct pool_eject){2, 10});
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contend, f), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    unsigned sum = 0;
    for (unsigned i = 0; i < MANY; i++) {
        for (; pool_active(f->members[i].server); sum++)
            pool_leave(f->members[i].server);
    }
    assert_in_range(sum, 1, ROUNDS / 2);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_round_robin_goes_by_turns_and_weights),
        test(test_random_goes_by_weights),
        test(test_least_conn_takes_who_has_fewest_for_its_weight),
        test(test_equals_are_chosen_by_chance),
        test(test_a_hash_gives_a_key_the_same_server_and_each_server_its_share),
        test(test_a_server_that_goes_moves_its_own_keys_only_to_their_second),
        test(test_a_server_that_comes_takes_its_share_from_all_and_moves_no_other),
        test(test_drained_and_down_servers_are_left_out),
        test(test_checks_count_in_a_row),
        test(test_dials_that_fail_in_a_row_eject_for_a_while),
        test(test_when_all_are_ejected_all_may_be_used),
        test(test_a_server_keeps_its_state_as_long_as_somebody_holds_it),
        test(test_a_weight_given_by_hand_holds_until_another_is_configured),
        test(test_what_threads_take_and_leave_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
