// Bulk: every connection moves the pattern one way, as fast as it goes, and is ended by a
// half-close that must bring the last byte through.
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

static bool is_up(const struct load *load)
{
    return strcmp(load->options.mode, "up") == 0;
}

static void mark_ready(struct load *load, struct stream *stream)
{
    if (stream->started)
        return;
    stream->started = true;
    load->ready++;
}

static void finish(struct load *load, struct stream *stream)
{
    if (stream->finished)
        return;
    stream->finished = true;
    load->finished++;
    stream_close(stream, false);
}

static void fail(struct load *load, struct stream *stream, const char *what)
{
    load_error(load, "connection %u: %s: %s", stream->index, what, strerror(errno));
    stream->finished = true;
    load->finished++;
    stream_close(stream, true);
}

static void send_hello(struct load *load, struct stream *stream)
{
    hello_write(stream->hello, is_up(load) ? KIND_UP : KIND_DOWN, 0, stream->index);
    ssize_t n = stream_send(stream, stream->hello, HELLO_BYTES);
    if (n < 0 && errno == EAGAIN)
        return; // not connected yet, or the handshake is under way
    if (n != HELLO_BYTES) {
        fail(load, stream, "hello");
        return;
    }
    stream->hello_have = HELLO_BYTES;
    stream_watch(load, stream, EPOLLIN);
}

void bulk_pour(struct load *load, struct stream *stream)
{
    if (stream->fd >= 0 && stream->hello_have == HELLO_BYTES && is_up(load))
        stream_watch(load, stream, EPOLLOUT);
}

static void pour(struct load *load, struct stream *stream)
{
    if (pattern_send(load, stream) >= 0)
        mark_ready(load, stream);
    else if (errno != EAGAIN)
        fail(load, stream, "send");
}

static void on_eof(struct load *load, struct stream *stream)
{
    if (load->phase != PHASE_DRAIN) {
        errno = ECONNRESET;
        fail(load, stream, "end of file while sending");
        return;
    }
    if (!is_up(load) && stream->received != stream->upstream_sent) {
        load_error(load, "connection %u: %llu of %llu bytes arrived", stream->index,
                   (unsigned long long)stream->received, (unsigned long long)stream->upstream_sent);
    }
    pattern_ended(load, stream);
    finish(load, stream);
}

static void on_event(struct load *load, struct stream *stream, uint32_t events)
{
    if (stream->hello_have < HELLO_BYTES) {
        send_hello(load, stream);
        return;
    }
    if ((stream->interest & EPOLLOUT) && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        pour(load, stream);
        return;
    }
    ssize_t n = stream_recv(load, stream);
    if (n > 0) {
        mark_ready(load, stream);
        if (is_up(load))
            load_error(load, "connection %u: bytes nobody sent", stream->index);
        else
            pattern_verify(load, stream, load->buffer, (size_t)n);
    } else if (n == 0) {
        on_eof(load, stream);
    } else if (errno != EAGAIN) {
        fail(load, stream, "recv");
    }
}

static void bulk_open(struct load *load, struct stream *stream)
{
    if (stream_connect(load, stream, on_event))
        stream_watch(load, stream, EPOLLOUT);
}

static void bulk_go(struct load *load, struct stream *stream)
{
    (void)load;
    (void)stream;
}

static void bulk_drain(struct load *load, struct stream *stream)
{
    if (stream->finished || stream->fd < 0 || !is_up(load))
        return;
    stream_end(stream);
    stream_watch(load, stream, EPOLLIN);
}

const struct client_ops bulk_ops = {bulk_open, bulk_go, bulk_drain};
