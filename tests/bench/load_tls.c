// TLS of the load: OpenSSL between a stream and its socket. Ciphertext goes through buffers of the
// load's size in both directions, as OpenSSL by itself makes one system call a record, and two to
// read one.
#include "load.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SERVER_NAME "localhost"
#define CIPHERSUITE "TLS_AES_128_GCM_SHA256"
#define GROUPS "X25519:P-256"
// Less than a chunk by more than a record, which OpenSSL may hold in part: what comes of one read
// fits into the load's buffer.
#define READ_BYTES (CHUNK_BYTES - 32u * 1024u)
#define OUT_MIN_BYTES 2048u

struct tls {
    struct load *load;
    struct stream *stream;
    SSL *ssl;
    char *out; // ciphertext that the socket has not taken: from out_start to out_end
    size_t out_start;
    size_t out_end;
    size_t out_room;
    bool established;
    bool failed; // an error was counted
    bool ended;  // close_notify came
    bool ending; // a FIN follows when `out` is empty
};

struct tls_context {
    SSL_CTX *client; // NULL: plain clients
    SSL_CTX *server; // NULL: a plain backend
    BIO_METHOD *method;
    char *read;         // READ_BYTES, for one recv
    const char *unread; // what OpenSSL has not taken of it
    size_t unread_length;
};

static void fail_for(struct tls *tls, const char *what, const char *reason)
{
    const char *side = SSL_is_server(tls->ssl) ? "backend" : "connection";
    load_error(tls->load, "%s %u: TLS: %s: %s", side, tls->stream->index, what, reason);
    tls->failed = true;
}

static void fail(struct tls *tls, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : strerror(errno);
    fail_for(tls, what, reason ? reason : "unknown");
}

static void make_room(struct tls *tls, size_t length)
{
    if (tls->out_room - tls->out_end >= length)
        return;
    size_t room = tls->out_room ? tls->out_room : OUT_MIN_BYTES;
    while (room - tls->out_end < length)
        room *= 2;
    tls->out = realloc(tls->out, room);
    if (!tls->out)
        abort();
    tls->out_room = room;
}

static int on_bio_write(BIO *bio, const char *bytes, int length)
{
    struct tls *tls = BIO_get_data(bio);
    make_room(tls, (size_t)length);
    memcpy(tls->out + tls->out_end, bytes, (size_t)length);
    tls->out_end += (size_t)length;
    return length;
}

// The handshake reads the socket itself: when it is through, the rest is still there and epoll
// tells of it.
static int on_bio_read(BIO *bio, char *bytes, int room)
{
    struct tls *tls = BIO_get_data(bio);
    struct tls_context *context = tls->load->tls;
    BIO_clear_retry_flags(bio);
    if (!tls->established) {
        ssize_t n = recv(tls->stream->fd, bytes, (size_t)room, 0);
        if (n < 0 && errno == EAGAIN)
            BIO_set_retry_read(bio);
        return (int)n;
    }
    size_t n = context->unread_length < (size_t)room ? context->unread_length : (size_t)room;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(bytes, context->unread, n);
    context->unread += n;
    context->unread_length -= n;
    return (int)n;
}

static long on_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

uint32_t tls_interest(const struct tls *tls, uint32_t interest)
{
    bool waits = tls->out_end > 0;
    if (!tls->established && !tls->failed)
        return waits ? EPOLLOUT : EPOLLIN;
    return waits ? interest | EPOLLOUT : interest;
}

// True: nothing waits any more.
static bool flush(struct tls *tls)
{
    struct stream *stream = tls->stream;
    while (tls->out_start < tls->out_end && !tls->failed) {
        ssize_t n = send(stream->fd, tls->out + tls->out_start, tls->out_end - tls->out_start,
                         MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            fail(tls, "send");
        else
            tls->out_start += (size_t)n;
    }
    if (tls->out_start == tls->out_end) {
        tls->out_start = tls->out_end = 0;
        if (tls->ending)
            shutdown(stream->fd, SHUT_WR);
        tls->ending = false;
    }
    stream_watch(tls->load, stream, stream->interest);
    return tls->out_end == 0;
}

static void shake_hands(struct tls *tls)
{
    ERR_clear_error();
    int status = SSL_do_handshake(tls->ssl);
    if (status != 1 && SSL_get_error(tls->ssl, status) != SSL_ERROR_WANT_READ)
        fail(tls, "handshake");
    tls->established = status == 1;
    if (tls->established && tls->stream->session && !SSL_session_reused(tls->ssl))
        fail_for(tls, "handshake", "the session was not resumed");
    flush(tls);
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct stream *stream = SSL_get_app_data(ssl);
    tls_forget_session(stream);
    stream->session = session;
    return 1; // it is ours now
}

void tls_forget_session(struct stream *stream)
{
    SSL_SESSION_free(stream->session);
    stream->session = NULL;
}

void tls_start(struct load *load, struct stream *stream, bool is_client)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    SSL *ssl = SSL_new(is_client ? load->tls->client : load->tls->server);
    BIO *bio = BIO_new(load->tls->method);
    if (!tls || !ssl || !bio)
        abort();
    *tls = (struct tls){.load = load, .stream = stream, .ssl = ssl};
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, stream);
    stream->tls = tls;
    if (!is_client) {
        SSL_set_accept_state(ssl);
        return;
    }
    SSL_set_connect_state(ssl);
    if (!SSL_set_tlsext_host_name(ssl, SERVER_NAME) || !SSL_set1_host(ssl, SERVER_NAME))
        abort();
    if (load->options.resume && stream->sequence > 0) {
        if (!stream->session)
            fail_for(tls, "resumption", "no session ticket came");
        else if (!SSL_set_session(ssl, stream->session))
            fail(tls, "resumption");
    }
    shake_hands(tls);
}

