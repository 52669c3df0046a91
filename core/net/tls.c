/* TLS on a stream: OpenSSL between the bytes of a connection and those of the stream below. What
 * OpenSSL writes is staged, so that its records go out together; what it reads comes by
 * stream_read() of the stream below, whose flags tell when that is drained. */
#include "penstock/net/tls.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "penstock/base/err.h"
#include "penstock/net/tls_cert.h"
#include "tls_priv.h"

enum {
    /* Of bulk: as many of the largest records of AES-GCM, and what OpenSSL puts before them, so
     * that a read ends where a record does. */
    READ_AHEAD = 4 * (5 + 16384 + 1 + 16) + 3,
    PORTION = 32768,         /* plain text that is encrypted before the socket has its chance: two
                                records a call, the best of 16, 32, 64 and 256 KiB (docs/benchmarks.md) */
    EMPTY_MAX = 192 * 1024,  /* of an open connection, read without a byte for its reader in it */
    STAGED_MAX = 256 * 1024, /* answers to a peer that asks and asks, and does not read */
    NAME_MAX_BYTES = 255,
};

enum state { SHAKING, ASKING, ESTABLISHED, BROKEN };

struct tls {
    struct stream lower; /* what it was; not registered: events come through the stream above */
    SSL *ssl;
    struct loop *loop;
    struct buf staged;         /* for the socket */
    struct buf *out;           /* where OpenSSL's bytes go now */
    struct tls_client *client; /* held; NULL: we are the server */
    struct tls_server *server; /* held; NULL: we are the client */
    struct tls_cert *chosen;   /* tls_choose(); held */
    char *name;                /* asked for by the client, or of the server; NULL: none */
    const char *why;           /* static storage; NULL: nothing is wrong */
    const char *advice;        /* what may help; static storage or NULL */
    size_t empty_bytes;        /* read since the last byte for our reader */
    int err;                   /* of reading, once it has failed; kept */
    uint8_t state;             /* enum state */
    bool ask;                  /* the owner chooses the certificate */
    bool decided;              /* it has */
    bool refuse;
    bool bulk;    /* the reader takes much at once */
    bool ended;   /* the other side has said goodbye */
    bool shut;    /* the socket is shut once all is written */
    bool offered; /* the kernel may encrypt: OpenSSL writes to the socket itself */
    bool kernel;  /* the kernel encrypts what is written to the socket (kTLS) */
    bool bye;     /* `kernel`: close_notify waits for the socket */
};

static const struct stream_ops tls_ops;

static struct tls *tls_of(const struct stream *s)
{
    return s->ops == &tls_ops ? s->impl : NULL;
}

bool tls_is_on(const struct stream *s)
{
    return s->ops == &tls_ops;
}

SSL *tls_ssl(const struct stream *s)
{
    struct tls *t = tls_of(s);
    return t && t->state == ESTABLISHED ? t->ssl : NULL;
}

/* ---- OpenSSL's view of the stream below ---- */

static int bio_read(BIO *bio, char *bytes, size_t n, size_t *got)
{
    struct tls *t = BIO_get_data(bio);
    *got = 0;
    BIO_clear_retry_flags(bio);
    if (!t->lower.readable && !t->lower.eof) {
        BIO_set_retry_read(bio);
        return 0;
    }
    ssize_t r = t->lower.eof ? 0 : stream_read(&t->lower, bytes, n);
    if (r == -EAGAIN)
        BIO_set_retry_read(bio);
    if (r <= 0)
        return 0;
    t->empty_bytes += (size_t)r;
    if (t->state == ESTABLISHED && t->empty_bytes > EMPTY_MAX)
        return 0; /* KeyUpdate after KeyUpdate: one read would never come to an end */
    *got = (size_t)r;
    return 1;
}

