/* Which certificates are in force, and until when. */
#include <stdlib.h>
#include <string.h>

#include "penstock/base/log.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/config.h"
#include "stats_priv.h"

static void free_cert(struct stats_cert *c)
{
    list_remove(&c->node);
    free(c->file);
    free(c);
}

void stats_forget_certificates(struct list *certs)
{
    list_for_each (node, next, certs)
        free_cert(container_of(node, struct stats_cert, node));
}

static bool is_known(const struct list *certs, const struct stats_cert *c)
{
    list_for_each (node, next, certs) {
        const struct stats_cert *other = container_of(node, struct stats_cert, node);
        if (!strcmp(other->side, c->side) && !strcmp(other->file, c->file) &&
            !strcmp(other->listener, c->listener))
            return true;
    }
    return false;
}

static void add(struct list *certs, const char *listener, const char *side,
                const struct tls_cert *cert)
{
    size_t len = strlen(listener) + 1;
    struct stats_cert *c = calloc(1, sizeof *c + len);
    char *file = strdup(tls_cert_path(cert));
    if (!c || !file) {
        log_warn("metrics: out of memory: a certificate is missing");
        free(file);
        free(c);
        return;
    }
    list_init(&c->node);
    c->not_after = tls_cert_not_after(cert);
    c->side = side;
    c->file = file;
    memcpy(c->listener, listener, len);
    if (is_known(certs, c))
        free_cert(c);
    else
        list_push(certs, &c->node);
}

static void add_listener(struct list *certs, const struct config_listener *l, const char *name)
{
    const struct tls_cert *cert;
    for (size_t i = 0; l->tls && (cert = tls_server_cert_at(l->tls, i)); i++)
        add(certs, name, "client", cert);
    for (size_t i = 0; l->to && i < l->to->n; i++) {
        const struct target_options *o = l->to->items[i].options;
        cert = o && o->tls ? tls_client_cert(o->tls) : NULL;
        if (cert)
            add(certs, name, "upstream", cert);
    }
}

void stats_take_certificates(struct stats *s, const struct config *c, const char *const *names)
{
    struct list certs, before;
    list_init(&certs);
    for (size_t i = 0; i < c->n_listeners; i++)
        add_listener(&certs, &c->listeners[i], names[i]);
    uv_mutex_lock(&s->lock);
    list_take(&before, &s->certs);
    list_take(&s->certs, &certs);
    uv_mutex_unlock(&s->lock);
    stats_forget_certificates(&before);
}
