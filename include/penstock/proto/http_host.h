/* The host that an HTTP/1.x request is for (RFC 9112, 9110 section 7.2, 3986 section 3.2). */
#ifndef PENSTOCK_PROTO_HTTP_HOST_H
#define PENSTOCK_PROTO_HTTP_HOST_H

#include "penstock/proto/proto.h"

enum { HTTP_HEAD_MAX = 16384, HTTP_HOST_MAX = 253 };

struct http_host {
    /* Lower case, without port, without a dot at the end, an IPv6 address without brackets. */
    char name[HTTP_HOST_MAX + 1];
};

/* Reads a request's head to its empty line. The host is that of the request's target where it names
 * one ("GET http://host/", CONNECT), else that of Host. Strict: a missing, doubled, empty or
 * malformed Host, lines that do not end in CR LF, folded lines, control characters and heads over
 * HTTP_HEAD_MAX are PROTO_BAD. Returns the bytes of the head and fills *out; PROTO_MORE; or
 * PROTO_BAD, at the first byte that no HTTP/1.x request can have. */
ssize_t http_host_parse(const void *bytes, size_t n, struct http_host *out);

#endif
