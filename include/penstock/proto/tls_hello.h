/* What a TLS client says first (RFC 8446 section 4.1.2; 6066: the server's name; 7301: ALPN). */
#ifndef PENSTOCK_PROTO_TLS_HELLO_H
#define PENSTOCK_PROTO_TLS_HELLO_H

#include <stdbool.h>

#include "penstock/proto/proto.h"

enum {
    TLS_HELLO_MAX = 65536, /* longest handshake message that is read */
    TLS_HELLO_WIRE_MAX =
        81920, /* the same with its records' heads: more than that is never asked for */
    TLS_HELLO_NAME_MAX = 253,
    TLS_HELLO_ALPN_MAX = 1024,    /* bytes of all protocol names together */
    TLS_HELLO_VERSIONS_MAX = 127, /* as many as the extension can hold */
    TLS_HELLO_LIST_MAX = 256,     /* cipher suites and extensions that are kept */
};

/* All copied; nothing points into the input. */
struct tls_hello {
    char sni[TLS_HELLO_NAME_MAX + 1];          /* as sent (case kept); "" when there is none */
    uint8_t alpn[TLS_HELLO_ALPN_MAX];          /* each a byte of length, then the name, as sent */
    size_t alpn_len;                           /* bytes used in alpn; 0 when there is none */
    uint16_t legacy_version;                   /* 0x0303 is TLS 1.2, which 1.3 says here, too */
    uint16_t versions[TLS_HELLO_VERSIONS_MAX]; /* of supported_versions, GREASE values included */
    size_t n_versions; /* 0: the extension is missing, legacy_version holds */
    /* The first TLS_HELLO_LIST_MAX of each, as sent, GREASE values included. */
    uint16_t ciphers[TLS_HELLO_LIST_MAX], extensions[TLS_HELLO_LIST_MAX];
    size_t n_ciphers, n_extensions;
};

/* Reads a ClientHello, over as many records as it takes. Strict: records of other types in between,
 * lengths that do not add up, a doubled extension, a name that is an address or no name, anything
 * behind the hello in its last record are PROTO_BAD. Returns the bytes of all its records and fills
 * *out; PROTO_MORE; PROTO_BAD, as soon as it is certain that this is no TLS; or PROTO_LONG, as soon
 * as it is certain that it exceeds TLS_HELLO_MAX or TLS_HELLO_WIRE_MAX. */
ssize_t tls_hello_parse(const void *bytes, size_t n, struct tls_hello *out);

/* Values that clients mix in at random and that mean nothing (RFC 8701): cipher suites, extensions,
 * versions, and names of protocols. */
static inline bool tls_is_grease(unsigned value)
{
    return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}
bool tls_hello_alpn_is_grease(const char *name, size_t len);

/* The protocol name at *at (start with 0), which is moved behind it: its length in *len, not
 * terminated. NULL at the end. */
const char *tls_hello_alpn(const struct tls_hello *hello, size_t *at, size_t *len);

#endif
