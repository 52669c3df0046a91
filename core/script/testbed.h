/* Worlds for specs: one policy behind one listener, on a worker whose network and clock are
 * virtual, with clients and upstreams that do as they are told. The relay core, the dials and the
 * policy are the ones that serve live. No Lua of the harness here: that is lib_test.c.
 *
 * Every function that acts settles its world: when it returns, all has happened that can happen
 * without time passing. Those that settle return 0, or -ELOOP when there was no end to it. */
#ifndef PENSTOCK_SCRIPT_TESTBED_H
#define PENSTOCK_SCRIPT_TESTBED_H

#include <lua.h>

#include "penstock/base/buf.h"
#include "penstock/base/list.h"
#include "penstock/base/log.h"
#include "penstock/net/vnet.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/worker.h"
#include "penstock/script/test.h"

/* All worlds of a run, and the clock they share. */
struct testbed {
    struct list worlds;
    struct world *acting; /* the one that is being settled: log lines belong to it */
    struct buf trace;     /* lines, each with its 0 */
    uint64_t elapsed_ms;  /* virtual time since the run, or testbed_begin() */
    struct log_tap tap;
    script_test_load_fn *load;
};

/* The access line of a connection that has ended; `tags` are key, value, …, NULL. */
struct world_access {
    struct list node;
    uint64_t id, bytes_up, bytes_down;
    char *reason, *side, *detail, *upstream;
    char **tags;
};

struct world_options {
    const char *path; /* the policy file */
    bool unsafe;
    uint64_t seed;
    uint64_t start_ms; /* wall clock at its beginning, since 1970; at least 1 */
    const char *name;  /* of the listener, NULL: its address */
    const char *to;    /* NULL: the first upstream */
    bool own;          /* name, to, limits or timeouts were given: a policy is wanted, not a
                          configuration, which says them itself */
    struct config_limits limits;
    struct config_timeouts timeouts;
};

struct world {
    struct list node; /* in bed->worlds */
    struct testbed *bed;
    struct vnet *vnet;
    struct worker worker;
    struct config config;
    struct server_counts counts;
    struct listener **listeners;        /* as many as the configuration has */
    bool configured;                    /* by its file; else there is one listener */
    struct list services, peers, ended; /* service, peer, world_access */
    struct buf log, errors;             /* lines, each with its 0; `errors` are of hooks */
    uint64_t start_ms, opened_ms;       /* its clock and the bed's when it began */
    struct world **handle;              /* set to NULL at its end; NULL: nobody asked for that */
    uint16_t next_port;                 /* of a client that does not say */
    bool closing;
};

/* What a peer has seen of the end of the other side. */
enum peer_end { PEER_OPEN, PEER_FIN, PEER_RST };

/* A client, or an upstream's side of one connection. Lives as long as its world. */
struct peer {
    struct list node; /* in world->peers */
    struct world *world;
    struct stream stream;
    struct buf out;   /* to send, as soon as it is taken */
    struct buf in;    /* all that was received */
    uint64_t conn_id; /* of a client that was accepted, else 0 */
    enum peer_end end;
    bool stopped;   /* it does not read */
    bool finishing; /* it ends when all is sent */
    char name[128]; /* for the trace */
};

/* An upstream. */
struct service {
    struct list node; /* in world->services */
    struct world *world;
    struct poller_entry entry;
    struct vnet_port *port;
    struct peer **peers; /* connections so far, in their order */
    size_t n_peers;
    char address[];
};

/* Takes the log: one testbed at a time. testbed_deinit() closes the worlds that are left. */
void testbed_init(struct testbed *bed, script_test_load_fn *load_file);
void testbed_deinit(struct testbed *bed);
/* Forgets the trace and starts time anew for worlds to come; all worlds are closed. */
void testbed_begin(struct testbed *bed);
/* Moves the clock of all worlds on. */
int testbed_advance(struct testbed *bed, uint64_t ms);

/* Loads a policy or a configuration. Returns 0, or a negative error with a message in `why`. */
int world_open(struct testbed *bed, const struct world_options *options, struct world **out,
               char *why, size_t why_cap);
/* Ends its connections and frees all. */
void world_close(struct world *w);
/* Makes `address` the target of a policy's listener unless it has one. 0 or -EINVAL with a message
 * in `why`. */
int world_default_to(struct world *w, const char *address, char *why, size_t why_cap);
/* The access line of connection `id`, NULL while it lives. */
const struct world_access *world_access_of(const struct world *w, uint64_t id);
/* Adds a line to the trace. */
void world_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int world_settle(struct world *w);

/* Pushes the C functions under lua/penstock/test.lua (lib_test.c). May raise. */
void lib_test_push(lua_State *L, struct testbed *bed);

/* ---- peers and services (test_peer.c) ---- */

/* The number of the listener of that name or address, or -1. */
int world_find_listener(const struct world *w, const char *name);
/* A client of listener number `listener` from `from`, with a receive window of `window_bytes`. NULL
 * when out of memory. */
struct peer *peer_connect(struct world *w, size_t listener, const struct addr *from,
                          size_t window_bytes);
int peer_send(struct peer *p, const char *bytes, size_t n);
int peer_finish(struct peer *p);
int peer_reset(struct peer *p);
int peer_read(struct peer *p, bool on);
/* Opens an upstream. Returns 0, -EADDRINUSE or -ENOMEM. */
int service_open(struct world *w, const char *address, size_t window_bytes, struct service **out);
/* Of a world that ends; without settling. */
void peers_close(struct world *w);

#endif
