/* A tunnel through an HTTP proxy, the client's side: CONNECT (RFC 9110 section 9.3.6; 7617: Basic).
 */
#ifndef PENSTOCK_PROTO_HTTP_CONNECT_H
#define PENSTOCK_PROTO_HTTP_CONNECT_H

#include <stdbool.h>

#include "penstock/proto/proto.h"

enum {
    HTTP_CONNECT_ANSWER_MAX = 8192,  /* longest head of an answer */
    HTTP_CONNECT_LOGIN_MAX = 255,    /* bytes of a user or a password */
    HTTP_CONNECT_REQUEST_MAX = 2048, /* bytes of the longest request */
};

/* Puts a request for a tunnel to `authority` ("host:port", up to 300 bytes) into `out`
 * (HTTP_CONNECT_REQUEST_MAX bytes) and returns its length. `user` NULL: no authorization; else user
 * and password are texts of up to HTTP_CONNECT_LOGIN_MAX bytes, the user without a colon. */
size_t http_connect_build(const char *authority, const char *user, const char *password, char *out);

/* Reads the head of an answer to its empty line; what follows belongs to the tunnel. Returns its
 * bytes, with the status in *status (100 to 599; below 200 another answer follows); PROTO_MORE; or
 * PROTO_BAD. */
ssize_t http_connect_parse(const void *bytes, size_t n, unsigned *status);

/* What a status from 300 on means: a code of err.h, and words for people (static storage). */
int http_connect_err(unsigned status);
const char *http_connect_text(unsigned status);
/* It tells of the host that was to be reached, and the proxy has done its part. */
bool http_connect_is_of_host(unsigned status);

#endif
