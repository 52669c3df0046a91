/* From one version's listeners to the next one's: what is kept, opened, closed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/proxy/handover.h"
#include "server_priv.h"

/* --- which is which
 * ---------------------------------------------------------------------------------------- */

/* An address and its place in a list. */
struct place {
    const char *bind;
    size_t index;
};

/* By address; the same one (port 0) in the order of its list. */
static int by_bind(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = strcmp(x->bind, y->bind);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* For each listener of `config` its number in `old`, or SIZE_MAX. NULL when out of memory. */
static size_t *match(const struct config *config, const struct listeners *old)
{
    size_t n = config->n_listeners, i = 0, j = 0;
    size_t *from = malloc(n * sizeof *from);
    struct place *now = malloc(n * sizeof *now), *before = malloc((old->n + 1) * sizeof *before);
    if (!from || !now || !before) {
        free(from);
        from = NULL;
        goto out;
    }
    for (size_t k = 0; k < n; k++)
        now[k] = (struct place){config->listeners[k].bind.text, k};
    for (size_t k = 0; k < old->n; k++)
        before[k] = (struct place){old->items[k]->bind, k};
    qsort(now, n, sizeof *now, by_bind);
    qsort(before, old->n, sizeof *before, by_bind);
    while (i < n) {
        int order = j < old->n ? strcmp(now[i].bind, before[j].bind) : -1;
        if (order > 0) {
            j++;
            continue;
        }
        from[now[i++].index] = order == 0 ? before[j++].index : SIZE_MAX;
    }
out:
    free(now);
    free(before);
    return from;
}

/* --- sockets
 * -----------------------------------------------------------------------------------------------
 */

static void drop_all(struct listeners *list)
{
    for (size_t i = 0; i < list->n; i++)
        listener_drop(list->items[i]);
    free(list->items);
    *list = (struct listeners){0};
}

/* With the sockets of the process before, if it had this address. */
static int open_one(struct server *s, const struct config_listener *config, struct listener **out,
                    char *why, size_t why_cap)
{
    struct listener_sockets *sockets = handover_take(s->handover, config->bind.text, false);
    return sockets ? listener_adopt(out, config, s->n_workers, sockets)
                   : listener_open(out, config, s->n_workers, why, why_cap);
}

/* Fills `list` for `config`: kept ones with one more reference, others newly opened. */
static int open_all(struct server *s, const struct config *config, const struct listeners *old,
                    const size_t *from, struct listeners *list, char *why, size_t why_cap)
{
    list->items = calloc(config->n_listeners, sizeof(struct listener *));
    int err = list->items ? 0 : -ENOMEM;
    for (size_t i = 0; !err && i < config->n_listeners; i++) {
        const struct config_listener *c = &config->listeners[i];
        struct listener *l;
        if (from[i] != SIZE_MAX) {
            l = listener_hold(old->items[from[i]]);
            err = listener_prepare(l, c);
        } else {
            err = open_one(s, c, &l, why, why_cap);
            if (err)
                break;
        }
        list->items[list->n++] = l;
    }
    return err;
}

/* Undoes open_all(). */
static void close_all(const size_t *from, struct listeners *list)
{
    for (size_t i = 0; i < list->n; i++)
        if (from[i] == SIZE_MAX)
            listener_unlink(list->items[i]);
    drop_all(list);
}

/* Counts what becomes of the listeners; nobody finds the way to those that are removed any more. */
static void forget_removed(struct server *s, const struct listeners *old, const size_t *from,
                           size_t n)
{
    bool *kept = calloc(old->n + 1, sizeof *kept);
    s->n_kept = s->n_added = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_new = from[i] == SIZE_MAX;
        s->n_added += is_new;
        s->n_kept += !is_new;
        if (!is_new && kept)
            kept[from[i]] = true;
    }
    s->n_removed = old->n - s->n_kept;
    for (size_t i = 0; kept && i < old->n; i++) {
        if (kept[i])
            continue;
        s->limited_before += atomic_load(&old->items[i]->limited);
        listener_unlink(old->items[i]);
    }
    free(kept);
}

