/* The host of an HTTP/1.x request. */
#include "proto_support.h"

#include <stdio.h>

#include "penstock/proto/http_host.h"

static struct http_host host;

static ssize_t parse(const void *bytes, size_t n)
{
    return http_host_parse(bytes, n, &host);
}

static void assert_host(const char *head, const char *name)
{
    assert_whole(parse, head, strlen(head));
    assert_string_equal(host.name, name);
}

/* A Host field with this value names this host (NULL: it is refused). */
static void assert_field(const char *value, const char *name)
{
    char head[512];
    int n = snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost:%s\r\n\r\n", value);
    if (name)
        assert_host(head, name);
    else
        assert_int_equal(parse_exact(parse, head, (size_t)n), PROTO_BAD);
}

static void test_the_host_field_tells_wherever_it_stands(void **state)
{
    (void)state;
    assert_host("GET / HTTP/1.1\r\nHost: www.lab\r\n\r\n", "www.lab");
    assert_host("POST /x?y HTTP/1.0\r\nAccept: */*\r\nHOST:www.lab\r\nX-Host: no\r\n\r\n",
                "www.lab");
    assert_host("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", "a");
}

static void test_the_name_is_lower_case_and_has_no_port(void **state)
{
    (void)state;
    assert_field(" WWW.Lab:8443", "www.lab");
    assert_field("\t www.lab: \t", "www.lab");
    assert_field("www.lab.", "www.lab");
    assert_field("10.0.0.1:80", "10.0.0.1");
    assert_field("[2001:DB8::1]:80", "2001:db8::1");
    assert_field("[::1]", "::1");
}

static void test_what_is_no_host_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",        " ",         ":80",
        ".",       "a b",       "a,b",
        "a:65536", "a:8o",      "a:80:80",
        "a..b",    ".a",        "[::1",
        "[::1]x",  "[::1]80",   "[]",
        "[g::1]",  "user@a",    "a/b",
        "a\x7f",   "a\xc3\xa9", "::1",
        "a%2eb",   "[a]",       "[127.0.0.1]",
        "a:-1",    "a: 80",     "a:99999999999999999999",
        "..",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_field(wrong[i], NULL);
}

static void test_a_name_has_at_most_253_characters(void **state)
{
    (void)state;
    char name[HTTP_HOST_MAX + 2];
    memset(name, 'a', sizeof name);
    name[HTTP_HOST_MAX + 1] = '\0';
    assert_field(name, NULL);
    name[HTTP_HOST_MAX] = '\0';
    assert_field(name, name);
}

static void test_the_target_wins_where_it_names_a_host(void **state)
{
    (void)state;
    assert_host("GET http://A.lab:81/x HTTP/1.1\r\nHost: b.lab\r\n\r\n", "a.lab");
    assert_host("GET https://[::1] HTTP/1.1\r\nHost: b.lab\r\n\r\n", "::1");
    assert_host("GET http://a.lab?x:y HTTP/1.1\r\nHost: b.lab\r\n\r\n", "a.lab");
    assert_host("CONNECT db.lab:5432 HTTP/1.1\r\nHost: b.lab\r\n\r\n", "db.lab");
    ASSERT_BAD(parse, "CONNECT db.lab HTTP/1.1\r\nHost: b.lab\r\n\r\n");
    ASSERT_BAD(parse, "GET http:///x HTTP/1.1\r\nHost: b.lab\r\n\r\n");
    ASSERT_BAD(parse, "GET a.lab HTTP/1.1\r\nHost: b.lab\r\n\r\n");
    ASSERT_BAD(parse, "GET * HTTP/1.1\r\nHost: b.lab\r\n\r\n");
}

static void test_a_missing_or_doubled_host_is_refused(void **state)
{
    (void)state;
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.0\r\nX: y\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n");
    ASSERT_BAD(parse, "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
}

static void test_what_is_no_http_is_refused_where_that_is_certain(void **state)
{
    (void)state;
    ASSERT_BAD_AT(parse, "\x16\x03\x01", 1);
    ASSERT_BAD_AT(parse, "SSH-2.0-OpenSSH", 5);
    ASSERT_BAD_AT(parse, "PING\r\n", 5);
    ASSERT_BAD_AT(parse, "*1\r\n", 1);
    ASSERT_BAD_AT(parse, "get / HTTP/1.1", 1);
    ASSERT_BAD_AT(parse, "EHLO mail.lab\r\n", 14);
    ASSERT_BAD_AT(parse, "GET /\r\n", 6);
    ASSERT_BAD_AT(parse, "PRI * HTTP/2.0\r\n", 6);
    ASSERT_BAD_AT(parse, "GET / HTTP/2.0\r\n", 12);
    ASSERT_BAD_AT(parse, "GET / HTTP/1.1\n", 15);
    ASSERT_BAD_AT(parse, "GET / HTTP/1.x", 14);
    ASSERT_BAD_AT(parse, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 21);
}

static void test_lines_that_are_none_are_refused(void **state)
{
    (void)state;
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost: a\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\n: a\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n");
    ASSERT_BAD(parse, "GET / HTTP/1.1\r\nHost: a\r\n\rx");
    ASSERT_BAD(parse, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n");
}

static void test_a_head_has_at_most_16384_bytes(void **state)
{
    (void)state;
    static char head[HTTP_HEAD_MAX + 1];
    size_t start = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: a\r\nX:");
    memset(head + start, 'x', sizeof head - start);
    assert_int_equal(parse_exact(parse, head, HTTP_HEAD_MAX - 1), PROTO_MORE);
    assert_int_equal(parse_exact(parse, head, HTTP_HEAD_MAX), PROTO_BAD);
    memcpy(head + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(parse_exact(parse, head, sizeof head), HTTP_HEAD_MAX);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_host_field_tells_wherever_it_stands),
        cmocka_unit_test(test_the_name_is_lower_case_and_has_no_port),
        cmocka_unit_test(test_what_is_no_host_is_refused),
        cmocka_unit_test(test_a_name_has_at_most_253_characters),
        cmocka_unit_test(test_the_target_wins_where_it_names_a_host),
        cmocka_unit_test(test_a_missing_or_doubled_host_is_refused),
        cmocka_unit_test(test_what_is_no_http_is_refused_where_that_is_certain),
        cmocka_unit_test(test_lines_that_are_none_are_refused),
        cmocka_unit_test(test_a_head_has_at_most_16384_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
