/* What a connection tells its dial, and keeps of what that has told. */
#include <stdlib.h>
#include <string.h>

#include "conn_priv.h"
#include "penstock/base/err.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"

static bool wants_proxy_header(const struct targets *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].options && t->items[i].options->proxy != TARGET_PROXY_NONE)
            return true;
    return false;
}

struct dial_proxy conn_dial_proxy(const struct conn *c)
{
    struct dial_proxy proxy = {.client = c->client_addr};
    const struct conn_proxy *header = conn_proxy(c);
    union {
        struct addr addr;
        struct sockaddr_storage any;
    } local = {0};
    socklen_t len = sizeof local;
    if (!wants_proxy_header(c->targets))
        return proxy;
    if (header && header->told) { /* a chain: what that proxy has told is told on */
        proxy.local = header->to;
        proxy.client_path = header->from_path;
        proxy.local_path = header->to_path;
        return proxy;
    }
    if (getsockname(c->client.entry.fd, &local.addr.sa, &len) == 0)
        proxy.local = local.addr;
    else if (c->client.ops) /* of a virtual network: no socket to ask */
        proxy.local = c->listener->address;
    if (c->client_addr.sa.sa_family == AF_UNIX)
        proxy.local_path = c->config->bind.host;
    return proxy;
}

const char *conn_failed_detail(const struct conn *c)
{
    if (c->failed_hop)
        return "hop";
    if (c->failed_why)
        return c->failed_why;
    if (c->failed_err == PS_ETIMEOUT)
        return "connect";
    return reason_from_err(c->failed_err) == REASON_SYSTEM ? err_text(c->failed_err) : "";
}

enum close_reason conn_failed_reason(const struct conn *c)
{
    /* "denied" is a policy's word, and a proxy that says no is nothing of ours. */
    if (c->failed_hop && c->failed_err == PS_EDENIED)
        return REASON_REFUSED;
    return reason_from_err(c->failed_err);
}

void conn_keep_to_drain(struct conn *c)
{
    uint64_t until_ms = target_ends(&c->targets->items[c->target], c->dial_ns / 1000000);
    if (until_ms)
        conn_end_within(c, until_ms, "drain");
}

void conn_note_failure(struct conn *c, const struct dial_result *result)
{
    free(c->failed_hop);
    c->failed_err = result->err;
    c->failed_why = result->why;
    c->failed_hop = result->hop ? strdup(result->hop) : NULL;
}
