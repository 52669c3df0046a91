/* The hook interface between a connection and whatever decides for it. No Lua here: core/script
 * implements it.
 *
 * One policy belongs to one worker and is used on its thread only; several listeners may have the
 * same. A hook that does not exist is never called. */
#ifndef PENSTOCK_PROXY_POLICY_H
#define PENSTOCK_PROXY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/buf.h"
#include "penstock/base/count.h"
#include "penstock/base/list.h"
#include "penstock/net/relay.h"
#include "penstock/proxy/targets.h"

struct conn;
struct conn_info;
struct loop;
struct policy;
struct tls_cert;

/* X(NAME, lua name) in the order of a connection's life. */
#define POLICY_HOOKS(X)                                                                            \
    X(ACCEPT, "accept")                                                                            \
    X(SNI, "sni")                                                                                  \
    X(CONNECT, "connect")                                                                          \
    X(FAILED, "failed")                                                                            \
    X(CONNECTED, "connected")                                                                      \
    X(HANDSHAKE, "handshake")                                                                      \
    X(SERVE, "serve")                                                                              \
    X(DATA, "data")                                                                                \
    X(CLOSE, "close")

enum policy_hook {
#define X(name, lua) HOOK_##name,
    POLICY_HOOKS(X)
#undef X
        HOOK_COUNT
};

/* What a policy is called for, to be counted by: a hook is CALL_HOOK and its number. */
enum policy_call { CALL_TASK, CALL_FILTER, CALL_HOOK, CALL_COUNT = CALL_HOOK + HOOK_COUNT };

struct call_stats {
    struct count calls;
    struct count errors;
    struct count ns; /* in the script, without what was waited */
};

/* What the policies of one worker count. */
struct policy_stats {
    struct call_stats calls[CALL_COUNT];
    struct count heap_bytes;
    struct count coroutines; /* of hooks and tasks, those kept for the next call included */
};

enum verdict_kind {
    VERDICT_CONTINUE, /* no opinion: go on as configured */
    VERDICT_DIAL,     /* use `targets` */
    VERDICT_DENY,     /* end the client: `reason`, `reset`, `hang_ms`, `reply` */
    VERDICT_REPLY,    /* send `reply` to the client and end */
    VERDICT_CERT,     /* HOOK_SNI: show `cert`; VERDICT_DENY: refuse the handshake */
    VERDICT_ERROR,    /* the script failed (already logged): fail closed */
};

enum { VERDICT_REASON_MAX = 32 };

struct verdict {
    enum verdict_kind kind;
    struct targets *targets;         /* VERDICT_DIAL: one reference, taken over by the connection */
    char reason[VERDICT_REASON_MAX]; /* VERDICT_DENY: a word for the access log, may be "" */
    bool reset;                      /* VERDICT_DENY: end with RST instead of FIN */
    uint64_t hang_ms;                /* VERDICT_DENY: keep the client waiting that long first */
    struct buf reply; /* VERDICT_REPLY, and VERDICT_DENY up to HOOK_FAILED (empty: none): taken over
                         by the connection */
    struct tls_cert *cert; /* VERDICT_CERT: one reference, taken over */
};

enum policy_step {
    POLICY_DONE, /* decided now */
    POLICY_WAIT, /* the hook waits; it will call back, unless cancelled */
};

/* A place in a script. */
struct policy_place {
    const char *hook; /* "connect", "filter.up"; static storage */
    char line[80];    /* "route.lua:12"; "" when it is not known */
};

struct policy_ops {
    /* Runs one of the hooks up to HOOK_SERVE. POLICY_DONE: *out is filled.
     * POLICY_WAIT: the policy holds the connection (conn_hold) and calls conn_decided() later,
     * once, then conn_drop(). For HOOK_FAILED conn->targets->items[conn->target] is what failed
     * last, conn->failed_err tells why. */
    enum policy_step (*decide)(struct policy *p, struct conn *c, enum policy_hook hook,
                               struct verdict *out);

    /* HOOK_DATA: `bytes` were read in direction `dir`; they are valid during this call only. The
     * policy puts what shall go on with relay_write(), nothing for dropped bytes. On POLICY_WAIT
     * the direction stands still until the policy calls conn_data_decided(); on POLICY_DONE
     * *verdict tells how to go on. */
    enum policy_step (*data)(struct policy *p, struct conn *c, enum relay_direction dir,
                             const char *bytes, size_t n, enum relay_verdict *verdict);

