/* The JSON writer: what it writes is JSON, whatever the bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "penstock/base/json.h"

static void assert_written(struct buf *b, const char *should)
{
    assert_int_equal(buf_len(b), strlen(should));
    assert_memory_equal(buf_bytes(b), should, strlen(should));
    buf_deinit(b);
}

static void test_objects_and_lists_nest_with_commas_where_they_belong(void **state)
{
    (void)state;
    struct buf b = {0};
    struct json j;
    json_init(&j, &b);
    json_begin_object(&j, NULL);
    json_begin_list(&j, "a");
    json_end_list(&j);
    json_begin_list(&j, "b");
    json_uint(&j, NULL, 1);
    json_begin_object(&j, NULL);
    json_end_object(&j);
    json_bool(&j, NULL, false);
    json_end_list(&j);
    json_null(&j, "c");
    json_bool(&j, "d", true);
    json_uint(&j, "e", UINT64_MAX);
    json_end_object(&j);
    assert_false(j.failed);
    assert_written(&b, "{\"a\":[],\"b\":[1,{},false],\"c\":null,\"d\":true,"
                       "\"e\":18446744073709551615}");
}

static void write_text(struct buf *b, const char *bytes, size_t n)
{
    struct json j;
    *b = (struct buf){0};
    json_init(&j, b);
    json_bytes(&j, NULL, bytes, n);
}

static void test_controls_quotes_and_zeros_are_escaped(void **state)
{
    (void)state;
    struct buf b;
    write_text(&b, "a\"b\\c\n\x1b[2J\0z\x7f", 13);
    assert_written(&b, "\"a\\\"b\\\\c\\n\\u001b[2J\\u0000z\\u007f\"");
    write_text(&b, "\xc2\x9b|\xc2\xa0", 5);
    assert_written(&b, "\"\\u009b|\xc2\xa0\"");
}

static void test_what_is_no_utf8_becomes_the_replacement_character(void **state)
{
    (void)state;
    struct buf b;
    write_text(&b, "\xff|\xc3\xa4|\xc3|\xed\xa0\x80|\xf0\x9f\x98\x80", 15);
    assert_written(&b, "\"\\ufffd|\xc3\xa4|\\ufffd|\\ufffd\\ufffd\\ufffd|\xf0\x9f\x98\x80\"");
    write_text(&b, "\xe2\x82", 2); /* cut off */
    assert_written(&b, "\"\\ufffd\\ufffd\"");
}

static void test_a_key_is_escaped_too(void **state)
{
    (void)state;
    struct buf b = {0};
    struct json j;
    json_init(&j, &b);
    json_begin_object(&j, NULL);
    json_text(&j, "a\":1,\"b", NULL);
    json_end_object(&j);
    assert_written(&b, "{\"a\\\":1,\\\"b\":null}");
}

static void test_numbers_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    struct buf b = {0};
    struct json j;
    json_init(&j, &b);
    json_begin_list(&j, NULL);
    json_number(&j, NULL, 0.1);
    json_number(&j, NULL, 3);
    json_number(&j, NULL, -1e300);
    json_number(&j, NULL, 0.1 + 0.2);
    json_number(&j, NULL, (double)NAN);
    json_number(&j, NULL, -(double)INFINITY);
    json_end_list(&j);
    assert_written(&b, "[0.1,3,-1e+300,0.30000000000000004,null,null]");
}

static void test_base64_is_filled_up_to_four(void **state)
{
    static const char *const wants[] = {"\"\"", "\"AP8=\"", "\"AA==\"", "\"AP8+\"", "\"AP8+fw==\""};
    static const size_t lengths[] = {0, 2, 1, 3, 4};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        struct buf b = {0};
        struct json j;
        json_init(&j, &b);
        json_base64(&j, NULL, "\x00\xff>\x7f", lengths[i]);
        assert_written(&b, wants[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_and_lists_nest_with_commas_where_they_belong),
        cmocka_unit_test(test_controls_quotes_and_zeros_are_escaped),
        cmocka_unit_test(test_what_is_no_utf8_becomes_the_replacement_character),
        cmocka_unit_test(test_a_key_is_escaped_too),
        cmocka_unit_test(test_base64_is_filled_up_to_four),
        cmocka_unit_test(test_numbers_are_as_short_as_they_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
