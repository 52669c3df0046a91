/* IP and TCP headers, and their checksums. */
#include "penstock/proto/segment.h"

#include <string.h>

enum {
    IP4_HEADER = 20,
    IP6_HEADER = 40,
    TCP_HEADER = 20,
    SYN_OPTIONS = 4,
    HOPS = 64,
    PROTOCOL_TCP = 6,
    DONT_FRAGMENT = 0x40,
    WINDOW_SCALE_OPTION = 3,
    WINDOW_SCALE_MAX = 14, /* RFC 7323 */
};

static uint8_t *put16(uint8_t *at, size_t number)
{
    at[0] = (uint8_t)(number >> 8);
    at[1] = (uint8_t)number;
    return at + 2;
}

static uint8_t *put32(uint8_t *at, uint32_t number)
{
    return put16(put16(at, number >> 16), number & 0xffff);
}

static bool is_ip4(const struct addr *a)
{
    return a->sa.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr);
}

/* The address as IPv6 has it. */
static const uint8_t *ip6_of(const struct addr *a, uint8_t *room)
{
    if (a->sa.sa_family == AF_INET6)
        return a->in6.sin6_addr.s6_addr;
    memset(room, 0, 10);
    memset(room + 10, 0xff, 2);
    memcpy(room + 12, &a->in.sin_addr, 4);
    return room;
}

static bool is_of_ip4(const struct segment *s)
{
    return is_ip4(s->from) && is_ip4(s->to);
}

static size_t tcp_size(const struct segment *s)
{
    return TCP_HEADER + (s->flags & SEGMENT_SYN ? SYN_OPTIONS : 0) + s->n;
}

size_t segment_size(const struct segment *s)
{
    return (is_of_ip4(s) ? IP4_HEADER : IP6_HEADER) + tcp_size(s);
}

/* ---- checksums (RFC 1071) ---- */

/* Adds big-endian pairs of bytes, eight bytes at a time: in which order the bytes of a pair are
 * does not matter before the end. */
static uint64_t add(uint64_t sum, const uint8_t *bytes, size_t n)
{
    uint32_t two[2];
    for (; n >= sizeof two; bytes += sizeof two, n -= sizeof two) {
        memcpy(two, bytes, sizeof two);
        sum += (uint64_t)two[0] + two[1];
    }
    if (n) {
        memset(two, 0, sizeof two);
        memcpy(two, bytes, n);
        sum += (uint64_t)two[0] + two[1];
    }
    return sum;
}

static void put_checksum(uint8_t *at, uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    uint16_t checksum = (uint16_t)~sum;
    memcpy(at, &checksum, sizeof checksum);
}

/* ---- headers ---- */

static uint8_t *put_ip4(uint8_t *at, const struct segment *s)
{
    uint8_t room[16];
    uint8_t *start = at;
    *at++ = 4 << 4 | IP4_HEADER / 4;
    *at++ = 0;
    at = put16(at, IP4_HEADER + tcp_size(s));
    at = put16(at, 0);
    *at++ = DONT_FRAGMENT;
    *at++ = 0;
    *at++ = HOPS;
    *at++ = PROTOCOL_TCP;
    at = put16(at, 0); /* the checksum */
    memcpy(at, ip6_of(s->from, room) + 12, 4);
    memcpy(at + 4, ip6_of(s->to, room) + 12, 4);
    put_checksum(start + 10, add(0, start, IP4_HEADER));
    return at + 8;
}

static uint8_t *put_ip6(uint8_t *at, const struct segment *s)
{
    uint8_t room[16];
    at = put32(at, 6U << 28);
    at = put16(at, tcp_size(s));
    *at++ = PROTOCOL_TCP;
    *at++ = HOPS;
    memcpy(at, ip6_of(s->from, room), 16);
    memcpy(at + 16, ip6_of(s->to, room), 16);
    return at + 32;
}

static void put_tcp(uint8_t *at, const struct segment *s, uint64_t sum)
{
    uint8_t *start = at;
    bool syn = s->flags & SEGMENT_SYN;
    at = put16(at, addr_port(s->from));
    at = put16(at, addr_port(s->to));
    at = put32(at, s->seq);
    at = put32(at, s->flags & SEGMENT_ACK ? s->ack : 0);
    *at++ = (uint8_t)((TCP_HEADER + (syn ? SYN_OPTIONS : 0)) / 4 << 4);
    *at++ = s->flags;
    at = put16(at, 0xffff); /* the window */
    at = put32(at, 0);      /* checksum and urgent pointer */
    if (syn) {
        *at++ = WINDOW_SCALE_OPTION;
        *at++ = 3; /* its length */
        *at++ = WINDOW_SCALE_MAX;
        *at++ = 0; /* the end of options */
    }
    if (s->n)
        memcpy(at, s->bytes, s->n);
    put_checksum(start + 16, add(sum, start, tcp_size(s)));
}

void segment_write(const struct segment *s, uint8_t *out)
{
    bool four = is_of_ip4(s);
    uint8_t pseudo[4];
    uint8_t *tcp = four ? put_ip4(out, s) : put_ip6(out, s);
    size_t addresses = four ? 8 : 32; /* they are the end of both headers */
    put16(put16(pseudo, PROTOCOL_TCP), tcp_size(s));
    put_tcp(tcp, s, add(add(0, pseudo, sizeof pseudo), tcp - addresses, addresses));
}