    /* Starts the filters of a direction (policy->filters), whose relay is open in STREAM mode. They
     * end with conn_filtered(), or with conn_reset() when one fails. */
    void (*filter)(struct policy *p, struct conn *c, enum relay_direction dir);
    /* relay_ops.on_input and on_room of a direction in STREAM mode. */
    bool (*input)(struct policy *p, struct conn *c, enum relay_direction dir);
    void (*room)(struct policy *p, struct conn *c, enum relay_direction dir);

    /* The source of a direction in STREAM mode was aborted and has been read to its end: is there
     * nobody who could still make something of what was received? (All wait for more.) */
    bool (*starved)(struct policy *p, struct conn *c, enum relay_direction dir);

    /* HOOK_CLOSE: once for each accepted connection, after its sockets were closed. `info` is valid
     * during the call. A hook that waits holds the connection until it ends, at most 5 s. */
    void (*close)(struct policy *p, struct conn *c, const struct conn_info *info);

    /* The connection is ending, or only delivers what it has: every hook that waits for it is
     * cancelled now (its wait raises ps.CANCELLED) and makes no call back. Called before `close`,
     * perhaps twice. */
    void (*cancel)(struct policy *p, struct conn *c);

    /* The connection's memory goes away: forget it (script objects keep answering "closed"). */
    void (*forget)(struct policy *p, struct conn *c);

    /* Does a hook of the connection, or a filter, wait? Fills *out for the first that does. */
    bool (*waiting)(struct policy *p, const struct conn *c, struct policy_place *out);
};

struct policy {
    const struct policy_ops *ops;
    unsigned hooks;  /* bit (1u << HOOK_x) for each hook that exists */
    bool filters[2]; /* by direction: there are filters */
};

struct policy_set;

/* A piece of script that an operator wants run, beside all connections; embedded in its owner, who
 * zeroes it first. */
struct policy_chunk {
    const char *code; /* `n` bytes, valid until its end */
    size_t n;
    uint64_t patience_ms; /* how long it may wait, all waits together; at least 1 */
    /* Its end, once, on the thread of its set; perhaps within evaluate(). The chunk is the owner's
     * alone from then on. */
    void (*done)(struct policy_chunk *chunk);
    /* What has come of it. */
    struct buf output;  /* what it has printed */
    bool cut;           /* … not all of it */
    struct buf result;  /* what it has returned, as text */
    unsigned n_results; /* … so many values */
    struct buf error;   /* why it has failed; empty when it has not */
    bool incomplete;    /* … since its code breaks off */
    /* The policy's own. */
    struct list node;
    void *task;
    const char *why; /* it ends before its time; NULL */
    bool expression; /* it returns one value more than it was asked for */
};

/* Frees what has come of it. */
static inline void policy_chunk_deinit(struct policy_chunk *chunk)
{
    buf_deinit(&chunk->output);
    buf_deinit(&chunk->result);
    buf_deinit(&chunk->error);
}

struct policy_set_ops {
    /* The set goes into force: on its worker's thread, whose loop is `loop`, before the first of
     * its connections; `again`: in the place of an earlier version. It has touched no loop before.
     */
    void (*activate)(struct policy_set *set, struct loop *loop, bool again);
    /* No new connection will have it: because a later version has replaced it, which ends what it
     * does of its own, or because the process stops. set->busy afterwards: it has something to do
     * still (its functions for that end, 5 s at most) and calls set->on_idle then. */
    void (*retire)(struct policy_set *set, bool replaced);
    /* Runs a chunk in a set that is active, on the worker's thread. It ends by itself, when it has
     * waited for too long, or when the set is replaced or freed. */
    void (*evaluate)(struct policy_set *set, struct policy_chunk *chunk);
    /* Ends a chunk that has not ended yet, before it returns; `why` is its error, static storage.
     */
    void (*abandon)(struct policy_set *set, struct policy_chunk *chunk, const char *why);
    /* Frees the set with its policies; all their connections are gone. Not from on_idle. */
    void (*free)(struct policy_set *set);
};

/* What one worker has loaded from one version of the script: one VM, and the policies in it.
 * config_listener.policy is the number of a listener's policy. */
struct policy_set {
    const struct policy_set_ops *ops;
    struct policy **policies; /* by that number; NULL where there is none */
    size_t n;
    struct policy_stats *stats; /* the owner's, set before activate(): count there; NULL: nowhere */
    bool busy;
    void (*on_idle)(struct policy_set *set); /* the owner's */
    void *owner;
};

/* The policy of that number, NULL without one. `set` may be NULL. */
static inline struct policy *policy_set_get(const struct policy_set *set, size_t number)
{
    return set && number < set->n ? set->policies[number] : NULL;
}

/* Bit test: does the policy (may be NULL) have this hook? */
static inline bool policy_has(const struct policy *p, enum policy_hook hook)
{
    return p && (p->hooks & (1u << hook));
}

#endif
