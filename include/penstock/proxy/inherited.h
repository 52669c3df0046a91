/* Sockets that a service manager has opened for us (sd_listen_fds(3)'s environment). */
#ifndef PENSTOCK_PROXY_INHERITED_H
#define PENSTOCK_PROXY_INHERITED_H

#include <stddef.h>

enum { INHERITED_FIRST = 3 };
/* How many there are for this process, from descriptor INHERITED_FIRST on. Main thread. */
unsigned inherited_count(void);

/* The descriptor of the one socket that $LISTEN_FDNAMES calls `name`, in *fd; it stays the
 * process's. Returns 0; or -ENOENT (no such name, or the sockets are not for this process:
 * $LISTEN_PID) or -EEXIST (several have that name), with a message in `why` that tells which there
 * are. Reads the environment: main thread. */
int inherited_find(const char *name, int *fd, char *why, size_t why_cap);

#endif
