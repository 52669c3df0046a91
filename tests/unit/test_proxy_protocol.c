/* PROXY headers, both versions, both ways. */
#include "proto_support.h"

#include "penstock/proto/proxy_protocol.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static struct proxy_header got;
static uint8_t out[PROXY_BUILD_MAX];

static ssize_t parse(const void *bytes, size_t n)
{
    return proxy_parse(bytes, n, &got);
}

static struct addr ip(const char *text, uint16_t port)
{
    struct addr a;
    assert_int_equal(addr_parse_ip(text, &a), 0);
    addr_set_port(&a, port);
    return a;
}

static void assert_addr(const struct addr *a, const char *text)
{
    char buf[ADDR_TEXT_MAX];
    assert_string_equal(addr_format(a, buf, sizeof buf), text);
}

static void assert_v1(const struct proxy_header *h, const char *text)
{
    char line[PROXY_V1_MAX];
    size_t n = proxy_build_v1(h, line);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(line, text, n);
    assert_whole(parse, line, n);
    assert_int_equal(got.version, 1);
}

static void test_v1_tells_tcp_over_both_families(void **state)
{
    (void)state;
    assert_v1(&(struct proxy_header){.from = ip("203.0.113.7", 50000), .to = ip("10.0.0.1", 443)},
              "PROXY TCP4 203.0.113.7 10.0.0.1 50000 443\r\n");
    assert_addr(&got.from, "203.0.113.7:50000");
    assert_addr(&got.to, "10.0.0.1:443");
    assert_v1(&(struct proxy_header){.from = ip("2001:db8::7", 1), .to = ip("::1", 65535)},
              "PROXY TCP6 2001:db8::7 ::1 1 65535\r\n");
    assert_addr(&got.from, "[2001:db8::7]:1");
}

static void test_ip4_mapped_into_ip6_is_told_as_ip4(void **state)
{
    (void)state;
    struct proxy_header h = {.from = ip("::ffff:203.0.113.7", 5), .to = ip("10.0.0.1", 6)};
    assert_v1(&h, "PROXY TCP4 203.0.113.7 10.0.0.1 5 6\r\n");
    assert_whole(parse, out, proxy_build_v2(&h, NULL, 0, out));
    assert_addr(&got.from, "203.0.113.7:5");
    assert_int_equal(got.from.sa.sa_family, AF_INET);
}

static void test_v1_says_unknown_where_it_has_no_words(void **state)
{
    (void)state;
    struct proxy_header un = {.from.sa.sa_family = AF_UNIX, .to.sa.sa_family = AF_UNIX};
    struct proxy_header mixed = {.from = ip("::1", 1), .to = ip("10.0.0.1", 1)};
    struct proxy_header local = {.local = true, .from = ip("::1", 1), .to = ip("::1", 1)};
    assert_v1(&un, "PROXY UNKNOWN\r\n");
    assert_v1(&mixed, "PROXY UNKNOWN\r\n");
    assert_v1(&local, "PROXY UNKNOWN\r\n");
    assert_int_equal(got.from.sa.sa_family, AF_UNSPEC);
    ASSERT_WHOLE(parse, "PROXY UNKNOWN whatever 1 2 3\r\n");
}

