/* What the files of TLS share and nobody else needs. */
#ifndef PENSTOCK_CORE_NET_TLS_PRIV_H
#define PENSTOCK_CORE_NET_TLS_PRIV_H

#include <stdint.h>
#include <openssl/ssl.h>

#include "penstock/net/tls.h"
#include "penstock/net/tls_cert.h"

/* ---- tls_ctx.c ---- */

/* The connections' context. */
SSL_CTX *tls_server_ctx(const struct tls_server *s);
SSL_CTX *tls_client_ctx(const struct tls_client *c);

/* Is the certificate one of those that are pinned? True when none is. */
bool tls_client_knows(const struct tls_client *c, X509 *cert);
/* A session for `name` to resume, for the caller to free; NULL without one. Any thread. */
SSL_SESSION *tls_client_session(struct tls_client *c, const char *name);
/* Keeps a session, taken over. Any thread. */
void tls_client_keep(struct tls_client *c, const char *name, SSL_SESSION *session);

/* A text of OpenSSL's last error, for messages. Static storage; clears its queue. */
const char *tls_last_error(void);

/* ---- tls_tickets.c ---- */

/* Uses these keys for the tickets of `ctx`. */
void tls_tickets_use(struct tls_tickets *t, SSL_CTX *ctx);

/* ---- tls.c ---- */

/* OpenSSL's side of an open TLS stream; NULL when it is none, or the handshake is not over. */
SSL *tls_ssl(const struct stream *s);

/* Called by OpenSSL: */

int tls_on_client_hello(SSL *ssl, int *alert, void *server);
int tls_on_new_session(SSL *ssl, SSL_SESSION *session);

/* ---- tls_cert.c ---- */

/* Gives it to connections of `ctx`, or to one. 0 or -EINVAL. */
int tls_cert_use_ctx(const struct tls_cert *c, SSL_CTX *ctx);
int tls_cert_use(const struct tls_cert *c, SSL *ssl);

/* Opens a file; NULL with a message in `why`. */
BIO *tls_open_file(const char *path, char *why, size_t why_cap);

#endif
