/* What tls_ctx.c does for tls_server.c and tls_client.c. */
#ifndef PENSTOCK_CORE_NET_TLS_CTX_PRIV_H
#define PENSTOCK_CORE_NET_TLS_CTX_PRIV_H

#include <stdarg.h>

#include "tls_priv.h"

/* A context with penstock's defaults; NULL when out of memory. */
SSL_CTX *tls_ctx_new(const SSL_METHOD *method, enum tls_version min);
/* Fills `why`. Returns -EINVAL. */
__attribute__((format(printf, 3, 4))) int tls_refuse(char *why, size_t why_cap, const char *fmt,
                                                     ...);
/* "h2,http/1.1" as RFC 7301 has it, into `out` of TLS_ALPN_MAX bytes. Returns the length, or
 * -EINVAL with a message in `why`. */
int tls_alpn_wire(const char *list, unsigned char *out, char *why, size_t why_cap);

#endif
