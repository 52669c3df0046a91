/* SOCKS5, the client's side. */
#include "proto_support.h"

#include "penstock/base/err.h"
#include "penstock/proto/socks5.h"

static uint8_t out[SOCKS5_REQUEST_MAX];
static enum socks5_method method;
static bool ok;
static uint8_t reply;

static ssize_t method_open(const void *bytes, size_t n)
{
    return socks5_parse_method(bytes, n, false, &method);
}

static ssize_t method_login(const void *bytes, size_t n)
{
    return socks5_parse_method(bytes, n, true, &method);
}

static ssize_t login(const void *bytes, size_t n)
{
    return socks5_parse_login(bytes, n, &ok);
}

static ssize_t answer(const void *bytes, size_t n)
{
    return socks5_parse_reply(bytes, n, &reply);
}

static void assert_built(size_t n, const char *bytes, size_t len)
{
    assert_int_equal(n, len);
    assert_memory_equal(out, bytes, len);
}
#define ASSERT_BUILT(n, text) assert_built(n, text, sizeof(text) - 1)

static void test_the_greeting_offers_what_we_can_do(void **state)
{
    (void)state;
    ASSERT_BUILT(socks5_build_greeting(false, out), "\x05\x01\x00");
    ASSERT_BUILT(socks5_build_greeting(true, out), "\x05\x02\x00\x02");
}

static void test_the_login_carries_both_texts_up_to_255_bytes(void **state)
{
    (void)state;
    char most[SOCKS5_LOGIN_MAX + 1];
    memset(most, 'x', SOCKS5_LOGIN_MAX);
    most[SOCKS5_LOGIN_MAX] = '\0';
    ASSERT_BUILT(socks5_build_login("u", "p:w", out), "\x01\x01u\x03p:w");
    assert_int_equal(socks5_build_login(most, most, out), SOCKS5_REQUEST_MAX);
    assert_int_equal(out[1], 255);
    assert_int_equal(out[257], 255);
}

static void test_connect_names_an_address_or_a_name(void **state)
{
    (void)state;
    struct addr to;
    assert_int_equal(addr_parse_ip("10.0.0.1", &to), 0);
    addr_set_port(&to, 258);
    ASSERT_BUILT(socks5_build_connect(&to, NULL, 9, out), "\x05\x01\x00\x01\x0a\0\0\x01\x01\x02");
    ASSERT_BUILT(socks5_build_connect(NULL, "db", 5432, out), "\x05\x01\x00\x03\x02"
                                                              "db\x15\x38");
    assert_int_equal(addr_parse_ip("2001:db8::1", &to), 0);
    addr_set_port(&to, 80);
    ASSERT_BUILT(socks5_build_connect(&to, NULL, 0, out),
                 "\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50");
}

static void test_the_method_is_one_of_those_offered_or_none(void **state)
{
    (void)state;
    ASSERT_WHOLE(method_open, "\x05\x00");
    assert_int_equal(method, SOCKS5_OPEN);
    ASSERT_WHOLE(method_open, "\x05\xff");
    assert_int_equal(method, SOCKS5_NONE);
    ASSERT_WHOLE(method_login, "\x05\x02");
    assert_int_equal(method, SOCKS5_LOGIN);
    ASSERT_BAD_AT(method_open, "\x05\x02", 2);
    ASSERT_BAD_AT(method_login, "\x05\x01", 2);
    ASSERT_BAD_AT(method_login, "HTTP/1.1 400", 1);
}

static void test_the_login_succeeds_with_zero_only(void **state)
{
    (void)state;
    ASSERT_WHOLE(login, "\x01\x00");
    assert_true(ok);
    ASSERT_WHOLE(login, "\x01\x01");
    assert_false(ok);
    ASSERT_WHOLE(login, "\x01\xff");
    assert_false(ok);
    ASSERT_BAD_AT(login, "\x05\x00", 1);
}

static void test_a_reply_ends_with_its_address_whatever_kind_that_is(void **state)
{
    (void)state;
    ASSERT_WHOLE(answer, "\x05\x00\x00\x01\x7f\0\0\x01\x04\x38");
    assert_int_equal(reply, 0);
    ASSERT_WHOLE(answer, "\x05\x00\x00\x04"
                         "0123456789abcdef\x04\x38");
    ASSERT_WHOLE(answer, "\x05\x00\x00\x03\x04name\x04\x38");
    ASSERT_WHOLE(answer, "\x05\x00\x00\x03\x00\x04\x38");
    ASSERT_WHOLE(answer, "\x05\x05\x00\x01\0\0\0\0\0\0");
    assert_int_equal(reply, 5);
}

static void test_the_longest_reply_fits(void **state)
{
    (void)state;
    char bytes[SOCKS5_ANSWER_MAX] = "\x05\x00\x00\x03\xff";
    assert_whole(answer, bytes, sizeof bytes);
}

static void test_a_reply_that_is_none_is_refused_at_its_first_wrong_byte(void **state)
{
    (void)state;
    ASSERT_BAD_AT(answer, "\x04\x00\x00\x01", 1);
    ASSERT_BAD_AT(answer, "\x05\x09\x00\x01", 2);
    ASSERT_BAD_AT(answer, "\x05\x00\x01\x01", 3);
    ASSERT_BAD_AT(answer, "\x05\x00\x00\x02", 4);
}

static void test_every_reply_has_an_error_and_words(void **state)
{
    (void)state;
    static const int errors[] = {PS_EREFUSED, PS_EDENIED,  PS_EUNREACHABLE, PS_EUNREACHABLE,
                                 PS_EREFUSED, PS_ETIMEOUT, PS_EDENIED,      PS_EDENIED};
    for (uint8_t i = 1; i <= 8; i++) {
        assert_int_equal(socks5_reply_err(i), errors[i - 1]);
        assert_string_not_equal(socks5_reply_text(i), socks5_reply_text(9));
    }
    assert_string_equal(socks5_reply_text(2), "not allowed by its rules");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_greeting_offers_what_we_can_do),
        cmocka_unit_test(test_the_login_carries_both_texts_up_to_255_bytes),
        cmocka_unit_test(test_connect_names_an_address_or_a_name),
        cmocka_unit_test(test_the_method_is_one_of_those_offered_or_none),
        cmocka_unit_test(test_the_login_succeeds_with_zero_only),
        cmocka_unit_test(test_a_reply_ends_with_its_address_whatever_kind_that_is),
        cmocka_unit_test(test_the_longest_reply_fits),
        cmocka_unit_test(test_a_reply_that_is_none_is_refused_at_its_first_wrong_byte),
        cmocka_unit_test(test_every_reply_has_an_error_and_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
