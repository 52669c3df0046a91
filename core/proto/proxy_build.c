/* PROXY headers to send. */
#include <stdio.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/proto/proxy_protocol.h"
#include "proxy_wire.h"

/* IPv4 mapped into IPv6 becomes plain IPv4. */
static struct addr unmapped(const struct addr *a)
{
    if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
        return *a;
    struct addr four = {.in = {.sin_family = AF_INET, .sin_port = a->in6.sin6_port}};
    memcpy(&four.in.sin_addr, a->in6.sin6_addr.s6_addr + 12, 4);
    return four;
}

/* The family of both, AF_UNSPEC when they differ. */
static int family_of(const struct addr *from, const struct addr *to)
{
    return from->sa.sa_family == to->sa.sa_family ? from->sa.sa_family : AF_UNSPEC;
}

/* The zone of a link-local address means nothing on another host. */
static const char *format_ip(struct addr a, char *buf, size_t cap)
{
    if (a.sa.sa_family == AF_INET6)
        a.in6.sin6_scope_id = 0;
    return addr_format_ip(&a, buf, cap);
}

size_t proxy_build_v1(const struct proxy_header *h, char *out)
{
    struct addr from = unmapped(&h->from), to = unmapped(&h->to);
    int family = family_of(&from, &to);
    char text[PROXY_V1_MAX + 1], ip[2][ADDR_TEXT_MAX];
    int n;
    if (h->local || (family != AF_INET && family != AF_INET6))
        n = snprintf(text, sizeof text, "PROXY UNKNOWN\r\n");
    else
        n = snprintf(text, sizeof text, "PROXY TCP%c %s %s %u %u\r\n",
                     family == AF_INET ? '4' : '6', format_ip(from, ip[0], sizeof ip[0]),
                     format_ip(to, ip[1], sizeof ip[1]), addr_port(&from), addr_port(&to));
    memcpy(out, text, (size_t)n);
    return (size_t)n;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t n)
{
    if (n)
        memcpy(at, bytes, n);
    return at + n;
}

static uint8_t *put_u16(uint8_t *at, size_t number)
{
    at[0] = (uint8_t)(number >> 8);
    at[1] = (uint8_t)number;
    return at + 2;
}

static uint8_t *put_addresses(uint8_t *at, const struct proxy_header *h, uint8_t *family)
{
    struct addr from = unmapped(&h->from), to = unmapped(&h->to);
    *family = V2_UNSPEC;
    switch (h->local ? AF_UNSPEC : family_of(&from, &to)) {
    case AF_INET:
        *family = V2_TCP4;
        at = put(at, &from.in.sin_addr, 4);
        at = put(at, &to.in.sin_addr, 4);
        at = put(at, &from.in.sin_port, 2);
        return put(at, &to.in.sin_port, 2);
    case AF_INET6:
        *family = V2_TCP6;
        at = put(at, &from.in6.sin6_addr, 16);
        at = put(at, &to.in6.sin6_addr, 16);
        at = put(at, &from.in6.sin6_port, 2);
        return put(at, &to.in6.sin6_port, 2);
    case AF_UNIX:
        *family = V2_UNIX_STREAM;
        at = put(at, h->from_path, PROXY_UNIX_MAX);
        return put(at, h->to_path, PROXY_UNIX_MAX);
    default:
        return at;
    }
}

size_t proxy_tlvs_size(const struct proxy_tlv *tlvs, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += TLV_HEAD + tlvs[i].len;
    return size;
}

size_t proxy_build_v2(const struct proxy_header *h, const struct proxy_tlv *tlvs, size_t n_tlvs,
                      uint8_t *out)
{
    PENSTOCK_REQUIRE(proxy_tlvs_size(tlvs, n_tlvs) <= PROXY_TLVS_MAX);
    uint8_t *at = put_addresses(out + V2_HEAD, h, &out[V2_SIGNATURE + 1]), *sum = NULL;
    for (size_t i = 0; i < n_tlvs; i++) {
        *at++ = tlvs[i].type;
        at = put_u16(at, tlvs[i].len);
        if (tlvs[i].type == PROXY_TLV_CRC32C && tlvs[i].len == V2_CRC)
            sum = at;
        at = put(at, tlvs[i].value, tlvs[i].len);
    }
    size_t len = (size_t)(at - out);
    put(out, v2_signature, V2_SIGNATURE);
    out[V2_SIGNATURE] = V2_VERSION | (h->local ? V2_LOCAL : V2_PROXY);
    put_u16(out + V2_SIGNATURE + 2, len - V2_HEAD);
    if (sum) {
        uint32_t crc = v2_checksum(out, len, (size_t)(sum - out));
        put_u16(put_u16(sum, crc >> 16), crc & 0xffff);
    }
    return len;
}
