/* One connection: a client, an upstream, two relays, one life.
 *
 * States and their legal moves are in conn.c. conn_close() is the only closer, idempotent, with one
 * reason. Owned by its worker; used on the worker's thread only. Memory goes when the last
 * reference is dropped, at the end of the batch of events (docs/lifetime.md). */
#ifndef PENSTOCK_PROXY_CONN_H
#define PENSTOCK_PROXY_CONN_H

#include "penstock/base/addr.h"
#include "penstock/base/list.h"
#include "penstock/net/dial.h"
#include "penstock/net/relay.h"
#include "penstock/net/stream.h"
#include "penstock/net/timers.h"
#include "penstock/proxy/policy.h"
#include "penstock/proxy/reason.h"
#include "penstock/proxy/targets.h"

struct acceptor;
struct config_listener;
struct generation;
struct config_timeouts;
struct conn_capture;
struct listener;
struct listener_stats;
struct worker;

/* X(NAME, text) */
#define CONN_STATES(X)                                                                             \
    X(ACCEPT, "accept hook")                                                                       \
    X(PROXY, "waiting for the PROXY header")                                                       \
    X(TLS, "TLS handshake of the client")                                                          \
    X(CONNECT, "connect hook")                                                                     \
    X(DIAL, "dialling")                                                                            \
    X(FAILED, "failed hook")                                                                       \
    X(CONNECTED, "connected hook")                                                                 \
    X(HANDSHAKE, "handshake hook")                                                                 \
    X(SERVE, "served by its policy")                                                               \
    X(RELAY, "relaying")                                                                           \
    X(HANG, "held before it is denied")                                                            \
    X(LINGER, "delivering what was received before an abort")                                      \
    X(GOODBYE, "delivering what the policy answered")                                              \
    X(CLOSED, "closed")

enum conn_state {
#define X(name, text) CONN_##name,
    CONN_STATES(X)
#undef X
};

enum conn_side { SIDE_NONE, SIDE_CLIENT, SIDE_UPSTREAM };

struct conn_tag {
    struct conn_tag *next;
    char *value; /* points into text */
    char text[]; /* key, 0, value, 0 */
};

/* What a PROXY header has told of the connection. */
struct conn_proxy {
    struct buf in;         /* while it is read: what has come of it */
    struct addr peer;      /* who sent it */
    struct addr to;        /* what the client had connected to; AF_UNSPEC when that is not told */
    const char *from_path; /* the same and the client's, of UNIX sockets, "@name" where abstract; */
    const char *to_path;   /* NULL without; in `memory` */
    uint8_t version;       /* 0 while it is read */
    bool told;             /* it names a client; else that is the peer (LOCAL, UNKNOWN) */
    uint16_t tlvs_len;
    uint8_t memory[]; /* the options as they came, tlvs_len bytes; the paths */
};

