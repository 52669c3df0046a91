/* A certificate with its chain and private key, as files in PEM give them. Read-only once loaded,
 * counted, any thread. */
#ifndef PENSTOCK_NET_TLS_CERT_H
#define PENSTOCK_NET_TLS_CERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_cert;

/* Loads the file `cert` (the certificate, then what leads to its root) and `key` (NULL: it is in
 * the same file). Refuses a pair that does not match, a key with a pass phrase, and a certificate
 * that is not valid now. Returns 0; or -EINVAL or -ENOMEM with a message in `why` that names the
 * file and never shows what is in a key. */
int tls_cert_load(const char *cert, const char *key, struct tls_cert **out, char *why,
                  size_t why_cap);
struct tls_cert *tls_cert_hold(struct tls_cert *c);
/* NULL is fine. */
void tls_cert_drop(struct tls_cert *c);

/* Is it for this host name (RFC 6125; its subject alternative names)? */
bool tls_cert_is_for(const struct tls_cert *c, const char *name);
/* Seconds until it expires. */
int64_t tls_cert_seconds_left(const struct tls_cert *c);
/* When it expires, in seconds since 1970. */
int64_t tls_cert_not_after(const struct tls_cert *c);
/* Logs what whoever runs this should mend: it expires within 14 days, its key is no secret. */
void tls_cert_warn(const struct tls_cert *c);
enum { TLS_FINGERPRINT_BYTES = 32 };

/* SHA-256 of the certificate. False when out of memory. */
bool tls_cert_fingerprint(const struct tls_cert *c, unsigned char out[TLS_FINGERPRINT_BYTES]);
/* The file it came from. */
const char *tls_cert_path(const struct tls_cert *c);

#endif
