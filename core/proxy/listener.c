/* Opening listening sockets, and accepting from them within the limits. */
#include "penstock/proxy/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/vnet.h"
#include "penstock/proxy/clients.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/inherited.h"
#include "penstock/proxy/stats.h"
#include "penstock/proxy/worker.h"

enum {
    RETRY_MS = 100, /* out of descriptors, or a limit that another worker's connection may free */
    BACKLOG = 4096,
    SERIES_MS = 10000, /* hits of a limit closer than this are one series */
};

/* --- sockets
 * -------------------------------------------------------------------------------------------- */

static void set_int(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

/* Accepted TCP sockets inherit all of these, which saves calls for each connection; UNIX ones
 * inherit nothing. */
static void set_options(int fd, const struct config_socket *o, int family)
{
    /* Urgent data stays in the stream, in its place. */
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    if (o->rcvbuf_bytes)
        set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)o->rcvbuf_bytes);
    if (o->sndbuf_bytes)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)o->sndbuf_bytes);
    if (family == AF_UNIX)
        return;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, o->nodelay);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, o->keepalive_s != 0);
#ifdef TCP_KEEPIDLE
    if (o->keepalive_s)
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)o->keepalive_s);
#endif
    if (family == AF_INET6)
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0); /* [::] takes both families */
}

/* A bound, listening socket, or a negative errno. The first of a group binds alone, so that a port
 * which somebody else shares by SO_REUSEPORT is "in use" as people expect; only then it opens up to
 * the others of its group. */
static int open_socket(const struct sockaddr *sa, socklen_t len, const struct config_socket *o,
                       bool first, bool group)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_options(fd, o, sa->sa_family);
    if (!first)
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (bind(fd, sa, len))
        goto fail;
    if (first && group)
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (listen(fd, (int)(o->backlog ? o->backlog : BACKLOG)))
        goto fail;
    return fd;
fail:;
    int err = -errno;
    close(fd);
    return err;
}

/* A socket file whose process has gone is in the way of bind(): remove it, but only when nobody
 * answers. */
static void remove_stale(const struct sockaddr_un *un, socklen_t len)
{
    struct stat st;
    if (!un->sun_path[0] || lstat(un->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)un, len) && errno == ECONNREFUSED)
        unlink(un->sun_path);
    close(fd);
}

static int open_unix(struct listener *l, const struct config_listener *config)
{
    struct sockaddr_un un;
    socklen_t len = addr_unix(config->bind.host, &un);
    if (!len)
        return -ENAMETOOLONG;
    remove_stale(&un, len);
    int fd = open_socket((struct sockaddr *)&un, len, &config->socket, true, false);
    if (fd < 0)
        return fd;
    l->fds[l->n_fds++] = fd;
    l->address.sa.sa_family = AF_UNIX;
    struct stat st;
    if (un.sun_path[0] && stat(un.sun_path, &st) == 0) {
        l->path = strdup(un.sun_path);
        l->path_dev = st.st_dev;
        l->path_ino = st.st_ino;
    }
    return 0;
}

/* A socket that was listening before we were started; its descriptor stays open, so that a reload
 * finds it. */
static int open_inherited(struct listener *l, const struct config_listener *config, char *why,
                          size_t why_cap)
{
    int listening = 0, fd = config->bind.fd;
    if (fd < 0) {
        int err = inherited_find(config->bind.host, &fd, why, why_cap);
        if (err)
            return err;
    }
    socklen_t len = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len))
        return -errno;
    if (!listening)
        return -EINVAL;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return -errno;
    l->fds[l->n_fds++] = own;
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};
    len = sizeof ss;
    getsockname(own, (struct sockaddr *)&ss, &len);
    if (ss.ss_family == AF_INET || ss.ss_family == AF_INET6)
        memcpy(&l->address, &ss,
               ss.ss_family == AF_INET ? sizeof l->address.in : sizeof l->address.in6);
    else
        l->address.sa.sa_family = AF_UNIX;
    set_options(own, &config->socket, ss.ss_family);
    return fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK) ? -errno : 0;
}

static int open_inet(struct listener *l, const struct config_listener *config, unsigned workers)
{
    struct addr at = config->bind.ip;
    addr_set_port(&at, config->bind.port);
    for (unsigned i = 0; i < workers; i++) {
        int fd = open_socket(&at.sa, addr_len(&at), &config->socket, i == 0, workers > 1);
        if (fd < 0)
            return fd;
        l->fds[l->n_fds++] = fd;
        socklen_t len = sizeof at;
        if (i == 0 && getsockname(fd, &at.sa, &len)) /* port 0 is a real port now */
            return -errno;
    }
    l->address = at;
    return 0;
}

