/* penstock check: what a file would do, without doing it. */
#ifndef PENSTOCK_CLI_CHECK_H
#define PENSTOCK_CLI_CHECK_H

#include "penstock/cli/load.h"

struct options;

/* Loads what the command line names, prints it with warnings to standard output, and returns 0; or
 * prints what is wrong to standard error and returns a negative error. */
int check_run(struct load_args *args, const struct options *options);

#endif
