/* The byte queue (base/buf.h). Its source is included, so that its allocations can be made to fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static bool out_of_memory;
static unsigned allocations;

static void *faulty_malloc(size_t n)
{
    allocations++;
    return out_of_memory ? NULL : malloc(n);
}

#define malloc faulty_malloc
#include "../../core/base/buf.c"
#undef malloc

static int set_up(void **state)
{
    static struct buf b;
    out_of_memory = false;
    allocations = 0;
    buf_init(&b);
    *state = &b;
    return 0;
}

static int tear_down(void **state)
{
    buf_deinit(*state);
    return 0;
}

static void assert_content(const struct buf *b, const char *text)
{
    assert_int_equal(buf_len(b), strlen(text));
    assert_memory_equal(buf_bytes(b), text, strlen(text));
}

static void a_new_buffer_is_empty_and_owns_nothing(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_len(b), 0);
    assert_null(b->data);
    assert_int_equal(allocations, 0);
}

static void bytes_come_out_in_the_order_they_went_in(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_append(b, "hello ", 6), 0);
    assert_int_equal(buf_append(b, "world", 5), 0);
    assert_content(b, "hello world");
    buf_consume(b, 6);
    assert_content(b, "world");
    assert_int_equal(buf_append(b, "!", 1), 0);
    assert_content(b, "world!");
    buf_consume(b, 6);
    assert_int_equal(buf_len(b), 0);
}

static void appending_nothing_does_nothing(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_append(b, NULL, 0), 0);
    buf_consume(b, 0);
    assert_null(b->data);
}

static void reserved_room_counts_only_once_committed(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_append(b, "a", 1), 0);
    char *room = buf_reserve(b, 1000);
    assert_non_null(room);
    assert_content(b, "a");
    memset(room, 'b', 1000);
    buf_commit(b, 2);
    assert_content(b, "abb");
}

static void reserving_nothing_still_gives_a_place(void **state)
{
    assert_non_null(buf_reserve(*state, 0));
}

static void any_mix_of_appends_and_consumes_keeps_the_bytes(void **state)
{
    struct buf *b = *state;
    uint32_t seed = 1;
    size_t in = 0, out = 0;
    for (int i = 0; i < 20000; i++) {
        char chunk[700];
        seed = seed * 1664525 + 1013904223;
        size_t n = seed >> 8 & 511, m = seed >> 17 & 511;
        for (size_t k = 0; k < n; k++)
            chunk[k] = (char)((in + k) % 251);
        assert_int_equal(buf_append(b, chunk, n), 0);
        in += n;
        m = m < buf_len(b) ? m : buf_len(b);
        for (size_t k = 0; k < m; k++)
            if (buf_bytes(b)[k] != (char)((out + k) % 251))
                fail_msg("byte %zu is wrong", out + k);
        buf_consume(b, m);
        out += m;
        assert_int_equal(buf_len(b), in - out);
    }
}

static void a_queue_that_stays_short_does_not_grow(void **state)
{
    struct buf *b = *state;
    char chunk[100] = {0};
    assert_int_equal(buf_append(b, chunk, 50), 0);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(buf_append(b, chunk, 100), 0);
        buf_consume(b, 100);
    }
    assert_int_equal(buf_len(b), 50);
    assert_true(b->cap <= 1024);
    assert_true(allocations <= 3);
}

static void growing_allocates_a_few_times_only(void **state)
{
    struct buf *b = *state;
    for (int i = 0; i < 1000000; i++)
        assert_int_equal(buf_append(b, "x", 1), 0);
    assert_true(allocations <= 16);
}

static void a_buffer_is_usable_after_deinit(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_append(b, "old", 3), 0);
    buf_deinit(b);
    assert_null(b->data);
    assert_int_equal(buf_append(b, "new", 3), 0);
    assert_content(b, "new");
}

static void out_of_memory_appends_nothing_and_keeps_what_is_there(void **state)
{
    struct buf *b = *state;
    char big[5000] = {0};
    out_of_memory = true;
    assert_int_equal(buf_append(b, "x", 1), -ENOMEM);
    assert_null(b->data);
    out_of_memory = false;
    assert_int_equal(buf_append(b, "kept", 4), 0);
    out_of_memory = true;
    assert_int_equal(buf_append(b, big, sizeof big), -ENOMEM);
    assert_null(buf_reserve(b, sizeof big));
    assert_content(b, "kept");
}

static void sizes_that_overflow_are_refused_without_an_allocation(void **state)
{
    struct buf *b = *state;
    assert_int_equal(buf_append(b, "x", 1), 0);
    unsigned before = allocations;
    assert_null(buf_reserve(b, SIZE_MAX));
    assert_null(buf_reserve(b, SIZE_MAX - 1));
    assert_null(buf_reserve(b, (size_t)PTRDIFF_MAX));
    assert_int_equal(allocations, before);
    assert_content(b, "x");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_buffer_is_empty_and_owns_nothing),
        TEST(bytes_come_out_in_the_order_they_went_in),
        TEST(appending_nothing_does_nothing),
        TEST(reserved_room_counts_only_once_committed),
        TEST(reserving_nothing_still_gives_a_place),
        TEST(any_mix_of_appends_and_consumes_keeps_the_bytes),
        TEST(a_queue_that_stays_short_does_not_grow),
        TEST(growing_allocates_a_few_times_only),
        TEST(a_buffer_is_usable_after_deinit),
        TEST(out_of_memory_appends_nothing_and_keeps_what_is_there),
        TEST(sizes_that_overflow_are_refused_without_an_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
