/* `penstock ctl server …` and `penstock ctl store …`: commands of several words; and the answers
 * about what policies share, and about the process. */
#ifndef PENSTOCK_CORE_CLI_CTL_SHARED_H
#define PENSTOCK_CORE_CLI_CTL_SHARED_H

#include <stdbool.h>
#include <stddef.h>

#include "ctl_path.h"
#include "penstock/base/buf.h"

/* The words of a command line, and the options that such commands have; NULL where not given. */
struct ctl_words {
    const char *const *words; /* the first is the command */
    size_t n_words;
    const char *over;                /* server … drain */
    const char *prefix, *type, *ttl; /* store … keys; store … set */
    const char *after, *limit;       /* store … keys */
};

/* What they come to. */
struct ctl_call {
    const char *method;
    struct ctl_path path;
    const char *body;               /* "" without */
    int (*print)(const char *json); /* as those of ctl_print.h */
    bool pages;                     /* of keys: ctl_join_keys() */
};

enum { CTL_KEYS = 1000 }; /* of a store that are shown, without --limit */

/* Where the keys of an answer go on, and how many it has. */
struct ctl_keys {
    size_t n;
    char next[64]; /* "" at the end */
};

/* 0; or -EINVAL with a message in `why` that shows what would be right. */
int ctl_read_server(const struct ctl_words *w, struct ctl_call *call, char *why, size_t why_cap);
int ctl_read_store(const struct ctl_words *w, struct ctl_call *call, char *why, size_t why_cap);

/* Reads the end of a page of keys. */
void ctl_read_keys(const char *json, struct ctl_keys *out);
/* Puts the keys of `page` behind those of `all`, which goes on where `page` does. 0; -EPROTO when
 * one of them is no page; or -ENOMEM. */
int ctl_join_keys(struct buf *all, const char *page);

/* As those of ctl_print.h. */
int ctl_print_pools(const char *json);
int ctl_print_stores(const char *json);
int ctl_print_buckets(const char *json);
int ctl_print_stats(const char *json);
int ctl_print_config(const char *json);

#endif
