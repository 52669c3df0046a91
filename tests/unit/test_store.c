/* The store: what is set is got, until its time or its room is over; and every call is atomic. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "penstock/proxy/store.h"

static const struct hash_key hash = {3, 4};
enum { PLENTY = 64 << 20 };

static struct store *make(uint64_t items)
{
    struct store *s = store_new(&(struct store_limits){items, PLENTY}, &hash);
    assert_non_null(s);
    return s;
}

static int setup(void **state)
{
    *state = make(100);
    return 0;
}

static int teardown(void **state)
{
    store_free(*state);
    return 0;
}

static struct store_key key(const char *text)
{
    return (struct store_key){text, strlen(text)};
}

static struct store_value number(double n)
{
    return (struct store_value){.type = STORE_NUMBER, .number = n};
}

static struct store_value string(const char *text)
{
    return (struct store_value){.type = STORE_STRING, .string = {text, strlen(text)}};
}

static const struct store_value nothing = {.type = STORE_NONE};

static void set(struct store *s, const char *name, double n)
{
    struct store_value v = number(n);
    assert_int_equal(store_set(s, key(name), &v, 0, 1), STORE_OK);
}

static struct store_value get(struct store *s, const char *name, uint64_t now_ms)
{
    struct store_value v;
    assert_int_equal(store_get(s, key(name), now_ms, (struct store_room){NULL, 0}, &v), STORE_OK);
    return v;
}

static bool has(struct store *s, const char *name, uint64_t now_ms)
{
    return get(s, name, now_ms).type != STORE_NONE;
}

static void assert_number(struct store *s, const char *name, double n)
{
    struct store_value v = get(s, name, 1);
    assert_int_equal(v.type, STORE_NUMBER);
    assert_true(v.number == n);
}

static void test_values_of_each_type_come_back_as_they_were(void **state)
{
    struct store *s = *state;
    char bytes[16];
    struct store_room room = {bytes, sizeof bytes};
    struct store_value v, yes = {.type = STORE_BOOLEAN, .boolean = true};
    struct store_value binary = {.type = STORE_STRING, .string = {"a\0b", 3}};
    set(s, "n", 0.1);
    assert_number(s, "n", 0.1);
    assert_int_equal(store_set(s, key("b"), &yes, 0, 1), STORE_OK);
    v = get(s, "b", 1);
    assert_true(v.type == STORE_BOOLEAN && v.boolean);
    assert_int_equal(store_set(s, (struct store_key){"k\0y", 3}, &binary, 0, 1), STORE_OK);
    assert_int_equal(store_get(s, (struct store_key){"k\0y", 3}, 1, room, &v), STORE_OK);
    assert_int_equal(v.string.n, 3);
    assert_memory_equal(v.string.bytes, "a\0b", 3);
    assert_false(has(s, "k", 1));
    assert_int_equal(store_set(s, key("n"), &nothing, 0, 1), STORE_OK);
    assert_false(has(s, "n", 1));
    assert_int_equal(store_len(s), 2);
}

static void test_a_string_longer_than_the_room_tells_its_length(void **state)
{
    struct store *s = *state;
    char bytes[16];
    struct store_value v = string("0123456789");
    assert_int_equal(store_set(s, key("k"), &v, 0, 1), STORE_OK);
    assert_int_equal(store_get(s, key("k"), 1, (struct store_room){bytes, 9}, &v), STORE_OK);
    assert_int_equal(v.type, STORE_STRING);
    assert_null(v.string.bytes);
    assert_int_equal(v.string.n, 10);
    assert_int_equal(store_get(s, key("k"), 1, (struct store_room){bytes, 10}, &v), STORE_OK);
    assert_memory_equal(v.string.bytes, "0123456789", 10);
}

static void test_keys_and_values_have_a_greatest_length(void **state)
{
    struct store *s = *state;
    char *big = calloc(1, STORE_VALUE_MAX + 1);
    struct store_key longest = {big, STORE_KEY_MAX}, longer = {big, STORE_KEY_MAX + 1};
    struct store_value v = {.type = STORE_STRING, .string = {big, STORE_VALUE_MAX}};
    assert_int_equal(store_set(s, longest, &v, 0, 1), STORE_OK);
    assert_int_equal(store_set(s, longer, &v, 0, 1), STORE_TOO_LONG);
    assert_int_equal(store_get(s, longer, 1, (struct store_room){0}, &v), STORE_TOO_LONG);
    v = (struct store_value){.type = STORE_STRING, .string = {big, STORE_VALUE_MAX + 1}};
    assert_int_equal(store_add(s, key("k"), &v, 0, 1), STORE_TOO_LONG);
    assert_int_equal(store_len(s), 1);
    free(big);
}

static void test_an_item_is_gone_when_its_time_is_over(void **state)
{
    struct store *s = *state;
    struct store_value v = number(1);
    uint64_t left = 0;
    assert_int_equal(store_set(s, key("k"), &v, 500, 1000), STORE_OK);
    assert_int_equal(store_ttl(s, key("k"), 1100, &left), STORE_OK);
    assert_int_equal(left, 400);
    assert_true(has(s, "k", 1499));
    assert_false(has(s, "k", 1500));
    assert_int_equal(store_ttl(s, key("k"), 1500, &left), STORE_NOT_FOUND);
    assert_int_equal(store_len(s), 0);

    assert_int_equal(store_set(s, key("k"), &v, 500, 2000), STORE_OK);
    assert_int_equal(store_set(s, key("k"), &v, 0, 2100), STORE_OK); /* now for ever */
    assert_int_equal(store_ttl(s, key("k"), 9000, &left), STORE_OK);
    assert_true(left == UINT64_MAX);
}

