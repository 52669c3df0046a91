/* Defaults and ownership of a config. Knows nothing of where the values come from. */
#include "penstock/proxy/config.h"

#include <stdlib.h>
#include <string.h>

void config_init(struct config *c)
{
    *c = (struct config){
        .workers = 1,
        .max_versions = 4,
        .drain_ms = 30000,
        .upgrade_ms = 30000,
        .gather_us = 400,
        .sandbox = true,
        .log = {.level = LOG_INFO, .format = LOG_TEXT},
        .refs = 1,
    };
}

static void listener_init(struct config_listener *l)
{
    *l = (struct config_listener){
        .timeouts = {.connect_ms = 5000,
                     .handshake_ms = 10000,
                     .idle_ms = 3600000,
                     .half_closed_ms = 60000},
        .socket = {.nodelay = true, .backlog = 4096},
        .relay = RELAY_CHOICE_AUTO,
    };
    l->socket.source.sa.sa_family = AF_UNSPEC;
}

static void listener_deinit(struct config_listener *l)
{
    free(l->name);
    endpoint_deinit(&l->bind);
    targets_drop(l->to);
    tls_server_drop(l->tls);
    networks_drop(l->accept_proxy.from);
}

struct config_settings *config_add_settings(struct config *c, size_t n)
{
    struct config_settings *s = calloc(1, sizeof *s + n * sizeof s->items[0]);
    if (!s)
        return NULL;
    s->n = n;
    s->next = c->noted;
    c->noted = s;
    return s;
}

static void free_settings(struct config *c)
{
    while (c->noted) {
        struct config_settings *s = c->noted;
        c->noted = s->next;
        for (size_t i = 0; i < s->n; i++)
            free(s->items[i].json);
        free(s);
    }
}

void config_deinit(struct config *c)
{
    for (size_t i = 0; i < c->n_listeners; i++)
        listener_deinit(&c->listeners[i]);
    free(c->listeners);
    free_settings(c);
    free(c->policy);
    free(c->allow);
    free(c->auth);
    free(c->resolver);
    free(c->pid_file);
    free(c->admin);
    free(c->admin_token_file);
    free(c->user);
    free(c->lua_modules);
    free((void *)c->log.file);
    free((void *)c->log.access_file);
    *c = (struct config){0};
}

static bool dials_tls(const struct targets *t)
{
    for (size_t i = 0; t && i < t->n; i++) {
        const struct target_options *o = t->items[i].options;
        if (o && (o->tls || o->via_tls))
            return true;
    }
    return false;
}

bool config_has_tls(const struct config *c)
{
    for (size_t i = 0; i < c->n_listeners; i++)
        if (c->listeners[i].tls || dials_tls(c->listeners[i].to))
            return true;
    return false;
}

void config_settle(struct config *c)
{
    for (size_t i = 0; i < c->n_listeners; i++) {
        const struct config_socket *o = &c->listeners[i].socket;
        c->listeners[i].dial_socket = (struct dial_socket){.nodelay = o->nodelay,
                                                           .keepalive_s = o->keepalive_s,
                                                           .rcvbuf_bytes = o->rcvbuf_bytes,
                                                           .sndbuf_bytes = o->sndbuf_bytes,
                                                           .source = o->source};
    }
}

struct config *config_new(void)
{
    struct config *c = malloc(sizeof *c);
    if (!c)
        return NULL;
    config_init(c);
    return c;
}

struct config *config_hold(struct config *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void config_drop(struct config *c)
{
    /* The last one to drop must see what the others did before they let go. */
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    config_deinit(c);
    free(c);
}

struct config_listener *config_add_listener(struct config *c)
{
    size_t n = c->n_listeners;
    /* Room doubles (a range can mean 65535 listeners): it is full when n is a power of two. */
    if ((n & (n - 1)) == 0) {
        struct config_listener *grown = realloc(c->listeners, (n ? 2 * n : 1) * sizeof *grown);
        if (!grown)
            return NULL;
        c->listeners = grown;
    }
    c->n_listeners++;
    listener_init(&c->listeners[n]);
    return &c->listeners[n];
}
