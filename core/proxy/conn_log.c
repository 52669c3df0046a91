/* What a connection tells of itself: names, tags, the access line, the close hook. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/proxy/listener.h"
#include "penstock/proxy/worker.h"

enum { TAGS_MAX = 32, TAG_BYTES_MAX = 1024 };

const char *conn_listener_name(const struct conn *c)
{
    return c->config->name ? c->config->name : c->listener->text;
}

const char *conn_upstream_text(const struct conn *c, char *buf, size_t cap)
{
    const struct target *t = c->targets ? &c->targets->items[c->target] : NULL;
    if (addr_len(&c->upstream_addr) && !(t && target_n_hops(t)))
        return addr_format(&c->upstream_addr, buf, cap);
    snprintf(buf, cap, "%s", t ? t->endpoint.text : "-");
    return buf;
}

static struct conn_tag *find_tag(struct conn *c, const char *key, size_t key_len, size_t *n)
{
    struct conn_tag *found = NULL;
    *n = 0;
    for (struct conn_tag *t = c->tags; t; t = t->next) {
        ++*n;
        if (strlen(t->text) == key_len && memcmp(t->text, key, key_len) == 0)
            found = t;
    }
    return found;
}

static void remove_tag(struct conn *c, struct conn_tag *tag)
{
    struct conn_tag **p = &c->tags;
    while (*p != tag)
        p = &(*p)->next;
    *p = tag->next;
    free(tag);
}

int conn_tag(struct conn *c, const char *key, size_t key_len, const char *value, size_t value_len)
{
    size_t n;
    struct conn_tag *old = find_tag(c, key, key_len, &n);
    if (key_len + value_len > TAG_BYTES_MAX || (!old && n >= TAGS_MAX))
        return PS_ELIMIT;
    struct conn_tag *tag = malloc(sizeof *tag + key_len + value_len + 2);
    if (!tag)
        return -ENOMEM;
    memcpy(tag->text, key, key_len);
    tag->text[key_len] = 0;
    tag->value = tag->text + key_len + 1;
    memcpy(tag->value, value, value_len);
    tag->value[value_len] = 0;
    if (old)
        remove_tag(c, old);
    tag->next = c->tags;
    c->tags = tag;
    return 0;
}

void conn_free_tags(struct conn *c)
{
    while (c->tags)
        remove_tag(c, c->tags);
}

static const char *side_word(enum conn_side side)
{
    return side == SIDE_CLIENT ? "client" : side == SIDE_UPSTREAM ? "upstream" : "-";
}

static struct conn_info info_of(const struct conn *c)
{
    uint64_t now = conn_loop(c)->now_ns;
    return (struct conn_info){
        .reason = (enum close_reason)c->reason,
        .reason_word = reason_word((enum close_reason)c->reason),
        .side = side_word((enum conn_side)c->side),
        .detail = c->detail,
        .bytes_up = c->up.bytes,
        .bytes_down = c->down.bytes,
        .duration_us = (now - c->accepted_ns) / 1000,
        .connect_us = c->connected_ns ? (int64_t)((c->connected_ns - c->dial_ns) / 1000) : -1,
    };
}

/* Key and value pointers in the order in which the tags were set. */
static void list_tags(const struct conn *c, const char *out[2 * TAGS_MAX + 1])
{
    size_t n = 0;
    for (const struct conn_tag *t = c->tags; t; t = t->next)
        n++;
    out[2 * n] = NULL;
    for (const struct conn_tag *t = c->tags; t; t = t->next) {
        n--;
        out[2 * n] = t->text;
        out[2 * n + 1] = t->value;
    }
}

static void log_end(const struct conn *c, const struct conn_info *info)
{
    char client[ADDR_TEXT_MAX], proxy[ADDR_TEXT_MAX], upstream[300], via[600] = "";
    const struct conn_proxy *header = conn_proxy(c);
    const char *tags[2 * TAGS_MAX + 1];
    list_tags(c, tags);
    if (c->targets)
        target_format_via(&c->targets->items[c->target], via, sizeof via);
    struct log_access line = {
        .id = c->id,
        .listener = conn_listener_name(c),
        .client = addr_format(&c->client_addr, client, sizeof client),
        .proxy = header ? addr_format(&header->peer, proxy, sizeof proxy) : NULL,
        .upstream = conn_upstream_text(c, upstream, sizeof upstream),
        .via = via[0] ? via : NULL,
        .bytes_up = info->bytes_up,
        .bytes_down = info->bytes_down,
        .duration_us = info->duration_us,
        .connect_us = info->connect_us,
        .reason = info->reason_word,
        .side = info->side,
        .detail = info->detail[0] ? info->detail : "-",
        .tags = c->tags ? tags : NULL,
    };
    log_access(&line);
}

void conn_report(struct conn *c)
{
    bool hook = policy_has(c->policy, HOOK_CLOSE), access = log_access_enabled();
    if (!hook && !access)
        return;
    struct conn_info info = info_of(c);
    if (hook) /* first: its tags belong into the line */
        c->policy->ops->close(c->policy, c, &info);
    if (access)
        log_end(c, &info);
}
