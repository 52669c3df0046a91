/* Whom we trust when we dial, what we show, and the sessions that may be resumed. */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/err.h>

#include "penstock/base/err.h"
#include "penstock/net/tls_cert.h"
#include "tls_ctx_priv.h"

enum { SESSIONS_MAX = 64, PINS_MAX = 16 };

struct kept {
    char *name;
    SSL_SESSION *session;
};

struct tls_client {
    atomic_uint refs;
    SSL_CTX *ctx;
    struct tls_cert *cert; /* held; NULL: none */
    bool checks_chain, checks_name;
    size_t n_pins;
    unsigned char pins[PINS_MAX][TLS_FINGERPRINT_BYTES];
    pthread_mutex_t lock; /* for what follows */
    struct kept sessions[SESSIONS_MAX];
    size_t n_sessions, next; /* the one to go when all are in use */
};

struct tls_client *tls_client_hold(struct tls_client *c)
{
    if (c)
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_client_drop(struct tls_client *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < c->n_sessions; i++) {
        free(c->sessions[i].name);
        SSL_SESSION_free(c->sessions[i].session);
    }
    SSL_CTX_free(c->ctx);
    tls_cert_drop(c->cert);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

const struct tls_cert *tls_client_cert(const struct tls_client *c)
{
    return c->cert;
}

SSL_CTX *tls_client_ctx(const struct tls_client *c)
{
    return c->ctx;
}

bool tls_client_checks_name(const struct tls_client *c)
{
    return c->checks_name;
}

bool tls_client_is_insecure(const struct tls_client *c)
{
    return !c->checks_chain && !c->n_pins;
}

/* ---- fingerprints ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 bytes in hexadecimal, with or without colons, up to a comma or the end. NULL when it is none.
 */
static const char *parse_pin(const char *at, unsigned char *out)
{
    if (strncasecmp(at, "sha256:", 7) == 0)
        at += 7;
    for (size_t i = 0; i < TLS_FINGERPRINT_BYTES; i++) {
        if (i && *at == ':')
            at++;
        int high = hex_digit(*at), low = high < 0 ? -1 : hex_digit(at[1]);
        if (low < 0)
            return NULL;
        out[i] = (unsigned char)(high * 16 + low);
        at += 2;
    }
    return at;
}

static int parse_pins(const char *list, unsigned char (*pins)[TLS_FINGERPRINT_BYTES], size_t *n,
                      char *why, size_t why_cap)
{
    *n = 0;
    for (const char *at = list;; at++) {
        if (*n == PINS_MAX)
            return tls_refuse(why, why_cap, "at most %d fingerprints may be given", PINS_MAX);
        at = parse_pin(at, pins[*n]);
        if (!at || (*at && *at != ','))
            return tls_refuse(
                why, why_cap,
                "\"%s\" is no fingerprint: 32 bytes in hexadecimal, as \"openssl x509 "
                "-fingerprint -sha256 -noout -in cert.pem\" shows them",
                list);
        ++*n;
        if (!*at)
            return 0;
    }
}

int tls_check_pin(const char *list, char *why, size_t why_cap)
{
    unsigned char pins[PINS_MAX][TLS_FINGERPRINT_BYTES];
    size_t n;
    return parse_pins(list, pins, &n, why, why_cap);
}

bool tls_client_knows(const struct tls_client *c, X509 *cert)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!c->n_pins)
        return true;
    if (!cert || X509_digest(cert, EVP_sha256(), digest, &n) != 1)
        return false;
    for (size_t i = 0; i < c->n_pins; i++)
        if (memcmp(c->pins[i], digest, TLS_FINGERPRINT_BYTES) == 0)
            return true;
    return false;
}

/* ---- sessions ---- */

static struct kept *find(struct tls_client *c, const char *name)
{
    for (size_t i = 0; i < c->n_sessions; i++)
        if (strcmp(c->sessions[i].name, name) == 0)
            return &c->sessions[i];
    return NULL;
}

SSL_SESSION *tls_client_session(struct tls_client *c, const char *name)
{
    SSL_SESSION *session = NULL;
    pthread_mutex_lock(&c->lock);
    struct kept *k = find(c, name);
    if (k && k->session && SSL_SESSION_is_resumable(k->session)) {
        session = k->session;
        SSL_SESSION_up_ref(session);
    }
    pthread_mutex_unlock(&c->lock);
    return session;
}

