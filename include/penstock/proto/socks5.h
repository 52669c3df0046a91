/* SOCKS5, the client's side (RFC 1928; 1929: user and password). One exchange after the other:
 * greeting, login when the proxy asks for it, CONNECT. */
#ifndef PENSTOCK_PROTO_SOCKS5_H
#define PENSTOCK_PROTO_SOCKS5_H

#include <stdbool.h>

#include "penstock/base/addr.h"
#include "penstock/proto/proto.h"

enum {
    SOCKS5_LOGIN_MAX = 255,   /* bytes of a user or a password, at least 1 */
    SOCKS5_REQUEST_MAX = 513, /* bytes of the longest request (the login) */
    SOCKS5_ANSWER_MAX = 262,  /* of the longest answer */
};

enum socks5_method { SOCKS5_OPEN = 0, SOCKS5_LOGIN = 2, SOCKS5_NONE = 0xff };

/* Each puts a request into `out` (SOCKS5_REQUEST_MAX bytes) and returns its length. */

/* The methods we can do: with `login`, user and password besides none. */
size_t socks5_build_greeting(bool login, uint8_t *out);
/* Both are texts of 1 to SOCKS5_LOGIN_MAX bytes. */
size_t socks5_build_login(const char *user, const char *password, uint8_t *out);
/* To an address with its port, or, when `name` is not NULL, to that name (1 to 255 bytes, which the
 * proxy resolves) and `port`. */
size_t socks5_build_connect(const struct addr *to, const char *name, uint16_t port, uint8_t *out);

/* Each reads an answer: its bytes, PROTO_MORE or PROTO_BAD. */

/* *method is what the proxy wants: SOCKS5_NONE when none of ours will do. One we did not offer is
 * PROTO_BAD. */
ssize_t socks5_parse_method(const void *bytes, size_t n, bool login, enum socks5_method *method);
/* *ok: user and password are right. */
ssize_t socks5_parse_login(const void *bytes, size_t n, bool *ok);
/* *reply is 0 when it is connected, else why not. */
ssize_t socks5_parse_reply(const void *bytes, size_t n, uint8_t *reply);

/* What a reply other than 0 means: a code of err.h, and words that follow "refused by the proxy: ".
 * Static storage. */
int socks5_reply_err(uint8_t reply);
const char *socks5_reply_text(uint8_t reply);
/* It tells of the host that was to be reached, and the proxy has done its part. */
bool socks5_reply_is_of_host(uint8_t reply);

#endif
