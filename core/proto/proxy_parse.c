/* PROXY headers received. */
#include <string.h>

#include "penstock/base/units.h"
#include "penstock/proto/proxy_protocol.h"
#include "proxy_wire.h"

static const char v1_start[] = "PROXY ";
enum { V1_START = sizeof v1_start - 1 };

/* ---- version 1 ---- */

/* Cuts the next word off a line: *line moves behind the one space. */
static char *cut_word(char **line)
{
    char *word = *line, *space = strchr(word, ' ');
    if (space)
        *space++ = '\0';
    *line = space ? space : word + strlen(word);
    return word;
}

static bool read_port(const char *word, struct addr *out)
{
    uint64_t port;
    if (units_parse_uint(word, 0, 65535, &port) || (word[0] == '0' && word[1]))
        return false;
    addr_set_port(out, (uint16_t)port);
    return true;
}

static bool read_ip(const char *word, int family, struct addr *out)
{
    return !strchr(word, '%') && addr_parse_ip(word, out) == 0 && out->sa.sa_family == family;
}

/* What follows "PROXY ", without the end of the line. */
static bool read_v1(char *line, struct proxy_header *out)
{
    const char *family = cut_word(&line);
    if (strcmp(family, "UNKNOWN") == 0)
        return true; /* with whatever follows */
    int af = strcmp(family, "TCP4") == 0 ? AF_INET : strcmp(family, "TCP6") == 0 ? AF_INET6 : 0;
    const char *from = cut_word(&line), *to = cut_word(&line);
    const char *from_port = cut_word(&line), *to_port = line;
    return af && read_ip(from, af, &out->from) && read_ip(to, af, &out->to) &&
           read_port(from_port, &out->from) && read_port(to_port, &out->to);
}

static ssize_t bad(struct proxy_header *out, enum proxy_fault fault)
{
    out->fault = fault;
    return PROTO_BAD;
}

static ssize_t parse_v1(const char *bytes, size_t n, struct proxy_header *out)
{
    char line[PROXY_V1_MAX + 1];
    size_t most = n < PROXY_V1_MAX ? n : PROXY_V1_MAX;
    for (size_t i = V1_START; i < most; i++) {
        if (bytes[i] == '\r' && i + 1 < most) {
            if (bytes[i + 1] != '\n')
                return bad(out, PROXY_MALFORMED);
            memcpy(line, bytes, i);
            line[i] = '\0';
            out->version = 1;
            return read_v1(line + V1_START, out) ? (ssize_t)i + 2 : bad(out, PROXY_MALFORMED);
        }
        if (bytes[i] != '\r' && (bytes[i] < ' ' || bytes[i] > '~'))
            return bad(out, PROXY_MALFORMED);
    }
    return n < PROXY_V1_MAX ? PROTO_MORE : bad(out, PROXY_TOO_LONG);
}

/* ---- version 2 ---- */

/* Bytes of the addresses of a family; -1 when there is no such family. */
static ssize_t addresses_size(uint8_t family)
{
    switch (family) {
    case V2_UNSPEC:
        return 0;
    case V2_TCP4:
    case V2_UDP4:
        return V2_ADDR4;
    case V2_TCP6:
    case V2_UDP6:
        return V2_ADDR6;
    case V2_UNIX_STREAM:
    case V2_UNIX_DGRAM:
        return V2_ADDR_UNIX;
    default:
        return -1;
    }
}

static void read_addresses(uint8_t family, const uint8_t *at, struct proxy_header *out)
{
    if (family == V2_TCP4) {
        out->from.in.sin_family = out->to.in.sin_family = AF_INET;
        memcpy(&out->from.in.sin_addr, at, 4);
        memcpy(&out->to.in.sin_addr, at + 4, 4);
        memcpy(&out->from.in.sin_port, at + 8, 2);
        memcpy(&out->to.in.sin_port, at + 10, 2);
    } else if (family == V2_TCP6) {
        out->from.in6.sin6_family = out->to.in6.sin6_family = AF_INET6;
        memcpy(&out->from.in6.sin6_addr, at, 16);
        memcpy(&out->to.in6.sin6_addr, at + 16, 16);
        memcpy(&out->from.in6.sin6_port, at + 32, 2);
        memcpy(&out->to.in6.sin6_port, at + 34, 2);
    } else if (family == V2_UNIX_STREAM) {
        out->from.sa.sa_family = out->to.sa.sa_family = AF_UNIX;
        memcpy(out->from_path, at, PROXY_UNIX_MAX);
        memcpy(out->to_path, at + PROXY_UNIX_MAX, PROXY_UNIX_MAX);
    }
}

