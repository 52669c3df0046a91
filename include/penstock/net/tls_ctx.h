/* What TLS connections have in common: of a listener, what it shows and asks of clients; towards
 * upstreams, whom it trusts. Read-only once made (but for kept sessions, behind a lock), counted,
 * shared by all threads.
 *
 * Defaults: TLS 1.2 and 1.3 (RFC 8446, RFC 5246 with AEAD ciphers and forward secrecy only), X25519
 * and P-256 and P-384, no renegotiation, no compression, no early data. */
#ifndef PENSTOCK_NET_TLS_CTX_H
#define PENSTOCK_NET_TLS_CTX_H

#include <stdbool.h>
#include <stddef.h>

struct tls_cert;
struct tls_client;
struct tls_server;
struct tls_tickets;

enum tls_version { TLS_1_2, TLS_1_3 };

/* The file that SSLKEYLOGFILE names, to which the secrets of every session go (for Wireshark); NULL
 * without. Not where the process has more rights than who started it. */
const char *tls_keylog_path(void);

/* As soon as there is a context, the process forbids core dumps and debuggers of the same user: its
 * memory has keys in it. This allows them, from before the first context on. */
void tls_allow_core_dumps(void);
/* Forbids them again, after something (a change of users) has made the system forget. */
void tls_hide_memory(void);

/* ---- session tickets (RFC 5077; RFC 8446 section 4.6.1) ---- */

/* Keys of session tickets: new ones every two hours, the last ones are still taken. One for the
 * process, so that a client may resume at any worker and after a reload. NULL when out of memory.
 */
struct tls_tickets *tls_tickets_new(void);
/* After every tls_server that has them. NULL is fine. */
void tls_tickets_free(struct tls_tickets *t);
enum { TLS_TICKETS_BYTES = 8 + 2 * 80 };
/* The keys with their age, for a process that takes over, into TLS_TICKETS_BYTES bytes: secrets. */
void tls_tickets_write(struct tls_tickets *t, unsigned char *out);
/* Takes the keys that another process has written, before the first connection; those of an unknown
 * form are left. */
void tls_tickets_read(struct tls_tickets *t, const unsigned char *bytes, size_t n);

/* ---- accepting ---- */

enum tls_client_cert { TLS_CLIENT_CERT_NONE, TLS_CLIENT_CERT_REQUEST, TLS_CLIENT_CERT_REQUIRE };

/* A certificate for a server name. */
struct tls_named_cert {
    const char *name; /* "a.lab" or "*.a.lab"; NULL: those in the certificate */
    struct tls_cert *cert;
};

struct tls_server_options {
    const struct tls_named_cert *certs; /* the first one is the default; at least one */
    size_t n_certs;
    const char *client_ca; /* file of those that issue clients' certificates; NULL: none */
    enum tls_client_cert client_cert;
    const char *alpn; /* "h2,http/1.1" in the order of preference; NULL: none */
    enum tls_version min;
};

/* Holds what it needs of the options. Returns 0; or -EINVAL or -ENOMEM with a message in `why`. */
int tls_server_new(const struct tls_server_options *o, struct tls_server **out, char *why,
                   size_t why_cap);
/* Gives it the keys of the process's tickets; before its first connection. Until then it has some
 * of its own. */
void tls_server_set_tickets(struct tls_server *s, struct tls_tickets *t);
struct tls_server *tls_server_hold(struct tls_server *s);
/* NULL is fine. */
void tls_server_drop(struct tls_server *s);
/* tls_cert_warn() for each of its certificates. */
void tls_server_warn(const struct tls_server *s);
/* Its certificates, by number from 0; NULL behind the last. Not held. */
const struct tls_cert *tls_server_cert_at(const struct tls_server *s, size_t i);
/* The certificate for this name: exact, then "*." and one label, then by what certificates say; the
 * default when there is none. Not held. */
const struct tls_cert *tls_server_cert(const struct tls_server *s, const char *name);

/* ---- dialling ---- */

struct tls_client_options {
    const char *ca;         /* file or folder of trusted certificates; NULL: the system's */
    const char *cert, *key; /* ours, when we are asked; NULL: none; key NULL: in the same file */
    const char *alpn;       /* "h2,http/1.1"; NULL: none */
    const char *pin;        /* SHA-256 fingerprints of certificates, comma list; NULL: none. Without
                               `ca` the fingerprint alone is asked */
    bool insecure;          /* take any certificate */
    enum tls_version min;
};

/* As tls_server_new(). */
int tls_client_new(const struct tls_client_options *o, struct tls_client **out, char *why,
                   size_t why_cap);
struct tls_client *tls_client_hold(struct tls_client *c);
/* NULL is fine. */
void tls_client_drop(struct tls_client *c);

/* The certificate that it shows when it is asked; NULL: none. Not held. */
const struct tls_cert *tls_client_cert(const struct tls_client *c);
/* Does it take any certificate? */
bool tls_client_is_insecure(const struct tls_client *c);
/* Does it check the name of the other side's certificate? */
bool tls_client_checks_name(const struct tls_client *c);

/* Checks a list of protocols or of fingerprints. 0, or -EINVAL with a message in `why`. */
int tls_check_alpn(const char *list, char *why, size_t why_cap);
int tls_check_pin(const char *list, char *why, size_t why_cap);

/* Can this kernel encrypt TLS on a socket (kTLS), and this OpenSSL let it? Found out once. From any
 * thread. */
bool tls_kernel_encrypts(void);

#endif