void listener_release(struct listener *l)
{
    for (unsigned i = 0; i < l->n_fds; i++) {
        if (l->fds[i] >= 0)
            close(l->fds[i]);
        l->fds[i] = -1;
    }
}

static const char *advice(int err, enum endpoint_kind kind)
{
    if (kind == ENDPOINT_FD)
        return " (fd:N is a listening socket that was open at start, as systemd's socket units "
               "give "
               "it)";
    switch (err) {
    case -EADDRINUSE:
        if (kind == ENDPOINT_UNIX)
            return " (another process listens there, or a file is in the way: remove it, or choose "
                   "another path)";
        return " (another process listens there: stop it, or choose another port)";
    case -EACCES:
        return " (ports under 1024 need root or CAP_NET_BIND_SERVICE; a UNIX socket needs a "
               "writable folder)";
    case -EADDRNOTAVAIL:
        return " (no interface of this machine has that address)";
    default:
        return "";
    }
}

int listener_prepare(struct listener *l, const struct config_listener *config)
{
    /* Read by workers only once they have a configuration with a limit, which is later than this.
     */
    if (config->limits.per_ip && !l->clients && !(l->clients = clients_new()))
        return -ENOMEM;
    return 0;
}

void listener_set_rate(struct listener *l, const struct config_listener *config, uint64_t now_ns)
{
    if (config->limits.rate == l->rate_limit)
        return;
    uv_mutex_lock(&l->rate_lock);
    l->rate_limit = config->limits.rate;
    if (l->rate_limit) /* a second's worth may come at once */
        rate_init(&l->rate, l->rate_limit, l->rate_limit, now_ns);
    uv_mutex_unlock(&l->rate_lock);
}

/* May leave a message in `why`, when there is more to say than the error does. */
static int open_sockets(struct listener *l, const struct config_listener *config, unsigned workers,
                        char *why, size_t why_cap)
{
    switch (config->bind.kind) {
    case ENDPOINT_UNIX:
        return open_unix(l, config);
    case ENDPOINT_FD:
        return open_inherited(l, config, why, why_cap);
    default:
        return open_inet(l, config, workers);
    }
}

static struct listener *listener_new(const struct config_listener *config, unsigned workers)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->refs = 1;
    uv_mutex_init(&l->rate_lock);
    l->fds = calloc(workers, sizeof *l->fds);
    l->bind = strdup(config->bind.text);
    if (l->fds && l->bind)
        return l;
    listener_drop(l);
    return NULL;
}

int listener_open(struct listener **out, const struct config_listener *config, unsigned workers,
                  char *why, size_t why_cap)
{
    char more[512] = "";
    struct listener *l = listener_new(config, workers);
    int err = l ? listener_prepare(l, config) : -ENOMEM;
    if (!err)
        err = open_sockets(l, config, workers, more, sizeof more);
    if (err) {
        if (l)
            listener_drop(l);
        snprintf(why, why_cap, "cannot listen on %s: %s%s", config->bind.text,
                 *more ? more : err_text(err), *more ? "" : advice(err, config->bind.kind));
        return err;
    }
    listener_set_rate(l, config, clock_now_ns());
    if (l->address.sa.sa_family == AF_UNIX)
        snprintf(l->text, sizeof l->text, "%s", l->bind);
    else
        addr_format(&l->address, l->text, sizeof l->text);
    *out = l;
    return 0;
}

int listener_open_virtual(struct listener **out, const struct config_listener *config,
                          uint64_t now_ns)
{
    struct listener *l = listener_new(config, 1);
    int err = l ? listener_prepare(l, config) : -ENOMEM;
    if (err) {
        if (l)
            listener_drop(l);
        return err;
    }
    listener_set_rate(l, config, now_ns);
    l->address = config->bind.ip;
    snprintf(l->text, sizeof l->text, "%s", config->bind.text);
    *out = l;
    return 0;
}

void listener_unlink(struct listener *l)
{
    struct stat st;
    /* A successor may have put its own there while we drained. */
    if (l->path && lstat(l->path, &st) == 0 && st.st_ino == l->path_ino && st.st_dev == l->path_dev)
        unlink(l->path);
}

