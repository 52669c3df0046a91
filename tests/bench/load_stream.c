// One end of a connection: its socket, what epoll watches for it, and bytes in and out, plain or
// through TLS.
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void stream_watch(struct load *load, struct stream *stream, uint32_t interest)
{
    stream->interest = interest;
    uint32_t wanted = stream->tls ? tls_interest(stream->tls, interest) : interest;
    if (stream->watched == wanted)
        return;
    struct epoll_event event = {.events = wanted, .data.ptr = stream};
    int op = stream->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(load->epoll_fd, op, stream->fd, &event) != 0)
        load_error(load, "epoll_ctl: %s", strerror(errno));
    stream->watched = wanted;
}

bool stream_connect(struct load *load, struct stream *stream, stream_event_fn on_event)
{
    int one = 1;
    stream->on_event = on_event;
    stream->interest = stream->watched = 0;
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream->fd < 0) {
        load_error(load, "socket: %s", strerror(errno));
        return false;
    }
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    const struct sockaddr *target = (const struct sockaddr *)&load->options.target;
    if (connect(stream->fd, target, sizeof(load->options.target)) != 0 && errno != EINPROGRESS) {
        load_error(load, "connect: %s", strerror(errno));
        stream_close(stream, true);
        return false;
    }
    if (load->options.tls_trusted)
        tls_start(load, stream, true);
    return true;
}

ssize_t stream_send(struct stream *stream, const char *bytes, size_t length)
{
    if (stream->tls)
        return tls_send(stream->tls, bytes, length);
    return send(stream->fd, bytes, length, MSG_NOSIGNAL);
}

ssize_t stream_send_parts(struct load *load, struct stream *stream, struct iovec *parts, int count)
{
    if (!stream->tls) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        return sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    }
    if (count == 1)
        return tls_send(stream->tls, parts->iov_base, parts->iov_len);
    // One record, not two. What was received into the buffer has been dealt with.
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        memcpy(load->buffer + length, parts[i].iov_base, parts[i].iov_len);
        length += parts[i].iov_len;
    }
    return tls_send(stream->tls, load->buffer, length);
}

ssize_t stream_recv(struct load *load, struct stream *stream)
{
    if (stream->tls)
        return tls_recv(stream->tls, load->buffer, CHUNK_BYTES);
    return recv(stream->fd, load->buffer, CHUNK_BYTES, 0);
}

void stream_end(struct stream *stream)
{
    if (stream->tls)
        tls_end(stream->tls);
    else
        shutdown(stream->fd, SHUT_WR);
}

void stream_close(struct stream *stream, bool reset)
{
    if (stream->fd < 0)
        return;
    if (stream->tls)
        tls_close(stream->tls, !reset);
    if (reset) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    close(stream->fd);
    stream->fd = -1;
    stream->interest = stream->watched = 0;
}