bool tls_on_event(struct load *load, struct stream *stream, uint32_t *events)
{
    struct tls *tls = stream->tls;
    if (!tls->established && !tls->failed) {
        shake_hands(tls);
        if (tls->established)
            *events = EPOLLOUT;
        else if (!tls->failed)
            return false;
    } else if (tls->out_end > 0) {
        flush(tls);
        if (tls->out_end > 0)
            *events &= ~(uint32_t)EPOLLOUT;
    }
    if (tls->failed)
        *events = EPOLLERR;
    stream_watch(load, stream, stream->interest);
    *events &= stream->interest | EPOLLERR | EPOLLHUP;
    return *events != 0;
}

// False: errno tells why nothing can be sent or received.
static bool is_open(struct tls *tls)
{
    errno = tls->failed ? EPROTO : EAGAIN;
    return tls->established && !tls->failed;
}

ssize_t tls_send(struct tls *tls, const char *bytes, size_t length)
{
    size_t sent = 0;
    if (!is_open(tls))
        return -1;
    if (tls->out_end > 0 && !flush(tls)) {
        errno = tls->failed ? EPROTO : EAGAIN;
        return -1;
    }
    ERR_clear_error();
    if (!SSL_write_ex(tls->ssl, bytes, length, &sent))
        fail(tls, "write");
    flush(tls);
    if (!tls->failed)
        return (ssize_t)sent;
    errno = EPROTO;
    return -1;
}

static size_t decrypt(struct tls *tls, char *bytes, size_t room)
{
    size_t have = 0;
    size_t n = 0;
    ERR_clear_error();
    while (SSL_read_ex(tls->ssl, bytes + have, room - have, &n))
        have += n;
    int why = SSL_get_error(tls->ssl, 0);
    if (why == SSL_ERROR_ZERO_RETURN)
        tls->ended = true;
    else if (why != SSL_ERROR_WANT_READ)
        fail(tls, "read");
    if (tls->out_end > 0)
        flush(tls); // what it made OpenSSL answer
    return have;
}

ssize_t tls_recv(struct tls *tls, char *bytes, size_t room)
{
    struct load *load = tls->load;
    if (load->again == tls->stream)
        load->again = NULL;
    if (tls->ended)
        return 0;
    if (!is_open(tls))
        return -1;
    ssize_t n = recv(tls->stream->fd, load->tls->read, READ_BYTES, 0);
    if (n <= 0)
        return n;
    load->tls->unread = load->tls->read;
    load->tls->unread_length = (size_t)n;
    size_t have = decrypt(tls, bytes, room);
    if (tls->ended && have > 0)
        load->again = tls->stream;
    if (have > 0 || tls->ended)
        return (ssize_t)have;
    errno = tls->failed ? EPROTO : EAGAIN;
    return -1;
}

void tls_end(struct tls *tls)
{
    tls->ending = true;
    SSL_shutdown(tls->ssl);
    flush(tls);
}

void tls_close(struct tls *tls, bool notify)
{
    struct stream *stream = tls->stream;
    if (notify && tls->established && !tls->failed) {
        SSL_shutdown(tls->ssl);
        // The other side may have closed already: then nobody is left to be told.
        send(stream->fd, tls->out + tls->out_start, tls->out_end - tls->out_start, MSG_NOSIGNAL);
    }
    if (tls->load->again == stream)
        tls->load->again = NULL;
    SSL_free(tls->ssl);
    free(tls->out);
    free(tls);
    stream->tls = NULL;
}

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    SSL_CTX *context = SSL_CTX_new(method);
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, CIPHERSUITE) ||
        !SSL_CTX_set1_groups_list(context, GROUPS))
        abort();
    return context;
}

static void client_context(struct load *load)
{
    SSL_CTX *context = load->tls->client = context_new(TLS_client_method());
    if (!SSL_CTX_load_verify_file(context, load->options.tls_trusted)) {
        fprintf(stderr, "penstock_load: no certificate in %s\n", load->options.tls_trusted);
        exit(2);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (load->options.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, on_new_session);
    }
}

static void server_context(struct load *load)
{
    const char *file = load->options.tls_identity;
    SSL_CTX *context = load->tls->server = context_new(TLS_server_method());
    if (!SSL_CTX_use_certificate_chain_file(context, file) ||
        !SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM)) {
        fprintf(stderr, "penstock_load: no certificate and key in %s\n", file);
        exit(2);
    }
}

void tls_init(struct load *load)
{
    load->tls = calloc(1, sizeof(*load->tls));
    if (!load->tls)
        abort();
    load->tls->read = malloc(READ_BYTES);
    load->tls->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (!load->tls->read || !load->tls->method)
        abort();
    BIO_meth_set_read(load->tls->method, on_bio_read);
    BIO_meth_set_write(load->tls->method, on_bio_write);
    BIO_meth_set_ctrl(load->tls->method, on_bio_control);
    if (load->options.tls_trusted)
        client_context(load);
    if (load->options.tls_identity)
        server_context(load);
}

void tls_deinit(struct load *load)
{
    if (!load->tls)
        return;
    SSL_CTX_free(load->tls->client);
    SSL_CTX_free(load->tls->server);
    BIO_meth_free(load->tls->method);
    free(load->tls->read);
    free(load->tls);
}