struct listener *listener_hold(struct listener *l)
{
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void listener_drop(struct listener *l)
{
    /* The last one to drop must see what the others did before they let go. */
    if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    listener_release(l);
    clients_free(l->clients);
    uv_mutex_destroy(&l->rate_lock);
    free(l->fds);
    free(l->bind);
    free(l->path);
    free(l);
}

/* --- accepting
 * ------------------------------------------------------------------------------------------- */

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

void acceptor_resume(struct acceptor *a)
{
    if (!a->paused || a->entry.fd < 0)
        return;
    a->paused = false;
    timers_stop(&a->worker->loop.timers, &a->retry);
    watch(a, true);
}

static void on_retry(struct timer *timer)
{
    acceptor_resume(container_of(timer, struct acceptor, retry));
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

void listener_refused_client(struct listener *l, const struct config_listener *config,
                             const struct addr *client)
{
    char text[ADDR_TEXT_MAX];
    atomic_fetch_add(&l->limited, 1);
    unsigned long long n = atomic_fetch_add(&l->refused, 1) + 1;
    if ((n & (n - 1)) == 0) /* 1, 2, 4, 8, …: told, without a flood */
        log_warn("%s: max-per-ip %u reached by %s (%llu refused so far)",
                 config->name ? config->name : l->text, config->limits.per_ip,
                 addr_format_ip(client, text, sizeof text), n);
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
        set_options(accepted.entry.fd, &a->config->socket, AF_UNIX);
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

static void free_acceptor(struct loop_task *task)
{
    struct acceptor *a = container_of(task, struct acceptor, free_task);
    listener_drop(a->listener);
    free(a);
}

/* A descriptor of its own for worker `w`, or a negative errno; -1 in a virtual network. */
static int copy_socket(const struct listener *l, const struct worker *w)
{
    int fd = fcntl(l->fds[l->n_fds > 1 ? w->index : 0], F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
}

struct acceptor *acceptor_new(struct listener *l, struct worker *w, int *err)
{
    struct acceptor *a = calloc(1, sizeof *a);
    int fd = -1;
    *err = a ? 0 : -ENOMEM;
    if (a && !w->loop.options.vnet) {
        fd = copy_socket(l, w);
        *err = fd < 0 ? fd : 0;
    }
    if (*err) {
        free(a);
        return NULL;
    }
    *a = (struct acceptor){.entry = {.on_event = on_client, .fd = fd},
                           .listener = listener_hold(l),
                           .worker = w,
                           .free_task.run = free_acceptor};
    list_init(&a->free_task.node);
    timer_init(&a->retry, on_retry);
    return a;
}

static int start_virtual(struct acceptor *a)
{
    return vnet_listen(a->worker->loop.options.vnet, a->listener->text, VNET_WINDOW_BYTES,
                       &a->entry, &a->port);
}

int acceptor_start(struct acceptor *a, const struct config_listener *config)
{
    a->config = config;
    a->stats = worker_listener_stats(a->worker, acceptor_name(a));
    if (a->worker->loop.options.vnet)
        return start_virtual(a);
    return poller_add_level(&a->worker->loop.poller, &a->entry, POLLER_IN);
}

static bool same_socket(const struct config_socket *a, const struct config_socket *b)
{
    return a->nodelay == b->nodelay && a->keepalive_s == b->keepalive_s &&
           a->rcvbuf_bytes == b->rcvbuf_bytes && a->sndbuf_bytes == b->sndbuf_bytes &&
           a->backlog == b->backlog;
}

void acceptor_use(struct acceptor *a, const struct config_listener *config)
{
    const struct config_socket *o = &config->socket;
    if (a->entry.fd >= 0 && !same_socket(&a->config->socket, o)) {
        set_options(a->entry.fd, o, a->listener->address.sa.sa_family);
        listen(a->entry.fd, (int)(o->backlog ? o->backlog : BACKLOG));
    }
    const char *before = acceptor_name(a);
    a->config = config;
    if (strcmp(before, acceptor_name(a)) != 0)
        a->stats = worker_listener_stats(a->worker, acceptor_name(a));
    acceptor_resume(a); /* the limits may be higher now */
}

/* No timer and no virtual port is left. */
static void stop(struct acceptor *a)
{
    if (timer_is_active(&a->retry))
        timers_stop(&a->worker->loop.timers, &a->retry);
    if (a->port)
        vnet_port_close(a->port);
    a->port = NULL;
}

void acceptor_drain(struct acceptor *a)
{
    timers_stop(&a->worker->loop.timers, &a->retry);
    while (!a->paused && accept_one(a))
        ;
    stop(a);
    if (a->entry.fd < 0)
        return;
    /* Removed by hand: a UNIX listener's socket lives on in other workers, and with it what epoll
     * knows of it. */
    int fd = a->entry.fd;
    poller_remove(&a->worker->loop.poller, &a->entry);
    close(fd);
}

void acceptor_free(struct acceptor *a)
{
    stop(a);
    if (a->entry.fd >= 0)
        close(a->entry.fd);
    if (a->config)
        loop_defer(&a->worker->loop, &a->free_task);
    else
        free_acceptor(&a->free_task);
}
