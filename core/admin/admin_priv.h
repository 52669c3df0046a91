/* What the files of the admin share and nobody else needs. All on the main thread. */
#ifndef PENSTOCK_CORE_ADMIN_ADMIN_PRIV_H
#define PENSTOCK_CORE_ADMIN_ADMIN_PRIV_H

#include <microhttpd.h>
#include <uv.h>

#include "access.h"
#include "penstock/admin/admin.h"
#include "penstock/base/buf.h"
#include "penstock/base/json.h"
#include "penstock/base/list.h"
#include "penstock/proxy/server.h"

enum {
    ADMIN_CLIENTS_MAX = 32,         /* connections at once; more wait in the backlog */
    ADMIN_REQUEST_BYTES = 16 << 10, /* of a request line and its headers */
    ADMIN_BODY_MAX = 64,            /* bytes of a body: a word is all that any route wants */
    ADMIN_REQUEST_MS = 10000,       /* from a connection to its whole request */
    ADMIN_ANSWER_MS = 30000,        /* from the answer to its end */
};

/* microhttpd's names for these two change from version to version. */
enum { ADMIN_TOO_LARGE = 413, ADMIN_UNPROCESSABLE = 422 };

struct route;

struct admin {
    struct server *server;
    struct metrics *metrics;
    struct listener *listener; /* one reference */
    struct access_rules rules;
    struct MHD_Daemon *http;
    uv_poll_t accepting; /* the listening socket */
    uv_poll_t moving;    /* microhttpd's epoll descriptor */
    uv_timer_t tick;     /* its times, and our deadlines */
    uv_async_t answered; /* workers have answered a query */
    unsigned n_handles;  /* open ones; the last to close frees all */
    struct list clients; /* struct client */
    unsigned n_clients;
    bool paused;         /* accepts nobody now */
    struct list queries; /* struct query, of workers */
    struct list reloads; /* struct reload_wait */
};

/* A request, from its headers to the end of its answer. */
struct request {
    struct admin *admin;
    struct MHD_Connection *http;
    const struct route *route; /* NULL: there is none, `status` says why */
    uint64_t id;               /* in the path */
    char body[ADMIN_BODY_MAX + 1];
    size_t body_len; /* may be more than fits, then it is refused */
    bool waiting;    /* suspended until request_answer() */
    bool queued;     /* the answer is microhttpd's */
    unsigned status; /* of the answer; 0: none yet */
    const char *type;
    const char *allow; /* status 405: the method that would do */
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

/* What a path and method lead to. */
struct route {
    const char *method;
    const char *path;               /* {id} stands for a number */
    void (*run)(struct request *r); /* answers, or sees to it that an answer follows */
};
/* Finds r->route and r->id, or fails `r`. */
void route_find(struct request *r, const char *method, const char *path);

/* routes.c: the end of a reload that has not come. */
void routes_cancel(struct admin *a);

/* conns.c */
void conns_list(struct request *r);
void conns_kill(struct request *r);
void conns_kill_one(struct request *r);
/* Answers the queries that all workers have answered. */
void conns_collect(struct admin *a);

#endif
