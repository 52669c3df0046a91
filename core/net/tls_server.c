/* What a listener shows to TLS clients and asks of them. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "penstock/base/err.h"
#include "penstock/net/tls_cert.h"
#include "tls_ctx_priv.h"

enum { SESSION_MAX_S = 24 * 3600 }; /* since the last whole handshake */

struct named {
    char *name; /* NULL: those in the certificate */
    struct tls_cert *cert;
};

struct tls_server {
    atomic_uint refs;
    SSL_CTX *ctx;
    struct named *certs; /* the first is the default */
    size_t n_certs;
    unsigned char alpn[TLS_ALPN_MAX];
    unsigned n_alpn;
};

struct tls_server *tls_server_hold(struct tls_server *s)
{
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void tls_server_drop(struct tls_server *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < s->n_certs; i++) {
        free(s->certs[i].name);
        tls_cert_drop(s->certs[i].cert);
    }
    free(s->certs);
    SSL_CTX_free(s->ctx);
    free(s);
}

SSL_CTX *tls_server_ctx(const struct tls_server *s)
{
    return s->ctx;
}

void tls_server_set_tickets(struct tls_server *s, struct tls_tickets *t)
{
    tls_tickets_use(t, s->ctx);
}

/* ---- certificates by name ---- */

static bool is_wild_for(const char *pattern, const char *name)
{
    const char *rest = strchr(name, '.');
    return pattern[0] == '*' && rest && rest != name && strcasecmp(pattern + 1, rest) == 0;
}

const struct tls_cert *tls_server_cert(const struct tls_server *s, const char *name)
{
    const struct tls_cert *wild = NULL, *inside = NULL;
    for (size_t i = 0; *name && i < s->n_certs; i++) {
        const struct named *n = &s->certs[i];
        if (n->name && strcasecmp(n->name, name) == 0)
            return n->cert;
        if (n->name && !wild && is_wild_for(n->name, name))
            wild = n->cert;
        if (!n->name && !inside && tls_cert_is_for(n->cert, name))
            inside = n->cert;
    }
    if (wild)
        return wild;
    return inside ? inside : s->certs[0].cert;
}

void tls_server_warn(const struct tls_server *s)
{
    for (size_t i = 0; i < s->n_certs; i++)
        tls_cert_warn(s->certs[i].cert);
}

const struct tls_cert *tls_server_cert_at(const struct tls_server *s, size_t i)
{
    return i < s->n_certs ? s->certs[i].cert : NULL;
}

static int take_certs(struct tls_server *s, const struct tls_server_options *o)
{
    s->certs = calloc(o->n_certs, sizeof *s->certs);
    if (!s->certs)
        return -ENOMEM;
    for (size_t i = 0; i < o->n_certs; i++) {
        s->certs[i].cert = tls_cert_hold(o->certs[i].cert);
        s->n_certs++;
        if (!o->certs[i].name)
            continue;
        s->certs[i].name = strdup(o->certs[i].name);
        if (!s->certs[i].name)
            return -ENOMEM;
    }
    return 0;
}

/* ---- what clients offer and show ---- */

/* The first of ours that the client knows, too; none: an alert (RFC 7301 section 3.2). */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *theirs, unsigned n_theirs, void *arg)
{
    const struct tls_server *s = arg;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_len, s->alpn, s->n_alpn, theirs, n_theirs) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int ask_for_alpn(struct tls_server *s, const char *list, char *why, size_t why_cap)
{
    int n = tls_alpn_wire(list, s->alpn, why, why_cap);
    if (n < 0)
        return n;
    s->n_alpn = (unsigned)n;
    SSL_CTX_set_alpn_select_cb(s->ctx, choose_alpn, s);
    return 0;
}

static int ask_for_cert(struct tls_server *s, const struct tls_server_options *o, char *why,
                        size_t why_cap)
{
    BIO *readable = tls_open_file(o->client_ca, why, why_cap);
    if (!readable)
        return -EINVAL;
    BIO_free(readable);
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->client_ca);
    if (!names || SSL_CTX_load_verify_file(s->ctx, o->client_ca) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        ERR_clear_error();
        return tls_refuse(why, why_cap, "\"%s\" has no certificates in PEM to check clients by",
                          o->client_ca);
    }
    SSL_CTX_set_client_CA_list(s->ctx, names);
    int mode = SSL_VERIFY_PEER;
    if (o->client_cert == TLS_CLIENT_CERT_REQUIRE)
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(s->ctx, mode, NULL);
    return 0;
}

/* ---- sessions ---- */