static int bio_write(BIO *bio, const char *bytes, size_t n, size_t *put)
{
    struct tls *t = BIO_get_data(bio);
    *put = 0;
    BIO_clear_retry_flags(bio);
    if (buf_len(t->out) > STAGED_MAX || buf_append(t->out, bytes, n))
        return 0;
    *put = n;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    const struct tls *t = BIO_get_data(bio);
    (void)number, (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1; /* whoever calls OpenSSL flushes afterwards */
    case BIO_CTRL_EOF:
        return t->lower.eof;
    default:
        return 0;
    }
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "penstock stream");
    if (!method)
        return;
    BIO_meth_set_read_ex(method, bio_read);
    BIO_meth_set_write_ex(method, bio_write);
    BIO_meth_set_ctrl(method, bio_ctrl);
}

/* One for the process, read-only: OpenSSL numbers them and has not many numbers. */
static BIO_METHOD *bio_method(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    return method;
}

/* ---- staging ---- */

/* Gives the socket what it takes of `b`. 0 or an error. */
static int give(struct tls *t, struct buf *b)
{
    while (buf_len(b)) {
        ssize_t n = stream_write(&t->lower, buf_bytes(b), buf_len(b));
        if (n < 0)
            return (int)n;
        if (n == 0)
            return 0;
        buf_consume(b, (size_t)n);
    }
    return 0;
}

static int flush(struct tls *t);

/* Says goodbye, and ends the socket behind it; later, when the socket does not take that now. */
static int say_goodbye(struct tls *t)
{
    ERR_clear_error();
    int r = SSL_shutdown(t->ssl);
    t->bye = r < 0 && SSL_get_error(t->ssl, r) == SSL_ERROR_WANT_WRITE; /* of the kernel's */
    if (t->bye) {
        t->lower.writable = false;
        return 0;
    }
    if (buf_len(&t->staged))
        return flush(t);
    return t->shut && !t->lower.shut ? stream_shutdown(&t->lower) : 0;
}

/* A message behind the handshake has come in part: OpenSSL writes nothing before its rest. */
static bool in_midst(const struct tls *t)
{
    return t->state == ESTABLISHED && SSL_in_init(t->ssl);
}

static int flush(struct tls *t)
{
    if (t->bye)
        return t->lower.writable ? say_goodbye(t) : 0;
    if (!buf_len(&t->staged) || !t->lower.writable)
        return t->lower.err && buf_len(&t->staged) ? t->lower.err : 0;
    int err = give(t, &t->staged);
    if (err || buf_len(&t->staged) || in_midst(t))
        return err;
    buf_deinit(&t->staged);
    return t->shut && !t->lower.shut ? stream_shutdown(&t->lower) : 0;
}

static size_t tls_staged(const struct stream *s)
{
    const struct tls *t = s->impl;
    /* What can never go does not hold anybody up. */
    return t->lower.err ? 0 : buf_len(&t->staged) + t->bye + (in_midst(t) && !t->lower.eof);
}

/* ---- what goes wrong ---- */

static int breaks(struct tls *t, int err, const char *why)
{
    if (!t->err)
        t->err = err;
    if (!t->why)
        t->why = why;
    t->state = BROKEN;
    return t->err;
}

static const char *verify_reason(struct tls *t)
{
    long result = SSL_get_verify_result(t->ssl);
    switch (result) {
    case X509_V_OK:
        return NULL;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        t->advice = "no trusted authority has signed it: give its CA, or pin its fingerprint";
        return "untrusted certificate";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        t->advice = "the name that is expected can be given";
        return "certificate for another name";
    default:
        return X509_verify_cert_error_string(result);
    }
}

/* The other side has gone without a goodbye. */
static int cut_off(struct tls *t)
{
    bool open = t->state == ESTABLISHED;
    ERR_clear_error();
    return breaks(t, open ? PS_ETRUNCATED : PS_ETLS,
                  open ? "ended without close_notify" : "ended in the handshake");
}

/* OpenSSL has failed: the error that stands for it. */
static int failed(struct tls *t)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_REASON(e);
    if (t->lower.err)
        return breaks(t, t->lower.err, err_text(err_from_errno(t->lower.err)));
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING || (e == 0 && t->lower.eof))
        return cut_off(t);
    const char *why = NULL;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        why = verify_reason(t);
    if (reason == SSL_R_HTTP_REQUEST)
        why = "plain HTTP on a TLS port";
    if (!why && e == 0)
        why = t->empty_bytes > EMPTY_MAX ? "messages without end" : "memory is out";
    const char *last = tls_last_error();
    return breaks(t, PS_ETLS, why ? why : last);
}

