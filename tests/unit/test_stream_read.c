/* What a read finds in a run of bytes: every kind, every split, limits, lengths of all kinds. */
#include "support.h"

#include "../../core/script/stream_priv.h"

/* One read of `op` while the bytes come a piece at a time: returns the result, and in *at how many
 * bytes were needed. */
static enum read_result feed(struct read_op op, const char *bytes, size_t n, size_t piece,
                             struct read_match *m, size_t *at)
{
    enum read_result result = READ_MORE;
    for (*at = 0;; *at = *at + piece < n ? *at + piece : n) {
        /* A copy of exactly that size, so that a sanitizer sees a look behind its end. */
        char *copy = malloc(*at ? *at : 1);
        memcpy(copy, bytes, *at);
        result = read_look(&op, copy, *at, false, m);
        free(copy);
        if (result != READ_MORE || *at == n)
            return result;
    }
}

/* Finds first, second and consumed for every size of the pieces; never before `needs` bytes. */
static void expect_found(struct read_op op, const char *bytes, size_t n, size_t first,
                         size_t second, size_t consumed, size_t needs)
{
    for (size_t piece = 1; piece <= n + 1; piece++) {
        struct read_match m;
        size_t at;
        assert_int_equal(feed(op, bytes, n, piece, &m, &at), READ_FOUND);
        assert_true(at >= needs && at < needs + piece);
        assert_int_equal(m.first, op.kind == READ_SOME || op.kind == READ_VIEW
                                      ? (at < op.max ? at : op.max)
                                      : first);
        if (op.kind == READ_LINE || op.kind == READ_FRAME || op.kind == READ_PEEK_LINE)
            assert_int_equal(m.second, second);
        if (op.kind != READ_SOME && op.kind != READ_VIEW)
            assert_int_equal(m.consumed, consumed);
    }
}

static void expect_result(struct read_op op, const char *bytes, size_t n, enum read_result want)
{
    for (size_t piece = 1; piece <= n + 1; piece++) {
        struct read_match m;
        size_t at;
        assert_int_equal(feed(op, bytes, n, piece, &m, &at), want);
    }
}

static enum read_result at_end(struct read_op op, const char *bytes, size_t n, struct read_match *m)
{
    return read_look(&op, bytes, n, true, m);
}

#define TEXT(s) (s), sizeof(s) - 1

static void test_some_takes_what_there_is_up_to_max(void **state)
{
    (void)state;
    struct read_match m;
    expect_found((struct read_op){.kind = READ_SOME, .max = 4}, TEXT("abcdef"), 0, 0, 0, 1);
    expect_found((struct read_op){.kind = READ_VIEW, .max = 100}, TEXT("abcdef"), 0, 0, 0, 1);
    assert_int_equal(at_end((struct read_op){.kind = READ_SOME, .max = 4}, "", 0, &m), READ_ENDED);
    assert_int_equal(at_end((struct read_op){.kind = READ_SOME, .max = 4}, "ab", 2, &m),
                     READ_FOUND);
    assert_int_equal(m.first, 2);
}

static void test_exactly_takes_neither_more_nor_less(void **state)
{
    (void)state;
    struct read_match m;
    expect_found((struct read_op){.kind = READ_EXACTLY, .max = 4}, TEXT("abcdef"), 4, 0, 4, 4);
    expect_found((struct read_op){.kind = READ_EXACTLY, .max = 0}, TEXT("abc"), 0, 0, 0, 0);
    expect_result((struct read_op){.kind = READ_EXACTLY, .max = 7}, TEXT("abcdef"), READ_MORE);
    assert_int_equal(at_end((struct read_op){.kind = READ_EXACTLY, .max = 3}, "ab", 2, &m),
                     READ_ENDED);
    assert_int_equal(at_end((struct read_op){.kind = READ_EXACTLY, .max = 2}, "ab", 2, &m),
                     READ_FOUND);
}

static void test_peek_consumes_nothing(void **state)
{
    (void)state;
    expect_found((struct read_op){.kind = READ_PEEK, .max = 4}, TEXT("abcdef"), 4, 0, 0, 4);
    expect_found((struct read_op){.kind = READ_PEEK_LINE, .max = 4}, TEXT("abcd\r\nef"), 4, 2, 0,
                 6);
    expect_result((struct read_op){.kind = READ_PEEK_LINE, .max = 3}, TEXT("abcd\r\nef"),
                  READ_TOO_LONG);
}

