/* Targets: their options, checked against each other, copied and freed. Never dials. */
#include "penstock/net/target.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"

struct target_options *target_options_new(void)
{
    return calloc(1, sizeof(struct target_options)); /* AF_UNSPEC is 0 */
}

void target_options_free(struct target_options *o)
{
    if (!o)
        return;
    target_options_clear_hops(o);
    target_options_clear_tlvs(o);
    account_drop(o->account);
    tls_client_drop(o->tls);
    tls_client_drop(o->via_tls);
    free(o->tls_name);
    free(o);
}

void target_options_clear_hops(struct target_options *o)
{
    for (size_t i = 0; i < o->n_hops; i++)
        hop_deinit(&o->hops[i]);
    free(o->hops);
    o->hops = NULL;
    o->n_hops = 0;
}

void target_options_clear_tlvs(struct target_options *o)
{
    for (size_t i = 0; i < o->n_tlvs; i++)
        free((void *)o->tlvs[i].value);
    free(o->tlvs);
    o->tlvs = NULL;
    o->n_tlvs = 0;
}

int target_options_add_tlv(struct target_options *o, uint8_t type, const void *value, size_t len)
{
    struct proxy_tlv tlv = {.type = type, .len = (uint16_t)len};
    if (len > PROXY_TLVS_MAX ||
        proxy_tlvs_size(o->tlvs, o->n_tlvs) + proxy_tlvs_size(&tlv, 1) > PROXY_TLVS_MAX)
        return -EINVAL;
    struct proxy_tlv *grown = realloc(o->tlvs, (o->n_tlvs + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    o->tlvs = grown;
    if (len) {
        uint8_t *copy = malloc(len);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, value, len);
        tlv.value = copy;
    }
    grown[o->n_tlvs++] = tlv;
    return 0;
}

/* Room for one more hop, empty and not yet counted; NULL when out of memory. */
static struct hop *make_room(struct target_options *o)
{
    struct hop *grown = realloc(o->hops, (o->n_hops + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    o->hops = grown;
    grown[o->n_hops] = (struct hop){0};
    return &grown[o->n_hops];
}

int target_options_add_hop(struct target_options *o, const char *text, char *why, size_t why_cap)
{
    if (o->n_hops == TARGET_HOPS_MAX) {
        snprintf(why, why_cap, "at most %d proxies may be on the way", TARGET_HOPS_MAX);
        return -EINVAL;
    }
    struct hop *hop = make_room(o);
    if (!hop) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    int err = hop_parse(text, hop, why, why_cap);
    if (!err)
        o->n_hops++;
    return err;
}

static int copy_hop(struct target_options *o, const struct hop *from)
{
    struct hop *hop = make_room(o);
    if (!hop)
        return -ENOMEM;
    hop->kind = from->kind;
    hop->tls = from->tls;
    hop->account = account_hold(from->account);
    int err = endpoint_copy(&hop->endpoint, &from->endpoint, from->endpoint.port);
    if (!err && from->user) {
        hop->user = strdup(from->user);
        hop->password = strdup(from->password);
        err = hop->user && hop->password ? 0 : -ENOMEM;
    }
    if (err)
        hop_deinit(hop);
    else
        o->n_hops++;
    return err;
}

struct target_options *target_options_copy(const struct target_options *from)
{
    struct target_options *o = target_options_new();
    int err = o ? 0 : -ENOMEM;
    for (size_t i = 0; i < from->n_hops && !err; i++)
        err = copy_hop(o, &from->hops[i]);
    for (size_t i = 0; i < from->n_tlvs && !err; i++)
        err = target_options_add_tlv(o, from->tlvs[i].type, from->tlvs[i].value, from->tlvs[i].len);
    if (!err && from->tls_name && !(o->tls_name = strdup(from->tls_name)))
        err = -ENOMEM;
    if (err) {
        target_options_free(o);
        return NULL;
    }
    o->tls = tls_client_hold(from->tls);
    o->via_tls = tls_client_hold(from->via_tls);
    o->proxy = from->proxy;
    o->source = from->source;
    o->timeout_ms = from->timeout_ms;
    o->account = account_hold(from->account);
    return o;
}

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_cap, const char *fmt,
                                                        ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

int target_check(const struct target *t, char *why, size_t why_cap)
{
    const struct target_options *o = t->options;
    const struct endpoint *first = target_first(t);
    if (!o)
        return 0;
    if (o->n_tlvs && o->proxy != TARGET_PROXY_V2)
        return refuse(why, why_cap, "tlv belongs to proxy = \"v2\" only");
    if (o->n_hops && t->endpoint.kind == ENDPOINT_UNIX)
        return refuse(why, why_cap, "no proxy can reach the UNIX socket \"%s\" of this host",
                      t->endpoint.text);
    if (o->tls && !o->tls_name && t->endpoint.kind == ENDPOINT_UNIX &&
        tls_client_checks_name(o->tls))
        return refuse(why, why_cap,
                      "TLS to the UNIX socket \"%s\" needs the name that its certificate is for",
                      t->endpoint.text);
    if (o->source.sa.sa_family == AF_UNSPEC)
        return 0;
    if (first->kind == ENDPOINT_UNIX)
        return refuse(why, why_cap, "a UNIX socket (\"%s\") is not reached from an IP address",
                      first->text);
    if (first->kind == ENDPOINT_IP && first->ip.sa.sa_family != o->source.sa.sa_family)
        return refuse(why, why_cap, "\"%s\" cannot be reached from an address of the other family",
                      first->text);
    return 0;
}

static bool lacks_via_tls(const struct target_options *o)
{
    for (size_t i = 0; o && !o->via_tls && i < o->n_hops; i++)
        if (o->hops[i].tls)
            return true;
    return false;
}

bool target_lacks_tls(const struct target *t)
{
    return (t->tls && !(t->options && t->options->tls)) || lacks_via_tls(t->options);
}

int target_give_tls(struct target *t, struct tls_client *client)
{
    if (!t->options)
        t->options = target_options_new();
    if (!t->options)
        return -ENOMEM;
    if (t->tls && !t->options->tls)
        t->options->tls = tls_client_hold(client);
    if (lacks_via_tls(t->options))
        t->options->via_tls = tls_client_hold(client);
    return 0;
}

static const char *endpoint_tls_name(const struct endpoint *e, char *buf, size_t cap)
{
    if (e->kind == ENDPOINT_NAME)
        return e->host;
    return e->kind == ENDPOINT_IP ? addr_format_ip(&e->ip, buf, cap) : NULL;
}

const char *target_tls_name(const struct target *t, char *buf, size_t cap)
{
    if (t->options && t->options->tls_name)
        return t->options->tls_name;
    return endpoint_tls_name(&t->endpoint, buf, cap);
}

const char *hop_tls_name(const struct hop *h, char *buf, size_t cap)
{
    return endpoint_tls_name(&h->endpoint, buf, cap);
}

void target_deinit(struct target *t)
{
    endpoint_deinit(&t->endpoint);
    target_options_free(t->options);
    t->options = NULL;
}

const struct endpoint *target_first(const struct target *t)
{
    return target_n_hops(t) ? &t->options->hops[0].endpoint : &t->endpoint;
}

/* The account of the `i`th on the way: the hops, then the endpoint. NULL without one. */
static struct account *account_of(const struct target_options *o, size_t i)
{
    return i < o->n_hops ? o->hops[i].account : o->account;
}

void target_enter(const struct target *t)
{
    for (size_t i = 0; t->options && i <= t->options->n_hops; i++) {
        struct account *a = account_of(t->options, i);
        if (a)
            a->ops->enter(a);
    }
}

void target_leave(const struct target *t)
{
    for (size_t i = 0; t->options && i <= t->options->n_hops; i++) {
        struct account *a = account_of(t->options, i);
        if (a)
            a->ops->leave(a);
    }
}

void target_dialled(const struct target *t, size_t n_good, uint64_t now_ms)
{
    for (size_t i = 0; t->options && i <= t->options->n_hops && i <= n_good; i++) {
        struct account *a = account_of(t->options, i);
        if (a)
            a->ops->dialled(a, i < n_good, now_ms);
    }
}

uint64_t target_ends(const struct target *t, uint64_t chosen_ms)
{
    uint64_t first = 0;
    for (size_t i = 0; t->options && i <= t->options->n_hops; i++) {
        struct account *a = account_of(t->options, i);
        uint64_t ends = a ? a->ops->ends(a, chosen_ms) : 0;
        if (ends && (!first || ends < first))
            first = ends;
    }
    return first;
}

bool target_uses(const struct target *t, const struct account *a)
{
    for (size_t i = 0; t->options && i <= t->options->n_hops; i++)
        if (account_of(t->options, i) == a)
            return true;
    return false;
}

const char *target_format_via(const struct target *t, char *buf, size_t cap)
{
    size_t len = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < target_n_hops(t); i++) {
        char hop[400];
        int n = snprintf(buf + len, cap - len, "%s%s", i ? "," : "",
                         hop_format(&t->options->hops[i], hop, sizeof hop));
        if (n < 0 || (size_t)n >= cap - len)
            break;
        len += (size_t)n;
    }
    return buf;
}
