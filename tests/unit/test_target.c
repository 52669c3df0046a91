/* Proxies on the way and other options of a target: what is read, and what is refused how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "penstock/net/target.h"

static char why[512];

static void assert_hop(const char *url, const char *text, const char *user, const char *password)
{
    struct hop h;
    char buf[400];
    if (hop_parse(url, &h, why, sizeof why))
        fail_msg("%s: %s", url, why);
    assert_string_equal(hop_format(&h, buf, sizeof buf), text);
    assert_int_equal(h.user != NULL, user != NULL);
    assert_int_equal(h.password != NULL, user != NULL);
    if (user) {
        assert_string_equal(h.user, user);
        assert_string_equal(h.password, password);
    }
    hop_deinit(&h);
}

static void assert_refused(const char *url, const char *part)
{
    static const struct hop none;
    struct hop h;
    why[0] = '\0';
    assert_true(hop_parse(url, &h, why, sizeof why) < 0);
    assert_memory_equal(&h, &none, sizeof h);
    if (!strstr(why, part))
        fail_msg("%s: \"%s\" lacks \"%s\"", url, why, part);
    if (strstr(why, "secret"))
        fail_msg("%s: \"%s\" tells the login", url, why);
}

static void test_a_hop_has_a_scheme_a_host_and_a_port_that_may_be_left_out(void **state)
{
    (void)state;
    assert_hop("socks5://10.0.0.1", "socks5://10.0.0.1:1080", NULL, NULL);
    assert_hop("http://proxy.lab", "http://proxy.lab:3128", NULL, NULL);
    assert_hop("http://proxy.lab:8080/", "http://proxy.lab:8080", NULL, NULL);
    assert_hop("socks5://[2001:db8::1]", "socks5://[2001:db8::1]:1080", NULL, NULL);
    assert_hop("socks5://[::1]:99", "socks5://[::1]:99", NULL, NULL);
}

static void test_a_login_is_percent_decoded_and_not_shown(void **state)
{
    (void)state;
    assert_hop("socks5://u:p@a:1", "socks5://a:1", "u", "p");
    assert_hop("socks5://a%40b:c%3ad%2F%25@h", "socks5://h:1080", "a@b", "c:d/%");
    assert_hop("socks5://u:p:q@r@h", "socks5://h:1080", "u", "p:q@r");
    assert_hop("http://u:@h", "http://h:3128", "u", "");
}

static void test_what_is_no_hop_is_refused_without_showing_the_login(void **state)
{
    (void)state;
    assert_refused("", "socks5://host:1080 or http://host:3128");
    assert_refused("10.0.0.1:1080", "socks5://host:1080");
    assert_refused("ftp://u:secret@h", "not ftp://");
    assert_refused("https://u:secret@", "has no host");
    assert_refused("tls://h", "socks5+tls://host:1080 or https://host:443");
    assert_refused("socks5h://h", "socks5://host:1080");
    assert_refused("socks5://", "has no host");
    assert_refused("socks5://u:secret@", "has no host");
    assert_refused("socks5://u:secret@h:0", "\"0\" is not a port");
    assert_refused("socks5://u:secret@h:1-2", "not a range");
    assert_refused("socks5://unix:/run/x", "over TCP");
    assert_refused("socks5://secret@h", "lacks a password");
    assert_refused("socks5://u:@h", "neither of them empty");
    assert_refused("socks5://:secret@h", "neither of them empty");
    assert_refused("socks5://u:secret%@h", "%25");
    assert_refused("socks5://u:secret%zz@h", "%25");
    assert_refused("socks5://u:secret%00@h", "zero byte");
    assert_refused("http://a%3ab:secret@h", "colon");
}

static void test_a_login_has_at_most_255_bytes(void **state)
{
    (void)state;
    char url[400] = "socks5://u:";
    memset(url + 11, 'x', 256);
    strcpy(url + 11 + 256, "@h");
    assert_refused(url, "at most 255");
    strcpy(url + 11 + 255, "@h");
    struct hop h;
    assert_int_equal(hop_parse(url, &h, why, sizeof why), 0);
    hop_deinit(&h);
}

static struct target make(const char *text)
{
    struct target t = {.options = target_options_new()};
    assert_non_null(t.options);
    assert_int_equal(endpoint_parse(text, ENDPOINT_DIAL, &t.endpoint, why, sizeof why), 0);
    return t;
}

static void assert_misfit(struct target *t, const char *part)
{
    assert_true(target_check(t, why, sizeof why) < 0);
    if (!strstr(why, part))
        fail_msg("\"%s\" lacks \"%s\"", why, part);
    target_deinit(t);
}

static void test_options_must_fit_the_target_and_each_other(void **state)
{
    (void)state;
    struct target t = make("unix:/run/x");
    target_options_add_hop(t.options, "http://h", why, sizeof why);
    assert_misfit(&t, "UNIX socket");
    t = make("unix:/run/x");
    addr_parse_ip("127.0.0.1", &t.options->source);
    assert_misfit(&t, "UNIX socket");
    t = make("[::1]:80");
    addr_parse_ip("127.0.0.1", &t.options->source);
    assert_misfit(&t, "other family");
    t = make("a:80");
    t.options->proxy = TARGET_PROXY_V1;
    target_options_add_tlv(t.options, 1, "x", 1);
    assert_misfit(&t, "v2");
    /* The source is for the first hop, whatever is behind it. */
    t = make("[::1]:80");
    addr_parse_ip("127.0.0.1", &t.options->source);
    target_options_add_hop(t.options, "http://10.0.0.1", why, sizeof why);
    assert_int_equal(target_check(&t, why, sizeof why), 0);
    target_deinit(&t);
}

