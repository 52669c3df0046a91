/* Accepting from a listener in one worker, within its limits. */
#include "penstock/proxy/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#ifdef __linux__
#include <linux/filter.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listener_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/vnet.h"
#include "penstock/proxy/clients.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/stats.h"
#include "penstock/proxy/worker.h"

enum {
    RETRY_MS = 100, /* out of descriptors, or a limit that another worker's connection may free */
    GRACE_MS =
        500, /* for handshakes under way, and less than clients take to ask again (RFC 6298) */
    SERIES_MS = 10000, /* hits of a limit closer than this are one series */
};

/* Waits for clients, or does not. */
static void watch(struct acceptor *a, bool on)
{
    if (a->port)
        vnet_watch(a->port, on);
    else
        poller_set_level(&a->worker->loop.poller, &a->entry, on ? POLLER_IN : 0);
}

static void pause_for(struct acceptor *a, uint64_t ms)
{
    a->paused = true;
    watch(a, false);
    loop_timer(&a->worker->loop, &a->retry, ms);
}

/* True for the first of a series of hits, which is counted. While each accepted client is followed
 * by one that finds the limit reached again, it is one series. */
static bool is_first_hit(struct acceptor *a)
{
    uint64_t now = a->worker->loop.now_ms, before = a->hit_ms;
    a->hit_ms = now;
    if (before && now - before < SERIES_MS)
        return false;
    atomic_fetch_add(&a->listener->limited, 1);
    count_add(&a->stats->limited, 1);
    return true;
}

static const char *acceptor_name(const struct acceptor *a)
{
    return a->config->name ? a->config->name : a->listener->text;
}

static void pause_at_limit(struct acceptor *a, const char *what, uint32_t limit)
{
    if (is_first_hit(a))
        log_warn("%s: %s %u reached: further clients wait in the backlog", acceptor_name(a), what,
                 limit);
    pause_for(a, RETRY_MS);
}

static void resume(struct acceptor *a)
{
    if (!a->paused || a->entry.fd < 0)
        return;
    a->paused = false;
    timers_stop(&a->worker->loop.timers, &a->retry);
    watch(a, true);
}

void acceptor_resume(struct acceptor *a)
{
    for (; a; a = a->also)
        resume(a);
}

static void on_retry(struct timer *timer)
{
    resume(container_of(timer, struct acceptor, retry));
}

/* Takes one of at most `limit`; 0 is no limit. */
static bool take_slot(atomic_uint *count, uint32_t limit)
{
    unsigned before = atomic_fetch_add(count, 1);
    if (!limit || before < limit)
        return true;
    atomic_fetch_sub(count, 1);
    return false;
}

static uint64_t rate_delay_ms(struct listener *l, uint64_t now_ns)
{
    uint64_t wait = 0;
    uv_mutex_lock(&l->rate_lock);
    if (rate_available(&l->rate, now_ns))
        rate_take(&l->rate, 1);
    else
        wait = rate_wait_ms(&l->rate, 1);
    uv_mutex_unlock(&l->rate_lock);
    return wait;
}

/* No client came of it (another worker took it): its token goes back. */
static void rate_refund(struct listener *l)
{
    uv_mutex_lock(&l->rate_lock);
    if (l->rate.tokens < l->rate.burst)
        l->rate.tokens++;
    uv_mutex_unlock(&l->rate_lock);
}

/* Takes the slots that a connection needs before anything is allocated, or pauses. */
static bool admit(struct acceptor *a)
{
    struct listener *l = a->listener;
    struct server_counts *counts = a->worker->counts;
    if (!take_slot(&counts->conns, counts->max_conns)) {
        pause_at_limit(a, "max-conns", counts->max_conns);
        return false;
    }
    if (!take_slot(&l->conns, a->config->limits.conns)) {
        atomic_fetch_sub(&counts->conns, 1);
        pause_at_limit(a, "max-conns-listener", a->config->limits.conns);
        return false;
    }
    return true;
}

