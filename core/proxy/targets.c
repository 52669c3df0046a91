/* Lists of destinations: parsing, counting references, printing. Never resolves, never dials. */
#include "penstock/proxy/targets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/err.h"

/* Calls `visit` for every item of the comma list. 0, or the first error. */
typedef int (*visit_fn)(void *arg, const struct endpoint *e, bool tls, char *why, size_t why_cap);

static const char tls_scheme[] = "tls://";

static bool says_tls(const char *item)
{
    return strncmp(item, tls_scheme, strlen(tls_scheme)) == 0;
}

static int parse_item(const char *item, struct endpoint *out, char *why, size_t why_cap)
{
    if (says_tls(item))
        item += strlen(tls_scheme);
    if (*item == '\0') {
        snprintf(why, why_cap, "an item of the list is empty; write host:port,host:port");
        return -EINVAL;
    }
    return endpoint_parse(item, ENDPOINT_DIAL, out, why, why_cap);
}

static int each_item(const char *text, visit_fn visit, void *arg, char *why, size_t why_cap)
{
    char *copy = strdup(text);
    if (!copy) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    int err = 0;
    char *rest = copy;
    for (char *item = strsep(&rest, ","); item && !err; item = strsep(&rest, ",")) {
        struct endpoint e;
        err = parse_item(item, &e, why, why_cap);
        if (err)
            break;
        err = visit(arg, &e, says_tls(item), why, why_cap);
        endpoint_deinit(&e);
    }
    free(copy);
    return err;
}

static unsigned range_of(const struct endpoint *e)
{
    return (unsigned)(e->port_last - e->port) + 1;
}

static int measure(void *arg, const struct endpoint *e, bool tls, char *why, size_t why_cap)
{
    (void)tls;
    unsigned *range = arg;
    unsigned n = range_of(e);
    if (n == 1 || n == *range)
        return 0;
    if (*range != 1) {
        snprintf(why, why_cap, "port ranges of one list must be equally long: %u ports, then %u",
                 *range, n);
        return -EINVAL;
    }
    *range = n;
    return 0;
}

unsigned targets_range(const char *text, char *why, size_t why_cap)
{
    unsigned range = 1;
    return each_item(text, measure, &range, why, why_cap) ? 0 : range;
}

struct adding {
    struct targets *list;
    unsigned port_offset;
};

static int add(void *arg, const struct endpoint *e, bool tls, char *why, size_t why_cap)
{
    struct adding *a = arg;
    unsigned offset = range_of(e) == 1 ? 0 : a->port_offset;
    if (offset >= range_of(e)) {
        snprintf(why, why_cap, "\"%s\" has only %u ports", e->text, range_of(e));
        return -EINVAL;
    }
    int err = endpoint_copy(&a->list->items[a->list->n].endpoint, e, (uint16_t)(e->port + offset));
    if (err) {
        snprintf(why, why_cap, "%s", err_text(err));
        return err;
    }
    a->list->items[a->list->n].tls = tls;
    a->list->n++;
    return 0;
}

static size_t count_items(const char *text)
{
    size_t n = 1;
    for (const char *comma = strchr(text, ','); comma; comma = strchr(comma + 1, ','))
        n++;
    return n;
}

static struct targets *new_list(size_t n)
{
    struct targets *t = calloc(1, sizeof *t + n * sizeof t->items[0]);
    if (t)
        atomic_init(&t->refs, 1);
    return t;
}

int targets_join(struct targets **list, struct targets *more)
{
    size_t n = *list ? (*list)->n : 0;
    struct targets *grown = realloc(*list, sizeof *grown + (n + more->n) * sizeof grown->items[0]);
    if (!grown) {
        targets_drop(more);
        return -ENOMEM;
    }
    if (!*list)
        atomic_init(&grown->refs, 1);
    memcpy(&grown->items[n], more->items, more->n * sizeof more->items[0]);
    grown->n = n + more->n;
    *list = grown;
    free(more);
    return 0;
}

int targets_set_options(struct targets *t, const struct target_options *options, char *why,
                        size_t why_cap)
{
    for (size_t i = 0; options && i < t->n; i++) {
        t->items[i].options = target_options_copy(options);
        if (!t->items[i].options) {
            snprintf(why, why_cap, "%s", err_text(-ENOMEM));
            return -ENOMEM;
        }
        int err = target_check(&t->items[i], why, why_cap);
        if (err)
            return err;
    }
    return 0;
}

int targets_give_tls(struct targets *t, struct tls_client *client)
{
    int err = 0;
    for (size_t i = 0; i < t->n && !err; i++)
        if (target_lacks_tls(&t->items[i]))
            err = target_give_tls(&t->items[i], client);
    return err;
}

bool targets_lack_tls(const struct targets *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (target_lacks_tls(&t->items[i]))
            return true;
    return false;
}

struct targets *targets_parse(const char *text, unsigned port_offset, char *why, size_t why_cap)
{
    struct targets *t = new_list(count_items(text));
    if (!t) {
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return NULL;
    }
    struct adding a = {t, port_offset};
    if (each_item(text, add, &a, why, why_cap)) {
        targets_drop(t);
        return NULL;
    }
    return t;
}

struct targets *targets_hold(struct targets *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void targets_drop(struct targets *t)
{
    /* The last one to drop must see what the others did to the list before they let go. */
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < t->n; i++)
        target_deinit(&t->items[i]);
    free(t);
}

static const char ellipsis[] = "…";

/* Puts an ellipsis at or before `at`, between characters, so that it ends within `cap`. */
static void cut(char *buf, size_t at, size_t cap)
{
    if (cap < sizeof ellipsis) {
        buf[0] = '\0';
        return;
    }
    if (at > cap - sizeof ellipsis)
        at = cap - sizeof ellipsis;
    while (at > 0 && ((unsigned char)buf[at] & 0xC0) == 0x80)
        at--;
    memcpy(buf + at, ellipsis, sizeof ellipsis);
}

const char *targets_format(const struct targets *t, char *buf, size_t cap)
{
    if (cap == 0)
        return buf;
    size_t len = 0;
    buf[0] = '\0';
    for (size_t i = 0; t && i < t->n; i++) {
        int n = snprintf(buf + len, cap - len, "%s%s", i ? "," : "", t->items[i].endpoint.text);
        if (n < 0 || (size_t)n >= cap - len) {
            cut(buf, cap - 1, cap);
            return buf;
        }
        len += (size_t)n;
    }
    return buf;
}
