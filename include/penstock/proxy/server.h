/* The whole process: listeners, workers, signals, stop and drain. Lives on the main thread. */
#ifndef PENSTOCK_PROXY_SERVER_H
#define PENSTOCK_PROXY_SERVER_H

#include <stddef.h>

#include "penstock/proxy/version.h"

struct server;
struct shared;

/* Makes a server of a loaded version, whose content it takes over, also on failure. What it counts
 * is among the metrics of `shared`, which outlives it, until server_free(). Returns 0 or a negative
 * errno. */
int server_new(struct version *version, struct shared *shared, struct server **out);

/* Opens every listening socket; checks descriptors against max_conns. 0, or an error with a message
 * in `why` that names the listener: nothing is open then. */
int server_bind(struct server *s, char *why, size_t why_cap);

/* Starts the workers, logs one "listening on" line a listener, notifies systemd, and serves until
 * TERM or INT and the end of the drain (a second signal ends it at once). Returns 0 after a clean
 * stop, or a negative error. HUP loads another version with `loader`, which outlives the call; the
 * present one stays in force when that fails. */
int server_run(struct server *s, const struct version_loader *loader);

/* Closes and frees everything. */
void server_free(struct server *s);

#endif