static void test_a_copy_has_everything_and_stands_alone(void **state)
{
    (void)state;
    struct target t = make("a:80");
    target_options_add_hop(t.options, "socks5://u:p@h", why, sizeof why);
    target_options_add_hop(t.options, "http://[::1]:81", why, sizeof why);
    target_options_add_tlv(t.options, 7, "a\0b", 3);
    target_options_add_tlv(t.options, 8, "", 0);
    t.options->proxy = TARGET_PROXY_V2;
    t.options->timeout_ms = 9;
    addr_parse_ip("127.0.0.1", &t.options->source);
    struct target_options *copy = target_options_copy(t.options);
    target_options_free(t.options);
    t.options = copy;
    char buf[200];
    assert_string_equal(target_format_via(&t, buf, sizeof buf), "socks5://h:1080,http://[::1]:81");
    assert_string_equal(copy->hops[0].user, "u");
    assert_string_equal(copy->hops[0].password, "p");
    assert_int_equal(copy->n_tlvs, 2);
    assert_memory_equal(copy->tlvs[0].value, "a\0b", 3);
    assert_int_equal(copy->tlvs[1].type, 8);
    assert_int_equal(copy->proxy, TARGET_PROXY_V2);
    assert_int_equal(copy->timeout_ms, 9);
    assert_true(addr_is_loopback(&copy->source));
    assert_string_equal(target_first(&t)->text, "h:1080");
    target_deinit(&t);
}

static void test_there_are_bounds_on_hops_and_header_options(void **state)
{
    (void)state;
    static char bytes[PROXY_TLVS_MAX];
    struct target t = make("a:80");
    for (int i = 0; i < TARGET_HOPS_MAX; i++)
        assert_int_equal(target_options_add_hop(t.options, "http://h", why, sizeof why), 0);
    assert_true(target_options_add_hop(t.options, "http://h", why, sizeof why) < 0);
    assert_int_equal(target_options_add_tlv(t.options, 1, bytes, PROXY_TLVS_MAX - 3 - 3), 0);
    assert_true(target_options_add_tlv(t.options, 1, bytes, 1) < 0);
    assert_int_equal(target_options_add_tlv(t.options, 1, bytes, 0), 0);
    target_deinit(&t);
}

