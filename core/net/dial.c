/* Reaching an upstream. Targets in order; within a target all addresses of its name, raced as RFC
 * 8305 says (IPv6 first, families alternating, the next attempt after 250 ms or at once when one
 * fails). One deadline over all; a target that does not answer gets its share of what is left, so
 * that the next ones have theirs. */
#include "penstock/net/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "penstock/net/resolver.h"

enum {
    ATTEMPT_DELAY_MS = 250,   /* RFC 8305 section 5, Connection Attempt Delay */
    RESOLUTION_DELAY_MS = 50, /* section 3: how long A waits for AAAA */
    BUSY_DELAY_MS = 10,       /* a UNIX listener's backlog is full */
    EPHEMERAL = 32768,        /* a loopback port from here on may connect to itself */
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
    struct list attempts;  /* racing on their own descriptors */
    struct addr direct;    /* what `stream` itself is connecting to */
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
    bool v6_last;  /* family of the last attempt */
    bool starting; /* dial_start() is on the stack: report later */
    bool finished;
};

static void begin_target(struct dial *d);
static void try_next(struct dial *d);

/* --- ending
 * ----------------------------------------------------------------------------------------- */

static void free_attempt(struct loop_task *task)
{
    free(container_of(task, struct attempt, free_task));
}

static void drop_attempt(struct attempt *a)
{
    stream_close(&a->stream);
    list_remove(&a->node);
    loop_defer(a->dial->o.loop, &a->free_task);
}

static void drop_attempts(struct dial *d)
{
    list_for_each (node, tmp, &d->attempts)
        drop_attempt(container_of(node, struct attempt, node));
}

static void drop_direct(struct dial *d)
{
    if (d->direct_open)
        stream_close(d->o.stream);
    d->direct_open = false;
}

static void drop_candidates(struct candidates *c)
{
    resolver_cancel(&c->query);
    free(c->addrs);
    c->addrs = NULL;
    c->n = c->next = 0;
}

static void leave_target(struct dial *d)
{
    timers_stop(&d->o.loop->timers, &d->next);
    timers_stop(&d->o.loop->timers, &d->share);
    drop_candidates(&d->v4);
    drop_candidates(&d->v6);
    drop_attempts(d);
    drop_direct(d);
}

static void free_dial(struct loop_task *task)
{
    free(container_of(task, struct dial, free_task));
}

static void end(struct dial *d)
{
    d->finished = true;
    leave_target(d);
    timers_stop(&d->o.loop->timers, &d->deadline);
    loop_forget(&d->finish_task);
    loop_defer(d->o.loop, &d->free_task);
}

void dial_cancel(struct dial *d)
{
    end(d);
}

static void report_failure(struct dial *d)
{
    struct dial_result result = {.err = err_from_errno(d->last_err ? d->last_err : PS_EUNREACHABLE),
                                 .target =
                                     d->target < d->o.n_targets ? d->target : d->o.n_targets - 1,
                                 .address = d->last_addr};
    if (d->last_err == -EMFILE || d->last_err == -ENFILE || d->last_err == -ENOMEM)
        result.err = d->last_err; /* ours to mend, so keep the exact word */
    if (result.err == PS_EDNS)
        result.why = d->dns_why;
    end(d);
    d->done(d->arg, &result);
}

static void on_finish(struct loop_task *task)
{
    report_failure(container_of(task, struct dial, finish_task));
}

static void fail_all(struct dial *d)
{
    if (d->starting)
        loop_ready(d->o.loop, &d->finish_task);
    else
        report_failure(d);
}

static void on_deadline(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, deadline);
    d->last_err = PS_ETIMEOUT;
    report_failure(d);
}

static void next_target(struct dial *d)
{
    const struct endpoint *e = &d->o.targets[d->target];
    if (e->kind == ENDPOINT_NAME && d->last_err != PS_EDNS)
        resolver_doubt(d->o.resolver, e->host);
    leave_target(d);
    d->target++;
    begin_target(d);
}

