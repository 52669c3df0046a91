/* What requests wait for: answers of workers, or a change of the server. It may outlive who has
 * asked, and counts until it is over: so a worker that does not answer is not asked without end. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "admin_priv.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"

static uint64_t now_ms(void)
{
    return clock_now_ns() / 1000000;
}

bool pending_begin(struct pending *p, struct request *r, uint64_t patience_ms)
{
    if (r->admin->n_pending >= ADMIN_PENDING_MAX) {
        request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                     "%d requests wait for the workers, and more cannot: ask again later",
                     ADMIN_PENDING_MAX);
        return false;
    }
    r->admin->n_pending++;
    p->admin = r->admin;
    p->request = r;
    p->deadline_ms = patience_ms ? now_ms() + patience_ms : 0;
    r->pending = p;
    return true;
}

struct request *pending_end(struct pending *p)
{
    struct request *r = p->request;
    p->admin->n_pending--;
    p->request = NULL;
    if (r)
        r->pending = NULL;
    return r;
}

void pending_leave(struct request *r)
{
    struct pending *p = r->pending;
    if (!p)
        return;
    p->request = NULL;
    r->pending = NULL;
    if (p->left)
        p->left(p);
}

static void fail_late(struct request *r, const struct pending *p)
{
    int worker = p->silent ? p->silent(p) : -1;
    if (worker < 0)
        request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "the workers do not answer in time");
    else
        request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                     "worker %d does not answer: is it held up by a policy? What was asked of it "
                     "may still be done",
                     worker);
}

/* A UNIX socket tells an end of sending from a close; a TCP socket does not until it is written. */
static bool has_hung_up(const struct request *r, int fd)
{
    bool unix_socket = r->admin->rules.bound.sa.sa_family == AF_UNIX;
    struct pollfd p = {.fd = fd, .events = (short)(unix_socket ? 0 : POLLRDHUP)};
    return poll(&p, 1, 0) == 1;
}

void pending_look(struct request *r, int fd)
{
    struct pending *p = r->pending;
    if (!p)
        return;
    if (has_hung_up(r, fd)) {
        pending_leave(r);
        request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "its client has hung up");
    } else if (p->deadline_ms && now_ms() >= p->deadline_ms) {
        pending_leave(r);
        fail_late(r, p);
    }
}

/* --- for the server
 * -------------------------------------------------------------------------------------------- */

struct wait {
    struct list node; /* in admin->waits */
    struct pending pending;
    struct server_waiter waiter;
};

struct server_waiter *request_wait(struct request *r,
                                   void (*done)(struct server_waiter *waiter, int err,
                                                unsigned number, const char *why))
{
    struct wait *w = calloc(1, sizeof *w);
    if (!w) {
        request_fail(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "%s", err_text(-ENOMEM));
        return NULL;
    }
    if (!pending_begin(&w->pending, r, 0)) {
        free(w);
        return NULL;
    }
    w->waiter.done = done;
    list_init(&w->waiter.node);
    list_push(&r->admin->waits, &w->node);
    return &w->waiter;
}

struct request *request_waited(struct server_waiter *waiter)
{
    struct wait *w = container_of(waiter, struct wait, waiter);
    struct request *r = pending_end(&w->pending);
    list_remove(&w->node);
    list_remove(&waiter->node);
    free(w);
    return r;
}

void request_cancel_waits(struct admin *a)
{
    list_for_each (node, tmp, &a->waits) {
        struct request *r = request_waited(&container_of(node, struct wait, node)->waiter);
        if (r)
            request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "penstock has ended");
    }
}