static void test_the_longest_v1_header_is_read(void **state)
{
    (void)state;
    ASSERT_WHOLE(parse, "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    char line[PROXY_V1_MAX + 1];
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_bad_at(parse, line, sizeof line, PROXY_V1_MAX);
}

static void test_v1_is_strict(void **state)
{
    (void)state;
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n");
    ASSERT_BAD(parse, "PROXY TCP4 ::1 ::1 1 2\r\n");
    ASSERT_BAD(parse, "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n");
    ASSERT_BAD(parse, "PROXY TCP6 fe80::1%lo fe80::1%lo 1 2\r\n");
    ASSERT_BAD(parse, "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n");
    ASSERT_BAD(parse, "PROXY \r\n");
    ASSERT_BAD(parse, "PROXY UNKNOWN\n");
    ASSERT_BAD(parse, "PROXY UNKNOWN\r\r\n");
    ASSERT_BAD(parse, "PROXY UNKNOWN\0\r\n");
}

static void test_what_is_no_header_is_refused_at_its_first_wrong_byte(void **state)
{
    (void)state;
    ASSERT_BAD_AT(parse, "GET / HTTP/1.1\r\n", 1);
    ASSERT_BAD_AT(parse, "PROXXY", 5);
    ASSERT_BAD_AT(parse, "\r\n\r\n\0\r\nQUIT\r", 12);
    ASSERT_BAD_AT(parse, SIGNATURE "\x11", 13);
    ASSERT_BAD_AT(parse, SIGNATURE "\x22", 13);
    ASSERT_BAD_AT(parse, SIGNATURE "\x21\x13", 14);
    ASSERT_BAD_AT(parse, SIGNATURE "\x21\x41", 14);
    ASSERT_BAD_AT(parse, SIGNATURE "\x21\x11\x00\x0b", 16);
    ASSERT_BAD_AT(parse, SIGNATURE "\x21\x11\xff\xff", 16);
}

static void assert_v2(const struct proxy_header *h, const struct proxy_tlv *tlvs, size_t n_tlvs,
                      const char *bytes, size_t n)
{
    assert_int_equal(proxy_build_v2(h, tlvs, n_tlvs, out), n);
    assert_memory_equal(out, bytes, n);
    assert_whole(parse, out, n);
    assert_int_equal(got.version, 2);
    assert_int_equal(got.local, h->local);
}
#define ASSERT_V2(h, text) assert_v2(h, NULL, 0, text, sizeof(text) - 1)

static void test_v2_tells_tcp_over_both_families(void **state)
{
    (void)state;
    ASSERT_V2((&(struct proxy_header){.from = ip("1.2.3.4", 258), .to = ip("5.6.7.8", 80)}),
              SIGNATURE "\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\0\x50");
    assert_addr(&got.from, "1.2.3.4:258");
    assert_addr(&got.to, "5.6.7.8:80");
    ASSERT_V2((&(struct proxy_header){.from = ip("::1", 1), .to = ip("::2", 2)}),
              SIGNATURE "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
                        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x02");
    assert_addr(&got.from, "[::1]:1");
    assert_addr(&got.to, "[::2]:2");
}

static void test_v2_tells_unix_paths_local_and_unknown(void **state)
{
    (void)state;
    struct proxy_header un = {.from.sa.sa_family = AF_UNIX, .to.sa.sa_family = AF_UNIX};
    strcpy(un.to_path, "/run/x.sock");
    size_t n = proxy_build_v2(&un, NULL, 0, out);
    assert_int_equal(n, 16 + 216);
    assert_memory_equal(out + 12, "\x21\x31\x00\xd8", 4);
    assert_whole(parse, out, n);
    assert_int_equal(got.from.sa.sa_family, AF_UNIX);
    assert_string_equal(got.to_path, "/run/x.sock");
    ASSERT_V2((&(struct proxy_header){.local = true, .from = ip("::1", 1), .to = ip("::1", 1)}),
              SIGNATURE "\x20\x00\x00\x00");
    assert_int_equal(got.from.sa.sa_family, AF_UNSPEC);
    ASSERT_V2((&(struct proxy_header){.from = ip("::1", 1), .to = ip("1.2.3.4", 1)}),
              SIGNATURE "\x21\x00\x00\x00");
}

static void test_options_of_v2_come_back_as_they_were(void **state)
{
    (void)state;
    struct proxy_header h = {.from = ip("1.2.3.4", 1), .to = ip("5.6.7.8", 2)};
    struct proxy_tlv tlvs[] = {
        {0xe0, 5, (const uint8_t *)"a\0b\r\n"}, {0x04, 0, NULL}, {0xe0, 1, (const uint8_t *)"x"}};
    static const char bytes[] =
        SIGNATURE "\x21\x11\0\x1b\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02"
                  "\xe0\0\x05"
                  "a\0b\r\n\x04\0\0\xe0\0\x01x";
    assert_int_equal(proxy_tlvs_size(tlvs, 3), 15);
    assert_v2(&h, tlvs, 3, bytes, 16 + 12 + 15);
    /* the block of the last call is gone: once more on bytes that stay */
    assert_int_equal(proxy_parse(out, 16 + 12 + 15, &got), 16 + 12 + 15);
    struct proxy_tlv tlv;
    size_t at = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_true(proxy_next_tlv(&got, &at, &tlv));
        assert_int_equal(tlv.type, tlvs[i].type);
        assert_int_equal(tlv.len, tlvs[i].len);
        if (tlv.len)
            assert_memory_equal(tlv.value, tlvs[i].value, tlv.len);
    }
    assert_false(proxy_next_tlv(&got, &at, &tlv));
}

static void test_options_that_do_not_add_up_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"\xe0", "\xe0\0", "\xe0\0\x01", "\xe0\0\0\xe0",
                                        "\xe0\xff\xff"};
    static const size_t len[] = {1, 2, 3, 4, 3};
    for (size_t i = 0; i < 5; i++) {
        char bytes[64] = SIGNATURE "\x21\x11\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
        bytes[15] = (char)(12 + len[i]);
        memcpy(bytes + 28, wrong[i], len[i]);
        assert_bad_at(parse, bytes, 28 + len[i], 28 + len[i]);
    }
}