static void on_share(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, share);
    d->last_err = PS_ETIMEOUT;
    next_target(d);
}

/* --- one attempt
 * -------------------------------------------------------------------------------------- */

/* A connected socket, on `entry` (the stream's own, or an attempt's). */
static void succeed(struct dial *d, struct attempt *a)
{
    struct dial_result result = {.target = d->target, .address = a ? a->address : d->direct};
    if (a) {
        drop_direct(d);
        int err = stream_move(&a->stream, d->o.stream, &d->o.loop->poller);
        if (err) {
            stream_close(d->o.stream);
            d->last_err = err;
            report_failure(d);
            return;
        }
    }
    d->direct_open = false; /* it is the caller's now */
    d->o.stream->writable = true;
    if (result.address.sa.sa_family == AF_UNIX)
        d->o.stream->read_on = true; /* reads stop at the border of messages with descriptors */
    end(d);
    d->done(d->arg, &result);
}

/* Dialling an ephemeral loopback port that nobody listens on can meet itself (simultaneous open).
 */
static bool is_connected_to_itself(int fd, const struct addr *to)
{
    struct addr own;
    socklen_t len = sizeof own;
    if (!addr_is_loopback(to) || addr_port(to) < EPHEMERAL)
        return false;
    return getsockname(fd, &own.sa, &len) == 0 && addr_port(&own) == addr_port(to);
}

/* Connected, failed (a negative errno), or -EINPROGRESS. */
static int outcome(struct stream *s, unsigned events, const struct addr *to)
{
    if (events & POLLER_ERROR) {
        int err = stream_error(s);
        if (err)
            return err;
    }
    if (!(events & (POLLER_OUT | POLLER_ERROR)))
        return -EINPROGRESS;
    return is_connected_to_itself(s->entry.fd, to) ? -ECONNREFUSED : 0;
}

static void attempt_failed(struct dial *d, const struct addr *address, int err)
{
    d->last_err = err;
    d->last_addr = *address;
    try_next(d);
}

static void on_attempt(struct poller_entry *entry, unsigned events)
{
    struct attempt *a = container_of(entry, struct attempt, stream.entry);
    struct dial *d = a->dial;
    int err = outcome(&a->stream, events, &a->address);
    if (err == -EINPROGRESS)
        return;
    if (err == 0) {
        succeed(d, a);
        return;
    }
    struct addr address = a->address;
    drop_attempt(a);
    attempt_failed(d, &address, err);
}

void dial_on_stream(struct dial *d, unsigned events)
{
    if (!d->direct_open || d->finished)
        return;
    int err = outcome(d->o.stream, events, &d->direct);
    if (err == -EINPROGRESS)
        return;
    if (err == 0) {
        stream_note_events(d->o.stream, events);
        succeed(d, NULL);
        return;
    }
    drop_direct(d);
    attempt_failed(d, &d->direct, err);
}

static void set_int(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

static void set_options(int fd, const struct dial_socket *o, int family)
{
    if (o->rcvbuf_bytes)
        set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)o->rcvbuf_bytes);
    if (o->sndbuf_bytes)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)o->sndbuf_bytes);
    /* Urgent data stays in the stream, in its place; otherwise recv() would skip it. */
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    if (family == AF_UNIX)
        return;
    if (o->nodelay)
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (o->keepalive_s) {
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)o->keepalive_s);
#endif
    }
}

static int bind_source(int fd, const struct addr *source, int family)
{
    if (source->sa.sa_family != family)
        return source->sa.sa_family == AF_UNSPEC || family == AF_UNIX ? 0 : -EAFNOSUPPORT;
#ifdef IP_BIND_ADDRESS_NO_PORT
    set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
#endif
    return bind(fd, &source->sa, addr_len(source)) ? -errno : 0;
}