const char *tls_why(const struct stream *s)
{
    const struct tls *t = tls_of(s);
    return t && t->why ? t->why : "";
}

const char *tls_advice(const struct stream *s)
{
    const struct tls *t = tls_of(s);
    return t ? t->advice : NULL;
}

/* ---- the handshake ---- */

static SSL *new_ssl(struct tls *t, SSL_CTX *ctx)
{
    BIO *bio = bio_method() ? BIO_new(bio_method()) : NULL;
    SSL *ssl = bio ? SSL_new(ctx) : NULL;
    if (!ssl) {
        BIO_free(bio);
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, t);
    return ssl;
}

static void free_tls(struct tls *t)
{
    if (t->ssl)
        SSL_free(t->ssl);
    buf_deinit(&t->staged);
    tls_client_drop(t->client);
    tls_server_drop(t->server);
    tls_cert_drop(t->chosen);
    free(t->name);
    free(t);
}

/* From now on the stream is TLS over what it was. */
static void take_over(struct stream *s, struct tls *t)
{
    t->lower = *s;
    t->lower.capture = NULL;  /* goes on above, in plain */
    t->lower.readable = true; /* bytes may have come before we looked */
    s->ops = &tls_ops;
    s->impl = t;
    s->readable = false;
    s->writable = true;
}

/* Where the kernel can encrypt, OpenSSL writes to the socket itself, as long as the handshake
 * lasts: that is how it hands the keys over. */
static int offer_socket(struct tls *t, const struct stream *s)
{
    if (s->ops || !tls_kernel_encrypts())
        return 0;
    BIO *socket = BIO_new_socket(s->entry.fd, BIO_NOCLOSE);
    if (!socket)
        return -ENOMEM;
    SSL_set_options(t->ssl, SSL_OP_ENABLE_KTLS);
    SSL_set0_wbio(t->ssl, socket);
    t->offered = true;
    return 0;
}

/* The kernel keeps its key to the end, and OpenSSL does not know: a KeyUpdate of ours would leave
 * the other side with a key that nobody uses. So where it is asked for (RFC 8446 section 4.6.3) the
 * wish is struck out before OpenSSL reads the message. What the other side sends may change its
 * key. */
static void on_message(int is_ours, int version, int type, const void *bytes, size_t n, SSL *ssl,
                       void *arg)
{
    enum { HEADER = 4, REQUESTED = 1 };
    unsigned char *message = (unsigned char *)bytes;
    (void)version, (void)ssl, (void)arg;
    if (!is_ours && type == SSL3_RT_HANDSHAKE && n == HEADER + 1 &&
        message[0] == SSL3_MT_KEY_UPDATE && message[HEADER] == REQUESTED)
        message[HEADER] = 0;
}

/* The handshake is over: has the kernel taken the keys? Else we go on as without it. */
static void settle_socket(struct tls *t)
{
    if (!t->offered)
        return;
    t->kernel = BIO_get_ktls_send(SSL_get_wbio(t->ssl));
    if (t->kernel) {
        SSL_set_msg_callback(t->ssl, on_message);
        return;
    }
    BIO *own = SSL_get_rbio(t->ssl);
    BIO_up_ref(own);
    SSL_set0_wbio(t->ssl, own);
}

static struct tls *new_tls(struct loop *loop, SSL_CTX *ctx)
{
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->loop = loop;
    t->out = &t->staged;
    t->ssl = new_ssl(t, ctx);
    if (t->ssl)
        return t;
    ERR_clear_error();
    free(t);
    return NULL;
}

int tls_accept(struct stream *s, struct loop *loop, struct tls_server *server, bool ask)
{
    struct tls *t = new_tls(loop, tls_server_ctx(server));
    if (!t)
        return -ENOMEM;
    t->server = tls_server_hold(server);
    t->ask = ask;
    if (offer_socket(t, s)) {
        free_tls(t);
        return -ENOMEM;
    }
    SSL_set_accept_state(t->ssl);
    take_over(s, t);
    return 0;
}

