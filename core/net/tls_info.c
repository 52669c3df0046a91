/* What a TLS stream has agreed on, and who is at its other end, as texts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "tls_priv.h"

bool tls_get_info(const struct stream *s, struct tls_info *info)
{
    SSL *ssl = tls_ssl(s);
    const unsigned char *alpn;
    unsigned n;
    if (!ssl)
        return false;
    *info = (struct tls_info){
        .version = SSL_get_version(ssl),
        .cipher = SSL_get_cipher_name(ssl),
        .sni = tls_asked_name(s),
        .resumed = SSL_session_reused(ssl) == 1,
        .verified = SSL_get0_peer_certificate(ssl) && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE &&
                    SSL_get_verify_result(ssl) == X509_V_OK,
    };
    SSL_get0_alpn_selected(ssl, &alpn, &n);
    if (n < sizeof info->alpn)
        memcpy(info->alpn, alpn ? (const char *)alpn : "", n);
    return true;
}

/* What was written to a memory BIO, as a text of its own. */
static char *take_text(BIO *bio)
{
    char *bytes;
    long n = BIO_get_mem_data(bio, &bytes);
    return n >= 0 ? strndup(bytes, (size_t)n) : NULL;
}

static char *name_text(const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0)
        text = take_text(bio);
    BIO_free(bio);
    return text;
}

static char *with_prefix(const char *prefix, const char *text, size_t n)
{
    size_t len = strlen(prefix);
    char *all = memchr(text, 0, n) ? NULL : malloc(len + n + 1); /* a zero byte is a trick */
    if (!all)
        return NULL;
    memcpy(all, prefix, len);
    memcpy(all + len, text, n);
    all[len + n] = '\0';
    return all;
}

static char *string_text(const char *prefix, const ASN1_STRING *string)
{
    return with_prefix(prefix, (const char *)ASN1_STRING_get0_data(string),
                       (size_t)ASN1_STRING_length(string));
}

static char *ip_text(const ASN1_STRING *string)
{
    char text[INET6_ADDRSTRLEN];
    int len = ASN1_STRING_length(string);
    if ((len != 4 && len != 16) ||
        !inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(string), text, sizeof text))
        return NULL;
    return with_prefix("IP:", text, strlen(text));
}

/* NULL for kinds that nobody compares. */
static char *alternative_text(const GENERAL_NAME *name)
{
    switch (name->type) {
    case GEN_DNS:
        return string_text("DNS:", name->d.dNSName);
    case GEN_EMAIL:
        return string_text("email:", name->d.rfc822Name);
    case GEN_URI:
        return string_text("URI:", name->d.uniformResourceIdentifier);
    case GEN_IPADD:
        return ip_text(name->d.iPAddress);
    default:
        return NULL;
    }
}

static int take_names(struct tls_peer *peer, X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int n = names ? sk_GENERAL_NAME_num(names) : 0;
    peer->names = calloc((size_t)n + 1, sizeof *peer->names);
    for (int i = 0; peer->names && i < n; i++) {
        char *text = alternative_text(sk_GENERAL_NAME_value(names, i));
        if (text)
            peer->names[peer->n_names++] = text;
    }
    GENERAL_NAMES_free(names);
    return peer->names ? 0 : -ENOMEM;
}

static char *serial_text(X509 *cert)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = number ? BN_bn2hex(number) : NULL, *text = hex ? strdup(hex) : NULL;
    OPENSSL_free(hex);
    BN_free(number);
    return text;
}

int tls_get_peer(const struct stream *s, struct tls_peer *peer)
{
    SSL *ssl = tls_ssl(s);
    X509 *cert = ssl ? SSL_get0_peer_certificate(ssl) : NULL;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    *peer = (struct tls_peer){0};
    if (!cert)
        return -ENOENT;
    peer->subject = name_text(X509_get_subject_name(cert));
    peer->issuer = name_text(X509_get_issuer_name(cert));
    peer->serial = serial_text(cert);
    int err = take_names(peer, cert);
    if (!err && (!peer->subject || !peer->issuer || !peer->serial ||
                 X509_digest(cert, EVP_sha256(), digest, &n) != 1))
        err = -ENOMEM;
    ERR_clear_error();
    if (err) {
        tls_peer_deinit(peer);
        return err;
    }
    for (size_t i = 0; i < TLS_FINGERPRINT_BYTES; i++)
        snprintf(peer->fingerprint + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

void tls_peer_deinit(struct tls_peer *peer)
{
    free(peer->subject);
    free(peer->issuer);
    free(peer->serial);
    for (size_t i = 0; i < peer->n_names; i++)
        free(peer->names[i]);
    free(peer->names);
    *peer = (struct tls_peer){0};
}