/* A socket that is connecting, or a negative errno. */
static int open_socket(struct dial *d, const struct sockaddr *to, socklen_t len)
{
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_options(fd, d->o.socket, to->sa_family);
    int err = bind_source(fd, &d->o.socket->source, to->sa_family);
    if (!err && connect(fd, to, len) && errno != EINPROGRESS)
        err = -errno;
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

/* Starts connecting `s`, registered edge-triggered; it is closed on failure. */
static int begin_connect(struct dial *d, struct stream *s, const struct sockaddr *to, socklen_t len)
{
    int fd = open_socket(d, to, len);
    if (fd < 0)
        return fd;
    s->entry.fd = fd;
    int err = poller_add_edge(&d->o.loop->poller, &s->entry);
    if (err)
        stream_close(s);
    return err;
}

static int race(struct dial *d, const struct sockaddr *to, socklen_t len,
                const struct addr *address)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (!a)
        return -ENOMEM;
    *a = (struct attempt){.dial = d, .address = *address, .free_task = {.run = free_attempt}};
    stream_init(&a->stream, on_attempt);
    list_init(&a->free_task.node);
    list_push(&d->attempts, &a->node);
    int err = begin_connect(d, &a->stream, to, len);
    if (err)
        drop_attempt(a);
    return err;
}

static int start_attempt(struct dial *d, const struct sockaddr *to, socklen_t len,
                         const struct addr *address)
{
    if (d->direct_used)
        return race(d, to, len, address);
    int err = begin_connect(d, d->o.stream, to, len);
    if (err)
        return err;
    d->direct_used = d->direct_open = true;
    d->direct = *address;
    return 0;
}

/* --- a target's addresses
 * ------------------------------------------------------------------------------- */

static bool has_candidate(const struct candidates *c)
{
    return c->next < c->n;
}

/* The next address to try: families alternate, IPv6 first. NULL when there is none now. */
static const struct addr *take_candidate(struct dial *d)
{
    struct candidates *first = d->v6_last ? &d->v4 : &d->v6, *second = d->v6_last ? &d->v6 : &d->v4;
    struct candidates *c = has_candidate(first) ? first : second;
    if (!has_candidate(c))
        return NULL;
    d->v6_last = c == &d->v6;
    return &c->addrs[c->next++];
}

static bool is_resolving(const struct dial *d)
{
    return d->v4.query.waiting || d->v6.query.waiting;
}

static void try_next(struct dial *d)
{
    const struct addr *to;
    while ((to = take_candidate(d))) {
        int err = start_attempt(d, &to->sa, addr_len(to), to);
        if (!err)
            break;
        d->last_err = err;
        d->last_addr = *to;
    }
    if (has_candidate(&d->v4) || has_candidate(&d->v6))
        loop_timer(d->o.loop, &d->next, ATTEMPT_DELAY_MS);
    else if (!to && list_is_empty(&d->attempts) && !d->direct_open && !is_resolving(d))
        next_target(d);
}

static void on_next(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, next);
    if (d->o.targets[d->target].kind == ENDPOINT_UNIX)
        begin_target(d);
    else
        try_next(d);
}

static void take_addresses(struct candidates *c, const struct addr *addrs, size_t n, uint16_t port)
{
    c->addrs = calloc(n, sizeof *c->addrs);
    if (!c->addrs)
        return;
    memcpy(c->addrs, addrs, n * sizeof *addrs);
    c->n = n;
    for (size_t i = 0; i < n; i++)
        addr_set_port(&c->addrs[i], port);
}

static void resolved(struct dial *d, struct candidates *c, int err, const struct addr *addrs,
                     size_t n, const char *why)
{
    if (err == 0)
        take_addresses(c, addrs, n, d->o.targets[d->target].port);
    else if (!d->last_err || d->last_err == PS_EDNS) {
        d->last_err = PS_EDNS;
        d->dns_why = why;
    }
    if (d->v6.query.waiting && !has_candidate(&d->v6) && has_candidate(&d->v4)) {
        loop_timer(d->o.loop, &d->next, RESOLUTION_DELAY_MS);
        return;
    }
    if (d->direct_open || !list_is_empty(&d->attempts)) { /* a race is on: they take their turn */
        if (!timer_is_active(&d->next))
            loop_timer(d->o.loop, &d->next, ATTEMPT_DELAY_MS);
        return;
    }
    try_next(d);
}