/* SNI has names only (RFC 6066 section 3), and a certificate tells addresses apart from names. */
static int expect_name(struct tls *t, const char *name)
{
    unsigned char ip[16];
    size_t len = strlen(name);
    bool dot = len > 1 && name[len - 1] == '.'; /* an absolute name; certificates have no dot */
    t->name = strndup(name, dot ? len - 1 : len);
    if (!t->name)
        return -ENOMEM;
    bool is_ip = inet_pton(AF_INET, t->name, ip) == 1 || inet_pton(AF_INET6, t->name, ip) == 1;
    if (!is_ip && SSL_set_tlsext_host_name(t->ssl, t->name) != 1)
        return -ENOMEM;
    if (!tls_client_checks_name(t->client))
        return 0;
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    int good = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(param, t->name)
                     : X509_VERIFY_PARAM_set1_host(param, t->name, 0);
    return good == 1 ? 0 : -ENOMEM;
}

static void resume(struct tls *t)
{
    SSL_SESSION *session = tls_client_session(t->client, t->name);
    if (session)
        SSL_set_session(t->ssl, session);
    SSL_SESSION_free(session);
}

int tls_connect(struct stream *s, struct loop *loop, struct tls_client *client, const char *name)
{
    if (!name && tls_client_checks_name(client))
        return PS_ETLS; /* target_check() has refused that */
    struct tls *t = new_tls(loop, tls_client_ctx(client));
    if (!t)
        return -ENOMEM;
    t->client = tls_client_hold(client);
    if ((name && expect_name(t, name)) || offer_socket(t, s)) {
        ERR_clear_error();
        free_tls(t);
        return -ENOMEM;
    }
    if (name)
        resume(t);
    SSL_set_connect_state(t->ssl);
    take_over(s, t);
    return 0;
}

static bool is_host_name(const unsigned char *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum(name[i]) && name[i] != '-' && name[i] != '.' && name[i] != '_')
            return false;
    return name[0] != '.';
}

/* The first name of a server_name extension (RFC 6066 section 3), in lower case; NULL without, and
 * for one that is no host name: policies make destinations and log lines of it. */
static char *parse_name(const unsigned char *ext, size_t n)
{
    if (n < 5 || (size_t)(ext[0] << 8 | ext[1]) != n - 2 || ext[2] != TLSEXT_NAMETYPE_host_name)
        return NULL;
    size_t len = (size_t)(ext[3] << 8 | ext[4]);
    if (len == 0 || len > NAME_MAX_BYTES || len > n - 5 || !is_host_name(ext + 5, len))
        return NULL;
    char *name = strndup((const char *)ext + 5, len);
    for (char *at = name; at && *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at | 0x20);
    return name;
}

int tls_on_client_hello(SSL *ssl, int *alert, void *server)
{
    struct tls *t = SSL_get_app_data(ssl);
    const unsigned char *ext;
    size_t n;
    if (!t->name && SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &ext, &n) == 1)
        t->name = parse_name(ext, n);
    if (t->ask && !t->decided)
        return SSL_CLIENT_HELLO_RETRY;
    if (t->refuse) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        t->why = "refused by the sni hook";
        return SSL_CLIENT_HELLO_ERROR;
    }
    const struct tls_cert *cert =
        t->chosen ? t->chosen : tls_server_cert(server, t->name ? t->name : "");
    if (cert != tls_server_cert(server, "") && tls_cert_use(cert, ssl)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

int tls_on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = SSL_get_app_data(ssl);
    if (!t->client || !t->name)
        return 0;
    tls_client_keep(t->client, t->name, session);
    return 1; /* taken over */
}

static enum tls_progress established(struct stream *s, struct tls *t)
{
    X509 *cert = t->client ? SSL_get0_peer_certificate(t->ssl) : NULL;
    if (t->client && !tls_client_knows(t->client, cert)) {
        s->err = breaks(t, PS_ETLS, "certificate is not pinned");
        return TLS_FAILED;
    }
    t->state = ESTABLISHED;
    settle_socket(t);
    s->readable = true; /* bytes may have come with the last of the handshake */
    s->writable = !tls_staged(s);
    return TLS_OPEN;
}