/* Whether each option that has a form is in it, and the checksum, if any, right. */
static bool check_tlvs(const uint8_t *head, size_t n, struct proxy_header *out)
{
    struct proxy_tlv tlv;
    struct proxy_ssl ssl;
    const uint8_t *sum = NULL;
    for (size_t at = 0; proxy_next_tlv(out, &at, &tlv);) {
        if (tlv.type == PROXY_TLV_SSL && !proxy_read_ssl(tlv.value, tlv.len, &ssl))
            return false;
        if (tlv.type != PROXY_TLV_CRC32C)
            continue;
        if (sum || tlv.len != V2_CRC)
            return false;
        sum = tlv.value;
    }
    if (sum && !v2_checksum_is(head, n, (size_t)(sum - head))) {
        out->fault = PROXY_CHECKSUM;
        return false;
    }
    return true;
}

static bool read_v2(const uint8_t *head, size_t body, struct proxy_header *out)
{
    out->fault = PROXY_MALFORMED;
    uint8_t family = head[V2_SIGNATURE + 1];
    out->version = 2;
    out->local = head[V2_SIGNATURE] == (V2_VERSION | V2_LOCAL);
    if (out->local || family == V2_UNSPEC) /* what follows means nothing, whatever it is */
        return true;
    const uint8_t *at = head + V2_HEAD;
    size_t addresses = (size_t)addresses_size(family);
    read_addresses(family, at, out);
    out->tlvs_len = body - addresses;
    out->tlvs = out->tlvs_len ? at + addresses : NULL;
    return proxy_are_tlvs(at + addresses, out->tlvs_len) && check_tlvs(head, V2_HEAD + body, out);
}

static ssize_t parse_v2(const uint8_t *bytes, size_t n, struct proxy_header *out)
{
    if (n > V2_SIGNATURE && bytes[V2_SIGNATURE] != (V2_VERSION | V2_LOCAL) &&
        bytes[V2_SIGNATURE] != (V2_VERSION | V2_PROXY))
        return bad(out, PROXY_MALFORMED);
    if (n < V2_SIGNATURE + 2)
        return PROTO_MORE;
    bool local = bytes[V2_SIGNATURE] == (V2_VERSION | V2_LOCAL);
    ssize_t least = local ? 0 : addresses_size(bytes[V2_SIGNATURE + 1]);
    if (least < 0)
        return bad(out, PROXY_MALFORMED);
    if (n < V2_HEAD)
        return PROTO_MORE;
    size_t body = (size_t)(bytes[V2_HEAD - 2] << 8 | bytes[V2_HEAD - 1]);
    if (V2_HEAD + body > PROXY_HEADER_MAX)
        return bad(out, PROXY_TOO_LONG);
    if (body < (size_t)least)
        return bad(out, PROXY_MALFORMED);
    if (n - V2_HEAD < body)
        return PROTO_MORE;
    return read_v2(bytes, body, out) ? (ssize_t)(V2_HEAD + body) : PROTO_BAD;
}

/* ---- either ---- */

/* Whether the input begins with `start`, as far as it goes. */
static bool begins(const void *bytes, size_t n, const void *start, size_t len)
{
    return memcmp(bytes, start, n < len ? n : len) == 0;
}

ssize_t proxy_parse(const void *bytes, size_t n, struct proxy_header *out)
{
    *out = (struct proxy_header){0};
    if (n == 0)
        return PROTO_MORE;
    if (begins(bytes, n, v2_signature, V2_SIGNATURE))
        return n < V2_SIGNATURE ? PROTO_MORE : parse_v2(bytes, n, out);
    if (!begins(bytes, n, v1_start, V1_START))
        return bad(out, PROXY_MISSING);
    return n < V1_START ? PROTO_MORE : parse_v1(bytes, n, out);
}
