/* Giving up root once everything that needs it is done. */
#ifndef PENSTOCK_CLI_PRIVILEGES_H
#define PENSTOCK_CLI_PRIVILEGES_H

#include <stddef.h>
#include <sys/types.h>

/* Whom to become. */
struct privileges {
    uid_t uid;
    gid_t gid;
    char name[64]; /* of the user, for its supplementary groups */
};

/* Looks "user" or "user:group" up (names or numbers). 0; or -EINVAL with a message in `why` when
 * there is no such user or group, or this process may not become it. */
int privileges_find(const char *text, struct privileges *out, char *why, size_t why_cap);
/* Becomes that user and group, with no other groups than the user's, in all threads, for good. 0 or
 * a negative errno. */
int privileges_drop(const struct privileges *p);

#endif