static void test_a_line_is_found_wherever_it_is_split(void **state)
{
    (void)state;
    struct read_op op = {.kind = READ_LINE, .max = 100};
    expect_found(op, TEXT("hello\nworld"), 5, 1, 6, 6);
    expect_found(op, TEXT("hello\r\nworld"), 5, 2, 7, 7);
    expect_found(op, TEXT("\nworld"), 0, 1, 1, 1);
    expect_found(op, TEXT("\r\nworld"), 0, 2, 2, 2);
    expect_found(op, TEXT("a\rb\r\r\nworld"), 4, 2, 6, 6);
    expect_found(op, TEXT("a\0b\nworld"), 3, 1, 4, 4);
}

static void test_the_limit_of_a_line_counts_it_without_its_terminator(void **state)
{
    (void)state;
    struct read_op op = {.kind = READ_LINE, .max = 5};
    expect_found(op, TEXT("hello\nx"), 5, 1, 6, 6);
    expect_found(op, TEXT("hello\r\nx"), 5, 2, 7, 7);
    expect_result(op, TEXT("hello!\n"), READ_TOO_LONG);
    expect_result(op, TEXT("hello!\r\n"), READ_TOO_LONG);
    expect_result(op, TEXT("hello\r!\n"), READ_TOO_LONG);
    expect_result(op, TEXT("hello\r\r\n"), READ_TOO_LONG);
    expect_result(op, TEXT("hello\r"), READ_MORE);
    expect_result(op, TEXT("hello"), READ_MORE);
    op.max = 0;
    expect_found(op, TEXT("\r\nx"), 0, 2, 2, 2);
    expect_result(op, TEXT("x"), READ_TOO_LONG);
}

static void test_a_line_is_too_long_as_soon_as_it_is(void **state)
{
    (void)state;
    expect_result((struct read_op){.kind = READ_LINE, .max = 5}, TEXT("hello!"), READ_TOO_LONG);
}

static void test_the_last_line_needs_no_terminator(void **state)
{
    (void)state;
    struct read_match m;
    struct read_op op = {.kind = READ_LINE, .max = 5};
    assert_int_equal(at_end(op, "hello", 5, &m), READ_FOUND);
    assert_int_equal(m.first, 5);
    assert_int_equal(m.second, 0);
    assert_int_equal(m.consumed, 5);
    assert_int_equal(at_end(op, "hell\r", 5, &m), READ_FOUND);
    assert_int_equal(m.first, 5);
    assert_int_equal(at_end(op, "hello!", 6, &m), READ_TOO_LONG);
    assert_int_equal(at_end(op, "hello\r", 6, &m), READ_TOO_LONG);
    assert_int_equal(at_end(op, "", 0, &m), READ_ENDED);
}

static struct read_op upto(const char *delim, size_t max)
{
    struct read_op op = {.kind = READ_UPTO, .max = max, .delim_len = (uint8_t)strlen(delim)};
    memcpy(op.delim, delim, op.delim_len);
    return op;
}

static void test_a_delimiter_is_found_wherever_it_is_split(void **state)
{
    (void)state;
    expect_found(upto("\r\n\r\n", 100), TEXT("a\r\nb\r\n\r\nc"), 4, 0, 8, 8);
    expect_found(upto("aab", 100), TEXT("aaaab!"), 2, 0, 5, 5);
    expect_found(upto("x", 100), TEXT("x"), 0, 0, 1, 1);
    expect_found(upto("12345678901234567890123456789012", 100),
                 TEXT("1212345678901234567890123456789012"), 2, 0, 34, 34);
}

static void test_the_limit_of_upto_counts_what_stands_before_it(void **state)
{
    (void)state;
    struct read_match m;
    expect_found(upto("--", 5), TEXT("hello--"), 5, 0, 7, 7);
    expect_result(upto("--", 4), TEXT("hello--"), READ_TOO_LONG);
    expect_result(upto("--", 5), TEXT("hello-"), READ_MORE);
    expect_result(upto("--", 5), TEXT("hello!!"), READ_TOO_LONG);
    expect_found(upto("--", 0), TEXT("--x"), 0, 0, 2, 2);
    assert_int_equal(at_end(upto("--", 9), "hello-", 6, &m), READ_ENDED);
    assert_int_equal(at_end(upto("--", 9), "", 0, &m), READ_ENDED);
}

static struct read_op frame(size_t skip, uint8_t len_bytes, bool little, int64_t adjust, size_t max)
{
    return (struct read_op){.kind = READ_FRAME,
                            .skip = skip,
                            .len_bytes = len_bytes,
                            .little_endian = little,
                            .adjust = adjust,
                            .max = max};
}