/* --- changes
 * -----------------------------------------------------------------------------------------------
 */

static int add_acceptors(struct worker *w, struct worker_change *change,
                         const struct listeners *list)
{
    int err = 0;
    for (size_t i = 0; !err && i < list->n; i++)
        if (change->from[i] == SIZE_MAX)
            change->acceptors[i] = acceptor_new(list->items[i], w, &err);
    return err;
}

/* One change a worker, in `changes`. */
static int make_changes(struct server *s, struct version *v, const size_t *from,
                        const struct listeners *list, struct worker_change **changes)
{
    int err = 0;
    for (uint32_t i = 0; !err && i < s->n_workers; i++) {
        struct policy_set *policies = v->policies ? v->policies[i] : NULL;
        changes[i] = worker_change_new(v->config, policies, s->number, from);
        if (!changes[i])
            return -ENOMEM;
        if (policies)
            v->policies[i] = NULL;
        err = add_acceptors(&s->workers[i], changes[i], list);
    }
    return err;
}

static void free_changes(struct server *s, struct worker_change **changes)
{
    for (uint32_t i = 0; changes && i < s->n_workers; i++)
        if (changes[i])
            worker_change_free(changes[i]);
    free(changes);
}

static void tell_certificates(struct server *s, const struct config *config,
                              const struct listeners *list)
{
    const char **names = calloc(list->n + 1, sizeof *names);
    for (size_t i = 0; names && i < list->n; i++)
        names[i] = config->listeners[i].name ? config->listeners[i].name : list->items[i]->text;
    if (names)
        stats_take_certificates(s->counts.stats, config, names);
    free(names);
}

/* From here on nothing fails. */
static void commit(struct server *s, const struct config *config, const struct listeners *list,
                   size_t *from, struct worker_change **changes)
{
    for (size_t i = 0; i < list->n; i++)
        if (from[i] != SIZE_MAX)
            listener_set_rate(list->items[i], &config->listeners[i], clock_now_ns());
    tell_certificates(s, config, list);
    s->listeners = *list;
    s->from = from;
    atomic_store(&s->n_changed, 0);
    for (uint32_t i = 0; i < s->n_workers; i++)
        worker_change(&s->workers[i], changes[i]);
    for (size_t i = 0; i < list->n; i++)
        listener_release(list->items[i]); /* the workers have their own descriptors */
    free(changes);
}

int server_change(struct server *s, struct version *v, const struct listeners *old, char *why,
                  size_t why_cap)
{
    struct listeners list = {0}, before = *old;
    snprintf(why, why_cap, "%s", err_text(-ENOMEM));
    size_t *from = match(v->config, old);
    struct worker_change **changes = calloc(s->n_workers, sizeof(struct worker_change *));
    int err = from && changes ? 0 : -ENOMEM;
    if (!err)
        err = open_all(s, v->config, old, from, &list, why, why_cap);
    if (!err) {
        err = make_changes(s, v, from, &list, changes);
        if (err)
            snprintf(why, why_cap, "cannot listen: %s", err_text(err));
    }
    if (err) {
        free_changes(s, changes);
        close_all(from, &list);
        free(from);
        return err;
    }
    forget_removed(s, &before, from, list.n);
    commit(s, v->config, &list, from, changes);
    drop_all(&before);
    return 0;
}

void server_close_listeners(struct server *s)
{
    for (size_t i = 0; i < s->listeners.n; i++)
        listener_unlink(s->listeners.items[i]);
    drop_all(&s->listeners);
    free(s->from);
    s->from = NULL;
}

void server_log_listening(const struct listener *l, const struct config_listener *config)
{
    char to[256];
    log_info("listening on %s -> %s%s", l->text,
             config->to ? targets_format(config->to, to, sizeof to) : "policy",
             config->bind.bare_port ? " (this machine only; \":PORT\" opens it to others)" : "");
}
