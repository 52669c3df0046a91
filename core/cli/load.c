/* Loads a version: the script's first VM says what to serve, then each other worker gets its own,
 * which must say the same. */
#include "penstock/cli/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/cli/options.h"
#include "penstock/net/tls_cert.h"
#include "penstock/proxy/shared.h"
#include "penstock/script/script.h"

/* The first line in which two texts differ. */
static void first_difference(const char *a, const char *b, char *buf, size_t cap)
{
    size_t same = 0, line = 0;
    for (; a[same] && a[same] == b[same]; same++)
        if (a[same] == '\n')
            line = same + 1;
    snprintf(buf, cap, "\"%.*s\" and \"%.*s\"", (int)strcspn(a + line, "\n"), a + line,
             (int)strcspn(b + line, "\n"), b + line);
}

static int check_same(const struct version *v, unsigned worker, const char *path, char *why,
                      size_t why_cap)
{
    const char *first = script_configured(v->policies[0]);
    const char *other = script_configured(v->policies[worker]);
    char difference[512];
    if (!strcmp(first, other))
        return 0;
    first_difference(first, other, difference, sizeof difference);
    snprintf(why, why_cap,
             "%s configured something else for another worker: %s; it is loaded once for each, and "
             "must say the same each time (no random names or ports)",
             path, difference);
    return -EINVAL;
}

static int make_room(struct version *v, unsigned n)
{
    struct policy_set **grown = realloc(v->policies, n * sizeof(struct policy_set *));
    if (!grown)
        return -ENOMEM;
    v->policies = grown;
    return 0;
}

static int load_one(struct version *v, struct script_options *script, uint64_t seed, char *why,
                    size_t why_cap)
{
    script->worker = (unsigned)v->n_policies;
    script->seed = seed ? seed + v->n_policies : 0;
    int err = script_load(script, &v->policies[v->n_policies], why, why_cap);
    if (!err)
        v->n_policies++;
    return err;
}

/* The first VM: its listeners and options go into `o`. */
static int load_first(struct options *o, struct script_options *script, struct version *v,
                      char *why, size_t why_cap)
{
    struct script_sink sink = options_sink(o);
    script->sink = &sink;
    int err = load_one(v, script, script->seed, why, why_cap);
    script->sink = NULL;
    return err;
}

static int load_others(struct version *v, struct script_options *script, unsigned workers,
                       char *why, size_t why_cap)
{
    int err = make_room(v, workers);
    while (!err && v->n_policies < workers) {
        err = load_one(v, script, v->config->seed, why, why_cap);
        if (!err)
            err = check_same(v, v->n_policies - 1, script->path, why, why_cap);
    }
    return err;
}

static int load(struct options *o, struct script_options *script, unsigned workers,
                struct version *v, char *why, size_t why_cap)
{
    bool has_script = options_script(o, script);
    v->config = config_new();
    int err = v->config ? 0 : -ENOMEM;
    if (!err && has_script)
        err = make_room(v, 1);
    if (!err && has_script)
        err = load_first(o, script, v, why, why_cap);
    if (!err)
        err = options_finish(o, v->config, why, why_cap);
    if (!err)
        config_settle(v->config);
    if (err || !has_script)
        return err;
    script->path = v->config->policy;
    script->jit = v->config->jit;
    script->modules = v->config->lua_modules;
    return load_others(v, script, workers ? workers : v->config->workers, why, why_cap);
}

static void warn_of_targets(const struct config_listener *l)
{
    const struct tls_client *before = NULL; /* targets of one list share it, as a rule */
    for (size_t i = 0; l->to && i < l->to->n; i++) {
        const struct target *t = &l->to->items[i];
        const struct tls_client *tls = t->options ? t->options->tls : NULL;
        if (tls && tls_client_cert(tls) && tls != before)
            tls_cert_warn(tls_client_cert(tls));
        before = tls;
        if (t->options && t->options->tls && tls_client_is_insecure(t->options->tls))
            log_warn("the certificate of %s is NOT checked: whoever sits between can read and "
                     "change everything",
                     t->endpoint.text);
    }
}

/* Once for those that share: it is about their files. */
static void warn_of_tls(const struct config *c)
{
    for (size_t i = 0; i < c->n_listeners; i++) {
        const struct config_listener *l = &c->listeners[i];
        if (l->tls && (i == 0 || c->listeners[i - 1].tls != l->tls))
            tls_server_warn(l->tls);
        if (i == 0 || c->listeners[i - 1].to != l->to)
            warn_of_targets(l);
    }
}

static void share_tickets(const struct config *c, struct shared *shared)
{
    for (size_t i = 0; shared && i < c->n_listeners; i++)
        if (c->listeners[i].tls)
            tls_server_set_tickets(c->listeners[i].tls, shared_tickets(shared));
}

int load_version(void *arg, unsigned workers, struct version *out, char *why, size_t why_cap)
{
    const struct load_args *args = arg;
    struct options *o;
    struct script_files files = {0};
    *out = (struct version){0};
    snprintf(why, why_cap, "%s", err_text(-ENOMEM));
    if (options_read(args->argc, args->argv, &o, why, why_cap) != OPTIONS_RUN)
        return -EINVAL;
    struct script_options script = {.files = &files, .shared = args->shared};
    int err = load(o, &script, workers, out, why, why_cap);
    options_free(o);
    if (!err) {
        share_tickets(out->config, args->shared);
        warn_of_tls(out->config);
    }
    if (err)
        version_deinit(out);
    out->files = files.paths;
    out->n_files = files.n;
    return err;
}
