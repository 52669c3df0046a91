/* Where this program was started from. */
#ifndef PENSTOCK_CLI_ORIGIN_H
#define PENSTOCK_CLI_ORIGIN_H

#include <stddef.h>

/* The absolute path by which this process was executed, symbolic links as they are: a later version
 * that is put there is found by it. At the start, before the working directory or the file change.
 * `buf`, or NULL when it cannot be known. */
const char *origin_path(char *buf, size_t cap);

#endif
