/* Networks: how they are written, and which addresses are in them. */
#include "support.h"

#include <errno.h>

#include "penstock/base/networks.h"

static bool is_in(const char *list, const char *ip)
{
    struct networks *n = NULL;
    struct addr a = {.sa.sa_family = AF_UNIX};
    assert_int_equal(networks_parse(list, &n), 0);
    assert_string_equal(networks_text(n), list);
    if (strcmp(ip, "unix") != 0)
        assert_int_equal(addr_parse_ip(ip, &a), 0);
    bool in = networks_has(n, &a);
    networks_drop(n);
    return in;
}

static void test_an_address_is_in_a_network_by_its_prefix(void **state)
{
    (void)state;
    assert_true(is_in("10.0.0.0/8", "10.255.255.255"));
    assert_false(is_in("10.0.0.0/8", "11.0.0.0"));
    assert_true(is_in("192.0.2.64/26", "192.0.2.127"));
    assert_false(is_in("192.0.2.64/26", "192.0.2.128"));
    assert_true(is_in("192.0.2.1", "192.0.2.1"));
    assert_false(is_in("192.0.2.1", "192.0.2.0"));
    assert_true(is_in("0.0.0.0/0", "203.0.113.7"));
    assert_true(is_in("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(is_in("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(is_in("::/0", "::1"));
    assert_true(is_in("10/8", "10.1.2.3"));
    assert_true(is_in("172.16/12", "172.31.0.1"));
}

static void test_families_are_kept_apart_and_mapped_ip4_is_ip4(void **state)
{
    (void)state;
    assert_false(is_in("0.0.0.0/0", "::1"));
    assert_false(is_in("::/0", "127.0.0.1"));
    assert_false(is_in("::/0", "unix"));
    assert_false(is_in("0.0.0.0/0", "unix"));
    assert_true(is_in("unix", "unix"));
    assert_false(is_in("unix", "127.0.0.1"));
    assert_true(is_in("10.0.0.0/8", "::ffff:10.1.1.1"));
    assert_true(is_in("::ffff:10.0.0.0/104", "10.1.1.1"));
    assert_false(is_in("::/0", "::ffff:10.1.1.1"));
}

static void test_any_of_a_list_is_enough(void **state)
{
    (void)state;
    assert_true(is_in("10.0.0.0/8,2001:db8::/32,unix,192.0.2.1", "192.0.2.1"));
    assert_true(is_in("10.0.0.0/8,2001:db8::/32,unix", "unix"));
    assert_false(is_in("10.0.0.0/8,2001:db8::/32,unix", "192.0.2.1"));
    assert_false(networks_has(NULL, &(struct addr){.sa.sa_family = AF_UNIX}));
}

static void test_what_is_no_network_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        ",",
                                        "10.0.0.0/8,",
                                        "10.0.0.0/33",
                                        "10.0.0.0/",
                                        "10.0.0.0/8x",
                                        "10.1.0.0/8",
                                        "10",
                                        "10.0.0.0.0/8",
                                        "::/129",
                                        "2001:db8::1/32",
                                        "db.internal",
                                        "8080",
                                        "fe80::1%lo",
                                        "fe80::%lo/10",
                                        "::ffff:10.0.0.0/95",
                                        "/8",
                                        " 10.0.0.0/8",
                                        "UNIX",
                                        "unix:/run/x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct networks *n = NULL;
        assert_int_equal(networks_parse(wrong[i], &n), -EINVAL);
        assert_null(n);
    }
}

static void test_the_last_reference_frees(void **state)
{
    (void)state;
    struct networks *n = NULL;
    assert_int_equal(networks_parse("unix", &n), 0);
    assert_ptr_equal(networks_hold(n), n);
    networks_drop(n);
    assert_string_equal(networks_text(n), "unix");
    networks_drop(n);
    networks_drop(networks_hold(NULL));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_address_is_in_a_network_by_its_prefix),
        cmocka_unit_test(test_families_are_kept_apart_and_mapped_ip4_is_ip4),
        cmocka_unit_test(test_any_of_a_list_is_enough),
        cmocka_unit_test(test_what_is_no_network_is_refused),
        cmocka_unit_test(test_the_last_reference_frees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