static void test_add_sets_only_where_nothing_is(void **state)
{
    struct store *s = *state;
    struct store_value one = number(1), two = number(2);
    assert_int_equal(store_add(s, key("k"), &one, 500, 1000), STORE_OK);
    assert_int_equal(store_add(s, key("k"), &two, 0, 1000), STORE_EXISTS);
    assert_true(get(s, "k", 1000).number == 1);
    assert_int_equal(store_add(s, key("k"), &two, 0, 1500), STORE_OK); /* its time was over */
    assert_true(get(s, "k", 9000).number == 2);
}

static void test_incr_counts_from_init_and_keeps_the_time(void **state)
{
    struct store *s = *state;
    double out = 0;
    uint64_t left;
    struct store_incr plain = {.by = 2},
                      init = {.by = 2, .has_init = true, .init = 10, .ttl_ms = 500};
    assert_int_equal(store_incr(s, key("k"), &plain, 1000, &out), STORE_NOT_FOUND);
    assert_false(has(s, "k", 1000));
    assert_int_equal(store_incr(s, key("k"), &init, 1000, &out), STORE_OK);
    assert_true(out == 12);
    assert_int_equal(store_incr(s, key("k"), &init, 1200, &out), STORE_OK);
    assert_true(out == 14);
    assert_int_equal(store_ttl(s, key("k"), 1200, &left), STORE_OK);
    assert_int_equal(left, 300);
    assert_int_equal(store_incr(s, key("k"), &init, 1500, &out), STORE_OK);
    assert_true(out == 12);
    struct store_value text = string("14");
    assert_int_equal(store_set(s, key("t"), &text, 0, 1), STORE_OK);
    assert_int_equal(store_incr(s, key("t"), &init, 1, &out), STORE_NOT_A_NUMBER);
}

static enum store_result cas(struct store *s, struct store_value from, struct store_value to)
{
    return store_cas(s, key("k"), &(struct store_change){from, to}, 1);
}