static bool digest_file(EVP_MD_CTX *md, const char *path)
{
    char bytes[4096], why[1];
    BIO *bio = tls_open_file(path, why, sizeof why);
    bool good = bio;
    for (int n; good && (n = BIO_read(bio, bytes, sizeof bytes)) > 0;)
        good = EVP_DigestUpdate(md, bytes, (size_t)n) == 1;
    BIO_free(bio);
    return good;
}

static bool digest_certs(EVP_MD_CTX *md, const struct tls_server *s)
{
    unsigned char fingerprint[TLS_FINGERPRINT_BYTES];
    for (size_t i = 0; i < s->n_certs; i++)
        if (!tls_cert_fingerprint(s->certs[i].cert, fingerprint) ||
            EVP_DigestUpdate(md, fingerprint, sizeof fingerprint) != 1)
            return false;
    return true;
}

/* A session goes no further than to where the same is shown to clients and asked of them: else one
 * from a listener that asks for nothing, or from before a CA was taken out, would open one that
 * asks for a certificate. */
static int set_context(struct tls_server *s, const struct tls_server_options *o)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool good = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && digest_certs(md, s) &&
                EVP_DigestUpdate(md, &o->client_cert, sizeof o->client_cert) == 1 &&
                (!o->client_ca || digest_file(md, o->client_ca)) &&
                EVP_DigestFinal_ex(md, digest, &n) == 1;
    EVP_MD_CTX_free(md);
    if (!good || SSL_CTX_set_session_id_context(s->ctx, digest, SSL_MAX_SID_CTX_LENGTH) != 1)
        return -ENOMEM;
    return 0;
}

/* ---- how long a session may be resumed ---- */

/* Each resumption of TLS 1.3 renews the ticket; when the handshake was whole stays in it. */
static int on_ticket_made(SSL *ssl, void *unused)
{
    SSL_SESSION *session = SSL_get_session(ssl);
    int64_t now = (int64_t)time(NULL);
    void *data;
    size_t n;
    (void)unused;
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &n) == 1 && n == sizeof now)
        return 1;
    return SSL_SESSION_set1_ticket_appdata(session, &now, sizeof now);
}

static bool is_too_old(SSL_SESSION *session)
{
    int64_t since = 0, now = (int64_t)time(NULL);
    void *data;
    size_t n;
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &n) != 1 || n != sizeof since)
        return true;
    memcpy(&since, data, sizeof since);
    return now < since || now - since > SESSION_MAX_S;
}

/* A client's certificate counts as long as it is valid, not as long as its session is. */
static bool is_expired(SSL_SESSION *session)
{
    X509 *peer = SSL_SESSION_get0_peer(session);
    return peer && X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0;
}

static SSL_TICKET_RETURN on_ticket_read(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                        size_t n, SSL_TICKET_STATUS status, void *unused)
{
    (void)ssl, (void)name, (void)n, (void)unused;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (is_too_old(session) || is_expired(session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static int keep_sessions(struct tls_server *s, const struct tls_server_options *o)
{
    SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_OFF); /* tickets alone */
    SSL_CTX_set_num_tickets(s->ctx, 1);
    SSL_CTX_set_session_ticket_cb(s->ctx, on_ticket_made, on_ticket_read, NULL);
    return set_context(s, o);
}

int tls_server_new(const struct tls_server_options *o, struct tls_server **out, char *why,
                   size_t why_cap)
{
    struct tls_server *s = calloc(1, sizeof *s);
    *out = NULL;
    tls_refuse(why, why_cap, "%s", err_text(-ENOMEM));
    if (!s)
        return -ENOMEM;
    atomic_init(&s->refs, 1);
    s->ctx = tls_ctx_new(TLS_server_method(), o->min);
    int err = s->ctx ? take_certs(s, o) : -ENOMEM;
    if (!err && tls_cert_use_ctx(s->certs[0].cert, s->ctx))
        err = tls_refuse(why, why_cap, "the certificate in \"%s\" cannot be used: %s",
                         tls_cert_path(s->certs[0].cert), tls_last_error());
    if (!err && o->alpn)
        err = ask_for_alpn(s, o->alpn, why, why_cap);
    if (!err && o->client_ca && o->client_cert != TLS_CLIENT_CERT_NONE)
        err = ask_for_cert(s, o, why, why_cap);
    if (!err)
        err = keep_sessions(s, o);
    if (err) {
        tls_server_drop(s);
        return err;
    }
    SSL_CTX_set_client_hello_cb(s->ctx, tls_on_client_hello, s);
    *out = s;
    return 0;
}
