/* What the files of the admin share and nobody else needs. All on the main thread. */
#ifndef PENSTOCK_CORE_ADMIN_ADMIN_PRIV_H
#define PENSTOCK_CORE_ADMIN_ADMIN_PRIV_H

#include <microhttpd.h>
#include <string.h>
#include <uv.h>

#include "access.h"
#include "penstock/admin/admin.h"
#include "penstock/base/buf.h"
#include "penstock/base/json.h"
#include "penstock/base/list.h"
#include "penstock/proxy/server.h"
#include "penstock/proxy/shared.h"

enum {
    ADMIN_CLIENTS_MAX = 32,         /* connections at once; more wait in the backlog */
    ADMIN_REQUEST_BYTES = 16 << 10, /* of a request line and its headers */
    ADMIN_BODY_MAX = 63,            /* bytes of a body, of routes that do not say: a word */
    ADMIN_REQUEST_MS = 10000,       /* from a connection to its whole request */
    ADMIN_ANSWER_MS = 30000,        /* from the answer to its end */
    ADMIN_PENDING_MAX =
        16, /* questions that workers have not answered; leaves clients for others */
    ADMIN_WORKERS_MS = 8000, /* workers have to answer; less than `penstock ctl` waits */
};

/* microhttpd's names for these two change from version to version. */
enum { ADMIN_TOO_LARGE = 413, ADMIN_UNPROCESSABLE = 422 };

struct route;

struct admin {
    struct server *server;
    struct shared *shared;
    struct config *first;      /* the configuration of the start; one reference */
    struct listener *listener; /* one reference */
    struct access_rules rules;
    struct MHD_Daemon *http;
    uv_poll_t accepting; /* the listening socket */
    uv_poll_t moving;    /* microhttpd's epoll descriptor */
    uv_timer_t tick;     /* its times, and our deadlines */
    uv_async_t answered; /* workers have answered a query; or there is something to move */
    uv_timer_t pause;    /* of queries for rates */
    unsigned n_handles;  /* open ones; the last to close frees all */
    struct list clients; /* struct client */
    unsigned n_clients;
    bool paused;      /* accepts nobody now */
    bool lua;         /* chunks may be run */
    bool ending;      /* the workers have ended: nothing can be asked any more */
    bool handed_over; /* it will not accept again: another process does */
    struct server_guest guest;
    struct list queries; /* struct query, of workers */
    unsigned n_rating;   /* of them, those that measure rates */
    struct list drains;  /* struct drain, of workers */
    struct list prompts; /* struct lua_query, of workers */
    struct list waits;   /* struct wait, for the server */
    unsigned n_pending;
};

/* Bytes of a client, decoded; a zero follows. */
struct text {
    const char *bytes;
    size_t n;
};

/* Does it hold no zero, so that its bytes are all of it? */
static inline bool text_is_whole(const struct text *t)
{
    return strlen(t->bytes) == t->n;
}

struct request_memory;

/* A request, from its headers to the end of its answer. */
struct request {
    struct admin *admin;
    struct MHD_Connection *http;
    const struct route *route; /* NULL: there is none, `status` says why */
    uint64_t id;               /* in the path: {id} */
    struct text names[2];      /* in the path: what else stands in braces, in that order */
    struct request_memory *memory;
    struct buf body;         /* once it is whole, a zero that does not count is behind it */
    bool waiting;            /* suspended until request_answer() */
    struct pending *pending; /* what it waits for; NULL: nothing */
    bool queued;             /* the answer is microhttpd's */
    unsigned status;         /* of the answer; 0: none yet */
    const char *type;
    const char *allow; /* status 405: the methods that would do */
    struct buf out;
};

/* A connection of a client. */
struct client {
    struct list node;
    struct MHD_Connection *http;
    struct request *request; /* NULL without */
    uint64_t deadline_ms;
};

