/* Packets of a capture: headers, checksums and blocks, read back by hand. What Wireshark says of
 * them, tests/e2e/capture_spec.lua asks. */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "penstock/proto/pcapng.h"

static struct addr address(const char *ip, uint16_t port)
{
    struct addr a = {0};
    assert_int_equal(addr_parse_ip(ip, &a), 0);
    addr_set_port(&a, port);
    return a;
}

/* The sum that RFC 1071 asks for, the plain way: 0xffff over bytes with their checksum. */
static uint32_t sum_of(uint32_t sum, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static uint8_t packet[SEGMENT_BYTES_MAX + 100];

static size_t build(const struct addr *from, const struct addr *to, uint8_t flags,
                    const char *bytes, size_t n)
{
    struct segment s = {.from = from,
                        .to = to,
                        .seq = 0xfffffff0,
                        .ack = 7,
                        .flags = flags,
                        .bytes = bytes,
                        .n = n};
    segment_write(&s, packet);
    return segment_size(&s);
}

static void expect_tcp_sum(size_t header, size_t addresses, size_t size)
{
    uint8_t pseudo[4] = {0, 6, (uint8_t)((size - header) >> 8), (uint8_t)(size - header)};
    uint32_t sum = sum_of(0, pseudo, sizeof pseudo);
    sum = sum_of(sum, packet + header - addresses, addresses);
    assert_int_equal(sum_of(sum, packet + header, size - header), 0xffff);
}

static void test_checksums_are_right_for_every_length(void **state)
{
    (void)state;
    struct addr four[2] = {address("192.0.2.1", 4711), address("198.51.100.254", 80)};
    struct addr six[2] = {address("2001:db8::1", 4711), address("::1", 65535)};
    char bytes[67];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 37 + 200);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        size_t size = build(&four[0], &four[1], SEGMENT_ACK | SEGMENT_PSH, bytes, n);
        assert_int_equal(size, 40 + n);
        assert_int_equal(sum_of(0, packet, 20), 0xffff);
        expect_tcp_sum(20, 8, size);
        assert_memory_equal(packet + 40, bytes, n);
        size = build(&six[0], &six[1], SEGMENT_ACK | SEGMENT_PSH, bytes, n);
        assert_int_equal(size, 60 + n);
        expect_tcp_sum(40, 32, size);
        assert_memory_equal(packet + 60, bytes, n);
    }
}

static void test_the_longest_segment_fits_its_headers(void **state)
{
    (void)state;
    static char bytes[SEGMENT_BYTES_MAX];
    memset(bytes, 0xff, sizeof bytes);
    struct addr a = address("192.0.2.1", 1), b = address("192.0.2.2", 2);
    size_t size = build(&a, &b, SEGMENT_ACK, bytes, sizeof bytes);
    assert_int_equal(size, packet[2] << 8 | packet[3]);
    expect_tcp_sum(20, 8, size);
}

static void test_two_families_make_ipv6_of_both(void **state)
{
    (void)state;
    struct addr four = address("192.0.2.1", 1), six = address("2001:db8::1", 2);
    size_t size = build(&four, &six, SEGMENT_ACK, NULL, 0);
    assert_int_equal(size, 60);
    assert_int_equal(packet[0] >> 4, 6);
    assert_memory_equal(packet + 8, "\0\0\0\0\0\0\0\0\0\0\377\377\300\0\2\1", 16);
    struct addr mapped = address("::ffff:192.0.2.9", 2);
    assert_int_equal(build(&four, &mapped, SEGMENT_ACK, NULL, 0), 40);
    assert_memory_equal(packet + 16, "\300\0\2\11", 4);
}

static void test_a_syn_brings_the_window_scale(void **state)
{
    (void)state;
    struct addr a = address("192.0.2.1", 1), b = address("192.0.2.2", 2);
    size_t size = build(&a, &b, SEGMENT_SYN, NULL, 0);
    assert_int_equal(size, 44);
    assert_memory_equal(packet + 40, "\3\3\16\0", 4);
    assert_memory_equal(packet + 24, "\377\377\377\360\0\0\0\0", 8); /* no ack without ACK */
    expect_tcp_sum(20, 8, size);
}

static void test_blocks_have_their_length_at_both_ends(void **state)
{
    (void)state;
    struct addr a = address("192.0.2.1", 1), b = address("192.0.2.2", 2);
    uint8_t head[PCAPNG_HEAD_MAX];
    size_t n = pcapng_write_head(head);
    assert_true(n <= sizeof head);
    uint32_t last;
    for (size_t at = 0; at < n; at += pcapng_block_size(head + at)) {
        memcpy(&last, head + at + pcapng_block_size(head + at) - 4, 4);
        assert_int_equal(last, pcapng_block_size(head + at));
    }
    for (size_t len = 0; len < 9; len++) {
        char comment[PCAPNG_COMMENT_MAX + 100];
        memset(comment, 'c', sizeof comment);
        comment[len == 8 ? sizeof comment - 1 : len] = '\0';
        struct pcapng_packet p = {.interface = PCAPNG_UPSTREAM,
                                  .unix_ns = 0x0123456789abcdef,
                                  .segment = {.from = &a, .to = &b, .bytes = "abcdefgh", .n = len},
                                  .comment = len ? comment : NULL};
        size_t size = pcapng_packet_size(&p);
        assert_true(size <= sizeof packet);
        memset(packet, 0xee, sizeof packet);
        pcapng_write_packet(&p, packet);
        memcpy(&last, packet + size - 4, 4);
        assert_int_equal(pcapng_block_size(packet), size);
        assert_int_equal(last, size);
        assert_int_equal(packet[size], 0xee);
        assert_int_equal(size % 4, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksums_are_right_for_every_length),
        cmocka_unit_test(test_the_longest_segment_fits_its_headers),
        cmocka_unit_test(test_two_families_make_ipv6_of_both),
        cmocka_unit_test(test_a_syn_brings_the_window_scale),
        cmocka_unit_test(test_blocks_have_their_length_at_both_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