static void test_a_frame_of_each_kind_of_length(void **state)
{
    (void)state;
    expect_found(frame(0, 1, false, 0, 9),
                 TEXT("\x03"
                      "abcX"),
                 1, 3, 4, 4);
    expect_found(frame(0, 2, false, 0, 9),
                 TEXT("\0\x03"
                      "abcX"),
                 2, 3, 5, 5);
    expect_found(frame(0, 2, true, 0, 9),
                 TEXT("\x03\0"
                      "abcX"),
                 2, 3, 5, 5);
    expect_found(frame(0, 3, false, 0, 9),
                 TEXT("\0\0\x03"
                      "abcX"),
                 3, 3, 6, 6);
    expect_found(frame(0, 4, false, 0, 9),
                 TEXT("\0\0\0\x03"
                      "abcX"),
                 4, 3, 7, 7);
    expect_found(frame(0, 4, true, 0, 9),
                 TEXT("\x03\0\0\0"
                      "abcX"),
                 4, 3, 7, 7);
    expect_found(frame(0, 0, false, 0, 9),
                 TEXT("\x03"
                      "abcX"),
                 1, 3, 4, 4);
    expect_found(frame(0, 0, false, 0, 9),
                 TEXT("\x83\0"
                      "abcX"),
                 2, 3, 5, 5);
    expect_found(frame(5, 1, false, 0, 9),
                 TEXT("skip!\x01"
                      "aX"),
                 6, 1, 7, 7);
    expect_found(frame(1, 4, false, -4, 9), TEXT("E\0\0\0\x04Z"), 5, 0, 5, 5); /* no body */
    expect_found(frame(1, 4, false, -4, 9),
                 TEXT("E\0\0\0\x06"
                      "abZ"),
                 5, 2, 7, 7);
    expect_found(frame(0, 1, false, 2, 9),
                 TEXT("\x01"
                      "abcX"),
                 1, 3, 4, 4);
}

static void test_the_limit_of_a_frame_is_that_of_its_body(void **state)
{
    (void)state;
    expect_found(frame(0, 1, false, 0, 3),
                 TEXT("\x03"
                      "abcX"),
                 1, 3, 4, 4);
    expect_result(frame(0, 1, false, 0, 2),
                  TEXT("\x03"
                       "abcX"),
                  READ_TOO_LONG);
    expect_result(frame(0, 1, false, 0, 2), TEXT("\x03"), READ_TOO_LONG); /* at once */
    expect_result(frame(0, 4, false, 0, 1 << 26), TEXT("\xff\xff\xff\xff"), READ_TOO_LONG);
    expect_result(frame(0, 4, false, -4, 100), TEXT("\0\0\0\x03"), READ_TOO_LONG); /* negative */
    expect_result(frame(0, 4, false, 0, 100), TEXT("\0\0\0"), READ_MORE);
    expect_result(frame(0, 4, false, 0, 100),
                  TEXT("\0\0\0\x05"
                       "abcd"),
                  READ_MORE);
}

static void test_a_varint_that_is_none_is_no_frame(void **state)
{
    (void)state;
    struct read_op op = frame(0, 0, false, 0, 1 << 26);
    expect_result(op, TEXT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), READ_TOO_LONG);
    expect_result(op, TEXT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), READ_TOO_LONG);
    expect_result(op, TEXT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), READ_TOO_LONG);
    expect_result(op, TEXT("\xff\xff\xff\xff\xff"), READ_MORE);
    op.adjust = -65536;
    expect_result(op, TEXT("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"), READ_TOO_LONG);
}

static void test_a_frame_that_is_cut_off_is_an_end(void **state)
{
    (void)state;
    struct read_match m;
    assert_int_equal(at_end(frame(0, 2, false, 0, 9), "\0", 1, &m), READ_ENDED);
    assert_int_equal(at_end(frame(0, 2, false, 0, 9), "\0\x03xx", 4, &m), READ_ENDED);
    assert_int_equal(at_end(frame(0, 2, false, 0, 9), "\0\x03xxx", 5, &m), READ_FOUND);
    assert_int_equal(at_end(frame(3, 0, false, 0, 9), "ab", 2, &m), READ_ENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_some_takes_what_there_is_up_to_max),
        cmocka_unit_test(test_exactly_takes_neither_more_nor_less),
        cmocka_unit_test(test_peek_consumes_nothing),
        cmocka_unit_test(test_a_line_is_found_wherever_it_is_split),
        cmocka_unit_test(test_the_limit_of_a_line_counts_it_without_its_terminator),
        cmocka_unit_test(test_a_line_is_too_long_as_soon_as_it_is),
        cmocka_unit_test(test_the_last_line_needs_no_terminator),
        cmocka_unit_test(test_a_delimiter_is_found_wherever_it_is_split),
        cmocka_unit_test(test_the_limit_of_upto_counts_what_stands_before_it),
        cmocka_unit_test(test_a_frame_of_each_kind_of_length),
        cmocka_unit_test(test_the_limit_of_a_frame_is_that_of_its_body),
        cmocka_unit_test(test_a_varint_that_is_none_is_no_frame),
        cmocka_unit_test(test_a_frame_that_is_cut_off_is_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
