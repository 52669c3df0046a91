/* SOCKS5 messages. */
#include "penstock/proto/socks5.h"

#include <string.h>

#include "penstock/base/err.h"

enum {
    VERSION = 5,
    LOGIN_VERSION = 1,
    COMMAND_CONNECT = 1,
    ADDRESS_IP4 = 1,
    ADDRESS_NAME = 3,
    ADDRESS_IP6 = 4,
    REPLY_HEAD = 4, /* version, reply, reserved, kind of address */
    REPLY_MAX = 8,  /* the last reply that is defined */
};

static const struct reply {
    const char *text;
    int err;
    bool of_host;
} replies[REPLY_MAX + 1] = {
    [1] = {"general failure", PS_EREFUSED, false},
    [2] = {"not allowed by its rules", PS_EDENIED, false},
    [3] = {"network unreachable", PS_EUNREACHABLE, true},
    [4] = {"host unreachable", PS_EUNREACHABLE, true},
    [5] = {"connection refused", PS_EREFUSED, true},
    [6] = {"time to live expired", PS_ETIMEOUT, true},
    [7] = {"it does not know CONNECT", PS_EDENIED, false},
    [8] = {"it does not take this kind of address", PS_EDENIED, false},
};

static const struct reply *find_reply(uint8_t reply)
{
    static const struct reply unknown = {"a reason that has no name", PS_EREFUSED, false};
    return reply && reply <= REPLY_MAX ? &replies[reply] : &unknown;
}

int socks5_reply_err(uint8_t reply)
{
    return find_reply(reply)->err;
}

const char *socks5_reply_text(uint8_t reply)
{
    return find_reply(reply)->text;
}

bool socks5_reply_is_of_host(uint8_t reply)
{
    return reply && find_reply(reply)->of_host;
}

/* ---- requests ---- */

size_t socks5_build_greeting(bool login, uint8_t *out)
{
    out[0] = VERSION;
    out[1] = login ? 2 : 1;
    out[2] = SOCKS5_OPEN;
    out[3] = SOCKS5_LOGIN;
    return login ? 4 : 3;
}

/* A byte of length and the text. */
static uint8_t *put_text(uint8_t *at, const char *text, size_t len)
{
    PENSTOCK_REQUIRE(len >= 1 && len <= 255);
    *at = (uint8_t)len;
    memcpy(at + 1, text, len);
    return at + 1 + len;
}

size_t socks5_build_login(const char *user, const char *password, uint8_t *out)
{
    out[0] = LOGIN_VERSION;
    return (size_t)(put_text(put_text(out + 1, user, strlen(user)), password, strlen(password)) -
                    out);
}

static uint8_t *put_address(uint8_t *at, const struct addr *to)
{
    bool ip4 = to->sa.sa_family == AF_INET;
    size_t len = ip4 ? 4 : 16;
    PENSTOCK_REQUIRE(ip4 || to->sa.sa_family == AF_INET6);
    *at = ip4 ? ADDRESS_IP4 : ADDRESS_IP6;
    memcpy(at + 1, ip4 ? (const void *)&to->in.sin_addr : &to->in6.sin6_addr, len);
    return at + 1 + len;
}

size_t socks5_build_connect(const struct addr *to, const char *name, uint16_t port, uint8_t *out)
{
    uint8_t *at = out;
    *at++ = VERSION;
    *at++ = COMMAND_CONNECT;
    *at++ = 0;
    if (name) {
        *at++ = ADDRESS_NAME;
        at = put_text(at, name, strlen(name));
    } else {
        at = put_address(at, to);
        port = addr_port(to);
    }
    *at++ = (uint8_t)(port >> 8);
    *at++ = (uint8_t)port;
    return (size_t)(at - out);
}

/* ---- answers ---- */

ssize_t socks5_parse_method(const void *bytes, size_t n, bool login, enum socks5_method *method)
{
    const uint8_t *b = bytes;
    if (n > 0 && b[0] != VERSION)
        return PROTO_BAD;
    if (n < 2)
        return PROTO_MORE;
    if (b[1] != SOCKS5_OPEN && b[1] != SOCKS5_NONE && !(login && b[1] == SOCKS5_LOGIN))
        return PROTO_BAD;
    *method = (enum socks5_method)b[1];
    return 2;
}

ssize_t socks5_parse_login(const void *bytes, size_t n, bool *ok)
{
    const uint8_t *b = bytes;
    if (n > 0 && b[0] != LOGIN_VERSION)
        return PROTO_BAD;
    if (n < 2)
        return PROTO_MORE;
    *ok = b[1] == 0;
    return 2;
}

/* Bytes of the address in a reply, its length byte included; 0: that is not known yet; -1: there is
 * no such kind. */
static ssize_t address_size(const uint8_t *b, size_t n)
{
    switch (b[REPLY_HEAD - 1]) {
    case ADDRESS_IP4:
        return 4;
    case ADDRESS_IP6:
        return 16;
    case ADDRESS_NAME:
        return n > REPLY_HEAD ? 1 + b[REPLY_HEAD] : 0;
    default:
        return -1;
    }
}

ssize_t socks5_parse_reply(const void *bytes, size_t n, uint8_t *reply)
{
    const uint8_t *b = bytes;
    if ((n > 0 && b[0] != VERSION) || (n > 1 && b[1] > REPLY_MAX) || (n > 2 && b[2] != 0))
        return PROTO_BAD;
    if (n < REPLY_HEAD)
        return PROTO_MORE;
    ssize_t address = address_size(b, n);
    if (address <= 0)
        return address;
    if (n < REPLY_HEAD + (size_t)address + 2)
        return PROTO_MORE;
    *reply = b[1];
    return REPLY_HEAD + address + 2;
}
