/* What the files of a dial share: dial.c (targets and the end), dial_attempt.c (sockets), and
 * dial_address.c (addresses of a target). */
#ifndef PENSTOCK_CORE_NET_DIAL_PRIV_H
#define PENSTOCK_CORE_NET_DIAL_PRIV_H

#include "penstock/net/dial.h"
#include "penstock/net/resolver.h"
#include "via.h"

enum {
    ATTEMPT_DELAY_MS = 250,   /* RFC 8305 section 5, Connection Attempt Delay */
    RESOLUTION_DELAY_MS = 50, /* section 3: how long A waits for AAAA */
    BUSY_DELAY_MS = 10,       /* a UNIX listener's backlog is full */
};

/* Addresses of one family still to try. */
struct candidates {
    struct addr *addrs;
    size_t n, next;
    struct resolver_query query;
};

struct attempt {
    struct stream stream;
    struct list node;
    struct dial *dial;
    struct addr address;
    struct loop_task free_task;
};

struct dial {
    struct dial_options o;
    dial_done_fn *done;
    void *arg;
    size_t target;
    struct candidates v4, v6;
    struct list attempts; /* racing on their own descriptors */
    struct addr direct;   /* what `stream` itself is connecting or connected to */
    struct via *via;      /* what is said once connected, and which hop failed; NULL until needed */
    struct timer deadline; /* of everything */
    struct timer share;    /* of this target */
    struct timer next;     /* next attempt */
    uint64_t deadline_ms;  /* 0: none */
    struct loop_task free_task;
    struct loop_task finish_task;
    struct addr last_addr;
    int last_err;        /* of the last attempt; negative errno or code */
    const char *dns_why; /* what the resolver said last */
    bool direct_used; /* `stream` is used for the first attempt only: an event of it is never stale
                       */
    bool direct_open;
    bool speaking;   /* `stream` is connected, and `via` has not ended */
    bool hop_blamed; /* `via` has said itself why it failed */
    bool v6_last;    /* family of the last attempt */
    bool starting;   /* dial_start() is on the stack: report later */
    bool finished;
    bool entered; /* the present target's accounts */
};

static inline const struct target *dial_target(const struct dial *d)
{
    return &d->o.targets[d->target];
}

/* dial.c */
/* Makes d->via. 0 or -ENOMEM. */
int dial_need_via(struct dial *d);
/* Goes on with the next target, or reports the failure when there is none. May call back. */
void dial_next_target(struct dial *d);
/* Reports success on `stream`, which is the caller's from now on. Calls back. */
void dial_succeed(struct dial *d);
/* Begins with the present target once more: a UNIX listener was busy. */
void dial_begin_target(struct dial *d);

/* dial_attempt.c */
/* Starts an attempt. 0 or a negative errno; `address` is what is reported of it. */
int dial_attempt_start(struct dial *d, const struct sockaddr *to, socklen_t len,
                       const struct addr *address);
/* Closes all attempts, and `stream` when it is connecting or speaking. */
void dial_attempt_drop_all(struct dial *d);

/* dial_address.c */
/* Finds the addresses of a TCP endpoint and tries them. */
void dial_address_begin(struct dial *d, const struct endpoint *e);
/* Tries the next address now; the next target when there is none and none can come. */
void dial_address_try_next(struct dial *d);
void dial_address_drop(struct dial *d);

#endif
