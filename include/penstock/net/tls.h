/* TLS on an open stream, of either side: takes its place (struct stream_ops) and moves its bytes
 * over what it was before, a socket or another TLS stream.
 *
 * Writes are staged: several records go out in one call, and what the socket does not take is kept,
 * 64 KiB of plain text and its overhead at most. An end without the other side's close_notify is an
 * error, PS_ETRUNCATED: never a clean end (RFC 8446 section 6.1). */
#ifndef PENSTOCK_NET_TLS_H
#define PENSTOCK_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "penstock/net/loop.h"
#include "penstock/net/stream.h"
#include "penstock/net/tls_ctx.h"

enum tls_progress {
    TLS_OPEN,   /* bytes may flow */
    TLS_WAITS,  /* for the other side: call tls_step() after the next event */
    TLS_ASKS,   /* for a certificate: tls_choose(), then tls_step() */
    TLS_FAILED, /* s->err tells, tls_why() in words */
};

/* Begins to accept on the open stream. `ask`: stop at the ClientHello, for tls_choose(). Then
 * tls_step(). Returns 0 or -ENOMEM, and nothing has changed. */
int tls_accept(struct stream *s, struct loop *loop, struct tls_server *server, bool ask);
/* Begins to connect. `name` is the host that the certificate must be for, also sent as SNI unless
 * it is an address; NULL only where `client` does not check it. Sessions are resumed by `name`. */
int tls_connect(struct stream *s, struct loop *loop, struct tls_client *client, const char *name);

/* Goes on with the handshake as far as it goes now. */
enum tls_progress tls_step(struct stream *s);
/* Nobody waits for the end of the handshake any more: the stream is broken, if it is not over. */
void tls_give_up(struct stream *s);
/* Is it TLS, whatever its state? */
bool tls_is_on(const struct stream *s);
/* TLS_ASKS: the server name asked for; "" without one. Valid as long as the stream. */
const char *tls_asked_name(const struct stream *s);
/* TLS_ASKS: answers with `cert` (held; NULL: as configured), or refuses with an alert. */
void tls_choose(struct stream *s, struct tls_cert *cert, bool refuse);
/* Why it failed, "" when it has not: a phrase without the other side's bytes in it. */
const char *tls_why(const struct stream *s);
/* What may help, for people; NULL when nothing is known to. */
const char *tls_advice(const struct stream *s);

enum { TLS_ALPN_MAX = 256 };

struct tls_info {
    const char *version;     /* "TLSv1.3" */
    const char *cipher;      /* "TLS_AES_128_GCM_SHA256" */
    const char *sni;         /* "" without */
    char alpn[TLS_ALPN_MAX]; /* "" without */
    bool resumed;
    bool verified; /* the other side's certificate was asked for, is there, and has been checked */
};

/* What an open TLS stream has agreed on; texts are valid as long as it is open. False when it is
 * none. */
bool tls_get_info(const struct stream *s, struct tls_info *info);

/* The other side's certificate, as texts. */
struct tls_peer {
    char *subject; /* RFC 2253, "CN=alice,O=lab" */
    char *issuer;
    char **names; /* subject alternative names: "DNS:a.lab", "IP:192.0.2.1", "URI:…" */
    size_t n_names;
    char fingerprint[65]; /* SHA-256 of the certificate, lower-case hexadecimal */
    char *serial;         /* hexadecimal */
};

/* Returns 0, -ENOENT without a certificate, or -ENOMEM. Then tls_peer_deinit(). */
int tls_get_peer(const struct stream *s, struct tls_peer *peer);
void tls_peer_deinit(struct tls_peer *peer);

#endif
