/* Pairs LISTEN TARGET into listeners: lists and port ranges become one listener for each port. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options_priv.h"
#include "penstock/base/err.h"

/* One pair under way. */
struct pair {
    struct config *config;
    const struct config_listener *each;    /* limits, times, socket options */
    struct target_options *to;             /* --via and its kin, NULL without */
    const char *listen, *target;           /* as written */
    const char *listen_word, *target_word; /* what messages call them */
    const char *name;                      /* NULL: none */
    struct tls_server *tls;                /* NULL: none */
    const struct options_tls *accept;      /* what it was made of */
    struct options_tls *dial;              /* for targets that say tls:// */
    const struct config_settings *settings;
    size_t policy;
    unsigned range;         /* ports of TARGET's range, 1 without one */
    struct targets *shared; /* the list where TARGET has no range; NULL for "-" */
    char *why;
    size_t why_cap;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct pair *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->why, p->why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

static bool has_target(const struct pair *p)
{
    return strcmp(p->target, "-") != 0;
}

/* The list that TARGET names, with the options of every TARGET; NULL with a message in p->why. */
static struct targets *make_targets(struct pair *p, unsigned offset)
{
    char why[512];
    struct targets *t = targets_parse(p->target, offset, why, sizeof why);
    if (t && (targets_set_options(t, p->to, why, sizeof why) ||
              options_tls_give(p->dial, t, why, sizeof why))) {
        targets_drop(t);
        t = NULL;
    }
    if (!t)
        refuse(p, "%s: %s", p->target_word, why);
    return t;
}

/* Gives listener `l` its destinations; `offset` counts from the first port of LISTEN's range. */
static int set_targets(struct pair *p, struct config_listener *l, unsigned offset)
{
    if (p->shared)
        l->to = targets_hold(p->shared);
    else if (has_target(p))
        l->to = make_targets(p, offset);
    return l->to || !has_target(p) ? 0 : -EINVAL;
}

static int add_listener(struct pair *p, const struct endpoint *bind, unsigned offset)
{
    const struct config_listener *each = p->each;
    struct config_listener *l = config_add_listener(p->config);
    if (!l)
        return refuse(p, "%s", err_text(-ENOMEM));
    l->policy = p->policy;
    l->settings = p->settings;
    l->tls = tls_server_hold(p->tls);
    if (p->name && !(l->name = strdup(p->name)))
        return refuse(p, "%s", err_text(-ENOMEM));
    l->limits = each->limits;
    l->timeouts = each->timeouts;
    l->socket = each->socket;
    l->relay = each->relay;
    l->accept_proxy = each->accept_proxy;
    networks_hold(l->accept_proxy.from);
    int err = endpoint_copy(&l->bind, bind, (uint16_t)(bind->port + offset));
    return err ? refuse(p, "%s: %s", p->listen_word, err_text(err)) : set_targets(p, l, offset);
}

static int add_bind(struct pair *p, const struct endpoint *bind)
{
    unsigned ports = (unsigned)(bind->port_last - bind->port) + 1;
    if (p->range > 1 && ports != p->range)
        return refuse(p,
                      "%s \"%s\" has %u port%s and %s \"%s\" has %u; write ranges of the same "
                      "length, or a %s with one port",
                      p->listen_word, bind->text, ports, ports == 1 ? "" : "s", p->target_word,
                      p->target, p->range, p->target_word);
    int err = 0;
    for (unsigned offset = 0; offset < ports && !err; offset++)
        err = add_listener(p, bind, offset);
    return err;
}

static int parse_bind(struct pair *p, const char *item)
{
    char why[512];
    struct endpoint bind;
    if (*item == '\0' && *p->listen != '\0')
        return refuse(p, "%s \"%s\" has an empty item; write 8080,[::1]:8080", p->listen_word,
                      p->listen);
    int err = endpoint_parse(item, ENDPOINT_LISTEN, &bind, why, sizeof why);
    if (err)
        return refuse(p, "%s: %s", p->listen_word, why);
    err = add_bind(p, &bind);
    endpoint_deinit(&bind);
    return err;
}

static int add_binds(struct pair *p)
{
    char *copy = strdup(p->listen);
    if (!copy)
        return refuse(p, "%s", err_text(-ENOMEM));
    int err = 0;
    char *rest = copy;
    for (char *item = strsep(&rest, ","); item && !err; item = strsep(&rest, ","))
        err = parse_bind(p, item);
    free(copy);
    return err;
}

/* Who asks for proxies must not be led past them. */
static int refuse_bypass(struct pair *p)
{
    return refuse(p,
                  "%s takes --via and --send-proxy from its policy: write them as options of what "
                  "its connect hook returns, { \"host:port\", via = …, proxy = … }",
                  p->name ? p->name : "TARGET -");
}

/* Its options as they are in force, from wherever they have come. */
static int note_settings(struct pair *p)
{
    struct draft view = {.each = *p->each,
                         .to = p->to,
                         .send_proxy = p->to ? (int)p->to->proxy - 1 : -1,
                         .mode = (int)p->each->relay,
                         .tls = *p->dial};
    view.tls.certs = p->accept->certs;
    view.tls.n_certs = p->accept->n_certs;
    view.tls.client_ca = p->accept->client_ca;
    view.tls.alpn = p->accept->alpn;
    view.tls.client_cert = p->accept->client_cert;
    view.tls.min = p->accept->min;
    p->settings = options_note(p->config, &view, true);
    return p->settings ? 0 : refuse(p, "%s", err_text(-ENOMEM));
}

/* Reads the target, for add_binds() to use. */
static int read_target(struct pair *p)
{
    char why[512];
    if (note_settings(p))
        return -ENOMEM;
    p->range = 1;
    if (!has_target(p))
        return p->to ? refuse_bypass(p) : 0;
    p->range = targets_range(p->target, why, sizeof why);
    if (p->range == 0)
        return refuse(p, "%s: %s", p->target_word, why);
    if (p->range == 1) {
        p->shared = make_targets(p, 0);
        if (!p->shared)
            return -EINVAL;
    }
    return 0;
}

static int add_pair(struct pair *p)
{
    if (!has_target(p) && !p->config->policy)
        return refuse(p, "TARGET - means that a policy names the destination; add -p POLICY.lua, "
                         "or write a host:port");
    int err = read_target(p);
    if (!err)
        err = add_binds(p);
    targets_drop(p->shared);
    return err;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* SO_REUSEPORT would let one address be bound twice, and the kernel would share out the clients. */
int options_check_twins(const struct config *c, char *why, size_t why_cap)
{
    const char **texts = malloc(c->n_listeners * sizeof *texts);
    if (!texts) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < c->n_listeners; i++) {
        const struct endpoint *bind = &c->listeners[i].bind;
        if (bind->kind != ENDPOINT_IP || bind->port != 0) /* port 0 is another one each time */
            texts[n++] = bind->text;
    }
    qsort(texts, n, sizeof *texts, by_text);
    int err = 0;
    for (size_t i = 1; i < n && !err; i++) {
        if (strcmp(texts[i - 1], texts[i]) == 0) {
            snprintf(why, why_cap, "the address %s is given twice", texts[i]);
            err = -EINVAL;
        }
    }
    free(texts);
    return err;
}

int options_add_listeners(struct draft *d, char *const *operands, size_t n, char *why,
                          size_t why_cap)
{
    const struct config_accept_proxy *proxies = &d->each.accept_proxy;
    if (n && proxies->others != OTHERS_ACCEPT && !proxies->from) {
        snprintf(why, why_cap,
                 "--accept-proxy-others says what becomes of others than those of "
                 "--accept-proxy: add --accept-proxy 10.0.0.0/8");
        return -EINVAL;
    }
    for (size_t i = 0; i + 1 < n; i += 2) {
        struct pair p = {.config = &d->config,
                         .each = &d->each,
                         .to = d->to,
                         .tls = d->tls.server,
                         .accept = &d->tls,
                         .dial = &d->tls,
                         .listen = operands[i],
                         .target = operands[i + 1],
                         .listen_word = "LISTEN",
                         .target_word = "TARGET",
                         .why = why,
                         .why_cap = why_cap};
        int err = add_pair(&p);
        if (err)
            return err;
    }
    return 0;
}

/* A listener's own settings over the command line's. */
static int apply_settings(struct draft *d, const struct script_listener *l, char *why,
                          size_t why_cap)
{
    for (size_t i = 0; i < l->n_settings; i++) {
        const struct script_setting *s = &l->settings[i];
        const struct option_spec *spec = options_find(s->option);
        PENSTOCK_REQUIRE(spec && spec->type); /* lua/penstock/listen.lua knows which there are */
        int err = options_store(d, spec, s->label, s->value, why, why_cap);
        if (err)
            return err;
    }
    d->each.relay = (enum relay_choice)d->mode;
    return 0;
}

int options_add_script_listener(struct draft *d, const struct script_listener *l, char *why,
                                size_t why_cap)
{
    struct draft own = {.each = d->each, .mode = d->mode};
    options_tls_init(&own.tls);
    networks_hold(own.each.accept_proxy.from);
    int err = apply_settings(&own, l, why, why_cap);
    if (!err)
        err = options_tls_settle_accept(&own.tls, "ps.listen: tls: ", why, why_cap);
    if (err)
        goto done;
    struct pair p = {.config = &d->config,
                     .each = &own.each,
                     .to = d->to,
                     .tls = own.tls.server ? own.tls.server : d->tls.server,
                     .accept = own.tls.server ? &own.tls : &d->tls,
                     .dial = &d->tls,
                     .target = l->to ? l->to : "-",
                     .listen_word = "ps.listen: bind",
                     .target_word = "ps.listen: to",
                     .name = l->name,
                     .policy = l->policy,
                     .why = why,
                     .why_cap = why_cap};
    err = read_target(&p);
    for (size_t i = 0; !err && i < l->n_binds; i++) {
        p.listen = l->binds[i];
        err = add_binds(&p);
    }
    targets_drop(p.shared);
done:
    options_tls_deinit(&own.tls);
    networks_drop(own.each.accept_proxy.from);
    return err;
}