static void test_what_follows_local_or_unknown_is_skipped(void **state)
{
    (void)state;
    ASSERT_WHOLE(parse, SIGNATURE "\x20\x00\x00\x03xyz");
    ASSERT_WHOLE(parse, SIGNATURE "\x20\x11\x00\x03xyz");
    ASSERT_WHOLE(parse, SIGNATURE "\x20\xff\x00\x01x");
    ASSERT_WHOLE(parse, SIGNATURE "\x21\x00\x00\x03xyz");
    assert_int_equal(got.tlvs_len, 0);
    ASSERT_WHOLE(parse, SIGNATURE "\x21\x12\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\0\x50");
    assert_int_equal(got.from.sa.sa_family, AF_UNSPEC);
}

static void test_the_longest_v2_header_is_read(void **state)
{
    (void)state;
    static const char start[] = SIGNATURE "\x21\x00\x0f\xf0";
    static char bytes[PROXY_HEADER_MAX];
    memcpy(bytes, start, 16);
    assert_int_equal(parse_exact(parse, bytes, sizeof bytes), sizeof bytes);
    bytes[15]++;
    assert_int_equal(parse_exact(parse, bytes, 16), PROTO_BAD);
}

static void test_the_checksum_is_castagnolis(void **state)
{
    (void)state;
    assert_int_equal(proxy_crc32c((const uint8_t *)"123456789", 9), 0xe3069283);
    assert_int_equal(proxy_crc32c(NULL, 0), 0);
}

static void test_a_checksum_is_made_and_a_wrong_one_refused(void **state)
{
    (void)state;
    struct proxy_header h = {.from = ip("1.2.3.4", 1), .to = ip("5.6.7.8", 2)};
    struct proxy_tlv tlvs[] = {{PROXY_TLV_CRC32C, 4, (const uint8_t *)"gone"},
                               {0xe0, 1, (const uint8_t *)"x"}};
    size_t n = proxy_build_v2(&h, tlvs, 2, out);
    assert_memory_not_equal(out + 31, "gone", 4);
    assert_whole(parse, out, n);
    for (size_t i = 16; i < n; i++) {
        if (i >= 28 && i < 31) /* then it is no checksum at all */
            continue;
        out[i] ^= 1;
        assert_int_equal(proxy_parse(out, n, &got), PROTO_BAD);
        assert_true(got.fault == PROXY_CHECKSUM || i > 34);
        out[i] ^= 1;
    }
    tlvs[1] = tlvs[0];
    n = proxy_build_v2(&h, tlvs, 2, out);
    assert_int_equal(proxy_parse(out, n, &got), PROTO_BAD);
    assert_int_equal(got.fault, PROXY_MALFORMED);
    tlvs[0].len = 3;
    n = proxy_build_v2(&h, tlvs, 1, out);
    assert_int_equal(proxy_parse(out, n, &got), PROTO_BAD);
}