/* ---- accounts ---- */

struct book {
    struct account account;
    int refs, inside, good, bad;
    uint64_t ends;
};

static struct book *book_of(struct account *a)
{
    return (struct book *)a;
}

static void on_hold(struct account *a)
{
    book_of(a)->refs++;
}

static void on_drop(struct account *a)
{
    book_of(a)->refs--;
}

static void on_enter(struct account *a)
{
    book_of(a)->inside++;
}

static void on_leave(struct account *a)
{
    book_of(a)->inside--;
}

static void on_dialled(struct account *a, bool success, uint64_t now_ms)
{
    assert_int_equal(now_ms, 77);
    book_of(a)->good += success;
    book_of(a)->bad += !success;
}

static uint64_t on_ends(struct account *a, uint64_t chosen_ms)
{
    return book_of(a)->ends ? book_of(a)->ends + chosen_ms : 0;
}

static const struct account_ops book_ops = {on_hold,  on_drop,    on_enter,
                                            on_leave, on_dialled, on_ends};

static void test_accounts_are_told_who_has_done_its_part(void **state)
{
    (void)state;
    struct book books[3] = {
        {{&book_ops}, 0, 0, 0, 0, 0}, {{&book_ops}, 0, 0, 0, 0, 0}, {{&book_ops}, 0, 0, 0, 0, 0}};
    struct target t = make("a:80");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(target_options_add_hop(t.options, "http://h", why, sizeof why), 0);
        t.options->hops[i].account = account_hold(&books[i].account);
    }
    t.options->account = account_hold(&books[2].account);
    struct target_options *copy = target_options_copy(t.options);
    target_enter(&t);
    for (size_t n_good = 0; n_good < 3; n_good++)
        target_dialled(&t, n_good, 77);
    target_dialled(&t, TARGET_ALL_GOOD, 77);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(books[i].refs, 2);
        assert_int_equal(books[i].inside, 1);
        assert_int_equal(books[i].good, 3 - i); /* of the four, those that got further */
        assert_int_equal(books[i].bad, 1);
    }
    target_leave(&t);
    target_options_free(copy);
    target_deinit(&t);
    for (int i = 0; i < 3; i++)
        assert_int_equal(books[i].refs + books[i].inside, 0);
}

static void test_of_all_on_the_way_the_first_to_be_drained_tells_when_to_end(void **state)
{
    (void)state;
    struct book books[3] = {
        {.account = {&book_ops}}, {.account = {&book_ops}}, {.account = {&book_ops}}};
    struct target t = make("a:80");
    assert_int_equal(target_options_add_hop(t.options, "http://h", why, sizeof why), 0);
    t.options->hops[0].account = &books[0].account;
    t.options->account = &books[1].account;
    assert_int_equal(target_ends(&t, 5), 0);
    books[1].ends = 200;
    assert_int_equal(target_ends(&t, 5), 205);
    books[0].ends = 100;
    assert_int_equal(target_ends(&t, 5), 105);
    assert_true(target_uses(&t, &books[0].account));
    assert_true(target_uses(&t, &books[1].account));
    assert_false(target_uses(&t, &books[2].account));
    target_deinit(&t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hop_has_a_scheme_a_host_and_a_port_that_may_be_left_out),
        cmocka_unit_test(test_a_login_is_percent_decoded_and_not_shown),
        cmocka_unit_test(test_what_is_no_hop_is_refused_without_showing_the_login),
        cmocka_unit_test(test_a_login_has_at_most_255_bytes),
        cmocka_unit_test(test_options_must_fit_the_target_and_each_other),
        cmocka_unit_test(test_a_copy_has_everything_and_stands_alone),
        cmocka_unit_test(test_there_are_bounds_on_hops_and_header_options),
        cmocka_unit_test(test_accounts_are_told_who_has_done_its_part),
        cmocka_unit_test(test_of_all_on_the_way_the_first_to_be_drained_tells_when_to_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
