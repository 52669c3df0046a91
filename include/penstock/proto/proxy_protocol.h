/* The PROXY protocol, versions 1 and 2: a header before the first byte of a connection that tells
 * who the client is and what it had connected to. */
#ifndef PENSTOCK_PROTO_PROXY_PROTOCOL_H
#define PENSTOCK_PROTO_PROXY_PROTOCOL_H

#include <stdbool.h>

#include "penstock/base/addr.h"
#include "penstock/proto/proto.h"

enum {
    PROXY_V1_MAX = 107,      /* bytes of the longest header of version 1 */
    PROXY_HEADER_MAX = 4096, /* longest header of version 2 that is built or read */
    PROXY_UNIX_MAX = 108,    /* bytes of a UNIX address */
    PROXY_TLVS_MAX = 2048,   /* bytes of all options together that are built */
};

/* One option of version 2. */
struct proxy_tlv {
    uint8_t type;
    uint16_t len;
    const uint8_t *value; /* belongs to whoever made it; NULL when len is 0 */
};

/* Who connected to what. TCP over IPv4 or IPv6: both addresses are of that family; UNIX: the paths,
 * filled with zeros; AF_UNSPEC: not told. */
struct proxy_header {
    unsigned version; /* 1 or 2: parsers set it */
    bool local;       /* version 2: the proxy speaks for itself, as in a health check */
    struct addr from, to;
    char from_path[PROXY_UNIX_MAX], to_path[PROXY_UNIX_MAX];
    const uint8_t *tlvs; /* parsers: the options as they stand in the input, NULL without */
    size_t tlvs_len;
};

/* Puts a header of version 1 into `out` (PROXY_V1_MAX bytes) and returns its length. Addresses that
 * version 1 cannot tell (UNIX, unknown, of two families) become "PROXY UNKNOWN". IPv4 mapped into
 * IPv6 is told as IPv4, here and below. */
size_t proxy_build_v1(const struct proxy_header *h, char *out);

/* Puts a header of version 2 into `out` (PROXY_HEADER_MAX bytes) and returns its length. `local`
 * makes it LOCAL; addresses of two families are told as unknown. The options follow the addresses;
 * together they have at most PROXY_TLVS_MAX bytes, heads included (proxy_tlvs_size()). */
size_t proxy_build_v2(const struct proxy_header *h, const struct proxy_tlv *tlvs, size_t n_tlvs,
                      uint8_t *out);
/* Bytes that these options take in a header. */
size_t proxy_tlvs_size(const struct proxy_tlv *tlvs, size_t n);

/* Reads a header of either version. Strict: what a sender must not send is PROTO_BAD (numbers with
 * leading zeros, unknown commands and families, options that do not add up), and so is a header
 * over PROXY_HEADER_MAX. DGRAM addresses and those behind UNKNOWN or LOCAL are left AF_UNSPEC.
 * Returns the header's bytes and fills *out, whose options point into `bytes`; PROTO_MORE; or
 * PROTO_BAD. */
ssize_t proxy_parse(const void *bytes, size_t n, struct proxy_header *out);

/* The option at *at (start with 0) of a parsed header, and moves *at behind it. False at the end.
 */
bool proxy_next_tlv(const struct proxy_header *h, size_t *at, struct proxy_tlv *out);

#endif
