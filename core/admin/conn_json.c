/* A connection as GET /v1/connections tells of it. */
#include "conn_json.h"

#include <string.h>

#include "penstock/net/tls.h"
#include "penstock/proxy/conn.h"
#include "rates.h"

uint64_t conn_json_age_ms(const struct conn *c)
{
    return (conn_loop(c)->now_ns - c->accepted_ns) / 1000000;
}

static const char *const state_texts[] = {
#define X(name, text) text,
    CONN_STATES(X)
#undef X
};

static const char *const mode_texts[] = {
    [RELAY_COPY] = "copy",     [RELAY_SPLICE] = "splice",   [RELAY_SCRIPT] = "script",
    [RELAY_STREAM] = "stream", [RELAY_DISCARD] = "discard",
};

static void write_relay(struct json *j, const struct conn *c, enum relay_direction dir, bool rates)
{
    const struct relay *r = dir == RELAY_UP ? &c->up : &c->down;
    json_begin_object(j, dir == RELAY_UP ? "up" : "down");
    json_uint(j, "bytes", r->bytes);
    if (rates)
        json_uint(j, "rate", rates_of(c, dir));
    else
        json_null(j, "rate");
    json_text(j, "mode", r->state == RELAY_IDLE ? NULL : mode_texts[r->mode]);
    json_end_object(j);
}

/* The version, or null without TLS. */
static void write_tls(struct json *j, const char *key, const struct stream *s)
{
    struct tls_info info;
    json_text(j, key, tls_get_info(s, &info) ? info.version : NULL);
}

static void write_tags(struct json *j, const struct conn *c)
{
    json_begin_object(j, "tags");
    for (const struct conn_tag *t = c->tags; t; t = t->next)
        json_text(j, t->text, t->value);
    json_end_object(j);
}

static void write_waiting(struct json *j, const struct conn *c)
{
    struct policy_place place;
    if (!c->policy || !c->policy->ops->waiting(c->policy, c, &place)) {
        json_null(j, "waiting");
        return;
    }
    json_begin_object(j, "waiting");
    json_text(j, "hook", place.hook);
    json_text(j, "line", place.line[0] ? place.line : NULL);
    json_end_object(j);
}

void conn_json_write(struct json *j, const struct conn *c, bool rates)
{
    char client[ADDR_TEXT_MAX], proxy[ADDR_TEXT_MAX], upstream[300];
    const struct conn_proxy *header = conn_proxy(c);
    uint64_t now = conn_loop(c)->now_ms, age = conn_json_age_ms(c);
    const char *to = conn_upstream_text(c, upstream, sizeof upstream); /* "-": nowhere */
    uint64_t idle = c->active_ms && c->active_ms <= now ? now - c->active_ms : age;
    json_begin_object(j, NULL);
    json_uint(j, "id", c->id);
    json_text(j, "listener", conn_listener_name(c));
    json_text(j, "client", addr_format(&c->client_addr, client, sizeof client));
    json_text(j, "proxy", header ? addr_format(&header->peer, proxy, sizeof proxy) : NULL);
    json_text(j, "upstream", strcmp(to, "-") == 0 ? NULL : to);
    json_text(j, "state", state_texts[c->state]);
    write_waiting(j, c);
    json_uint(j, "age_ms", age);
    json_uint(j, "idle_ms", idle < age ? idle : age);
    write_relay(j, c, RELAY_UP, rates);
    write_relay(j, c, RELAY_DOWN, rates);
    write_tags(j, c);
    json_begin_object(j, "tls");
    write_tls(j, "client", &c->client);
    write_tls(j, "upstream", &c->upstream);
    json_end_object(j);
    json_end_object(j);
}