struct conn {
    struct list node; /* in worker->conns */
    struct worker *worker;
    struct listener *listener;
    struct generation *generation;        /* the newest when it was accepted; it holds: */
    const struct config_listener *config; /* its listener's */
    struct listener_stats *stats;         /* where it counts; its worker's */
    struct stream client, upstream;
    struct relay up, down;
    struct addr client_addr;              /* the socket's, or what a PROXY header has told */
    struct conn_proxy *proxy;             /* NULL without a PROXY header */
    struct addr upstream_addr;            /* AF_UNSPEC until connected */
    struct policy *policy;                /* its listener's; may be NULL */
    void *script;                         /* the policy's own record of this connection */
    struct dial *dial;                    /* while dialling */
    struct targets *targets;              /* what is or was dialled; one reference */
    size_t target;                        /* index in targets of the one connected or last tried */
    struct conn_tag *tags;                /* newest first */
    struct config_timeouts *own_timeouts; /* a hook has changed some; NULL: the listener's */
    struct conn_capture *capture;         /* NULL: none */
    struct timer deadline;                /* the nearest of all its deadlines, checked lazily */
    struct loop_task free_task;
    uint64_t id;  /* unique in the process */
    uint64_t seq; /* count on its listener over all workers, from 1 */
    uint64_t accepted_ns;
    uint64_t shake_ns;          /* start of the client's TLS handshake */
    uint64_t dial_ns;           /* start of the dial */
    uint64_t connected_ns;      /* 0 until connected */
    uint64_t relay_ms;          /* start of the relay; of the handshake, or of PROXY, before */
    uint64_t active_ms;         /* last byte moved, monotonic */
    uint64_t half_closed_ms;    /* start of the present half-closed window; 0 while none */
    uint64_t half_closed_bytes; /* bytes moved when it began */
    uint64_t counted_bytes[2];  /* by direction: in the statistics */
    uint64_t noted_bytes[2];    /* by direction: moved when rates were last asked for */
    uint64_t noted_ms;          /* … which was then; 0: never */
    uint32_t refs;              /* who holds it: docs/lifetime.md */
    int failed_err;             /* HOOK_FAILED: why the last dial failed */
    char *failed_hop;           /* which proxy on the way failed and why; NULL without one */
    const char *failed_why;     /* the resolver's words for it, static storage; else NULL */
    uint64_t linger_ms;         /* LINGER, GOODBYE: when the other side last took something */
    uint64_t end_ms;            /* conn_end_by(): monotonic; 0: nothing was said */
    uint64_t end_last_ms;       /* it may be put off until then while bytes move */
    const char *end_detail;     /* its word, static storage */
    uint32_t
        unsent; /* unsent bytes of both sockets at the last look, to tell a slow drain from idle */
    uint8_t state;                   /* enum conn_state */
    uint8_t reason;                  /* enum close_reason, from conn_close or GOODBYE on */
    uint8_t side;                    /* enum conn_side that ended it, SIDE_NONE: neither */
    uint8_t half_closed_side;        /* enum conn_side that ended first */
    uint8_t choices;                 /* destinations that hooks have chosen */
    bool counted;                    /* in its listener's table of clients */
    bool reset;                      /* end both sockets by RST */
    bool ending;                     /* reason is set; closing now or when `serving` is over */
    bool serving;                    /* its relays are being pumped: closing is put off */
    bool script_failed;              /* a data hook raised */
    bool shaking;                    /* counted in its listener's handshakes */
    bool asking;                     /* TLS: the sni hook is asked */
    bool preamble;                   /* the policy has words for the upstream, to be said at the
                                        beginning of the handshake, also without a hook for it */
    char detail[VERDICT_REASON_MAX]; /* further word for the access log */
};

/* What the close hook and the access log are told. */
struct conn_info {
    enum close_reason reason;
    const char *reason_word;
    const char *side;   /* "client", "upstream" or "-" */
    const char *detail; /* "" when there is none */
    uint64_t bytes_up, bytes_down;
    uint64_t duration_us;
    int64_t connect_us; /* -1 when none was reached */
};

/* Starts a connection on the accepted stream, not registered yet, which it takes over, also on
 * failure; `counted`: the listener's table of clients has it. Returns 0 or a negative errno. */
int conn_start(struct acceptor *a, struct stream *accepted, const struct addr *client,
               bool counted);

/* Ends it with one reason: cancels waiting hooks, closes both sockets (FIN for EOF and DENIED, and
 * for CLOSED when no direction holds bytes; else RST), calls the close hook, writes the access
 * line. The first call wins; later ones do nothing. */
void conn_close(struct conn *c, enum close_reason reason, enum conn_side side, const char *detail);
/* The same, both sides ended by RST. */
void conn_reset(struct conn *c, enum close_reason reason, enum conn_side side, const char *detail);

/* An end to come: at `at_ms` of its loop's clock by RST on both sides, with reason SHUTDOWN and
 * `detail` (static storage). It is not ended before the loop goes on, also when that time has
 * passed. Of two such times the earlier one holds. One that is denied or whose answer is being
 * delivered may end before by itself, with the reason it has. */