static void test_an_ssl_option_is_read_and_must_add_up(void **state)
{
    (void)state;
    static const uint8_t value[] = "\x07\0\0\1\2\x21\0\7TLSv1.3\x22\0\2cn";
    struct proxy_ssl ssl;
    struct proxy_tlv tlv;
    size_t at = 0;
    assert_true(proxy_read_ssl(value, sizeof value - 1, &ssl));
    assert_int_equal(ssl.client, 7);
    assert_int_equal(ssl.verify, 258);
    assert_true(proxy_tlv_at(ssl.tlvs, ssl.tlvs_len, &at, &tlv));
    assert_int_equal(tlv.type, PROXY_TLV_SSL_VERSION);
    assert_true(proxy_tlv_at(ssl.tlvs, ssl.tlvs_len, &at, &tlv));
    assert_memory_equal(tlv.value, "cn", 2);
    assert_false(proxy_tlv_at(ssl.tlvs, ssl.tlvs_len, &at, &tlv));
    struct proxy_header h = {.from = ip("1.2.3.4", 1), .to = ip("5.6.7.8", 2)};
    for (size_t n = 0; n < sizeof value; n++) {
        bool whole = n == 5 || n == 15 || n == sizeof value - 1;
        struct proxy_tlv of_header = {PROXY_TLV_SSL, (uint16_t)n, value};
        assert_int_equal(proxy_read_ssl(value, n, &ssl), whole);
        ssize_t len = (ssize_t)proxy_build_v2(&h, &of_header, 1, out);
        assert_int_equal(proxy_parse(out, (size_t)len, &got), whole ? len : PROTO_BAD);
    }
}

static void assert_fault(enum proxy_fault fault, const char *bytes, size_t n)
{
    assert_int_equal(proxy_parse(bytes, n, &got), PROTO_BAD);
    assert_string_equal(proxy_fault_word(got.fault), proxy_fault_word(fault));
}

static void test_a_refused_header_says_why(void **state)
{
    (void)state;
    char line[PROXY_V1_MAX];
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_fault(PROXY_MISSING, "SSH-2.0", 7);
    assert_fault(PROXY_MALFORMED, "PROXY TCP5 \r\n", 13);
    assert_fault(PROXY_MALFORMED, SIGNATURE "\x31", 13);
    assert_fault(PROXY_TOO_LONG, line, sizeof line);
    assert_fault(PROXY_TOO_LONG, SIGNATURE "\x21\x11\x40\x00", 16);
    assert_string_equal(proxy_fault_word(PROXY_TOO_LONG), "too_long");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1_tells_tcp_over_both_families),
        cmocka_unit_test(test_ip4_mapped_into_ip6_is_told_as_ip4),
        cmocka_unit_test(test_v1_says_unknown_where_it_has_no_words),
        cmocka_unit_test(test_the_longest_v1_header_is_read),
        cmocka_unit_test(test_v1_is_strict),
        cmocka_unit_test(test_what_is_no_header_is_refused_at_its_first_wrong_byte),
        cmocka_unit_test(test_v2_tells_tcp_over_both_families),
        cmocka_unit_test(test_v2_tells_unix_paths_local_and_unknown),
        cmocka_unit_test(test_options_of_v2_come_back_as_they_were),
        cmocka_unit_test(test_options_that_do_not_add_up_are_refused),
        cmocka_unit_test(test_what_follows_local_or_unknown_is_skipped),
        cmocka_unit_test(test_the_longest_v2_header_is_read),
        cmocka_unit_test(test_the_checksum_is_castagnolis),
        cmocka_unit_test(test_a_checksum_is_made_and_a_wrong_one_refused),
        cmocka_unit_test(test_an_ssl_option_is_read_and_must_add_up),
        cmocka_unit_test(test_a_refused_header_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
