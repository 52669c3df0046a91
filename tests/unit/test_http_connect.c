/* CONNECT through an HTTP proxy. */
#include "proto_support.h"

#include <stdio.h>

#include "penstock/base/err.h"
#include "penstock/proto/http_connect.h"

static char out[HTTP_CONNECT_REQUEST_MAX];
static unsigned status;

static ssize_t answer(const void *bytes, size_t n)
{
    return http_connect_parse(bytes, n, &status);
}

static void assert_built(size_t n, const char *text)
{
    assert_int_equal(n, strlen(text));
    assert_memory_equal(out, text, n);
}

static void test_the_request_names_the_host_twice_and_nothing_else(void **state)
{
    (void)state;
    assert_built(http_connect_build("db.lab:5432", NULL, NULL, out),
                 "CONNECT db.lab:5432 HTTP/1.1\r\nHost: db.lab:5432\r\n\r\n");
    assert_built(http_connect_build("[::1]:80", NULL, NULL, out),
                 "CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
}

/* The login is encoded right whatever its length leaves over. */
static void test_user_and_password_go_as_basic(void **state)
{
    (void)state;
    static const char *const logins[][3] = {
        {"Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}, /* RFC 7617 */
        {"", "", "Og=="},
        {"a", "", "YTo="},
        {"a", "b", "YTpi"},
        {"test", "123\xc2\xa3", "dGVzdDoxMjPCow=="}, /* RFC 7617 section 2.1 */
    };
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nProxy-Authorization: Basic %s\r\n\r\n",
                 logins[i][2]);
        assert_built(http_connect_build("a:1", logins[i][0], logins[i][1], out), text);
    }
}

static void test_the_longest_request_fits(void **state)
{
    (void)state;
    char authority[301], login[HTTP_CONNECT_LOGIN_MAX + 1];
    memset(authority, 'a', 300);
    memset(login, '\xff', HTTP_CONNECT_LOGIN_MAX);
    authority[300] = login[HTTP_CONNECT_LOGIN_MAX] = '\0';
    size_t n = http_connect_build(authority, login, login, out);
    assert_memory_equal(out + n - 4, "\r\n\r\n", 4);
}

static void test_the_head_ends_at_its_empty_line(void **state)
{
    (void)state;
    ASSERT_WHOLE(answer, "HTTP/1.1 200 Connection established\r\n\r\n");
    assert_int_equal(status, 200);
    ASSERT_WHOLE(answer, "HTTP/1.0 200\r\n\r\n");
    ASSERT_WHOLE(answer, "HTTP/1.1 407 \r\nProxy-Authenticate: Basic realm=\"\xc3\xa9\"\r\nA:\r\n"
                         "b:\t x \r\n\r\n");
    assert_int_equal(status, 407);
    ASSERT_WHOLE(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_int_equal(status, 100);
}

static void test_what_is_no_http_is_refused_at_once(void **state)
{
    (void)state;
    ASSERT_BAD_AT(answer, "SSH-2.0-x\r\n", 1);
    ASSERT_BAD_AT(answer, "HTTP/2.0 200", 6);
    ASSERT_BAD_AT(answer, "HTTP/1.x", 8);
    ASSERT_BAD_AT(answer, "HTTP/1.1  20", 10);
    ASSERT_BAD_AT(answer, "HTTP/1.1 2000", 13);
    ASSERT_BAD_AT(answer, "\r\n\r\n", 1);
    ASSERT_BAD_AT(answer, "\x05\x00", 1);
}

static void test_lines_that_are_none_are_refused(void **state)
{
    (void)state;
    ASSERT_BAD(answer, "HTTP/1.1 600 Odd\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 20\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\n\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\r\rx");
    ASSERT_BAD(answer, "HTTP/1.1 200 O\0K\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\r\nno colon\r\n\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\r\n: no name\r\n\r\n");
    ASSERT_BAD(answer, "HTTP/1.1 200 OK\r\nname : space\r\n\r\n");
}

static void test_a_head_has_at_most_8192_bytes(void **state)
{
    (void)state;
    char head[HTTP_CONNECT_ANSWER_MAX + 1];
    size_t start = (size_t)snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nA:");
    memset(head + start, 'x', sizeof head - start);
    assert_int_equal(parse_exact(answer, head, sizeof head - 2), PROTO_MORE);
    assert_int_equal(parse_exact(answer, head, sizeof head - 1), PROTO_BAD);
    assert_int_equal(parse_exact(answer, head, sizeof head), PROTO_BAD);
    memcpy(head + HTTP_CONNECT_ANSWER_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(parse_exact(answer, head, sizeof head), HTTP_CONNECT_ANSWER_MAX);
}

static void test_a_status_has_an_error_and_words(void **state)
{
    (void)state;
    assert_int_equal(http_connect_err(407), PS_EDENIED);
    assert_int_equal(http_connect_err(403), PS_EDENIED);
    assert_int_equal(http_connect_err(502), PS_EUNREACHABLE);
    assert_int_equal(http_connect_err(504), PS_ETIMEOUT);
    assert_int_equal(http_connect_err(418), PS_EREFUSED);
    assert_string_equal(http_connect_text(403), "not allowed by its rules");
    assert_string_equal(http_connect_text(418), "it opens no tunnel");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_request_names_the_host_twice_and_nothing_else),
        cmocka_unit_test(test_user_and_password_go_as_basic),
        cmocka_unit_test(test_the_longest_request_fits),
        cmocka_unit_test(test_the_head_ends_at_its_empty_line),
        cmocka_unit_test(test_what_is_no_http_is_refused_at_once),
        cmocka_unit_test(test_lines_that_are_none_are_refused),
        cmocka_unit_test(test_a_head_has_at_most_8192_bytes),
        cmocka_unit_test(test_a_status_has_an_error_and_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
