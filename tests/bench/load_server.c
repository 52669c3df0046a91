// The backend: accepts, reads the hello, then echoes, verifies or sends. It must not know which
// client load runs.
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void server_free(struct load *load, struct stream *stream, bool reset)
{
    stream_close(stream, reset);
    if (stream->other)
        stream->other->other = NULL;
    if (stream->prev)
        stream->prev->next = stream->next;
    else
        load->servers = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
    free(stream->message);
    free(stream);
}

static struct stream *client_of(struct load *load, struct stream *stream)
{
    return stream->index < load->options.connections ? &load->clients[stream->index] : NULL;
}

// Sends what is left of the message. False: the stream is gone.
static bool answer(struct load *load, struct stream *stream, const char *message)
{
    while (stream->sent < stream->size) {
        ssize_t n = stream_send(stream, message + stream->sent, stream->size - stream->sent);
        if (n < 0 && errno == EAGAIN) {
            if (message != stream->message)
                memcpy(stream->message, message, stream->size);
            stream_watch(load, stream, EPOLLOUT);
            return true;
        }
        if (n < 0) {
            load_error(load, "backend: send: %s", strerror(errno));
            server_free(load, stream, true);
            return false;
        }
        stream->sent += (uint64_t)n;
    }
    stream->received = stream->sent = 0;
    if (stream->kind == KIND_ONCE) {
        // The backend closes first, so TIME_WAIT falls on accepted sockets and uses up no ephemeral
        // port.
        server_free(load, stream, false);
        return false;
    }
    stream_watch(load, stream, EPOLLIN);
    return true;
}

static bool echo(struct load *load, struct stream *stream, const char *bytes, size_t length)
{
    if (length > stream->size - stream->received) {
        load_error(load, "backend: more bytes than were sent");
        server_free(load, stream, true);
        return false;
    }
    if (stream->received == 0 && length == stream->size) {
        stream->received = length;
        return answer(load, stream, bytes);
    }
    memcpy(stream->message + stream->received, bytes, length);
    stream->received += length;
    return stream->received < stream->size || answer(load, stream, stream->message);
}

static void end_sending(struct load *load, struct stream *stream)
{
    struct stream *client = client_of(load, stream);
    if (client && !client->upstream_done) {
        client->upstream_sent = stream->sent;
        client->upstream_done = true;
    }
    stream_end(stream);
    stream_watch(load, stream, EPOLLIN);
}

static void pour(struct load *load, struct stream *stream)
{
    if (pattern_send(load, stream) < 0 && errno != EAGAIN) {
        load_error(load, "backend: send: %s", strerror(errno));
        server_free(load, stream, true);
    }
}

// The hello is whole. False: the stream is gone.
static bool begin(struct load *load, struct stream *stream)
{
    if (!hello_parse(stream->hello, &stream->kind, &stream->size, &stream->index)) {
        load_error(load, "backend: hello not understood");
        server_free(load, stream, true);
        return false;
    }
    if (stream->kind == KIND_DOWN || stream->kind == KIND_UP) {
        struct stream *client = client_of(load, stream);
        stream->other = client;
        if (client)
            client->other = stream;
        if (stream->kind == KIND_DOWN)
            stream_watch(load, stream, EPOLLOUT);
        else if (client)
            bulk_pour(load, client);
        return true;
    }
    stream->message = malloc(stream->size);
    if (!stream->message)
        abort();
    return echo(load, stream, stream->hello, HELLO_BYTES);
}

static void take(struct load *load, struct stream *stream, const char *bytes, size_t length)
{
    if (stream->hello_have < HELLO_BYTES) {
        size_t n = HELLO_BYTES - stream->hello_have;
        if (n > length)
            n = length;
        memcpy(stream->hello + stream->hello_have, bytes, n);
        stream->hello_have += (uint32_t)n;
        bytes += n;
        length -= n;
        if (stream->hello_have < HELLO_BYTES || !begin(load, stream))
            return;
    }
    if (length == 0)
        return;
    if (stream->kind == KIND_UP) {
        pattern_verify(load, stream, bytes, length);
    } else if (stream->kind == KIND_DOWN) {
        load_error(load, "backend: bytes after a hello that asks for none");
    } else {
        echo(load, stream, bytes, length);
    }
}

static void on_eof(struct load *load, struct stream *stream)
{
    struct stream *client = client_of(load, stream);
    if (stream->hello_have == HELLO_BYTES && stream->kind == KIND_UP && client) {
        load->ends_seen++;
        pattern_ended(load, stream);
        if (load->phase != PHASE_DRAIN || stream->received != client->sent) {
            load_error(load, "connection %u: %llu of %llu bytes arrived", stream->index,
                       (unsigned long long)stream->received, (unsigned long long)client->sent);
        }
    } else if (stream->hello_have == HELLO_BYTES && stream->kind == KIND_DOWN &&
               load->phase != PHASE_DRAIN) {
        load_error(load, "backend: end of file while sending");
    }
    server_free(load, stream, false);
}

static void on_stream(struct load *load, struct stream *stream, uint32_t events)
{
    if (events & EPOLLOUT) {
        if (stream->kind == KIND_DOWN)
            pour(load, stream);
        else
            answer(load, stream, stream->message);
        return;
    }
    ssize_t n = stream_recv(load, stream);
    if (n > 0) {
        take(load, stream, load->buffer, (size_t)n);
    } else if (n == 0) {
        on_eof(load, stream);
    } else if (errno != EAGAIN) {
        if (load->phase != PHASE_DRAIN)
            load_error(load, "backend: recv: %s", strerror(errno));
        server_free(load, stream, true);
    }
}

static void on_accept(struct load *load, struct stream *listener, uint32_t events)
{
    (void)events;
    for (int i = 0; i < 16; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED)
                load_error(load, "backend: accept: %s", strerror(errno));
            return;
        }
        struct stream *stream = calloc(1, sizeof(*stream));
        if (!stream)
            abort();
        stream->fd = fd;
        stream->on_event = on_stream;
        stream->next = load->servers;
        if (load->servers)
            load->servers->prev = stream;
        load->servers = stream;
        if (load->options.tls_identity)
            tls_start(load, stream, false);
        stream_watch(load, stream, EPOLLIN);
    }
}

void server_start(struct load *load)
{
    int one = 1;
    load->listener.fd = load->options.listen_fd;
    load->listener.on_event = on_accept;
    // Accepted sockets inherit it.
    setsockopt(load->listener.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    stream_watch(load, &load->listener, EPOLLIN);
}

void server_drain(struct load *load)
{
    for (struct stream *stream = load->servers; stream; stream = stream->next) {
        if (stream->hello_have == HELLO_BYTES && stream->kind == KIND_DOWN)
            end_sending(load, stream);
    }
}

void server_stop(struct load *load)
{
    while (load->servers)
        server_free(load, load->servers, true);
    stream_close(&load->listener, false);
}
