/* One version of what is served, loaded and not yet in force: configuration, policies, files. Made
 * and freed on the main thread; each worker takes over its policies. */
#ifndef PENSTOCK_PROXY_VERSION_H
#define PENSTOCK_PROXY_VERSION_H

#include <stddef.h>

#include "penstock/proxy/config.h"
#include "penstock/proxy/policy.h"

struct version {
    struct config *config;        /* one reference */
    struct policy_set **policies; /* one a worker, NULL once taken over; NULL without a script */
    unsigned n_policies;
    char **files; /* what was read, to be watched */
    size_t n_files;
};

/* How to make a version; the command line provides it. On the main thread, also while workers run.
 * For `workers` threads, or as many as the configuration says when that is 0. Returns 0; or a
 * negative error with the whole message (file:line, traceback) in `why`, and in *out nothing but
 * the files that were read. */
struct version_loader {
    int (*load)(void *arg, unsigned workers, struct version *out, char *why, size_t why_cap);
    void *arg;
};

/* Frees what is left in it. */
void version_deinit(struct version *v);

#endif
