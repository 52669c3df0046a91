/* From options to contexts of TLS: reads certificates and keys, and says which option is wrong. */
#include "options_tls.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/targets.h"

void options_tls_init(struct options_tls *o)
{
    *o = (struct options_tls){.client_cert = -1, .min = -1, .dial_min = -1};
}

void options_tls_deinit(struct options_tls *o)
{
    for (size_t i = 0; i < o->n_certs; i++) {
        free(o->certs[i].name);
        free(o->certs[i].cert);
        free(o->certs[i].key);
    }
    free(o->certs);
    char *texts[] = {o->client_ca, o->alpn,      o->ca,  o->name,  o->dial_cert,
                     o->dial_key,  o->dial_alpn, o->pin, o->via_ca};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    tls_server_drop(o->server);
    tls_client_drop(o->client);
    options_tls_init(o);
}

/* --- what is given
 * ---------------------------------------------------------------------------------------- */

static struct options_cert *add(struct options_tls *o)
{
    struct options_cert *grown = realloc(o->certs, (o->n_certs + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    o->certs = grown;
    grown[o->n_certs] = (struct options_cert){0};
    return &grown[o->n_certs++];
}

int options_tls_add_cert(struct options_tls *o, const char *cert)
{
    struct options_cert *c = *cert ? add(o) : NULL;
    if (!c)
        return *cert ? -ENOMEM : -EINVAL;
    c->cert = strdup(cert);
    return c->cert ? 0 : -ENOMEM;
}

int options_tls_add_key(struct options_tls *o, const char *key)
{
    struct options_cert *c = o->n_certs ? &o->certs[o->n_certs - 1] : NULL;
    if (!c || c->key || !*key)
        return -EINVAL;
    c->key = strdup(key);
    return c->key ? 0 : -ENOMEM;
}

int options_tls_add_sni(struct options_tls *o, const char *text)
{
    const char *equals = strchr(text, '='), *comma = equals ? strchr(equals, ',') : NULL;
    if (!equals || equals == text || !equals[1] || comma == equals + 1 || (comma && !comma[1]))
        return -EINVAL;
    struct options_cert *c = add(o);
    if (!c)
        return -ENOMEM;
    c->name = strndup(text, (size_t)(equals - text));
    c->cert = comma ? strndup(equals + 1, (size_t)(comma - equals - 1)) : strdup(equals + 1);
    c->key = comma ? strdup(comma + 1) : NULL;
    return c->name && c->cert && (!comma || c->key) ? 0 : -ENOMEM;
}

/* --- with clients
 * ----------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_cap, const char *fmt,
                                                        ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

static int check_name(const char *name, const char *label, char *why, size_t why_cap)
{
    const char *rest = strncmp(name, "*.", 2) == 0 ? name + 2 : name;
    size_t ok = strspn(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (*rest && *rest != '.' && ok == strlen(rest) && ok <= 253)
        return 0;
    return refuse(why, why_cap, "%s\"%s\" is no server name; write a.example or *.a.example", label,
                  name);
}

static int load_certs(const struct options_tls *o, struct tls_named_cert *out, const char *label,
                      char *why, size_t why_cap)
{
    char reason[600];
    for (size_t i = 0; i < o->n_certs; i++) {
        const struct options_cert *c = &o->certs[i];
        struct tls_cert *cert;
        int err = c->name ? check_name(c->name, label, why, why_cap) : 0;
        if (err)
            return err;
        err = tls_cert_load(c->cert, c->key, &cert, reason, sizeof reason);
        if (err) {
            snprintf(why, why_cap, "%s%s", label, reason);
            return err;
        }
        out[i] = (struct tls_named_cert){c->name, cert};
    }
    return 0;
}

/* What makes no sense without a certificate to show. */
static const char *stray(const struct options_tls *o)
{
    if (o->client_ca)
        return "client-ca";
    if (o->client_cert >= 0)
        return "client-cert";
    if (o->alpn)
        return "alpn";
    return o->min >= 0 ? "min" : NULL;
}

static int make_server(struct options_tls *o, const struct tls_named_cert *certs, const char *label,
                       char *why, size_t why_cap)
{
    char reason[600];
    enum tls_client_cert client = TLS_CLIENT_CERT_NONE;
    if (o->client_cert >= 0)
        client = (enum tls_client_cert)o->client_cert;
    else if (o->client_ca)
        client = TLS_CLIENT_CERT_REQUIRE;
    if (client != TLS_CLIENT_CERT_NONE && !o->client_ca)
        return refuse(why, why_cap,
                      "%sclients' certificates are asked for, but there is no CA to check them by: "
                      "give the client CA, too",
                      label);
    struct tls_server_options options = {.certs = certs,
                                         .n_certs = o->n_certs,
                                         .client_ca = o->client_ca,
                                         .client_cert = client,
                                         .alpn = o->alpn,
                                         .min = o->min > 0 ? TLS_1_3 : TLS_1_2};
    int err = tls_server_new(&options, &o->server, reason, sizeof reason);
    if (err)
        snprintf(why, why_cap, "%s%s", label, reason);
    return err;
}

int options_tls_settle_accept(struct options_tls *o, const char *label, char *why, size_t why_cap)
{
    if (!o->n_certs)
        return stray(o) ? refuse(why, why_cap,
                                 "%sthere is no certificate: --tls-cert FILE goes with --tls-%s",
                                 label, stray(o))
                        : 0;
    if (o->certs[0].name)
        return refuse(why, why_cap,
                      "%sthere is no certificate for clients without a name: give --tls-cert "
                      "before --tls-sni",
                      label);
    struct tls_named_cert *certs = calloc(o->n_certs, sizeof *certs);
    int err = certs ? load_certs(o, certs, label, why, why_cap) : -ENOMEM;
    if (!err)
        err = make_server(o, certs, label, why, why_cap);
    for (size_t i = 0; certs && i < o->n_certs; i++)
        tls_cert_drop(certs[i].cert);
    free(certs);
    return err;
}

/* --- with upstreams
 * --------------------------------------------------------------------------------------- */

static int make_client(const struct options_tls *o, struct tls_client **out, char *why,
                       size_t why_cap)
{
    struct tls_client_options options = {.ca = o->ca,
                                         .cert = o->dial_cert,
                                         .key = o->dial_key,
                                         .alpn = o->dial_alpn,
                                         .pin = o->pin,
                                         .insecure = o->insecure,
                                         .min = o->dial_min > 0 ? TLS_1_3 : TLS_1_2};
    return tls_client_new(&options, out, why, why_cap);
}

static int need_client(struct options_tls *o, char *why, size_t why_cap)
{
    return o->client ? 0 : make_client(o, &o->client, why, why_cap);
}

int options_tls_settle_dial(struct options_tls *o, struct target_options *to, char *why,
                            size_t why_cap)
{
    int err = 0;
    if (o->via_ca) {
        struct tls_client_options options = {.ca = o->via_ca};
        err = tls_client_new(&options, &to->via_tls, why, why_cap);
    }
    if (!err && o->dial)
        err = need_client(o, why, why_cap);
    if (err || !o->dial)
        return err;
    to->tls = tls_client_hold(o->client);
    if (o->name && !(to->tls_name = strdup(o->name)))
        return refuse(why, why_cap, "%s", err_text(-ENOMEM));
    return 0;
}

int options_tls_give(struct options_tls *o, struct targets *t, char *why, size_t why_cap)
{
    if (!targets_lack_tls(t))
        return 0;
    int err = need_client(o, why, why_cap);
    if (err)
        return err;
    err = targets_give_tls(t, o->client);
    for (size_t i = 0; o->name && i < t->n && !err; i++)
        if (t->items[i].tls && !t->items[i].options->tls_name &&
            !(t->items[i].options->tls_name = strdup(o->name)))
            err = -ENOMEM;
    if (err)
        snprintf(why, why_cap, "%s", err_text(err));
    for (size_t i = 0; i < t->n && !err; i++)
        err = target_check(&t->items[i], why, why_cap);
    return err;
}

static bool says_how(const struct options_tls *o)
{
    return o->ca || o->name || o->dial_cert || o->dial_key || o->dial_alpn || o->pin ||
           o->insecure || o->dial_min >= 0;
}

int options_tls_check(const struct options_tls *o, char *why, size_t why_cap)
{
    if (!says_how(o) || o->client)
        return 0;
    return refuse(
        why, why_cap,
        "there are options for TLS with upstreams, but none is reached by TLS: add --tls, "
        "or write tls://host:port for TARGET");
}
