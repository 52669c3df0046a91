/* Addresses of a target: all those of its name, families alternating, IPv6 first, the next one
 * after 250 ms or at once when one fails (RFC 8305). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dial_priv.h"
#include "penstock/base/err.h"

static void drop_candidates(struct candidates *c)
{
    resolver_cancel(&c->query);
    free(c->addrs);
    c->addrs = NULL;
    c->n = c->next = 0;
}

void dial_address_drop(struct dial *d)
{
    drop_candidates(&d->v4);
    drop_candidates(&d->v6);
}

static bool has_candidate(const struct candidates *c)
{
    return c->next < c->n;
}

/* The next address to try: families alternate, IPv6 first. NULL when there is none now. */
static const struct addr *take_candidate(struct dial *d)
{
    struct candidates *first = d->v6_last ? &d->v4 : &d->v6, *second = d->v6_last ? &d->v6 : &d->v4;
    struct candidates *c = has_candidate(first) ? first : second;
    if (!has_candidate(c))
        return NULL;
    d->v6_last = c == &d->v6;
    return &c->addrs[c->next++];
}

static bool is_resolving(const struct dial *d)
{
    return d->v4.query.waiting || d->v6.query.waiting;
}

void dial_address_try_next(struct dial *d)
{
    const struct addr *to;
    while ((to = take_candidate(d))) {
        int err = dial_attempt_start(d, &to->sa, addr_len(to), to);
        if (!err)
            break;
        d->last_err = err;
        d->last_addr = *to;
    }
    if (has_candidate(&d->v4) || has_candidate(&d->v6))
        loop_timer(d->o.loop, &d->next, ATTEMPT_DELAY_MS);
    else if (!to && list_is_empty(&d->attempts) && !d->direct_open && !is_resolving(d))
        dial_next_target(d);
}

static void take_addresses(struct candidates *c, const struct addr *addrs, size_t n, uint16_t port)
{
    c->addrs = calloc(n, sizeof *c->addrs);
    if (!c->addrs)
        return;
    memcpy(c->addrs, addrs, n * sizeof *addrs);
    c->n = n;
    for (size_t i = 0; i < n; i++)
        addr_set_port(&c->addrs[i], port);
}

static void resolved(struct dial *d, struct candidates *c, int err, const struct addr *addrs,
                     size_t n, const char *why)
{
    if (err == 0)
        take_addresses(c, addrs, n, target_first(dial_target(d))->port);
    else if (!d->last_err || d->last_err == PS_EDNS) {
        d->last_err = PS_EDNS;
        d->dns_why = why;
    }
    if (d->v6.query.waiting && !has_candidate(&d->v6) && has_candidate(&d->v4)) {
        loop_timer(d->o.loop, &d->next, RESOLUTION_DELAY_MS);
        return;
    }
    if (d->direct_open || !list_is_empty(&d->attempts)) { /* a race is on: they take their turn */
        if (!timer_is_active(&d->next))
            loop_timer(d->o.loop, &d->next, ATTEMPT_DELAY_MS);
        return;
    }
    dial_address_try_next(d);
}

static void on_v4(struct resolver_query *q, int err, const struct addr *addrs, size_t n,
                  const char *why)
{
    struct dial *d = container_of(q, struct dial, v4.query);
    resolved(d, &d->v4, err, addrs, n, why);
}

static void on_v6(struct resolver_query *q, int err, const struct addr *addrs, size_t n,
                  const char *why)
{
    struct dial *d = container_of(q, struct dial, v6.query);
    resolved(d, &d->v6, err, addrs, n, why);
}

static void begin_name(struct dial *d, const struct endpoint *e)
{
    /* Both are marked as waiting first: an answer from the cache must not take the other for done.
     */
    size_t target = d->target;
    d->v4.query.waiting = d->v6.query.waiting = true;
    list_init(&d->v4.query.node);
    list_init(&d->v6.query.node);
    resolver_lookup(d->o.resolver, &d->v6.query, e->host, AF_INET6, on_v6);
    if (!d->finished && d->target == target)
        resolver_lookup(d->o.resolver, &d->v4.query, e->host, AF_INET, on_v4);
}

void dial_address_begin(struct dial *d, const struct endpoint *e)
{
    d->v6_last = false;
    if (e->kind == ENDPOINT_NAME) {
        begin_name(d, e);
        return;
    }
    take_addresses(e->ip.sa.sa_family == AF_INET ? &d->v4 : &d->v6, &e->ip, 1, e->port);
    dial_address_try_next(d);
}
