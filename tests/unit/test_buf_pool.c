/* Read buffers of a loop: one is shared, filled ones are handed over and come back. */
#include "support.h"

#include "penstock/net/buf_pool.h"

static void test_a_pool_that_was_never_read_into_owns_nothing(void **state)
{
    (void)state;
    struct buf_pool p;
    buf_pool_init(&p);
    assert_null(p.current);
    assert_int_equal(p.n_spare, 0);
    buf_pool_deinit(&p);
}

static void test_all_readers_share_the_current_buffer(void **state)
{
    (void)state;
    struct buf_pool p;
    buf_pool_init(&p);
    char *bytes = buf_pool_current(&p);
    assert_non_null(bytes);
    memset(bytes, 'x', BUF_POOL_LARGE); /* the address sanitizer knows its size */
    assert_ptr_equal(buf_pool_current(&p), bytes);
    buf_pool_deinit(&p);
}

static void test_a_handed_over_buffer_is_a_queue_of_its_bytes_without_a_copy(void **state)
{
    (void)state;
    struct buf_pool p;
    struct buf held;
    buf_pool_init(&p);
    char *bytes = buf_pool_current(&p);
    memcpy(bytes, "0123456789", 10);
    buf_pool_hand_over(&p, &held, 3, 10);
    assert_ptr_equal(buf_bytes(&held), bytes + 3);
    assert_int_equal(buf_len(&held), 7);
    char *next = buf_pool_current(&p);
    assert_ptr_not_equal(next, bytes);
    memset(next, 'x', BUF_POOL_LARGE);
    assert_memory_equal(buf_bytes(&held), "3456789", 7);
    buf_consume(&held, 7);
    buf_pool_give_back(&p, &held);
    assert_int_equal(buf_len(&held), 0);
    assert_null(held.data);
    buf_pool_deinit(&p);
}

static void test_what_comes_back_is_used_again(void **state)
{
    (void)state;
    struct buf_pool p;
    struct buf held;
    buf_pool_init(&p);
    char *bytes = buf_pool_current(&p);
    buf_pool_hand_over(&p, &held, 0, 1);
    buf_pool_give_back(&p, &held);
    assert_int_equal(p.n_spare, 1);
    assert_ptr_equal(buf_pool_current(&p), bytes);
    assert_int_equal(p.n_spare, 0);
    buf_pool_deinit(&p);
}

static void test_no_more_than_the_spare_ones_are_kept(void **state)
{
    (void)state;
    enum { MANY = 40 };
    struct buf_pool p;
    struct buf held[MANY];
    buf_pool_init(&p);
    for (size_t i = 0; i < MANY; i++) {
        assert_non_null(buf_pool_current(&p));
        buf_pool_hand_over(&p, &held[i], 0, BUF_POOL_LARGE);
    }
    for (size_t i = 0; i < MANY; i++)
        buf_pool_give_back(&p, &held[i]);
    assert_int_equal(p.n_spare, sizeof p.spare / sizeof p.spare[0]);
    buf_pool_deinit(&p); /* the leak checker looks at the rest */
    assert_int_equal(p.n_spare, 0);
}

static void test_a_buffer_of_another_size_or_none_is_taken_back_as_well(void **state)
{
    (void)state;
    struct buf_pool p;
    struct buf small, none;
    buf_pool_init(&p);
    buf_init(&small);
    buf_init(&none);
    assert_int_equal(buf_append(&small, "abc", 3), 0);
    buf_pool_give_back(&p, &small);
    buf_pool_give_back(&p, &none);
    assert_null(small.data);
    assert_int_equal(p.n_spare, 0);
    buf_pool_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pool_that_was_never_read_into_owns_nothing),
        cmocka_unit_test(test_all_readers_share_the_current_buffer),
        cmocka_unit_test(test_a_handed_over_buffer_is_a_queue_of_its_bytes_without_a_copy),
        cmocka_unit_test(test_what_comes_back_is_used_again),
        cmocka_unit_test(test_no_more_than_the_spare_ones_are_kept),
        cmocka_unit_test(test_a_buffer_of_another_size_or_none_is_taken_back_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
