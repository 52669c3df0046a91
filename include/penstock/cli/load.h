/* From a command line, and the script that it names, to a version that can be served. */
#ifndef PENSTOCK_CLI_LOAD_H
#define PENSTOCK_CLI_LOAD_H

#include <stddef.h>

#include "penstock/proxy/version.h"

struct handover;
struct shared;

/* The command line, which outlives the loader; it has been read once without error. */
struct load_args {
    int argc;
    char *const *argv;
    const char *program;       /* main()'s alone; NULL: not known */
    struct shared *shared;     /* of all versions; NULL: each VM has its own */
    struct handover *handover; /* main()'s alone; NULL: this is no upgrade */
};

/* version_loader.load; `arg` is a struct load_args. Reads command line and files anew each time, so
 * that nothing of an earlier version is left. */
int load_version(void *arg, unsigned workers, struct version *out, char *why, size_t why_cap);

#endif