void conn_end_by(struct conn *c, uint64_t at_ms, const char *detail);
/* The same at a moment between now and `until_ms` that goes by chance: of many connections not all
 * end, and come back, at once. While bytes move it is put off, to `until_ms` at most. */
void conn_end_within(struct conn *c, uint64_t until_ms, const char *detail);
/* Takes that back, whoever has said it. */
void conn_end_never(struct conn *c);

static inline bool conn_is_closed(const struct conn *c)
{
    return c->state == CONN_CLOSED;
}
/* A reference keeps the memory, not the connection. Each hold names its drop. */
void conn_hold(struct conn *c);
void conn_drop(struct conn *c);

/* A hook that waited has decided. Takes over verdict->targets. Nothing happens when the connection
 * has ended. */
void conn_decided(struct conn *c, enum policy_hook hook, struct verdict *verdict);
/* A data hook that waited has put its bytes with relay_write() and says how to go on. */
void conn_data_decided(struct conn *c, enum relay_direction dir, enum relay_verdict verdict);

/* All filters of a direction have returned: C relays what is left of it. */
void conn_filtered(struct conn *c, enum relay_direction dir);

/* A hook wants to see what the client sends, before there is an upstream: from now on `up` is in
 * STREAM mode. What stays unread goes to whoever comes next. */
void conn_open_client(struct conn *c);
/* A script has written something: moves what can be moved, and looks at how the sides are. May
 * close the connection. */
void conn_pump(struct conn *c);
/* What its PROXY header has told, NULL without one (or before it is whole). */
const struct conn_proxy *conn_proxy(const struct conn *c);
/* A PROXY header is to come first: what the client sends is not for hooks yet, and who it is, not
 * known. */
bool conn_awaits_proxy(const struct conn *c);
/* The same of TLS. What is for the client waits until it is open. */
bool conn_awaits_tls(const struct conn *c);
/* The deadlines that hold for it. */
const struct config_timeouts *conn_timeouts(const struct conn *c);
/* A copy of them that belongs to this connection, to change and then conn_watch_again(). NULL when
 * out of memory. */
struct config_timeouts *conn_change_timeouts(struct conn *c);
void conn_watch_again(struct conn *c);

struct conn_capture_options {
    const char *path;
    uint64_t max_bytes;    /* of the file and its older half; 0: any number */
    uint64_t first_bytes;  /* stop after so many of this connection; 0: never */
    bool client, upstream; /* which sides */
};
/* Captures what goes over its sides from now on (capture.h), of a side to come from its beginning;
 * one before ends. Under a virtual network nothing is written. Returns 0, or what is wrong with the
 * file, as capture_file_open() says it. */
int conn_capture(struct conn *c, const struct conn_capture_options *options);
void conn_capture_end(struct conn *c);

/* Does its policy want to be asked? */
static inline bool conn_has_hook(const struct conn *c, enum policy_hook hook)
{
    return policy_has(c->policy, hook) || (hook == HOOK_HANDSHAKE && c->preamble);
}

static inline struct relay *conn_relay(struct conn *c, enum relay_direction dir)
{
    return dir == RELAY_UP ? &c->up : &c->down;
}

/* Sets a tag for the access log; a key set again is replaced. Returns 0, -ENOMEM, or PS_ELIMIT over
 * 32 tags or 1 KiB in one. */
int conn_tag(struct conn *c, const char *key, size_t key_len, const char *value, size_t value_len);
/* The loop it runs on. */
struct loop *conn_loop(const struct conn *c);
/* Name of its listener. */
const char *conn_listener_name(const struct conn *c);
/* The address connected (a UNIX socket: its path), else the destination last tried; "-" without
 * one. Returns `buf`. */
const char *conn_upstream_text(const struct conn *c, char *buf, size_t cap);

#endif