static void test_cas_changes_exactly_what_it_names(void **state)
{
    struct store *s = *state;
    assert_int_equal(cas(s, number(1), number(2)), STORE_CHANGED);
    assert_int_equal(cas(s, nothing, number(1)), STORE_OK);
    assert_int_equal(cas(s, nothing, number(2)), STORE_CHANGED);
    assert_int_equal(cas(s, number(1), string("a")), STORE_OK);
    assert_int_equal(cas(s, string("b"), number(3)), STORE_CHANGED);
    assert_int_equal(cas(s, string("ab"), number(3)), STORE_CHANGED);
    assert_int_equal(cas(s, string("a"), number(1)), STORE_OK);
    struct store_value yes = {.type = STORE_BOOLEAN, .boolean = true};
    assert_int_equal(cas(s, yes, number(3)), STORE_CHANGED); /* 1 is not true */
    assert_int_equal(cas(s, number(1), nothing), STORE_OK);
    assert_false(has(s, "k", 1));
}

static void test_del_tells_whether_there_was_something(void **state)
{
    struct store *s = *state;
    assert_int_equal(store_del(s, key("k"), 1), STORE_NOT_FOUND);
    set(s, "k", 1);
    assert_int_equal(store_del(s, key("k"), 1), STORE_OK);
    assert_int_equal(store_del(s, key("k"), 1), STORE_NOT_FOUND);
}

static void test_the_longest_unused_goes_when_it_is_full(void **state)
{
    (void)state;
    struct store *s = make(3);
    set(s, "a", 1);
    set(s, "b", 2);
    set(s, "c", 3);
    get(s, "a", 1); /* used now */
    set(s, "b", 4); /* and so is this */
    set(s, "d", 5);
    assert_int_equal(store_len(s), 3);
    assert_int_equal(store_evicted(s), 1);
    assert_false(has(s, "c", 1));
    assert_true(has(s, "a", 1) && has(s, "b", 1) && has(s, "d", 1));
    store_free(s);
}

static void test_items_past_their_time_do_not_push_out_others(void **state)
{
    (void)state;
    struct store *s = make(500);
    char name[16];
    struct store_value v = number(1);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "keep %u", i);
        set(s, name, i);
    }
    for (unsigned i = 0; i < 100000; i++) { /* at any time a hundred of them are alive */
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(store_set(s, key(name), &v, 100, 1000 + i), STORE_OK);
    }
    assert_int_equal(store_evicted(s), 0);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "keep %u", i);
        assert_true(has(s, name, 1000000));
    }
    store_free(s);
}

static void test_a_large_store_holds_exactly_what_it_may(void **state)
{
    (void)state;
    enum { ITEMS = 5000, MANY = 20000 };
    struct store *s = make(ITEMS);
    char name[16];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "%u", i);
        set(s, name, i);
        assert_true(has(s, name, 1));
        assert_int_equal(store_len(s), i < ITEMS ? i + 1 : ITEMS);
    }
    assert_int_equal(store_evicted(s), MANY - ITEMS);
    store_free(s);
}

static void test_bytes_are_bounded_too(void **state)
{
    (void)state;
    enum { VALUE = 1 << 20 };
    struct store *s = store_new(&(struct store_limits){100000, 4 << 20}, &hash);
    char *bytes = calloc(1, VALUE), name[16];
    struct store_value v = {.type = STORE_STRING, .string = {bytes, VALUE}};
    for (unsigned i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(store_set(s, key(name), &v, 0, 1), STORE_OK);
        assert_true(has(s, name, 1));
    }
    assert_int_equal(store_len(s), 3);  /* their keys take room, too */
    for (unsigned i = 0; i < 10; i++) { /* the bytes of what is replaced are given back */
        assert_int_equal(store_set(s, key("9"), &v, 0, 1), STORE_OK);
        assert_int_equal(store_len(s), 3);
    }
    free(bytes);
    store_free(s);
}

