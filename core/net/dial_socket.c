/* The sockets of a dial. Knows nothing of targets and turns. */
#include "dial_socket.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

enum { EPHEMERAL = 32768 }; /* a loopback port from here on may connect to itself */

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

int dial_socket_outcome(struct stream *s, unsigned events, const struct addr *to)
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
static int open_socket(const struct dial_socket_way *way)
{
    int family = way->to->sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_options(fd, way->options, family);
    int err = bind_source(fd, way->source, family);
    if (!err && connect(fd, way->to, way->len) && errno != EINPROGRESS)
        err = -errno;
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

int dial_socket_connect(struct stream *s, struct poller *p, const struct dial_socket_way *way)
{
    int fd = open_socket(way);
    if (fd < 0)
        return fd;
    s->entry.fd = fd;
    int err = poller_add_edge(p, &s->entry);
    if (err)
        stream_close(s);
    return err;
}
