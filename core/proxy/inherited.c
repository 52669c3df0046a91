/* Finds inherited sockets by name: $LISTEN_FDS of them from descriptor 3 on, for process
 * $LISTEN_PID, named by $LISTEN_FDNAMES ("web:admin"). */
#include "penstock/proxy/inherited.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/units.h"

enum { FIRST_FD = INHERITED_FIRST, FDS_MAX = 65535 - FIRST_FD };

/* How many there are for this process; 0 with a message. */
static uint64_t count(char *why, size_t why_cap)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    uint64_t n, whose;
    if (!fds || units_parse_uint(fds, 1, FDS_MAX, &n)) {
        snprintf(why, why_cap,
                 "no sockets were handed over (LISTEN_FDS is %s): start it by its socket unit, or "
                 "write an address",
                 fds ? fds : "not set");
        return 0;
    }
    if (!pid || units_parse_uint(pid, 1, INT32_MAX, &whose) || whose != (uint64_t)getpid()) {
        snprintf(why, why_cap,
                 "the sockets are for another process (LISTEN_PID is %s, and this is %d)",
                 pid ? pid : "not set", (int)getpid());
        return 0;
    }
    return n;
}

unsigned inherited_count(void)
{
    char why[256];
    return (unsigned)count(why, sizeof why);
}

int inherited_find(const char *name, int *fd, char *why, size_t why_cap)
{
    uint64_t n = count(why, why_cap);
    if (n == 0)
        return -ENOENT;
    const char *names = getenv("LISTEN_FDNAMES"), *at = names ? names : "";
    unsigned found = 0;
    for (uint64_t i = 0; i < n && at; i++) {
        size_t len = strcspn(at, ":");
        if (len == strlen(name) && memcmp(at, name, len) == 0 && found++ == 0)
            *fd = FIRST_FD + (int)i;
        at = at[len] ? at + len + 1 : NULL;
    }
    if (found == 1)
        return 0;
    if (found)
        snprintf(why, why_cap,
                 "%u sockets are called \"%s\": give each socket unit a FileDescriptorName= of its "
                 "own, or write fd:3 and so on",
                 found, name);
    else
        snprintf(why, why_cap,
                 "no socket is called \"%s\" (FileDescriptorName= of the socket unit); there is: "
                 "%s",
                 name, names ? names : "none with a name");
    return found ? -EEXIST : -ENOENT;
}