static void on_v4(struct resolver_query *q, int err, const struct addr *addrs, size_t n,
                  const char *why)
{
    struct dial *d = container_of(q, struct dial, v4.query);
    resolved(d, &d->v4, err, addrs, n, why);
}

static void on_v6(struct resolver_query *q, int err, const struct addr *addrs, size_t n,
                  const char *why)
{
    struct dial *d = container_of(q, struct dial, v6.query);
    resolved(d, &d->v6, err, addrs, n, why);
}

static void begin_name(struct dial *d, const struct endpoint *e)
{
    /* Both are marked as waiting first: an answer from the cache must not take the other for done.
     */
    size_t target = d->target;
    d->v4.query.waiting = d->v6.query.waiting = true;
    list_init(&d->v4.query.node);
    list_init(&d->v6.query.node);
    resolver_lookup(d->o.resolver, &d->v6.query, e->host, AF_INET6, on_v6);
    if (!d->finished && d->target == target)
        resolver_lookup(d->o.resolver, &d->v4.query, e->host, AF_INET, on_v4);
}

static void begin_unix(struct dial *d, const struct endpoint *e)
{
    struct sockaddr_un un;
    struct addr address = {.sa.sa_family = AF_UNIX};
    socklen_t len = addr_unix(e->host, &un);
    int err = len ? start_attempt(d, (struct sockaddr *)&un, len, &address) : -ENAMETOOLONG;
    bool may_wait = d->deadline_ms || d->target + 1 == d->o.n_targets;
    if (err == -EAGAIN && may_wait) {
        loop_timer(d->o.loop, &d->next, BUSY_DELAY_MS);
    } else if (err) {
        d->last_err = err;
        d->last_addr = address;
        next_target(d);
    }
}

static void arm_share(struct dial *d)
{
    uint64_t now = d->o.loop->now_ms;
    size_t left = d->o.n_targets - d->target;
    if (d->deadline_ms && left > 1 && d->deadline_ms > now)
        loop_timer(d->o.loop, &d->share, (d->deadline_ms - now) / left);
}

static void begin_target(struct dial *d)
{
    if (d->target >= d->o.n_targets) {
        fail_all(d);
        return;
    }
    const struct endpoint *e = &d->o.targets[d->target];
    if (!timer_is_active(&d->share))
        arm_share(d);
    d->v6_last = false;
    if (e->kind == ENDPOINT_UNIX) {
        begin_unix(d, e);
    } else if (e->kind == ENDPOINT_NAME) {
        begin_name(d, e);
    } else {
        take_addresses(e->ip.sa.sa_family == AF_INET ? &d->v4 : &d->v6, &e->ip, 1, e->port);
        try_next(d);
    }
}

int dial_start(const struct dial_options *options, dial_done_fn *done, void *arg, struct dial **out)
{
    struct dial *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->o = *options;
    d->done = done;
    d->arg = arg;
    d->free_task.run = free_dial;
    d->finish_task.run = on_finish;
    list_init(&d->free_task.node);
    list_init(&d->finish_task.node);
    list_init(&d->attempts);
    timer_init(&d->deadline, on_deadline);
    timer_init(&d->share, on_share);
    timer_init(&d->next, on_next);
    if (d->o.timeout_ms) {
        d->deadline_ms = d->o.loop->now_ms + d->o.timeout_ms;
        timers_start(&d->o.loop->timers, &d->deadline, d->deadline_ms);
    }
    *out = d;
    d->starting = true;
    begin_target(d);
    d->starting = false;
    return 0;
}
