/* TLS as the options say it: files, names and lists, until there are contexts made of them. */
#ifndef PENSTOCK_CORE_CLI_OPTIONS_TLS_H
#define PENSTOCK_CORE_CLI_OPTIONS_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "penstock/net/tls_ctx.h"

struct options_cert {
    char *name; /* NULL: those in the certificate */
    char *cert;
    char *key; /* NULL: in the same file */
};

/* Texts are owned. Words are kept as their index, -1 when not given. */
struct options_tls {
    /* with clients */
    struct options_cert *certs;
    size_t n_certs;
    char *client_ca, *alpn;
    int client_cert, min;
    struct tls_server *server; /* made of these; one reference; NULL: no TLS with clients */
    /* with upstreams */
    bool dial, insecure;
    char *ca, *name, *dial_cert, *dial_key, *dial_alpn, *pin, *via_ca;
    int dial_min;
    struct tls_client *client; /* for targets that say tls://, made when the first one does */
};

void options_tls_init(struct options_tls *o);
void options_tls_deinit(struct options_tls *o);

/* --tls-cert FILE: one more certificate. 0 or -ENOMEM. */
int options_tls_add_cert(struct options_tls *o, const char *cert);
/* --tls-key FILE: the key of the certificate before it. 0, -ENOMEM, or -EINVAL without one. */
int options_tls_add_key(struct options_tls *o, const char *key);
/* --tls-sni NAME=CERT[,KEY]. 0, -ENOMEM or -EINVAL. */
int options_tls_add_sni(struct options_tls *o, const char *text);

/* Makes o->server. Messages begin with `label`. 0, or a negative error with a message in `why`. */
int options_tls_settle_accept(struct options_tls *o, const char *label, char *why, size_t why_cap);

struct target_options;
struct targets;
/* Puts what the options say of TLS with upstreams into `to`. As above. */
int options_tls_settle_dial(struct options_tls *o, struct target_options *to, char *why,
                            size_t why_cap);
/* All targets have been read: is something said that is for nobody? As above. */
int options_tls_check(const struct options_tls *o, char *why, size_t why_cap);
/* Gives targets that say tls://, and proxies behind TLS, what they need. As above. */
int options_tls_give(struct options_tls *o, struct targets *t, char *why, size_t why_cap);

#endif
