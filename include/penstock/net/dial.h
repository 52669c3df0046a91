/* Reaching an upstream: every target, every address (RFC 8305 happy eyeballs), through the proxies
 * on the way, the PROXY header sent; one deadline over all.
 *
 * The accounts of a target are entered while it is tried and told what came of it; those of a
 * target that was connected are left by the caller, target_leave(), when the connection ends.
 *
 * A dial is made for one connection attempt and frees itself when it has called back or was
 * cancelled. */
#ifndef PENSTOCK_NET_DIAL_H
#define PENSTOCK_NET_DIAL_H

#include <stddef.h>
#include <stdint.h>

#include "penstock/base/addr.h"
#include "penstock/net/loop.h"
#include "penstock/net/stream.h"
#include "penstock/net/target.h"

struct dial;
struct resolver;

/* Socket options for each attempt. */
struct dial_socket {
    bool nodelay;
    uint32_t keepalive_s;
    uint32_t rcvbuf_bytes, sndbuf_bytes;
    struct addr source; /* AF_UNSPEC: the kernel chooses */
};

/* Whom a PROXY header tells of. */
struct dial_proxy {
    struct addr client;      /* AF_UNSPEC: nobody; then it says LOCAL or UNKNOWN */
    struct addr local;       /* what the client had connected to */
    const char *client_path; /* of UNIX sockets, "@name" where abstract; they outlive the dial; */
    const char *local_path;  /* NULL: none */
};

struct dial_options {
    struct loop *loop;
    struct resolver *resolver;
    const struct target *targets; /* outlive the dial */
    size_t n_targets;
    uint64_t timeout_ms;              /* of everything together; 0: none */
    const struct dial_socket *socket; /* outlives the dial */
    struct stream
        *stream; /* gets the connected socket, registered edge-triggered; its callback is kept */
    struct dial_proxy proxy; /* for targets that want a PROXY header */
};

struct dial_result {
    int err; /* 0, or why the last attempt failed: a code of err.h, or -EMFILE, -ENFILE, -ENOMEM */
    size_t target;       /* index of the target connected, or last tried */
    struct addr address; /* the address connected (of the first hop, where there are any), or last
                            tried; AF_UNSPEC when none was */
    const char *why;     /* PS_EDNS: what the resolver said; PS_ETLS: what is wrong with it; static
                            storage, else NULL */
    const char *advice;  /* what may help against that; static storage or NULL */
    const char *hop;     /* which proxy on the way failed and why, "socks5 10.0.0.1:1080: wrong user
                            or password"; valid during the call; else NULL */
};

typedef void dial_done_fn(void *arg, const struct dial_result *result);

/* Starts. Calls `done` once, never before it returns, unless cancelled. Returns 0 and the dial in
 * *out, or -ENOMEM. `done` may start another dial. The first attempt uses `stream` itself, so its
 * owner passes the stream's events on with dial_on_stream() until `done`. */
int dial_start(const struct dial_options *options, dial_done_fn *done, void *arg,
               struct dial **out);
/* An event of the stream that is being dialled. */
void dial_on_stream(struct dial *d, unsigned events);
/* Ends it without calling back: attempts are closed. */
void dial_cancel(struct dial *d);

#endif
