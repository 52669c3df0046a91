/* GET /v1/config: every option as it is in force. */
#include "admin_priv.h"
#include "penstock/base/log.h"
#include "penstock/proxy/config.h"
#include "penstock/proxy/listener.h"

static const char *find(const struct config_settings *s, const char *name)
{
    for (size_t i = 0; s && i < s->n; i++)
        if (strcmp(s->items[i].name, name) == 0)
            return s->items[i].json;
    return "null";
}

/* What a reload does not change is as it was at the start. */
static void write_process(struct json *j, const struct config *now, const struct config *first)
{
    json_begin_object(j, "process");
    for (size_t i = 0; now->settings && i < now->settings->n; i++) {
        const struct config_setting *s = &now->settings->items[i];
        json_raw(j, s->name, server_keeps(s->name) ? find(first->settings, s->name) : s->json);
    }
    json_end_object(j);
}

static void write_options(struct json *j, const struct config_settings *s)
{
    json_begin_object(j, "options");
    for (size_t i = 0; s && i < s->n; i++)
        json_raw(j, s->items[i].name, s->items[i].json);
    json_end_object(j);
}

/* Those of the listeners from `i` on that have the same options: one item. Returns the next. */
static size_t write_group(struct json *j, const struct server *s, size_t i)
{
    const struct config_listener *config, *first;
    size_t n = server_n_listeners(s);
    server_listener(s, i, &first);
    json_begin_object(j, NULL);
    json_begin_list(j, "names");
    for (; i < n; i++) {
        const struct listener *l = server_listener(s, i, &config);
        if (config->settings != first->settings)
            break;
        json_text(j, NULL, config->name ? config->name : l->text);
    }
    json_end_list(j);
    write_options(j, first->settings);
    json_end_object(j);
    return i;
}

void config_show(struct request *r)
{
    struct server *s = r->admin->server;
    struct server_status status;
    struct json j;
    if (!request_arguments(r, NULL, 0, NULL))
        return;
    server_get_status(s, &status);
    json_init(&j, &r->out);
    json_begin_object(&j, NULL);
    json_uint(&j, "configuration", status.version);
    json_text(&j, "log_level", log_level_word());
    write_process(&j, server_config(s), r->admin->first);
    json_begin_list(&j, "listeners");
    for (size_t i = 0; i < server_n_listeners(s);)
        i = write_group(&j, s, i);
    json_end_list(&j);
    json_end_object(&j);
    request_answer_json(r, MHD_HTTP_OK, &j);
}
