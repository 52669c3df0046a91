/* Listeners: listed, drained, opened again. */
#include <errno.h>
#include <string.h>

#include "admin_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"

/* --- list
 * --------------------------------------------------------------------------------------------------
 */

static void write_limits(struct json *j, const struct config_limits *l)
{
    json_begin_object(j, "limits"); /* 0: none */
    json_uint(j, "connections", l->conns);
    json_uint(j, "per_ip", l->per_ip);
    json_uint(j, "rate", l->rate);
    json_uint(j, "up_bytes", l->up_bytes);
    json_uint(j, "down_bytes", l->down_bytes);
    json_uint(j, "handshakes", l->handshakes);
    json_end_object(j);
}

static void write_listener(struct json *j, const struct listener *l,
                           const struct config_listener *config)
{
    char to[512];
    json_begin_object(j, NULL);
    json_text(j, "name", config->name ? config->name : l->text);
    json_text(j, "address", l->text);
    json_text(j, "to", config->to ? targets_format(config->to, to, sizeof to) : NULL);
    json_bool(j, "tls", config->tls != NULL);
    json_text(j, "state", l->drained ? "drained" : "open");
    json_uint(j, "connections", atomic_load(&l->conns));
    json_uint(j, "handshakes", atomic_load(&l->handshakes));
    json_uint(j, "accepted", atomic_load(&l->seq));
    json_uint(j, "limited", atomic_load(&l->limited));
    write_limits(j, &config->limits);
    json_end_object(j);
}

void listeners_list(struct request *r)
{
    struct server *s = r->admin->server;
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_begin_list(&j, "listeners");
    for (size_t i = 0; i < server_n_listeners(s); i++) {
        const struct config_listener *config;
        const struct listener *l = server_listener(s, i, &config);
        write_listener(&j, l, config);
    }
    json_end_list(&j);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

/* --- drain and up
 * --------------------------------------------------------------------------------------------------
 */

static unsigned drain_status(int err)
{
    switch (err) {
    case 0:
        return MHD_HTTP_OK;
    case -ENOENT:
        return MHD_HTTP_NOT_FOUND;
    case -EBUSY:
        return MHD_HTTP_CONFLICT;
    case -ESHUTDOWN:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    case -ENOMEM:
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    default:
        return ADMIN_UNPROCESSABLE; /* an address cannot be bound again */
    }
}

static void answer(struct server_waiter *waiter, int err, const char *why, const char *state)
{
    struct request *r = request_waited(waiter);
    struct json j;
    if (!r)
        return;
    if (err) {
        request_fail(r, drain_status(err), "%s", why);
        return;
    }
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_text(&j, "listener", r->names[0].bytes);
    json_text(&j, "state", state);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}

static void on_drained(struct server_waiter *waiter, int err, unsigned version, const char *why)
{
    (void)version;
    answer(waiter, err, why, "drained");
}

static void on_up(struct server_waiter *waiter, int err, unsigned version, const char *why)
{
    (void)version;
    answer(waiter, err, why, "open");
}

/* The name in the path; or fails `r`. */
static const char *name_in(struct request *r)
{
    if (text_is_whole(&r->names[0]))
        return r->names[0].bytes;
    request_fail(r, MHD_HTTP_NOT_FOUND, "there is no such listener");
    return NULL;
}

void listeners_drain(struct request *r)
{
    /* POST /v1/listeners/{listener}/drain */
    static const struct argument arguments[] = {
        {"over", argument_over, ARGUMENT_OVER},
    };
    uint64_t over_ms = UINT64_MAX;
    bool good = request_arguments(r, arguments, 1, &over_ms);
    const char *name = good ? name_in(r) : NULL;
    struct server_waiter *waiter = name ? request_wait(r, on_drained) : NULL;
    if (waiter)
        server_drain_listener(r->admin->server, name, over_ms, waiter);
}

void listeners_up(struct request *r)
{
    const char *name = request_arguments(r, NULL, 0, NULL) ? name_in(r) : NULL;
    struct server_waiter *waiter = name ? request_wait(r, on_up) : NULL;
    if (waiter)
        server_up_listener(r->admin->server, name, waiter);
}
