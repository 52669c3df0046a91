/* Lists of destinations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "penstock/proxy/targets.h"

static char why[512];

static struct targets *parse(const char *text, unsigned offset)
{
    why[0] = '\0';
    struct targets *t = targets_parse(text, offset, why, sizeof why);
    if (!t)
        fail_msg("%s: %s", text, why);
    return t;
}

static void assert_refused(const char *text, const char *part)
{
    why[0] = '\0';
    assert_null(targets_parse(text, 0, why, sizeof why));
    if (!strstr(why, part))
        fail_msg("%s: \"%s\" lacks \"%s\"", text, why, part);
}

static void test_one_destination_is_a_list_of_one(void **state)
{
    (void)state;
    struct targets *t = parse("db.internal:5432", 0);
    assert_int_equal(t->n, 1);
    assert_int_equal(t->items[0].endpoint.kind, ENDPOINT_NAME);
    assert_string_equal(t->items[0].endpoint.host, "db.internal");
    assert_int_equal(t->items[0].endpoint.port, 5432);
    targets_drop(t);
}

static void test_a_comma_list_keeps_its_order_and_kinds(void **state)
{
    (void)state;
    struct targets *t = parse("b:1,10.0.0.7:80,[::1]:443,unix:/run/x", 0);
    assert_int_equal(t->n, 4);
    assert_string_equal(t->items[0].endpoint.text, "b:1");
    assert_int_equal(t->items[1].endpoint.kind, ENDPOINT_IP);
    assert_int_equal(addr_port(&t->items[1].endpoint.ip), 80);
    assert_string_equal(t->items[2].endpoint.text, "[::1]:443");
    assert_int_equal(t->items[3].endpoint.kind, ENDPOINT_UNIX);
    targets_drop(t);
}

static void test_the_offset_moves_only_ports_of_a_range(void **state)
{
    (void)state;
    struct targets *t = parse("a:9000-9010,10.0.0.7:100-110,b:80", 7);
    assert_string_equal(t->items[0].endpoint.text, "a:9007");
    assert_int_equal(t->items[0].endpoint.port, 9007);
    assert_int_equal(t->items[0].endpoint.port_last, 9007);
    assert_int_equal(addr_port(&t->items[1].endpoint.ip), 107);
    assert_string_equal(t->items[2].endpoint.text, "b:80");
    targets_drop(t);
}

static void test_an_offset_beyond_the_range_is_refused(void **state)
{
    (void)state;
    assert_null(targets_parse("a:9000-9010", 11, why, sizeof why));
    assert_string_equal(why, "\"a:9000-9010\" has only 11 ports");
}

static void test_empty_items_and_bad_addresses_are_refused_with_the_right_form(void **state)
{
    (void)state;
    assert_refused("", "empty");
    assert_refused("a:1,", "empty");
    assert_refused(",a:1", "empty");
    assert_refused("a:1,,b:2", "host:port");
    assert_refused("a:1,b", "b:5432");
    assert_refused("a:0", "1 to 65535");
    assert_refused("a:70000", "1 to 65535");
    assert_refused("tls://", "empty");
    assert_refused("tls://unix:", "path");
}

static void test_the_range_of_a_list_is_that_of_its_items(void **state)
{
    (void)state;
    assert_int_equal(targets_range("a:80", why, sizeof why), 1);
    assert_int_equal(targets_range("a:80,unix:/x", why, sizeof why), 1);
    assert_int_equal(targets_range("a:9000-9010", why, sizeof why), 11);
    assert_int_equal(targets_range("a:80,b:9000-9010,c:1-11", why, sizeof why), 11);
    assert_int_equal(targets_range("a:1-65535", why, sizeof why), 65535);
}

static void test_ranges_of_two_lengths_are_refused(void **state)
{
    (void)state;
    assert_int_equal(targets_range("a:1-5,b:1-6", why, sizeof why), 0);
    assert_string_equal(why, "port ranges of one list must be equally long: 5 ports, then 6");
    assert_int_equal(targets_range("a:x", why, sizeof why), 0);
    assert_non_null(strstr(why, "not a port"));
}

static void test_the_last_reference_frees(void **state)
{
    (void)state;
    struct targets *t = parse("a:1", 0);
    assert_ptr_equal(targets_hold(t), t);
    targets_drop(t);
    assert_string_equal(t->items[0].endpoint.text,
                        "a:1"); /* AddressSanitizer knows when it is gone */
    targets_drop(t);
    targets_drop(NULL);
}