static void give_back(struct acceptor *a)
{
    atomic_fetch_sub(&a->listener->conns, 1);
    atomic_fetch_sub(&a->worker->counts->conns, 1);
}

/* accept() failed: what belongs to one client is over with it; a lack of ours pauses the listener.
 */
static void accept_failed(struct acceptor *a, int err)
{
    give_back(a);
    if (a->config->limits.rate)
        rate_refund(a->listener);
    if (err != EMFILE && err != ENFILE && err != ENOBUFS && err != ENOMEM)
        return;
    if (is_first_hit(a))
        log_error("%s: cannot accept: %s: clients wait in the backlog until there is room",
                  acceptor_name(a), err_text(-err));
    pause_for(a, RETRY_MS);
}

/* One client has too many connections: end this one by RST, which leaves no state here. */
static void refuse(struct acceptor *a, struct stream *accepted, const struct addr *client)
{
    give_back(a);
    stream_abort(accepted);
    count_add(&a->stats->limited, 1);
    listener_refused_client(a->listener, a->config, client);
}

/* Is this a client to be counted? A proxy is none: its clients are, once it has told of them. */
static bool is_client(const struct acceptor *a, const struct addr *from)
{
    return a->config->limits.per_ip && !networks_has(a->config->accept_proxy.from, from);
}

/* Accepts one client into `s`. Its address is a struct addr: AF_UNIX carries no path. Returns 0 or
 * a negative errno. */
static int accept_client(struct acceptor *a, struct stream *s, struct addr *client)
{
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};
    socklen_t len = sizeof ss;
    stream_init(s, NULL); /* the connection has the callback */
    *client = (struct addr){0};
    if (a->port)
        return vnet_accept(a->port, s, client);
    s->entry.fd = accept4(a->entry.fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (s->entry.fd < 0)
        return -errno;
    if (ss.ss_family == AF_INET)
        client->in = *(struct sockaddr_in *)&ss;
    else if (ss.ss_family == AF_INET6)
        client->in6 = *(struct sockaddr_in6 *)&ss;
    else
        client->sa.sa_family = AF_UNIX;
    return 0;
}

/* Returns true when there may be more to accept. */
static bool accept_one(struct acceptor *a)
{
    struct listener *l = a->listener;
    struct stream accepted;
    struct addr client;
    if (!admit(a))
        return false;
    uint64_t delay_ms = a->config->limits.rate ? rate_delay_ms(l, a->worker->loop.now_ns) : 0;
    if (delay_ms) {
        give_back(a);
        if (is_first_hit(a))
            log_warn("%s: max-rate %u reached: further clients wait in the backlog",
                     acceptor_name(a), a->config->limits.rate);
        pause_for(a, delay_ms);
        return false;
    }
    int err = accept_client(a, &accepted, &client);
    if (err) {
        accept_failed(a, -err);
        return err == -ECONNABORTED || err == -EINTR || err == -EPROTO;
    }
    bool counted = is_client(a, &client);
    if (counted && !clients_enter(l->clients, &client, a->config->limits.per_ip)) {
        refuse(a, &accepted, &client);
        return true;
    }
    loop_served_prompt(&a->worker->loop);
    if (client.sa.sa_family == AF_UNIX)
        listener_set_options(accepted.entry.fd, &a->config->socket, AF_UNIX);
    err = conn_start(a, &accepted, &client, counted);
    if (err && is_first_hit(a))
        log_error("%s: cannot serve a client: %s", acceptor_name(a), err_text(err));
    if (err)
        pause_for(a, RETRY_MS);
    return err == 0;
}

static void on_client(struct poller_entry *entry, unsigned events)
{
    (void)events;
    accept_one(container_of(entry, struct acceptor, entry));
}

/* No timer and no virtual port is left. */
static void stop(struct acceptor *a)
{
    if (timer_is_active(&a->retry))
        timers_stop(&a->worker->loop.timers, &a->retry);
    if (timer_is_active(&a->grace))
        timers_stop(&a->worker->loop.timers, &a->grace);
    if (a->port)
        vnet_port_close(a->port);
    a->port = NULL;
}