enum tls_progress tls_step(struct stream *s)
{
    struct tls *t = tls_of(s);
    if (t->state == ESTABLISHED)
        return TLS_OPEN;
    if (t->state == BROKEN)
        return TLS_FAILED;
    if (t->state == ASKING && !t->decided)
        return TLS_ASKS;
    t->state = SHAKING;
    ERR_clear_error();
    int done = SSL_do_handshake(t->ssl);
    int what = done == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, done);
    if (what == SSL_ERROR_WANT_CLIENT_HELLO_CB) {
        t->state = ASKING;
        return TLS_ASKS;
    }
    if (what == SSL_ERROR_WANT_WRITE)
        t->lower.writable = false; /* the kernel's socket, full */
    else if (what != SSL_ERROR_NONE && what != SSL_ERROR_WANT_READ)
        failed(t);
    int err = flush(t); /* an alert, too */
    if (err && t->state != BROKEN)
        breaks(t, err, err_text(err_from_errno(err)));
    if (t->state == BROKEN) {
        s->err = t->err;
        return TLS_FAILED;
    }
    if (what == SSL_ERROR_NONE)
        return established(s, t);
    s->readable = false; /* until more comes */
    return TLS_WAITS;
}

void tls_give_up(struct stream *s)
{
    struct tls *t = tls_of(s);
    if (!t || t->state == ESTABLISHED || t->state == BROKEN)
        return;
    s->err = breaks(t, PS_ETLS, "the handshake was given up");
    s->eof = true;
}

const char *tls_asked_name(const struct stream *s)
{
    const struct tls *t = tls_of(s);
    return t && t->name ? t->name : "";
}

void tls_choose(struct stream *s, struct tls_cert *cert, bool refuse)
{
    struct tls *t = tls_of(s);
    tls_cert_drop(t->chosen);
    t->chosen = tls_cert_hold(cert);
    t->decided = true;
    t->refuse = refuse;
}

/* ---- bytes ---- */

/* The rest of a message may have come; then what had to wait is said. */
static void go_on(struct tls *t)
{
    ERR_clear_error();
    int done = SSL_do_handshake(t->ssl);
    if (done != 1 && SSL_get_error(t->ssl, done) != SSL_ERROR_WANT_READ)
        failed(t);
    else if (done == 1 && t->shut)
        say_goodbye(t);
}

static void tls_events(struct stream *s, unsigned events)
{
    struct tls *t = s->impl;
    stream_note_events(&t->lower, events);
    if (in_midst(t))
        go_on(t);
    flush(t); /* an error is in lower.err */
}

static int tls_error(struct stream *s)
{
    return ((struct tls *)s->impl)->lower.err;
}

