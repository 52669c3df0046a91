/* Who may use the admin. Knows headers, no HTTP. */
#ifndef PENSTOCK_CORE_ADMIN_ACCESS_H
#define PENSTOCK_CORE_ADMIN_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "penstock/base/addr.h"

enum { ACCESS_TOKEN_MIN = 16, ACCESS_TOKEN_MAX = 512 };

struct access_rules {
    struct addr bound;                /* AF_UNIX: the file's mode says who may come */
    char token[ACCESS_TOKEN_MAX + 1]; /* "": none is asked for */
};

/* Of a request; NULL where it has no such header. */
struct access_headers {
    const char *host, *origin, *authorization;
};

/* Reads the token: the file's first line, of ACCESS_TOKEN_MIN to ACCESS_TOKEN_MAX printable
 * characters; nobody but its owner and group may read the file. 0; or a negative error with a
 * message in `why`. */
int access_read_token(struct access_rules *rules, const char *path, char *why, size_t why_cap);

/* 0 when it may; else an HTTP status, with a sentence in *why (static storage). */
unsigned access_refused(const struct access_rules *rules, const struct access_headers *headers,
                        const char **why);

#endif