/* The socket is closed, or was already. */
static void tell_drained(struct acceptor *a)
{
    void (*on_drained)(struct acceptor * a, void *arg) = a->on_drained;
    a->on_drained = NULL;
    if (on_drained)
        on_drained(a, a->drained_arg);
}

static bool has_backlog(const struct acceptor *a)
{
    return (a->entry.fd >= 0 || a->port) && !atomic_load(&a->listener->handed_over);
}

static void close_socket(struct acceptor *a)
{
    stop(a);
    if (a->entry.fd >= 0) {
        /* Removed by hand: a UNIX listener's socket lives on in other workers, and with it what
         * epoll knows of it. */
        int fd = a->entry.fd;
        poller_remove(&a->worker->loop.poller, &a->entry);
        close(fd);
    }
}

/* False when clients may be left, for whom there is no room now. */
static bool take_backlog(struct acceptor *a)
{
    while (has_backlog(a) && !a->paused && accept_one(a))
        ;
    return !has_backlog(a) || !a->paused;
}

void acceptor_close(struct acceptor *a)
{
    for (struct acceptor *each = a; each; each = each->also) {
        take_backlog(each);
        close_socket(each);
    }
    tell_drained(a);
}

static bool take_backlogs(struct acceptor *a)
{
    bool taken = true;
    for (; a; a = a->also)
        taken &= take_backlog(a);
    return taken;
}

bool acceptor_try_close(struct acceptor *a)
{
    bool taken = take_backlogs(a);
    if (taken)
        acceptor_close(a);
    return taken;
}

/* Others go, which makes room for those who wait; but not for ever. */
static void on_grace_over(struct timer *timer)
{
    struct acceptor *a = container_of(timer, struct acceptor, grace);
    if (take_backlogs(a) || a->worker->loop.now_ms >= a->close_by_ms)
        acceptor_close(a);
    else
        loop_timer(&a->worker->loop, &a->grace, RETRY_MS);
}

/* From here on the kernel drops what would begin a connection, and still finishes those begun: none
 * comes to the backlog between the last accept() and close(), which would reset it. */
static bool drop_syns(int fd)
{
#ifdef SO_ATTACH_FILTER
    enum { FLAGS = 13, SYN = 0x02, ACK = 0x10, ALL = 0x7fffffff }; /* RFC 9293, 3.1 */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, ALL),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
#else
    (void)fd;
    return false;
#endif
}

/* Newcomers do not find the way. False where that cannot be: others have the socket, too. */
static bool refuse_new(struct acceptor *a)
{
    const struct listener *l = a->listener;
    if (a->entry.fd < 0 || l->shared)
        return false;
    if (l->address.sa.sa_family == AF_UNIX)
        return l->path != NULL; /* listener_unlink() was first */
    return drop_syns(a->entry.fd);
}

void acceptor_drain(struct acceptor *a, uint64_t patience_ms,
                    void (*on_drained)(struct acceptor *a, void *arg), void *arg)
{
    tell_drained(a); /* who had it drained before */
    a->on_drained = on_drained;
    a->drained_arg = arg;
    a->close_by_ms = a->worker->loop.now_ms + patience_ms;
    bool refused = false;
    for (struct acceptor *each = a; each; each = each->also)
        refused |= refuse_new(each);
    if (refused)
        loop_timer(&a->worker->loop, &a->grace, GRACE_MS);
    else
        acceptor_close(a);
}

static void free_acceptor(struct loop_task *task)
{
    struct acceptor *a = container_of(task, struct acceptor, free_task);
    listener_drop(a->listener);
    free(a);
}

