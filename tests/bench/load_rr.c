// Messages that are echoed: request and response on kept connections (rr), one message a connection
// (churn), one message and then silence (idle).
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

static bool is_churn(const struct load *load)
{
    return strcmp(load->options.mode, "churn") == 0;
}

static void churn_start(struct load *load, struct stream *stream);

static void finish(struct load *load, struct stream *stream)
{
    if (stream->finished)
        return;
    stream->finished = true;
    load->finished++;
}

// The connection failed: counted once, and in churn a new one takes its place.
static void fail(struct load *load, struct stream *stream, const char *what)
{
    load_error(load, "connection %u: %s", stream->index, what);
    stream_close(stream, true);
    if (is_churn(load) && load->phase != PHASE_DRAIN && load->errors < 100)
        churn_start(load, stream);
    else
        finish(load, stream);
}

static const char *body(const struct load *load, const struct stream *stream)
{
    return load->pattern.send + pattern_at(stream->index, stream->sequence * 97);
}

// The first message of a connection begins with the hello; the rest is pattern, other for each
// message.
static uint32_t hello_part(const struct stream *stream)
{
    return stream->kind == KIND_ONCE || stream->sequence == 0 ? HELLO_BYTES : 0;
}

static void mark_ready(struct load *load, struct stream *stream)
{
    stream->started = true;
    load->ready++;
}

static void push(struct load *load, struct stream *stream)
{
    while (stream->sent < stream->size) {
        uint32_t head = hello_part(stream);
        struct iovec parts[2];
        int count = 0;
        if (stream->sent < head)
            parts[count++] = (struct iovec){stream->hello + stream->sent, head - stream->sent};
        uint64_t from = stream->sent < head ? head : stream->sent;
        if (from < stream->size)
            parts[count++] = (struct iovec){(char *)body(load, stream) + from, stream->size - from};
        ssize_t n = stream_send_parts(load, stream, parts, count);
        if (n < 0 && errno == EAGAIN) {
            stream_watch(load, stream, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            fail(load, stream, strerror(errno));
            return;
        }
        stream->sent += (uint64_t)n;
    }
    stream_watch(load, stream, EPOLLIN);
    if (load->options.unanswered)
        mark_ready(load, stream);
}

static void send_message(struct load *load, struct stream *stream)
{
    stream->sent = stream->received = 0;
    stream->started_ns = now_ns();
    push(load, stream);
}

static void count(struct load *load, struct stream *stream)
{
    if (load->phase != PHASE_MEASURE)
        return;
    load->transactions++;
    // What was under way while the load stood still for the runner is counted but not timed.
    if (stream->started_ns >= load->phase_started_ns)
        load_latency(load, now_ns() - stream->started_ns);
}

static void on_message(struct load *load, struct stream *stream)
{
    if (is_churn(load))
        return; // its end is the backend's close
    bool first = !stream->started;
    if (first)
        mark_ready(load, stream);
    else
        count(load, stream);
    stream->sequence++;
    if (load->phase == PHASE_DRAIN)
        finish(load, stream);
    else if (!first)
        send_message(load, stream);
}

static bool matches(const struct load *load, const struct stream *stream, const char *bytes,
                    size_t length)
{
    uint64_t at = stream->received;
    uint32_t head = hello_part(stream);
    if (at < head) {
        size_t n = head - at < length ? (size_t)(head - at) : length;
        if (memcmp(bytes, stream->hello + at, n) != 0)
            return false;
        bytes += n;
        length -= n;
        at += n;
    }
    return memcmp(bytes, body(load, stream) + at, length) == 0;
}

static void take(struct load *load, struct stream *stream, const char *bytes, size_t length)
{
    if (load->options.unanswered || length > stream->sent - stream->received ||
        !matches(load, stream, bytes, length)) {
        fail(load, stream, "not the echo");
        return;
    }
    stream->received += length;
    if (stream->received == stream->size)
        on_message(load, stream);
}

static void on_eof(struct load *load, struct stream *stream)
{
    if (!is_churn(load) || stream->received < stream->size) {
        fail(load, stream, "end of file before the echo");
        return;
    }
    stream_close(stream, false);
    count(load, stream);
    stream->sequence++;
    if (load->phase == PHASE_SETUP)
        mark_ready(load, stream);
    else if (load->phase == PHASE_DRAIN)
        finish(load, stream);
    else
        churn_start(load, stream);
}

static void on_event(struct load *load, struct stream *stream, uint32_t events)
{
    if ((events & EPOLLOUT) && stream->sent < stream->size) {
        push(load, stream);
        return;
    }
    ssize_t n = stream_recv(load, stream);
    if (n > 0)
        take(load, stream, load->buffer, (size_t)n);
    else if (n == 0)
        on_eof(load, stream);
    else if (errno != EAGAIN)
        fail(load, stream, strerror(errno));
}

static void begin(struct load *load, struct stream *stream, enum kind kind)
{
    stream->kind = kind;
    stream->size = load->options.size;
    hello_write(stream->hello, kind, stream->size, stream->index);
    // The message is sent at once: on loopback the connection stands when connect() returns; if
    // not, or if TLS shakes hands first, push() waits.
    stream->sent = stream->received = 0;
    stream->started_ns = now_ns();
    if (stream_connect(load, stream, on_event))
        push(load, stream);
    else
        finish(load, stream);
}

static void churn_start(struct load *load, struct stream *stream)
{
    begin(load, stream, KIND_ONCE);
}

static void rr_open(struct load *load, struct stream *stream)
{
    begin(load, stream, KIND_ECHO);
}

static void rr_go(struct load *load, struct stream *stream)
{
    if (stream->fd >= 0)
        send_message(load, stream);
}

// To resume, a client needs a session.
static void churn_open(struct load *load, struct stream *stream)
{
    if (load->options.resume)
        churn_start(load, stream);
    else
        mark_ready(load, stream);
}

static void nothing(struct load *load, struct stream *stream)
{
    (void)load;
    (void)stream;
}

// Nothing is under way: each connection is ready to be closed.
static void idle_drain(struct load *load, struct stream *stream)
{
    finish(load, stream);
}

const struct client_ops rr_ops = {rr_open, rr_go, nothing};
const struct client_ops churn_ops = {churn_open, churn_start, nothing};
const struct client_ops idle_ops = {rr_open, nothing, idle_drain};
