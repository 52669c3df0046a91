/* What is said on a connected socket before it is the caller's: with each proxy on the way, and the
 * PROXY header to the upstream. Non-blocking; owned and driven by a dial, whose deadlines hold. */
#ifndef PENSTOCK_CORE_NET_VIA_H
#define PENSTOCK_CORE_NET_VIA_H

#include "penstock/base/buf.h"
#include "penstock/net/dial.h"
#include "penstock/net/stream.h"
#include "penstock/net/target.h"

/* X(NAME): what is awaited */
#define VIA_STATES(X)                                                                              \
    X(IDLE)   /* nothing has been said */                                                          \
    X(METHOD) /* SOCKS5: which login it wants */                                                   \
    X(LOGIN)  /* SOCKS5: whether ours is right */                                                  \
    X(REPLY)  /* SOCKS5: whether it is connected */                                                \
    X(TUNNEL) /* HTTP: the head of its answer */                                                   \
    X(HEADER) /* nothing: what is left to send is the PROXY header */                              \
    X(TLS)    /* the other side's part of a handshake: of a hop's, or of the upstream's */         \
    X(DONE)   /* nothing: all is said */

enum via_state {
#define X(name) VIA_##name,
    VIA_STATES(X)
#undef X
};

enum { VIA_WHY_MAX = 400 };

struct via {
    const struct target *target;
    struct loop *loop;
    struct buf out;    /* not yet sent */
    struct buf in;     /* an answer, as far as it has come */
    struct buf header; /* the PROXY header, for the end */
    size_t hop;        /* the one spoken with */
    uint8_t state;     /* enum via_state */
    bool beyond;       /* it has answered that what is behind it cannot be reached */
    bool shaking;      /* TLS: the handshake has begun */
    bool plain;        /* no TLS, whatever the target says: a network without bytes to hide */
    const char *tls_why, *tls_advice; /* of the upstream's TLS that has failed; else NULL */
    char why[VIA_WHY_MAX];            /* which hop failed and why; "" */
};

void via_init(struct via *v);
/* Ends what is being said and frees its bytes; `why` stays. */
void via_stop(struct via *v);

/* Does anything have to be said for this target? */
bool via_is_needed(const struct target *t);
/* Begins; `from` is for the PROXY header. Then via_step() on the connected stream. 0 or -ENOMEM. */
int via_start(struct via *v, struct loop *loop, const struct target *t,
              const struct dial_proxy *from);
/* Says and hears what can be now. 0: all is said, and not a byte behind the last answer was read.
 * -EINPROGRESS: call again at the next event. Else a code of err.h or a negative errno, with `why`.
 */
int via_step(struct via *v, struct stream *s);
/* Fills `why` for a failure that the dial has noticed: "<the hop spoken with>: <text>"; "" for a
 * target without hops. */
void via_blame(struct via *v, const struct target *t, const char *text);

#endif
