/* Options as they are in force, as JSON, for `GET /v1/config`: whatever the table has is shown, and
 * no secret. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "options_priv.h"

void options_show_flag(const struct option_spec *spec, const void *field, struct json *j)
{
    json_bool(j, NULL, *(const bool *)field == (spec->max != 0));
}

void options_show_u32(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    json_uint(j, NULL, *(const uint32_t *)field);
}

void options_show_u64(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    json_uint(j, NULL, *(const uint64_t *)field);
}

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* In the largest unit that says it exactly, as the option takes it; without one: 0. */
static void show_in(const struct unit *units, uint64_t n, struct json *j)
{
    char text[32];
    while (n % units->factor != 0)
        units++;
    snprintf(text, sizeof text, "%" PRIu64 "%s", n / units->factor, n ? units->suffix : "");
    json_text(j, NULL, text);
}

static const struct unit sizes[] = {{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}};
static const struct unit times[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

void options_show_size32(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    show_in(sizes, *(const uint32_t *)field, j);
}

void options_show_size64(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    show_in(sizes, *(const uint64_t *)field, j);
}

void options_show_time_ms(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    show_in(times, *(const uint64_t *)field, j);
}

void options_show_time_s(const struct option_spec *spec, const void *field, struct json *j)
{
    (void)spec;
    show_in(times, UINT64_C(1000) * *(const uint32_t *)field, j);
}

void options_show_word(const struct option_spec *spec, const void *field, struct json *j)
{
    int word = *(const int *)field;
    json_text(j, NULL, word < 0 ? NULL : spec->words[word]);
}

/* memcpy, because the field may be a `char *` or a `const char *`. */
void options_show_text(const struct option_spec *spec, const void *field, struct json *j)
{
    const char *text;
    (void)spec;
    memcpy(&text, field, sizeof text);
    json_text(j, NULL, text);
}

void options_show_ip(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct addr *a = field;
    char text[ADDR_TEXT_MAX];
    (void)spec;
    json_text(j, NULL, a->sa.sa_family == AF_UNSPEC ? NULL : addr_format_ip(a, text, sizeof text));
}

void options_show_networks(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct networks *n = *(const struct networks *const *)field;
    (void)spec;
    json_text(j, NULL, n ? networks_text(n) : NULL);
}

/* Without the logins. */
void options_show_via(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct target_options *o = *(const struct target_options *const *)field;
    char text[400];
    (void)spec;
    json_begin_list(j, NULL);
    for (size_t i = 0; o && i < o->n_hops; i++)
        json_text(j, NULL, hop_format(&o->hops[i], text, sizeof text));
    json_end_list(j);
}

void options_show_certs(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct options_tls *o = field;
    (void)spec;
    json_begin_list(j, NULL);
    for (size_t i = 0; i < o->n_certs; i++)
        if (!o->certs[i].name)
            json_text(j, NULL, o->certs[i].cert);
    json_end_list(j);
}

/* The files, one for each of options_show_certs(); null where it is the same. */
void options_show_keys(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct options_tls *o = field;
    (void)spec;
    json_begin_list(j, NULL);
    for (size_t i = 0; i < o->n_certs; i++)
        if (!o->certs[i].name)
            json_text(j, NULL, o->certs[i].key);
    json_end_list(j);
}

void options_show_sni(const struct option_spec *spec, const void *field, struct json *j)
{
    const struct options_tls *o = field;
    (void)spec;
    json_begin_list(j, NULL);
    for (size_t i = 0; i < o->n_certs; i++) {
        const struct options_cert *c = &o->certs[i];
        char text[8192];
        snprintf(text, sizeof text, "%s=%s%s%s", c->name ? c->name : "", c->cert, c->key ? "," : "",
                 c->key ? c->key : "");
        if (c->name)
            json_text(j, NULL, text);
    }
    json_end_list(j);
}

static bool is_of_listener(const struct option_spec *spec)
{
    static const size_t own[] = {offsetof(struct draft, workers), offsetof(struct draft, log_level),
                                 offsetof(struct draft, log_format)};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (spec->offset == own[i])
            return false;
    return spec->offset >= sizeof(struct config);
}

static size_t count(bool of_listener)
{
    size_t n, found = 0;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++)
        found += table[i].type && is_of_listener(&table[i]) == of_listener;
    return found;
}

/* The value as a text of its own; NULL when out of memory. */
static char *text_of(const struct option_spec *spec, const struct draft *d)
{
    struct buf b = {0};
    struct json j;
    json_init(&j, &b);
    spec->type->show(spec, (const char *)d + spec->offset, &j);
    bool failed = j.failed || buf_append(&b, "", 1);
    char *text = failed ? NULL : strdup(buf_bytes(&b));
    buf_deinit(&b);
    return text;
}

struct config_settings *options_note(struct config *config, const struct draft *d, bool of_listener)
{
    size_t n;
    const struct option_spec *table = options_table(&n);
    struct config_settings *s = config_add_settings(config, count(of_listener));
    size_t at = 0;
    for (size_t i = 0; s && i < n; i++) {
        if (!table[i].type || is_of_listener(&table[i]) != of_listener)
            continue;
        s->items[at].name = table[i].name;
        s->items[at].json = text_of(&table[i], d);
        if (!s->items[at++].json)
            return NULL; /* the rest is the config's */
    }
    return s;
}