/* A place for `name`; NULL when out of memory. */
static struct kept *place_for(struct tls_client *c, const char *name)
{
    struct kept *k = find(c, name);
    if (k)
        return k;
    char *copy = strdup(name);
    if (!copy)
        return NULL;
    if (c->n_sessions < SESSIONS_MAX) {
        k = &c->sessions[c->n_sessions++];
    } else {
        k = &c->sessions[c->next++ % SESSIONS_MAX];
        free(k->name);
    }
    k->name = copy;
    return k;
}

void tls_client_keep(struct tls_client *c, const char *name, SSL_SESSION *session)
{
    pthread_mutex_lock(&c->lock);
    struct kept *k = place_for(c, name);
    SSL_SESSION *old = k ? k->session : session;
    if (k)
        k->session = session;
    pthread_mutex_unlock(&c->lock);
    SSL_SESSION_free(old);
}

/* ---- making one ---- */

static int trust(struct tls_client *c, const char *ca, char *why, size_t why_cap)
{
    struct stat st;
    if (!ca) {
        if (SSL_CTX_set_default_verify_paths(c->ctx) != 1)
            return tls_refuse(why, why_cap,
                              "the system's trusted certificates cannot be loaded: %s",
                              tls_last_error());
        return 0;
    }
    bool folder = stat(ca, &st) == 0 && S_ISDIR(st.st_mode);
    BIO *readable = folder ? NULL : tls_open_file(ca, why, why_cap);
    if (!folder && !readable)
        return -EINVAL;
    BIO_free(readable);
    if (SSL_CTX_load_verify_locations(c->ctx, folder ? NULL : ca, folder ? ca : NULL) == 1)
        return 0;
    ERR_clear_error();
    return tls_refuse(why, why_cap, "\"%s\" has no trusted certificates in PEM", ca);
}

static int show(struct tls_client *c, const struct tls_client_options *o, char *why, size_t why_cap)
{
    int err = tls_cert_load(o->cert, o->key, &c->cert, why, why_cap);
    if (!err && tls_cert_use_ctx(c->cert, c->ctx))
        err = tls_refuse(why, why_cap, "the certificate in \"%s\" cannot be used: %s", o->cert,
                         tls_last_error());
    return err;
}

static int offer(struct tls_client *c, const char *list, char *why, size_t why_cap)
{
    unsigned char wire[TLS_ALPN_MAX];
    int n = tls_alpn_wire(list, wire, why, why_cap);
    if (n < 0)
        return n;
    return SSL_CTX_set_alpn_protos(c->ctx, wire, (unsigned)n) ? -ENOMEM : 0;
}

static int make(struct tls_client *c, const struct tls_client_options *o, char *why, size_t why_cap)
{
    int err = 0;
    if (o->pin)
        err = parse_pins(o->pin, c->pins, &c->n_pins, why, why_cap);
    c->checks_chain = !o->insecure && (!o->pin || o->ca);
    c->checks_name = c->checks_chain;
    if (!err && c->checks_chain)
        err = trust(c, o->ca, why, why_cap);
    if (!err && o->key && !o->cert)
        err = tls_refuse(why, why_cap, "a key (\"%s\") without its certificate", o->key);
    if (!err && o->cert)
        err = show(c, o, why, why_cap);
    if (!err && o->alpn)
        err = offer(c, o->alpn, why, why_cap);
    return err;
}

int tls_client_new(const struct tls_client_options *o, struct tls_client **out, char *why,
                   size_t why_cap)
{
    struct tls_client *c = calloc(1, sizeof *c);
    *out = NULL;
    tls_refuse(why, why_cap, "%s", err_text(-ENOMEM));
    if (!c)
        return -ENOMEM;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    c->ctx = tls_ctx_new(TLS_client_method(), o->min);
    int err = c->ctx ? make(c, o, why, why_cap) : -ENOMEM;
    if (err) {
        tls_client_drop(c);
        return err;
    }
    SSL_CTX_set_verify(c->ctx, c->checks_chain ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(c->ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(c->ctx, tls_on_new_session);
    *out = c;
    return 0;
}
