/* An ordered list of destinations that one connection tries in turn. Immutable once made, counted
 * by atomic references: a listener's list is shared by all workers, a hook's belongs to one
 * connection. */
#ifndef PENSTOCK_PROXY_TARGETS_H
#define PENSTOCK_PROXY_TARGETS_H

#include <stdatomic.h>
#include <stddef.h>

#include "penstock/net/target.h"

struct targets {
    atomic_uint refs;
    size_t n;
    struct target items[];
};

/* Parses "host:port[,tls://host:port…]" (comma list, tried in order); `port_offset` is added to the
 * port of items that carry a port range (mapping 9000-9010 to 9000-9010); range lengths are the
 * caller's to check, see targets_range(). Returns a list with one reference, or NULL with a message
 * in `why`. */
struct targets *targets_parse(const char *text, unsigned port_offset, char *why, size_t why_cap);

/* Number of ports in the port range of `text`'s items: 1 when none has a range; 0 with a message in
 * `why` when the text is wrong or two ranges differ in length. */
unsigned targets_range(const char *text, char *why, size_t why_cap);

/* Moves the items of `more` to the end of *list, which may be NULL; nobody else has either. Takes
 * `more` over. 0, or -ENOMEM (*list is as it was). */
int targets_join(struct targets **list, struct targets *more);
/* Gives every target of a list that nobody else has a copy of `options` (NULL: nothing happens).
 * 0; or -ENOMEM or -EINVAL (they do not fit a target) with a message in `why`. */
int targets_set_options(struct targets *t, const struct target_options *options, char *why,
                        size_t why_cap);

/* Is there TLS in it (tls://, a proxy behind TLS) without a client to speak it? */
bool targets_lack_tls(const struct targets *t);
/* Gives it `client` (held) where that is missing; nobody else has the list. 0 or -ENOMEM. */
int targets_give_tls(struct targets *t, struct tls_client *client);

struct targets *targets_hold(struct targets *t);
/* Drops one reference, frees at the last; NULL is fine. */
void targets_drop(struct targets *t);

/* "a:1,b:2" for logs. Returns `buf` (cut with "…" when too long). */
const char *targets_format(const struct targets *t, char *buf, size_t cap);

#endif
