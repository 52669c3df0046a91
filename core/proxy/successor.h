/* Starts this program again, as another process, beside this one. */
#ifndef PENSTOCK_CORE_PROXY_SUCCESSOR_H
#define PENSTOCK_CORE_PROXY_SUCCESSOR_H

#include <stddef.h>
#include <sys/types.h>

struct successor_options {
    const char *path; /* of the program */
    char *const *argv;
    int channel;     /* what $PENSTOCK_HANDOVER names there */
    const int *keep; /* descriptors that it has under their numbers; all others but 0, 1 and 2 are
                        closed */
    size_t n_keep;
};

/* The process in *pid, or a negative errno. When the program cannot be executed, the process says
 * so through the channel and ends. From the main thread: other threads may run. */
int successor_start(const struct successor_options *o, pid_t *pid);

#endif