static void test_format_joins_with_commas(void **state)
{
    (void)state;
    char buf[64];
    struct targets *t = parse("a:1,b:2,unix:/x", 0);
    assert_string_equal(targets_format(t, buf, sizeof buf), "a:1,b:2,unix:/x");
    assert_string_equal(targets_format(t, buf, sizeof "a:1,b:2,unix:/x"), "a:1,b:2,unix:/x");
    targets_drop(t);
}

static void test_format_cuts_with_an_ellipsis_and_never_overruns(void **state)
{
    (void)state;
    char buf[32];
    struct targets *t = parse("a:1,b:2,c:3", 0);
    assert_string_equal(targets_format(t, buf, sizeof "a:1,b:2,c:3" - 1), "a:1,b:2…");
    assert_string_equal(targets_format(t, buf, 8), "a:1,…");
    for (size_t cap = 0; cap < 12; cap++) {
        memset(buf, 'Z', sizeof buf);
        targets_format(t, buf, cap);
        assert_int_equal(buf[cap], 'Z');
        assert_true(cap == 0 || strlen(buf) < cap);
    }
    targets_drop(t);
}

static void test_lists_are_joined_in_order_and_keep_their_options(void **state)
{
    (void)state;
    struct target_options *o = target_options_new();
    assert_non_null(o);
    assert_int_equal(target_options_add_hop(o, "socks5://h", why, sizeof why), 0);
    struct targets *list = NULL, *more = parse("b:2,c:3", 0);
    assert_int_equal(targets_set_options(more, o, why, sizeof why), 0);
    assert_int_equal(targets_join(&list, parse("a:1", 0)), 0);
    assert_int_equal(targets_join(&list, more), 0);
    assert_int_equal(list->n, 3);
    assert_string_equal(list->items[2].endpoint.text, "c:3");
    assert_null(list->items[0].options);
    assert_ptr_not_equal(list->items[1].options, list->items[2].options);
    assert_string_equal(target_first(&list->items[2])->text, "h:1080");
    targets_drop(list);
    target_options_free(o);
}

static void test_options_that_do_not_fit_one_target_are_refused_for_all(void **state)
{
    (void)state;
    struct target_options *o = target_options_new();
    assert_non_null(o);
    assert_int_equal(target_options_add_hop(o, "socks5://h", why, sizeof why), 0);
    struct targets *list = parse("a:1,unix:/run/x", 0);
    assert_int_equal(targets_set_options(list, NULL, why, sizeof why), 0);
    assert_true(targets_set_options(list, o, why, sizeof why) < 0);
    assert_non_null(strstr(why, "unix:/run/x"));
    targets_drop(list);
    target_options_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_destination_is_a_list_of_one),
        cmocka_unit_test(test_a_comma_list_keeps_its_order_and_kinds),
        cmocka_unit_test(test_the_offset_moves_only_ports_of_a_range),
        cmocka_unit_test(test_an_offset_beyond_the_range_is_refused),
        cmocka_unit_test(test_empty_items_and_bad_addresses_are_refused_with_the_right_form),
        cmocka_unit_test(test_the_range_of_a_list_is_that_of_its_items),
        cmocka_unit_test(test_ranges_of_two_lengths_are_refused),
        cmocka_unit_test(test_the_last_reference_frees),
        cmocka_unit_test(test_lists_are_joined_in_order_and_keep_their_options),
        cmocka_unit_test(test_options_that_do_not_fit_one_target_are_refused_for_all),
        cmocka_unit_test(test_format_joins_with_commas),
        cmocka_unit_test(test_format_cuts_with_an_ellipsis_and_never_overruns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