/* For one socket; without any in a virtual network. */
static struct acceptor *new_one(struct listener *l, struct worker *w, unsigned socket, int *err)
{
    struct acceptor *a = calloc(1, sizeof *a);
    int fd = -1;
    *err = a ? 0 : -ENOMEM;
    if (a && l->n_fds) {
        fd = listener_copy_socket(l, socket);
        *err = fd < 0 ? fd : 0;
    }
    if (*err) {
        free(a);
        return NULL;
    }
    *a = (struct acceptor){.entry = {.on_event = on_client, .fd = fd},
                           .socket = socket,
                           .listener = listener_hold(l),
                           .worker = w,
                           .free_task.run = free_acceptor};
    list_init(&a->free_task.node);
    list_init(&a->node);
    timer_init(&a->retry, on_retry);
    timer_init(&a->grace, on_grace_over);
    return a;
}

struct acceptor *acceptor_new(struct listener *l, struct worker *w, int *err)
{
    struct acceptor *first = new_one(l, w, l->n_fds ? w->index % l->n_fds : 0, err);
    struct acceptor **next = first ? &first->also : NULL;
    for (unsigned k = w->index + l->workers; next && k < l->n_fds; k += l->workers) {
        *next = new_one(l, w, k, err);
        if (!*next) {
            acceptor_free(first);
            return NULL;
        }
        next = &(*next)->also;
    }
    return first;
}

static int start_virtual(struct acceptor *a)
{
    return vnet_listen(a->worker->loop.options.vnet, a->listener->text, VNET_WINDOW_BYTES,
                       &a->entry, &a->port);
}

/* An adopted socket is changed only now: until here the process before might have gone on. */
static int begin_to_listen(struct acceptor *a)
{
    listener_set_options(a->entry.fd, &a->config->socket, a->listener->address.sa.sa_family);
    return listener_listen(a->entry.fd, &a->config->socket);
}

int acceptor_start(struct acceptor *a, struct generation *g, const struct config_listener *config)
{
    int err = 0;
    for (; a && !err; a = a->also) {
        a->generation = g;
        a->config = config;
        a->stats = worker_listener_stats(a->worker, acceptor_name(a));
        if (a->worker->loop.options.vnet)
            err = start_virtual(a);
        else if (a->listener->adopted)
            err = begin_to_listen(a);
        if (!err && !a->worker->loop.options.vnet)
            err = poller_add_level(&a->worker->loop.poller, &a->entry, POLLER_IN);
    }
    return err;
}

static bool same_socket(const struct config_socket *a, const struct config_socket *b)
{
    return a->nodelay == b->nodelay && a->keepalive_s == b->keepalive_s &&
           a->rcvbuf_bytes == b->rcvbuf_bytes && a->sndbuf_bytes == b->sndbuf_bytes &&
           a->backlog == b->backlog;
}

static void use(struct acceptor *a, struct generation *g, const struct config_listener *config)
{
    const struct config_socket *o = &config->socket;
    if (a->entry.fd >= 0 && !same_socket(&a->config->socket, o)) {
        listener_set_options(a->entry.fd, o, a->listener->address.sa.sa_family);
        listener_listen(a->entry.fd, o);
    }
    const char *before = acceptor_name(a);
    a->generation = g;
    a->config = config;
    if (strcmp(before, acceptor_name(a)) != 0)
        a->stats = worker_listener_stats(a->worker, acceptor_name(a));
    resume(a); /* the limits may be higher now */
}

void acceptor_use(struct acceptor *a, struct generation *g, const struct config_listener *config)
{
    for (; a; a = a->also)
        use(a, g, config);
}

int acceptor_reopen(struct acceptor *a, int fd, unsigned socket)
{
    a->paused = false;
    a->socket = socket;
    a->entry.fd = fd;
    int err = poller_add_level(&a->worker->loop.poller, &a->entry, POLLER_IN);
    if (err) {
        a->entry.fd = -1;
        close(fd);
    }
    return err;
}

static void free_one(struct acceptor *a)
{
    stop(a);
    if (a->entry.fd >= 0)
        close(a->entry.fd);
    if (a->config)
        loop_defer(&a->worker->loop, &a->free_task);
    else
        free_acceptor(&a->free_task);
}

void acceptor_free(struct acceptor *a)
{
    for (struct acceptor *next; a; a = next) {
        next = a->also;
        free_one(a);
    }
}