/* One more piece of plain text. 1; 0 when there is none now or no more; or an error. */
static int read_some(struct tls *t, char *bytes, size_t n, size_t *got)
{
    if (SSL_read_ex(t->ssl, bytes, n, got) == 1) {
        t->empty_bytes = 0;
        return 1;
    }
    switch (SSL_get_error(t->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: /* an alert, which the kernel's socket does not take: its end follows
                                */
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        t->ended = true;
        return 0;
    default:
        return failed(t);
    }
}

/* Whoever asks for much has bulk coming; for others one record's buffer will do. */
static void read_ahead(struct tls *t, size_t n)
{
    bool bulk = n > BUF_POOL_SMALL;
    if (bulk == t->bulk)
        return;
    t->bulk = bulk;
    SSL_set_default_read_buffer_len(t->ssl, bulk ? READ_AHEAD : 0);
}

static ssize_t tls_read(struct stream *s, void *buf, size_t n)
{
    struct tls *t = s->impl;
    size_t total = 0;
    if (t->err)
        return t->err;
    if (t->ended)
        return 0;
    if (t->state != ESTABLISHED)
        return -EAGAIN;
    read_ahead(t, n);
    ERR_clear_error();
    while (total < n) {
        size_t got;
        int step = read_some(t, (char *)buf + total, n - total, &got);
        if (step <= 0)
            break;
        total += got;
    }
    if (buf_len(&t->staged)) /* an alert, or the answer to a KeyUpdate */
        flush(t);
    if (t->ended || t->err)
        s->read_on = true; /* more reads tell that */
    if (total)
        return (ssize_t)total;
    return t->err ? t->err : t->ended ? 0 : -EAGAIN;
}

static ssize_t tls_peek(struct stream *s, void *buf, size_t n)
{
    struct tls *t = s->impl;
    size_t got;
    if (t->err)
        return t->err;
    if (t->ended)
        return 0;
    if (t->state != ESTABLISHED)
        return -EAGAIN;
    ERR_clear_error();
    if (SSL_peek_ex(t->ssl, buf, n, &got) == 1)
        return (ssize_t)got;
    int step = read_some(t, buf, 0, &got); /* what it was */
    return step < 0 ? step : t->ended ? 0 : -EAGAIN;
}

/* Encrypts n bytes and gives them to the socket; what that does not take is staged. */
static int write_portion(struct tls *t, const char *bytes, size_t n, size_t *put)
{
    /* The stream below may be TLS and use that memory, too. */
    struct buf *records = t->lower.ops ? &t->staged : &t->loop->records;
    buf_consume(records, buf_len(records));
    t->out = records;
    int good = SSL_write_ex(t->ssl, bytes, n, put);
    t->out = &t->staged;
    if (!good)
        return failed(t);
    if (records == &t->staged)
        return flush(t);
    int err = give(t, records);
    if (!err && buf_len(records))
        err = buf_append(&t->staged, buf_bytes(records), buf_len(records));
    return err;
}

static ssize_t tls_write(struct stream *s, const void *buf, size_t n)
{
    struct tls *t = s->impl;
    size_t total = 0;
    int err = t->err ? t->err : flush(t);
    if (err)
        return err;
    if (t->state != ESTABLISHED)
        return -EAGAIN;
    if (t->kernel) {
        ssize_t put = stream_write(&t->lower, buf, n);
        return put ? put : -EAGAIN;
    }
    ERR_clear_error();
    while (total < n && !buf_len(&t->staged) && !in_midst(t)) {
        size_t put;
        err = write_portion(t, (const char *)buf + total, n - total < PORTION ? n - total : PORTION,
                            &put);
        if (err)
            return err;
        total += put;
    }
    return total ? (ssize_t)total : -EAGAIN;
}

static int tls_shutdown(struct stream *s)
{
    struct tls *t = s->impl;
    if (t->lower.err)
        return t->lower.err;
    if (t->state != ESTABLISHED)
        return -EPIPE; /* there is nothing that a goodbye could end */
    t->shut = true;
    return in_midst(t) && !t->lower.eof ? flush(t) : say_goodbye(t);
}

static size_t tls_unsent(const struct stream *s)
{
    const struct tls *t = s->impl;
    return stream_unsent(&t->lower) + tls_staged(s);
}

static void tls_close(struct stream *s, bool abort)
{
    struct tls *t = s->impl;
    if (!abort && t->state == ESTABLISHED && !t->shut)
        tls_shutdown(s);
    if (abort)
        stream_abort(&t->lower);
    else
        stream_close(&t->lower);
    s->entry.fd = -1;
    s->impl = NULL;
    /* However it ended: its session may be resumed. */
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    free_tls(t);
}

static int tls_moved(struct stream *s, struct poller_entry *entry, struct poller *p)
{
    struct tls *t = s->impl;
    if (t->lower.ops)
        return t->lower.ops->moved(&t->lower, entry, p);
    struct poller_entry from = {.fd = entry->fd};
    return poller_move_edge(p, &from, entry);
}

static bool tls_takes_splice(const struct stream *s)
{
    return ((const struct tls *)s->impl)->kernel;
}

static const struct stream_ops tls_ops = {
    .takes_splice = tls_takes_splice,
    .events = tls_events,
    .read = tls_read,
    .peek = tls_peek,
    .write = tls_write,
    .staged = tls_staged,
    .shutdown = tls_shutdown,
    .error = tls_error,
    .unsent = tls_unsent,
    .close = tls_close,
    .moved = tls_moved,
    .says_goodbye = true,
};
