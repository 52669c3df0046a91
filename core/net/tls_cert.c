/* Certificates and keys from PEM files. Checks all it can before they are used. */
#include "penstock/net/tls_cert.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "tls_priv.h"

enum { WARN_DAYS = 14 };

struct tls_cert {
    atomic_uint refs;
    X509 *leaf;
    STACK_OF(X509) * chain; /* without the leaf */
    EVP_PKEY *key;
    bool open_to_all; /* the file of the key */
    char path[];
};

struct tls_cert *tls_cert_hold(struct tls_cert *c)
{
    if (c)
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_cert_drop(struct tls_cert *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    free(c);
}

BIO *tls_open_file(const char *path, char *why, size_t why_cap)
{
    FILE *file = fopen(path, "re");
    struct stat st;
    if (file && fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(file);
        file = NULL;
        errno = EISDIR;
    }
    BIO *bio = file ? BIO_new_fp(file, BIO_CLOSE) : NULL;
    if (file && !bio)
        fclose(file);
    if (!bio)
        snprintf(why, why_cap, "cannot read \"%s\": %s", path, err_text(file ? -ENOMEM : -errno));
    return bio;
}

/* Nobody is there to type it. */
static int no_pass_phrase(char *buf, int size, int writes, void *asked)
{
    (void)buf, (void)size, (void)writes;
    *(bool *)asked = true;
    return -1;
}

static int load_chain(struct tls_cert *c, const char *path, char *why, size_t why_cap)
{
    bool asked = false;
    BIO *bio = tls_open_file(path, why, why_cap);
    if (!bio)
        return -EINVAL;
    c->leaf = PEM_read_bio_X509_AUX(bio, NULL, no_pass_phrase, &asked);
    c->chain = sk_X509_new_null();
    X509 *next = NULL;
    while (c->leaf && c->chain && (next = PEM_read_bio_X509(bio, NULL, no_pass_phrase, &asked)))
        if (!sk_X509_push(c->chain, next)) {
            X509_free(next);
            break;
        }
    /* The end of the file is "no start line"; anything else is a broken certificate. */
    bool good = c->leaf && c->chain && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (good)
        return 0;
    snprintf(why, why_cap,
             "\"%s\" has no certificate, or a broken one: it is a file in PEM, the server's "
             "certificate first, then those that lead to its root",
             path);
    return -EINVAL;
}

static int load_key(struct tls_cert *c, const char *path, char *why, size_t why_cap)
{
    bool asked = false;
    BIO *bio = tls_open_file(path, why, why_cap);
    if (!bio)
        return -EINVAL;
    c->key = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, &asked);
    ERR_clear_error();
    BIO_free(bio);
    struct stat st;
    c->open_to_all =
        stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & (S_IROTH | S_IWOTH));
    if (c->key)
        return 0;
    if (asked)
        snprintf(why, why_cap,
                 "the key in \"%s\" has a pass phrase, which nobody could type here: openssl pkey "
                 "-in %s -out plain.pem, readable by penstock alone",
                 path, path);
    else
        snprintf(why, why_cap, "\"%s\" has no private key in PEM, or a broken one", path);
    return -EINVAL;
}

static int check(const struct tls_cert *c, const char *key, char *why, size_t why_cap)
{
    if (!X509_check_private_key(c->leaf, c->key)) {
        ERR_clear_error();
        snprintf(why, why_cap, "the key in \"%s\" is not that of the certificate in \"%s\"", key,
                 c->path);
        return -EINVAL;
    }
    if (tls_cert_seconds_left(c) <= 0) {
        snprintf(why, why_cap, "the certificate in \"%s\" has expired", c->path);
        return -EINVAL;
    }
    if (X509_cmp_current_time(X509_get0_notBefore(c->leaf)) > 0) {
        snprintf(why, why_cap, "the certificate in \"%s\" is not valid yet", c->path);
        return -EINVAL;
    }
    return 0;
}

int tls_cert_load(const char *cert, const char *key, struct tls_cert **out, char *why,
                  size_t why_cap)
{
    size_t len = strlen(cert) + 1;
    struct tls_cert *c = calloc(1, sizeof *c + len);
    *out = NULL;
    if (!c) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    atomic_init(&c->refs, 1);
    memcpy(c->path, cert, len);
    int err = load_chain(c, cert, why, why_cap);
    if (!err)
        err = load_key(c, key ? key : cert, why, why_cap);
    if (!err)
        err = check(c, key ? key : cert, why, why_cap);
    if (err)
        tls_cert_drop(c);
    else
        *out = c;
    return err;
}

bool tls_cert_is_for(const struct tls_cert *c, const char *name)
{
    return X509_check_host(c->leaf, name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
}

int64_t tls_cert_seconds_left(const struct tls_cert *c)
{
    int days = 0, seconds = 0;
    ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(c->leaf));
    return (int64_t)days * 86400 + seconds;
}

int64_t tls_cert_not_after(const struct tls_cert *c)
{
    struct tm tm = {0};
    ASN1_TIME_to_tm(X509_get0_notAfter(c->leaf), &tm); /* RFC 5280: it is in UTC */
    return timegm(&tm);
}

void tls_cert_warn(const struct tls_cert *c)
{
    int days = (int)(tls_cert_seconds_left(c) / 86400);
    if (days < 0)
        log_warn("the certificate in \"%s\" has expired", c->path);
    else if (days < WARN_DAYS)
        log_warn("the certificate in \"%s\" expires in %d day%s", c->path, days,
                 days == 1 ? "" : "s");
    if (c->open_to_all)
        log_warn("the key of the certificate in \"%s\" is open to every user of this host: chmod "
                 "o-rw its file",
                 c->path);
}

bool tls_cert_fingerprint(const struct tls_cert *c, unsigned char out[TLS_FINGERPRINT_BYTES])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (X509_digest(c->leaf, EVP_sha256(), digest, &n) != 1)
        return false;
    memcpy(out, digest, TLS_FINGERPRINT_BYTES);
    return true;
}

const char *tls_cert_path(const struct tls_cert *c)
{
    return c->path;
}

int tls_cert_use_ctx(const struct tls_cert *c, SSL_CTX *ctx)
{
    return SSL_CTX_use_cert_and_key(ctx, c->leaf, c->key, c->chain, 1) == 1 ? 0 : -EINVAL;
}

int tls_cert_use(const struct tls_cert *c, SSL *ssl)
{
    SSL_certs_clear(ssl); /* else one of another kind of key would stay, and might be chosen */
    return SSL_use_cert_and_key(ssl, c->leaf, c->key, c->chain, 1) == 1 ? 0 : -EINVAL;
}
