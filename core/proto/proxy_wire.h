/* What building and reading PROXY headers share. */
#ifndef PENSTOCK_CORE_PROTO_PROXY_WIRE_H
#define PENSTOCK_CORE_PROTO_PROXY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    V2_SIGNATURE = 12,
    V2_HEAD = 16, /* signature, version and command, family, length */
    V2_VERSION = 0x20,
    V2_LOCAL = 0,
    V2_PROXY = 1,
    V2_UNSPEC = 0x00,
    V2_TCP4 = 0x11,
    V2_UDP4 = 0x12,
    V2_TCP6 = 0x21,
    V2_UDP6 = 0x22,
    V2_UNIX_STREAM = 0x31,
    V2_UNIX_DGRAM = 0x32,
    V2_ADDR4 = 12, /* bytes of both addresses and ports */
    V2_ADDR6 = 36,
    V2_ADDR_UNIX = 216,
    TLV_HEAD = 3,
    V2_CRC = 4, /* bytes of the checksum */
};

static const uint8_t v2_signature[V2_SIGNATURE] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* The checksum of a header of `n` bytes, whose own four bytes at `at` count as zeros; and is it
 * what stands there? */
uint32_t v2_checksum(const uint8_t *header, size_t n, size_t at);
bool v2_checksum_is(const uint8_t *header, size_t n, size_t at);

#endif
