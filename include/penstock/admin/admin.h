/* The admin server: what an operator asks a running penstock, over HTTP (docs/admin.md).
 *
 * Lives in the main thread's loop, without a thread of its own. A slow or dead client costs its own
 * connection: their number, the size of what they send and the time they take are bounded. */
#ifndef PENSTOCK_ADMIN_ADMIN_H
#define PENSTOCK_ADMIN_ADMIN_H

#include <stddef.h>
#include <sys/types.h>

#include "penstock/proxy/config.h"

struct admin;
struct handover;
struct server;
struct shared;

/* Whether what `config` says of the admin can be done. 0; or -EINVAL with a message in `why`. */
int admin_check(const struct config *config, char *why, size_t why_cap);

struct admin_options {
    struct server *server;       /* outlives it but for server_free() */
    struct shared *shared;       /* what scripts share; outlives it */
    const struct config *config; /* has an address for the admin; read during the call only */
    const uid_t *uid;            /* whose the UNIX socket is to be; NULL: ours */
    const gid_t *gid;
    struct handover *handover; /* has the socket of the process before; NULL: there was none */
};

/* Opens its socket and answers as soon as the server's loop runs. 0, or a negative error with a
 * message in `why` and nothing left open. */
int admin_open(const struct admin_options *options, struct admin **out, char *why, size_t why_cap);
/* After server_run() and before server_free(), in whose loop the last memory is freed. NULL is
 * fine. */
void admin_close(struct admin *a);

#endif
