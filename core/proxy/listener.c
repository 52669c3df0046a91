/* Opening listening sockets, and closing them. */
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
#include "penstock/proxy/clients.h"
#include "listener_priv.h"
#include "penstock/proxy/inherited.h"

enum { BACKLOG = 4096 };

/* --- sockets
 * -------------------------------------------------------------------------------------------- */

static void set_int(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

void listener_set_options(int fd, const struct config_socket *o, int family)
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

int listener_listen(int fd, const struct config_socket *o)
{
    return listen(fd, (int)(o->backlog ? o->backlog : BACKLOG)) ? -errno : 0;
}

/* A bound socket, or a negative errno. The first of a group binds alone, so that a port which
 * somebody else shares by SO_REUSEPORT is "in use" as people expect; only then it opens up to the
 * others of its group. */
static int bind_socket(const struct sockaddr *sa, socklen_t len, const struct config_socket *o,
                       bool first, bool group)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    listener_set_options(fd, o, sa->sa_family);
    if (!first)
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (bind(fd, sa, len))
        goto fail;
    if (first && group)
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    return fd;
fail:;
    int err = -errno;
    close(fd);
    return err;
}

/* The same, listening. */
static int open_socket(const struct sockaddr *sa, socklen_t len, const struct config_socket *o,
                       bool first, bool group)
{
    int fd = bind_socket(sa, len, o, first, group);
    int err = fd < 0 ? 0 : listener_listen(fd, o);
    if (!err)
        return fd;
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
    free(l->path);
    l->path = NULL;
    if (un.sun_path[0] && stat(un.sun_path, &st) == 0) {
        l->path = strdup(un.sun_path);
        l->path_dev = st.st_dev;
        l->path_ino = st.st_ino;
    }
    return 0;
}

static void learn_address(struct listener *l, int fd)
{
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};
    socklen_t len = sizeof ss;
    getsockname(fd, (struct sockaddr *)&ss, &len);
    if (ss.ss_family == AF_INET || ss.ss_family == AF_INET6)
        memcpy(&l->address, &ss,
               ss.ss_family == AF_INET ? sizeof l->address.in : sizeof l->address.in6);
    else
        l->address.sa.sa_family = AF_UNIX;
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
    l->shared = true;
    learn_address(l, own);
    listener_set_options(own, &config->socket, l->address.sa.sa_family);
    return fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK) ? -errno : 0;
}

static int open_inet(struct listener *l, const struct config_listener *config, unsigned workers)
{
    struct addr at = l->address; /* where it was: a port that was free once is its own */
    if (at.sa.sa_family == AF_UNSPEC) {
        at = config->bind.ip;
        addr_set_port(&at, config->bind.port);
    }
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

int listener_copy_socket(const struct listener *l, unsigned index)
{
    int fd = fcntl(l->fds[index % l->n_fds], F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
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

static void give_text(struct listener *l)
{
    if (l->address.sa.sa_family == AF_UNIX)
        snprintf(l->text, sizeof l->text, "%s", l->bind);
    else
        addr_format(&l->address, l->text, sizeof l->text);
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

/* With room for `n` sockets, at least one a worker. */
static struct listener *listener_new(const struct config_listener *config, unsigned workers,
                                     unsigned n)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->refs = 1;
    l->workers = workers;
    uv_mutex_init(&l->rate_lock);
    l->fds = calloc(n > workers ? n : workers, sizeof *l->fds);
    l->bind = strdup(config->bind.text);
    if (l->fds && l->bind)
        return l;
    listener_drop(l);
    return NULL;
}

/* The same, with a message in `why`. */
static int open_or_explain(struct listener *l, const struct config_listener *config,
                           unsigned workers, char *why, size_t why_cap)
{
    char more[512] = "";
    int err = open_sockets(l, config, workers, more, sizeof more);
    if (err)
        snprintf(why, why_cap, "cannot listen on %s: %s%s", *l->text ? l->text : config->bind.text,
                 *more ? more : err_text(err), *more ? "" : advice(err, config->bind.kind));
    return err;
}

int listener_open(struct listener **out, const struct config_listener *config, unsigned workers,
                  char *why, size_t why_cap)
{
    struct listener *l = listener_new(config, workers, 0);
    int err = l ? listener_prepare(l, config) : -ENOMEM;
    if (err)
        snprintf(why, why_cap, "cannot listen on %s: %s", config->bind.text, err_text(err));
    else
        err = open_or_explain(l, config, workers, why, why_cap);
    if (err) {
        if (l)
            listener_drop(l);
        return err;
    }
    give_text(l);
    listener_set_rate(l, config, clock_now_ns());
    *out = l;
    return 0;
}

/* Sockets for the workers that have none; who gets none shares one. They do not listen yet: the
 * kernel would give them clients of the process before, which goes on when this one fails. */
static void open_further(struct listener *l, const struct config_listener *config)
{
    if (l->n_fds < l->workers)
        set_int(l->fds[0], SOL_SOCKET, SO_REUSEPORT, 1);
    while (l->n_fds < l->workers) {
        int fd = bind_socket(&l->address.sa, addr_len(&l->address), &config->socket, false, true);
        if (fd < 0) {
            log_warn("%s: %u workers share %u socket%s: %s", config->bind.text, l->workers,
                     l->n_fds, l->n_fds == 1 ? "" : "s", err_text(fd));
            return;
        }
        l->fds[l->n_fds++] = fd;
    }
}

static void adopt_path(struct listener *l, const char *path, const struct listener_sockets *from)
{
    if (!from->path_ino)
        return;
    l->path = strdup(path);
    l->path_dev = from->path_dev;
    l->path_ino = from->path_ino;
    l->borrowed = true;
}

int listener_adopt(struct listener **out, const struct config_listener *config, unsigned workers,
                   struct listener_sockets *from)
{
    struct listener *l = listener_new(config, workers, from->n);
    if (!l) {
        while (from->n)
            close(from->fds[--from->n]);
        return -ENOMEM;
    }
    for (; l->n_fds < from->n; l->n_fds++) {
        l->fds[l->n_fds] = from->fds[l->n_fds];
        learn_address(l, l->fds[l->n_fds]);
    }
    l->adopted = true;
    from->n = 0;
    int err = listener_prepare(l, config);
    if (err) {
        listener_drop(l);
        return err;
    }
    if (config->bind.kind == ENDPOINT_UNIX)
        adopt_path(l, config->bind.host, from);
    else
        open_further(l, config);
    give_text(l);
    listener_set_rate(l, config, clock_now_ns());
    *out = l;
    return 0;
}

int listener_reopen(struct listener *l, const struct config_listener *config, unsigned workers,
                    char *why, size_t why_cap)
{
    l->n_fds = 0; /* they are closed: listener_release() */
    int err = open_or_explain(l, config, workers, why, why_cap);
    if (err)
        listener_release(l);
    return err;
}

int listener_open_virtual(struct listener **out, const struct config_listener *config,
                          uint64_t now_ns)
{
    struct listener *l = listener_new(config, 1, 0);
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
    if (l->borrowed)
        return;
    if (l->path && l->path_ino && lstat(l->path, &st) == 0 && st.st_ino == l->path_ino &&
        st.st_dev == l->path_dev)
        unlink(l->path);
    l->path_ino = 0; /* another file may get the same number */
}

void listener_own(struct listener *l)
{
    l->borrowed = false;
}

void listener_hand_over(struct listener *l)
{
    l->borrowed = true;
    atomic_store(&l->handed_over, true);
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