static void test_other_limits_hold_at_once(void **state)
{
    struct store *s = *state;
    char name[16];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        set(s, name, i);
    }
    store_set_limits(s, &(struct store_limits){10, PLENTY});
    assert_int_equal(store_len(s), 10);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(has(s, name, 1), i >= 90);
    }
    store_set_limits(s, &(struct store_limits){200, PLENTY});
    for (unsigned i = 100; i < 300; i++) {
        snprintf(name, sizeof name, "%u", i);
        set(s, name, i);
    }
    assert_int_equal(store_len(s), 200);
}

enum { THREADS = 4, TURNS = 20000, KEYS = 64 };

struct contest {
    struct store *store;
    atomic_uint added, won, deleted;
};

static void note_number(void *arg, const struct store_item *item)
{
    unsigned *seen = arg;
    seen[(size_t)item->value.number]++;
}

static void test_a_walk_shows_whatever_stays_also_while_the_store_grows(void **state)
{
    enum { STAY = 300, MORE = 20000 };
    struct store *s = make(STAY + MORE);
    unsigned *seen = calloc(STAY + MORE, sizeof *seen);
    struct store_cursor cursor = {0};
    char name[24];
    (void)state;
    for (unsigned i = 0; i < STAY; i++) {
        snprintf(name, sizeof name, "stay%u", i);
        set(s, name, i);
    }
    for (unsigned i = 0; store_walk(s, &cursor, 3, 1, note_number, seen); i++)
        for (unsigned k = 0; k < 200 && i * 200 + k < MORE;
             k++) { /* its tables double again and again */
            snprintf(name, sizeof name, "more%u", i * 200 + k);
            set(s, name, STAY + i * 200 + k);
        }
    for (unsigned i = 0; i < STAY; i++)
        assert_in_range(seen[i], 1, UINT32_MAX);
    memset(seen, 0, (STAY + MORE) * sizeof *seen);
    cursor = (struct store_cursor){0};
    uint64_t n = 0;
    while (store_walk(s, &cursor, 64, 1, note_number, seen))
        n++;
    assert_in_range(n, 2, UINT32_MAX);
    for (unsigned i = 0; i < store_len(s); i++)
        assert_int_equal(seen[i], 1);
    assert_false(store_walk(s, &cursor, 64, 1, note_number, seen));
    free(seen);
    store_free(s);
}

static void note_time(void *arg, const struct store_item *item)
{
    *(uint64_t *)arg = item->ttl_ms;
}

static void test_a_look_is_no_use_and_shows_nothing_past_its_time(void **state)
{
    struct store *s = make(2);
    struct store_value v = number(1);
    struct store_cursor cursor = {0};
    uint64_t ttl_ms = 0;
    (void)state;
    store_set(s, key("a"), &v, 0, 1);
    store_set(s, key("b"), &v, 100, 1);
    assert_int_equal(store_look(s, key("a"), 1, note_time, &ttl_ms), STORE_OK);
    assert_true(ttl_ms == UINT64_MAX);
    assert_int_equal(store_look(s, key("b"), 41, note_time, &ttl_ms), STORE_OK);
    assert_int_equal(ttl_ms, 60);
    assert_int_equal(store_look(s, key("b"), 101, note_time, &ttl_ms), STORE_NOT_FOUND);
    unsigned seen[2] = {0};
    while (store_walk(s, &cursor, 1, 101, note_number, seen))
        ;
    assert_int_equal(seen[1], 1);
    store_set(s, key("c"), &v, 0, 1); /* the look at a did not save it */
    assert_int_equal(store_look(s, key("a"), 1, note_time, &ttl_ms), STORE_NOT_FOUND);
    assert_int_equal(
        store_look(s, (struct store_key){"x", STORE_KEY_MAX + 1}, 1, note_time, &ttl_ms),
        STORE_TOO_LONG);
    store_free(s);
}

