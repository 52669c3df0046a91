/* Records by key, and the hash that finds them. */
#include "support.h"

#include "penstock/base/hash.h"
#include "penstock/base/keyed.h"

static const struct hash_key key = {1, 2};

struct record {
    struct keyed node; /* first */
    char key[16];
};

static struct record *add(struct keyed_table *t, unsigned number)
{
    struct record *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->node.key = r->key;
    r->node.key_len = (size_t)snprintf(r->key, sizeof r->key, "key %u", number);
    r->node.hash = hash_bytes(&key, r->key, r->node.key_len);
    assert_int_equal(keyed_add(t, &r->node), 0);
    return r;
}

static struct record *find(struct keyed_table *t, unsigned number)
{
    char text[16];
    size_t len = (size_t)snprintf(text, sizeof text, "key %u", number);
    return (struct record *)keyed_find(t, hash_bytes(&key, text, len), text, len);
}

static void clear(struct keyed_table *t)
{
    for (struct keyed *k; (k = keyed_oldest(t));) {
        keyed_remove(t, k);
        free(k);
    }
    keyed_deinit(t);
}

static void test_what_was_added_is_found_and_nothing_else(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    struct keyed_table t;
    keyed_init(&t);
    assert_null(find(&t, 1));
    for (unsigned i = 0; i < MANY; i++)
        add(&t, i);
    for (unsigned i = 0; i < MANY; i += 2) {
        struct record *r = find(&t, i);
        keyed_remove(&t, &r->node);
        free(r);
    }
    assert_int_equal(t.n, MANY / 2);
    for (unsigned i = 0; i < MANY; i++) {
        struct record *r = find(&t, i);
        assert_int_equal(r != NULL, i % 2);
        if (r)
            assert_int_equal(atoi(r->key + 4), i);
    }
    assert_null(find(&t, MANY));
    clear(&t);
}

static void test_the_longest_unused_is_the_oldest(void **state)
{
    (void)state;
    struct keyed_table t;
    keyed_init(&t);
    assert_null(keyed_oldest(&t));
    struct record *a = add(&t, 1), *b = add(&t, 2), *c = add(&t, 3);
    assert_ptr_equal(keyed_oldest(&t), &a->node);
    keyed_touch(&t, &a->node);
    assert_ptr_equal(keyed_oldest(&t), &b->node);
    keyed_touch(&t, &b->node);
    assert_ptr_equal(keyed_oldest(&t), &c->node);
    clear(&t);
}

static void test_chains_one_after_the_other_are_all_records(void **state)
{
    (void)state;
    struct keyed_table t;
    keyed_init(&t);
    assert_null(keyed_next_chain(&t));
    for (unsigned i = 0; i < 100; i++)
        add(&t, i);
    size_t seen = 0;
    for (size_t i = 0; i < t.n_slots; i++)
        for (struct keyed *k = keyed_next_chain(&t); k; k = k->next)
            seen++;
    assert_int_equal(seen, 100);
    clear(&t);
}

static void test_a_hash_depends_on_every_byte_the_length_and_the_secret(void **state)
{
    (void)state;
    unsigned char bytes[40] = {0};
    for (size_t n = 0; n <= sizeof bytes; n++) {
        uint64_t h = hash_bytes(&key, bytes, n);
        assert_true(h == hash_bytes(&key, bytes, n));
        if (n)
            assert_true(h != hash_bytes(&key, bytes, n - 1));
        assert_true(h != hash_bytes(&(struct hash_key){1, 3}, bytes, n));
        assert_true(h != hash_bytes(&(struct hash_key){2, 2}, bytes, n));
        for (size_t i = 0; i < n; i++) {
            bytes[i] = 1;
            assert_true(h != hash_bytes(&key, bytes, n));
            bytes[i] = 0;
        }
    }
}

static void test_hashes_spread_evenly_over_slots(void **state)
{
    (void)state;
    enum { SLOTS = 64, EACH = 1000 };
    unsigned low[SLOTS] = {0}, high[SLOTS] = {0};
    for (unsigned i = 0; i < SLOTS * EACH; i++) {
        uint64_t h = hash_bytes(&key, &i, sizeof i);
        low[h % SLOTS]++;
        high[(h >> 48) % SLOTS]++;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        assert_in_range(low[i], EACH * 3 / 4, EACH * 5 / 4);
        assert_in_range(high[i], EACH * 3 / 4, EACH * 5 / 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_added_is_found_and_nothing_else),
        cmocka_unit_test(test_the_longest_unused_is_the_oldest),
        cmocka_unit_test(test_chains_one_after_the_other_are_all_records),
        cmocka_unit_test(test_a_hash_depends_on_every_byte_the_length_and_the_secret),
        cmocka_unit_test(test_hashes_spread_evenly_over_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
