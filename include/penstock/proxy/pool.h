/* A pool: servers with a state that all workers share, and the choice among them. It knows their
 * names and nothing of how they are reached.
 *
 * A server is up until checks say otherwise (active) or too many dials in a row fail (passive: it
 * is ejected for a while), and may be drained by hand. One lock a pool. Time is the caller's,
 * monotonic. */
#ifndef PENSTOCK_PROXY_POOL_H
#define PENSTOCK_PROXY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct account;
struct pool;
struct pool_server;

enum { POOL_SERVERS_MAX = 1000, POOL_WEIGHT_MAX = 1000000 };

/* X(NAME, word) */
#define POOL_ALGOS(X)                                                                              \
    X(ROUND_ROBIN, "round_robin")                                                                  \
    X(RANDOM, "random")                                                                            \
    X(LEAST_CONN, "least_conn")                                                                    \
    X(HASH, "hash")

enum pool_algo {
#define X(name, word) POOL_##name,
    POOL_ALGOS(X)
#undef X
};

/* X(NAME, word) */
#define POOL_STATES(X)                                                                             \
    X(UP, "up")                                                                                    \
    X(DRAINED, "drained")                                                                          \
    X(DOWN, "down")                                                                                \
    X(EJECTED, "ejected")

enum pool_state {
#define X(name, word) POOL_##name,
    POOL_STATES(X)
#undef X
};

/* What checks have said of a server. X(NAME, word) */
#define POOL_CHECKS(X)                                                                             \
    X(UNCHECKED, "none")                                                                           \
    X(WAITING, "waiting")                                                                          \
    X(PASSED, "passed")                                                                            \
    X(FAILED, "failed")

enum pool_check {
#define X(name, word) POOL_##name,
    POOL_CHECKS(X)
#undef X
};

const char *pool_check_name(enum pool_check check);
const char *pool_algo_name(enum pool_algo algo);
const char *pool_state_name(enum pool_state state);

/* When dials count against a server. */
struct pool_eject {
    uint32_t fails; /* in a row; 0: never */
    uint64_t ms;    /* how long it is out */
};

/* `name` is for the log. NULL when out of memory. */
struct pool *pool_new(const char *name);
/* Servers that are held live on. */
void pool_free(struct pool *p);

/* The server of that name, made when there is none; with a reference, which the caller drops. NULL
 * when out of memory. A server that nobody holds is forgotten, with what was known of it. */
struct pool_server *pool_server(struct pool *p, const char *name);
/* The one that is there, with a reference; NULL when there is none. */
struct pool_server *pool_find(struct pool *p, const char *name);
struct pool_server *pool_server_hold(struct pool_server *s);
void pool_server_drop(struct pool_server *s);
/* It as the account of a target or a hop: entered and left by pool_enter() and pool_leave(), told
 * by pool_dialled(), which is logged when it ejects. No reference is taken. */
struct account *pool_server_account(struct pool_server *s);

/* One of the servers that somebody chooses among. */
struct pool_member {
    struct pool_server *server; /* of this pool; held by the caller */
    double weight;              /* above 0; as configured */
    const char *address;        /* to be shown; NULL: its name will do */
};

/* What a configuration says of a pool. */
struct pool_use {
    enum pool_algo algo;
    bool checks; /* its servers are checked */
    struct pool_eject eject;
    const struct pool_member *members;
    size_t n_members;
};
/* A configuration that has the pool has come into force, or been replaced, in one worker. */
void pool_use(struct pool *p, const struct pool_use *use);
void pool_unuse(struct pool *p, const struct pool_use *use);

struct pool_choice {
    enum pool_algo algo;
    const struct pool_member *members;
    size_t n_members;
    uint64_t key; /* HASH: the hash of what shall stay together */
    uint64_t random;
    uint64_t now_ms;
};

/* Writes the numbers of the members that may be used to `order`, which has room for all, the best
 * first; returns how many. An ejected one may be used when there is no other: that it failed is no
 * proof. With ROUND_ROBIN this is the turn of the first. */
size_t pool_choose(struct pool *p, const struct pool_choice *choice, uint32_t *order);

/* Drained by hand, until pool_restore(). */
void pool_drain(struct pool_server *s);
/* The same, and connections that have chosen it up to `now_ms` are to end by `end_ms`: its account
 * says so to those that are not connected yet; who drains tells the others. */
void pool_drain_until(struct pool_server *s, uint64_t now_ms, uint64_t end_ms);
/* It takes part again, whatever has been said against it. */
void pool_restore(struct pool_server *s);
/* Another weight, above 0, in the place of the one that the configuration in force gives it: until
 * one with yet another comes into force. */
void pool_set_weight(struct pool_server *s, double weight);
/* What a check said; it is down after `fall` failures in a row and up again after `rise` successes.
 * Returns true when that has changed its state. */
bool pool_checked(struct pool_server *s, bool success, uint32_t fall, uint32_t rise);
/* What a dial came to. Returns true when that has ejected it. */
bool pool_dialled(struct pool_server *s, bool success, uint64_t now_ms);
enum pool_state pool_state(struct pool_server *s, uint64_t now_ms);
const char *pool_server_name(const struct pool_server *s);

/* A server as pool_visit() shows it. */
struct pool_view {
    const char *pool, *server, *address;
    enum pool_state state;
    uint32_t active; /* connections that use it */
    enum pool_algo algo;
    bool used, pool_used; /* the configuration in force has it, and its pool */
    double weight, configured_weight;
    uint64_t good, bad; /* dials so far */
    enum pool_check check;
};
/* Shows every server, in the order of their making. A pool without any shows none. `visit` must not
 * come back here. */
void pool_visit(struct pool *p, uint64_t now_ms,
                void (*visit)(void *arg, const struct pool_view *view), void *arg);

/* A connection uses it from now on; pool_leave() gives that back. Takes a reference. */
void pool_enter(struct pool_server *s);
void pool_leave(struct pool_server *s);
/* Connections that use it. */
uint32_t pool_active(struct pool_server *s);

#endif
