/* The PROXY protocol, versions 1 and 2: a header before the first byte of a connection that tells
 * who the client is and what it had connected to. */
#ifndef PENSTOCK_PROTO_PROXY_PROTOCOL_H
#define PENSTOCK_PROTO_PROXY_PROTOCOL_H

#include <stdbool.h>

#include "penstock/base/addr.h"
#include "penstock/proto/proto.h"

enum {
    PROXY_V1_MAX = 107,      /* bytes of the longest header of version 1 */
    PROXY_HEADER_MAX = 4096, /* longest header of version 2 that is read */
    PROXY_UNIX_MAX = 108,    /* bytes of a UNIX address */
    PROXY_TLVS_MAX = 4080, /* bytes of all options together that are built: what can be read can be
                              sent on */
    PROXY_BUILD_MAX = 16 + 2 * PROXY_UNIX_MAX + PROXY_TLVS_MAX,
};

/* Why a header is PROTO_BAD. X(NAME, word) */
#define PROXY_FAULTS(X)                                                                            \
    X(MISSING, "missing")     /* what is there does not begin like one */                          \
    X(MALFORMED, "malformed") /* something in it is wrong */                                       \
    X(TOO_LONG, "too_long")   /* over PROXY_V1_MAX or PROXY_HEADER_MAX */                          \
    X(CHECKSUM, "checksum")   /* its CRC32C is another */

enum proxy_fault {
#define X(name, word) PROXY_##name,
    PROXY_FAULTS(X)
#undef X
};

const char *proxy_fault_word(enum proxy_fault fault);

/* Types of options that have a name. X(NAME, type, name) */
#define PROXY_TLVS(X)                                                                              \
    X(ALPN, 0x01, "alpn")                                                                          \
    X(AUTHORITY, 0x02, "authority")                                                                \
    X(CRC32C, 0x03, "crc32c")                                                                      \
    X(NOOP, 0x04, "noop")                                                                          \
    X(UNIQUE_ID, 0x05, "unique_id")                                                                \
    X(SSL, 0x20, "ssl")                                                                            \
    X(NETNS, 0x30, "netns")

/* Those inside of the value of SSL. */
#define PROXY_SSL_TLVS(X)                                                                          \
    X(SSL_VERSION, 0x21, "version")                                                                \
    X(SSL_CN, 0x22, "cn")                                                                          \
    X(SSL_CIPHER, 0x23, "cipher")                                                                  \
    X(SSL_SIG_ALG, 0x24, "sig_alg")                                                                \
    X(SSL_KEY_ALG, 0x25, "key_alg")                                                                \
    X(SSL_GROUP, 0x26, "group")                                                                    \
    X(SSL_SIG_SCHEME, 0x27, "sig_scheme")                                                          \
    X(SSL_CLIENT_CERT, 0x28, "client_cert")

enum proxy_tlv_type {
#define X(name, type, text) PROXY_TLV_##name = (type),
    PROXY_TLVS(X) PROXY_SSL_TLVS(X)
#undef X
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
    unsigned version;       /* 1 or 2: parsers set it */
    enum proxy_fault fault; /* parsers: why it is PROTO_BAD */
    bool local;             /* version 2: the proxy speaks for itself, as in a health check */
    struct addr from, to;
    char from_path[PROXY_UNIX_MAX], to_path[PROXY_UNIX_MAX];
    const uint8_t *tlvs; /* parsers: the options as they stand in the input, NULL without */
    size_t tlvs_len;
};

/* Puts a header of version 1 into `out` (PROXY_V1_MAX bytes) and returns its length. Addresses that
 * version 1 cannot tell (UNIX, unknown, of two families) become "PROXY UNKNOWN". IPv4 mapped into
 * IPv6 is told as IPv4, here and below. */
size_t proxy_build_v1(const struct proxy_header *h, char *out);

/* Puts a header of version 2 into `out` (PROXY_BUILD_MAX bytes) and returns its length. `local`
 * makes it LOCAL; addresses of two families are told as unknown. The options follow the addresses;
 * together they have at most PROXY_TLVS_MAX bytes, heads included (proxy_tlvs_size()). The value of
 * a CRC32C, four bytes, is the header's checksum, whatever is given for it. */
size_t proxy_build_v2(const struct proxy_header *h, const struct proxy_tlv *tlvs, size_t n_tlvs,
                      uint8_t *out);
/* Bytes that these options take in a header. */
size_t proxy_tlvs_size(const struct proxy_tlv *tlvs, size_t n);

/* Reads a header of either version. Strict: what a sender must not send is PROTO_BAD (numbers with
 * leading zeros, unknown commands and families, options that do not add up), and so are a wrong
 * checksum and a header over PROXY_HEADER_MAX. DGRAM addresses and those behind UNKNOWN or LOCAL
 * are left AF_UNSPEC. Returns the header's bytes and fills *out, whose options point into `bytes`;
 * PROTO_MORE; or PROTO_BAD with out->fault. */
ssize_t proxy_parse(const void *bytes, size_t n, struct proxy_header *out);

/* The option at *at (start with 0) of a parsed header, and moves *at behind it. False at the end.
 */
bool proxy_next_tlv(const struct proxy_header *h, size_t *at, struct proxy_tlv *out);
/* The same of `n` bytes that are whole options. */
bool proxy_tlv_at(const uint8_t *tlvs, size_t n, size_t *at, struct proxy_tlv *out);
/* Whether `n` bytes are whole options. */
bool proxy_are_tlvs(const uint8_t *tlvs, size_t n);

/* The value of an SSL option. */
struct proxy_ssl {
    uint8_t client;      /* bits: 1 TLS, 2 a certificate over this connection, 4 over its session */
    uint32_t verify;     /* 0: the certificate was verified */
    const uint8_t *tlvs; /* options of PROXY_SSL_TLVS; they point into the value */
    size_t tlvs_len;
};

enum { PROXY_SSL_HEAD = 5 }; /* bytes before its options */

/* Reads one; false when it does not add up. */
bool proxy_read_ssl(const uint8_t *value, size_t n, struct proxy_ssl *out);

/* CRC-32C (Castagnoli) of `n` bytes. */
uint32_t proxy_crc32c(const uint8_t *bytes, size_t n);

#endif