static void *contend(void *arg)
{
    struct contest *c = arg;
    struct random rnd = {(uint64_t)(uintptr_t)&rnd};
    struct store_incr incr = {.by = 1, .has_init = true};
    struct store_value one = number(1), text = string("some text");
    double out;
    char name[16], bytes[16];
    for (unsigned i = 0; i < TURNS; i++) {
        snprintf(name, sizeof name, "count %u", (unsigned)random_in(&rnd, 0, KEYS - 1));
        assert_int_equal(store_incr(c->store, key(name), &incr, 1, &out), STORE_OK);
        snprintf(name, sizeof name, "add %u", i);
        if (store_add(c->store, key(name), &one, 0, 1) == STORE_OK)
            atomic_fetch_add(&c->added, 1);
        struct store_change change = {one, text};
        if (store_cas(c->store, key(name), &change, 1) == STORE_OK)
            atomic_fetch_add(&c->won, 1);
        struct store_value v;
        store_get(c->store, key(name), 1, (struct store_room){bytes, sizeof bytes}, &v);
        if (v.type == STORE_STRING)
            assert_memory_equal(v.string.bytes, "some text", 9);
    }
    for (unsigned i = 0; i < TURNS; i++) {
        snprintf(name, sizeof name, "add %u", i);
        if (store_del(c->store, key(name), 1) == STORE_OK)
            atomic_fetch_add(&c->deleted, 1);
        if (store_add(c->store, key(name), &one, 1, 1) == STORE_OK)
            atomic_fetch_add(&c->added, 1); /* others may win this one, too */
    }
    return NULL;
}

static void run_threads(void *(*run)(void *), void *arg)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, arg), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_what_threads_do_adds_up(void **state)
{
    (void)state;
    struct contest c = {.store = make(1000000)};
    run_threads(contend, &c);
    char name[16];
    double sum = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "count %u", i);
        sum += get(c.store, name, 1).number;
    }
    assert_true(sum == THREADS * TURNS);
    assert_true(atomic_load(&c.added) >= TURNS);
    assert_in_range(atomic_load(&c.won), TURNS, atomic_load(&c.added));
    assert_int_equal(store_evicted(c.store), 0);
    store_free(c.store);
}

static void *crowd(void *arg)
{
    struct contest *c = arg;
    unsigned base = atomic_fetch_add(&c->added, 1) * TURNS;
    char name[16];
    struct store_value v = number(1);
    for (unsigned i = 0; i < TURNS; i++) {
        snprintf(name, sizeof name, "%u", base + i);
        assert_int_equal(store_add(c->store, key(name), &v, 0, 1), STORE_OK);
    }
    return NULL;
}

static void test_threads_that_fill_it_lose_no_count(void **state)
{
    (void)state;
    struct contest c = {.store = make(2000)};
    run_threads(crowd, &c);
    assert_true(store_len(c.store) <= 2000);
    assert_int_equal(store_len(c.store) + store_evicted(c.store), THREADS * TURNS);
    store_free(c.store);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_values_of_each_type_come_back_as_they_were),
        test(test_a_string_longer_than_the_room_tells_its_length),
        test(test_keys_and_values_have_a_greatest_length),
        test(test_an_item_is_gone_when_its_time_is_over),
        test(test_add_sets_only_where_nothing_is),
        test(test_incr_counts_from_init_and_keeps_the_time),
        test(test_cas_changes_exactly_what_it_names),
        test(test_del_tells_whether_there_was_something),
        test(test_the_longest_unused_goes_when_it_is_full),
        test(test_items_past_their_time_do_not_push_out_others),
        test(test_a_large_store_holds_exactly_what_it_may),
        test(test_bytes_are_bounded_too),
        test(test_other_limits_hold_at_once),
        test(test_a_walk_shows_whatever_stays_also_while_the_store_grows),
        test(test_a_look_is_no_use_and_shows_nothing_past_its_time),
        test(test_what_threads_do_adds_up),
        test(test_threads_that_fill_it_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
