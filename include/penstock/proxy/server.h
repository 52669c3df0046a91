/* The whole process: listeners, workers, signals, stop and drain. Lives on the main thread. */
#ifndef PENSTOCK_PROXY_SERVER_H
#define PENSTOCK_PROXY_SERVER_H

#include <stddef.h>

#include "penstock/proxy/config.h"
#include "penstock/proxy/policy.h"

struct server;

/* How to make a worker's policies; the scripting layer provides it. Called on the main thread, once
 * for each worker (0, 1, …), before any worker runs. Returns 0 and the policies (owned by the
 * worker, freed on its thread), or a negative error with the whole message (file:line, traceback)
 * in `why`. */
struct policy_factory {
    int (*make)(void *arg, unsigned worker, struct loop *loop, struct policy_set **out, char *why,
                size_t why_cap);
    void *arg;
};

/* Makes a server from `config`, which must outlive it. Returns 0 or a negative errno. */
int server_new(const struct config *config, struct server **out);

/* Loads the policies in every worker; factory may be NULL. 0, or an error with a message in `why`.
 */
int server_load_policies(struct server *s, const struct policy_factory *factory, char *why,
                         size_t why_cap);

/* Opens every listening socket; checks descriptors against max_conns. 0, or an error with a message
 * in `why` that names the listener: nothing is open then. */
int server_bind(struct server *s, char *why, size_t why_cap);

/* Starts the workers, logs one "listening on" line a listener, notifies systemd, and serves until
 * TERM or INT and the end of the drain (a second signal ends it at once). Returns 0 after a clean
 * stop, or a negative error. */
int server_run(struct server *s);

/* Closes and frees everything. */
void server_free(struct server *s);

#endif
