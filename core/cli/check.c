/* Prints a loaded version: listeners with what differs from the defaults, hooks, warnings. */
#include "penstock/cli/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/cli/options.h"
#include "penstock/script/script.h"

enum { WHY_MAX = 8192, LOG_CLOSE_WAIT_MS = 2000 };

/* Prints "name value" after the heading, or after a comma. */
struct row {
    const char *heading;
    int n;
};

static void print_item(struct row *row, const char *name, const char *value)
{
    if (row->n++ == 0)
        printf("    %-9s %s %s", row->heading, name, value);
    else
        printf(", %s %s", name, value);
}

static void end_row(const struct row *row)
{
    if (row->n)
        putchar('\n');
}

static void print_count(struct row *row, const char *name, uint32_t value, uint32_t usual)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu32, value);
    if (value != usual)
        print_item(row, name, text);
}

static void print_size(struct row *row, const char *name, uint64_t value, uint64_t usual)
{
    char text[32];
    if (value != usual)
        print_item(row, name, value ? units_format_size(value, text, sizeof text) : "off");
}

static void print_time(struct row *row, const char *name, uint64_t ms, uint64_t usual_ms)
{
    char text[32];
    if (ms != usual_ms)
        print_item(row, name, ms ? units_format_time(ms, text, sizeof text) : "off");
}

static void print_limits(const struct config_limits *l, const struct config_limits *usual)
{
    struct row row = {"limits", 0};
    print_count(&row, "conns", l->conns, usual->conns);
    print_count(&row, "per_ip", l->per_ip, usual->per_ip);
    print_count(&row, "rate", l->rate, usual->rate);
    print_size(&row, "up", l->up_bytes, usual->up_bytes);
    print_size(&row, "down", l->down_bytes, usual->down_bytes);
    end_row(&row);
}

static void print_timeouts(const struct config_timeouts *t, const struct config_timeouts *usual)
{
    struct row row = {"timeouts", 0};
    print_time(&row, "connect", t->connect_ms, usual->connect_ms);
    print_time(&row, "handshake", t->handshake_ms, usual->handshake_ms);
    print_time(&row, "first_byte", t->first_byte_ms, usual->first_byte_ms);
    print_time(&row, "idle", t->idle_ms, usual->idle_ms);
    print_time(&row, "half_closed", t->half_closed_ms, usual->half_closed_ms);
    print_time(&row, "life", t->life_ms, usual->life_ms);
    end_row(&row);
}

static void print_accept_proxy(const struct config_accept_proxy *p)
{
    if (p->from)
        printf("    %-9s headers from %s; others %s\n", "proxy", networks_text(p->from),
               p->others == OTHERS_DENY ? "denied" : "as they are");
}

static void print_hooks(const char *hooks)
{
    if (*hooks)
        printf("    %-9s %s\n", "hooks", hooks);
}

static const struct policy_set *policies(const struct version *v)
{
    return v->policies ? v->policies[0] : NULL;
}

static void print_listener(const struct version *v, const struct config_listener *l,
                           const struct config_listener *usual)
{
    char to[512];
    if (l->name)
        printf("%s: ", l->name);
    printf("%s -> %s\n", l->bind.text,
           l->to ? targets_format(l->to, to, sizeof to) : "as its hooks choose");
    print_limits(&l->limits, &usual->limits);
    print_timeouts(&l->timeouts, &usual->timeouts);
    print_accept_proxy(&l->accept_proxy);
    if (policies(v))
        print_hooks(script_hooks(policies(v), l->policy));
}

/* Returns the number of warnings. */
static int warn_without_destination(const struct version *v, const struct config_listener *l)
{
    const struct policy *p = policy_set_get(policies(v), l->policy);
    if (l->to || policy_has(p, HOOK_CONNECT) || policy_has(p, HOOK_SERVE))
        return 0;
    printf("warning: %s has no destination, and no connect hook that names one: every client is "
           "denied, and hooks after accept never run; give it `to`, connect or serve\n",
           l->name ? l->name : l->bind.text);
    return 1;
}

static int print_warnings(const struct version *v, char *why, size_t why_cap)
{
    int n = 0;
    for (size_t i = 0; i < v->config->n_listeners; i++)
        n += warn_without_destination(v, &v->config->listeners[i]);
    if (!policies(v))
        return n;
    struct script_files files = {v->files, v->n_files};
    int found = script_check_globals(policies(v), &files, stdout, why, why_cap);
    return found < 0 ? found : n + found;
}

static int print(const struct version *v, char *why, size_t why_cap)
{
    struct config scratch;
    config_init(&scratch);
    const struct config_listener *usual = config_add_listener(&scratch);
    if (!usual) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    for (size_t i = 0; i < v->config->n_listeners; i++)
        print_listener(v, &v->config->listeners[i], usual);
    if (v->config->n_listeners == 0)
        printf("%s: a policy\n", v->files[0]);
    if (v->config->n_listeners == 0)
        print_hooks(script_hooks(policies(v), 0));
    config_deinit(&scratch);
    int warnings = print_warnings(v, why, why_cap);
    if (warnings < 0)
        return warnings;
    printf("ok: %zu listener%s, %d warning%s\n", v->config->n_listeners,
           v->config->n_listeners == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
    return fflush(stdout) || ferror(stdout) ? -EIO : 0;
}

int check_run(struct load_args *args, const struct options *options)
{
    char why[WHY_MAX] = "";
    struct version version;
    struct log_options log = {.level = options_config(options)->log.level, .format = LOG_TEXT};
    if (log_open(&log, NULL))
        return -EIO;
    /* Two, to see that they agree. */
    int err = load_version(args, 2, &version, why, sizeof why);
    log_close(LOG_CLOSE_WAIT_MS); /* what it has printed comes first */
    if (!err)
        err = print(&version, why, sizeof why);
    if (err)
        fprintf(stderr, "penstock: %s\n", *why ? why : err_text(err));
    version_deinit(&version);
    return err;
}