/* Answers with what is in r->out, now or when it waits. */
void request_answer(struct request *r, unsigned status, const char *type);
/* Answers with {"error":"…"}. */
void request_fail(struct request *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Answers with what has been written by `j`. */
void request_answer_json(struct request *r, unsigned status, const struct json *j);

/* arguments.c */
/* Memory that goes with the request; NULL when out of it. */
void *request_alloc(struct request *r, size_t n);
void request_free_memory(struct request *r);
/* Decodes what was sent with percent signs, of which `out` is then a copy that goes with the
 * request. 0, -ENOMEM, or -EINVAL when an escape is wrong. */
int request_decode(struct request *r, const char *raw, size_t n, struct text *out);

/* What may stand behind the question mark. Above each table of them stand the method and path that
 * have it (scripts/check-admin). */
struct argument {
    const char *name;
    int (*set)(void *arg, const struct text *value); /* 0, -EINVAL or -ENOMEM */
    const char *good;                                /* what it is, for who gives something else */
};
/* Gives each to its `set`, with `arg`. False when it has failed `r`: there is one that is not among
 * the `n`, or is wrong. */
bool request_arguments(struct request *r, const struct argument *arguments, size_t n, void *arg);

/* over=TIME of a drain: `arg` is a uint64_t of milliseconds. */
int argument_over(void *arg, const struct text *value);
#define ARGUMENT_OVER "a time up to a day: 30, 500ms, 5m or 1h"

/* What a request waits for; embedded in its owner, zeroed. */
struct pending {
    struct admin *admin;
    struct request *request; /* NULL: nobody waits any more, and the answer is thrown away */
    uint64_t deadline_ms;    /* 0: none */
    /* The number of a worker that has not answered, or -1. NULL: never mind. */
    int (*silent)(const struct pending *p);
    void (*left)(struct pending *p); /* nobody waits any more; NULL: never mind */
};
/* `r` waits for it, at most patience_ms (0: for ever). False when it has failed `r`: too many do.
 */
bool pending_begin(struct pending *p, struct request *r, uint64_t patience_ms);
/* It is over. Returns who waits for the answer, or NULL. */
struct request *pending_end(struct pending *p);
/* `r` does not wait any more for what it may have waited for. */
void pending_leave(struct request *r);
/* Ends the waiting of `r`, whose socket is `fd`, when its client has hung up or it is too late. */
void pending_look(struct request *r, int fd);

/* The answer comes from done() of the waiter that it returns; NULL when it has failed `r`. done()
 * calls request_waited(), which frees the waiter and returns who waits for the answer, or NULL. */
struct server_waiter *request_wait(struct request *r,
                                   void (*done)(struct server_waiter *waiter, int err,
                                                unsigned number, const char *why));
struct request *request_waited(struct server_waiter *waiter);
/* It stops: those that still wait are told so. */
void request_cancel_waits(struct admin *a);

/* What a path and method lead to. */
struct route {
    const char *method;
    const char *path; /* {id} stands for a number, other words in braces for a name, encoded */
    void (*run)(struct request *r); /* answers, or sees to it that an answer follows */
    size_t body_max;                /* bytes; 0: ADMIN_BODY_MAX */
};
/* Finds r->route, r->id and r->names, or fails `r`. */
void route_find(struct request *r, const char *method, const char *path);

/* listeners.c */
void listeners_list(struct request *r);
void listeners_drain(struct request *r);
void listeners_up(struct request *r);

/* conns.c */
void conns_list(struct request *r);
void conns_kill(struct request *r);
void conns_kill_one(struct request *r);
/* Answers the queries that all workers have answered. */
void conns_collect(struct admin *a);
/* Goes on with those whose pause is over. */
void conns_resume(struct admin *a);
/* Once the workers have ended, and have answered what they will. */
void conns_cancel(struct admin *a);

/* config.c */
void config_show(struct request *r);

/* stats.c */
void stats_show(struct request *r);

/* stores.c */
void stores_list(struct request *r);
void stores_get(struct request *r);
void stores_set(struct request *r);
void stores_delete(struct request *r);
void stores_keys(struct request *r);
void buckets_list(struct request *r);

/* lua.c */
enum { LUA_CHUNK_MAX = 64 << 10 };
void lua_run(struct request *r);
/* Answers those whose chunks have ended in all workers. */
void lua_collect(struct admin *a);

/* pools.c */
void pools_list(struct request *r);
void pools_weigh(struct request *r);
void pools_drain(struct request *r);
void pools_up(struct request *r);
/* Answers the drains that all workers have carried out. */
void pools_collect(struct admin *a);

#endif
