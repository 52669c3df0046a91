/* One HTTP request to an admin, and its answer. */
#ifndef PENSTOCK_CORE_CLI_CTL_HTTP_H
#define PENSTOCK_CORE_CLI_CTL_HTTP_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/buf.h"

enum { CTL_TOKEN_MAX = 600 };

struct ctl_request {
    const char *admin; /* "unix:/run/x", "127.0.0.1:9180", "localhost:9180" */
    const char *token; /* "": none */
    const char *method;
    const char *path;                         /* with its arguments, encoded */
    const char *body;                         /* "" without */
    uint64_t patience_ms;                     /* from the connect to the end of the answer */
    const volatile sig_atomic_t *interrupted; /* set by a signal: give up; NULL: never */
};

struct ctl_answer {
    unsigned status;
    struct buf body; /* ends with a zero that does not count */
};

/* Asks, and waits for the whole answer. 0 and an answer for buf_deinit(&answer->body); or a
 * negative error with a message in `why`. */
int ctl_ask(const struct ctl_request *request, struct ctl_answer *answer, char *why,
            size_t why_cap);

#endif
