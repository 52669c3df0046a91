/* Where to connect to, and how: an endpoint and, when there are any, options. */
#ifndef PENSTOCK_NET_TARGET_H
#define PENSTOCK_NET_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/addr.h"
#include "penstock/net/account.h"
#include "penstock/net/tls_ctx.h"
#include "penstock/proto/proxy_protocol.h"

enum { TARGET_HOPS_MAX = 16 };

enum hop_kind { HOP_SOCKS5, HOP_HTTP };

/* A proxy on the way, as written in "socks5://user:password@host:port". Owns its texts. */
struct hop {
    enum hop_kind kind;
    bool tls; /* it is spoken with over TLS */
    struct endpoint endpoint;
    char *user, *password;   /* decoded; both NULL without a login */
    struct account *account; /* a reference; NULL: nobody counts */
};

enum target_proxy { TARGET_PROXY_NONE, TARGET_PROXY_V1, TARGET_PROXY_V2 };

/* Owns all it points to. */
struct target_options {
    struct hop *hops; /* in the order in which they are reached */
    size_t n_hops;
    struct proxy_tlv *tlvs; /* for version 2; values owned */
    size_t n_tlvs;
    enum target_proxy proxy; /* header sent first to the upstream, behind all hops */
    struct addr source;      /* source address for dialling; AF_UNSPEC: the listener's choice */
    uint64_t timeout_ms;     /* for this target, within the whole; 0: its share of that */
    struct account *account; /* of the endpoint; a reference; NULL: nobody counts */
    struct tls_client *tls;  /* TLS with the upstream, behind all hops; a reference; NULL: none */
    char *tls_name;          /* whom its certificate must be for; NULL: the endpoint's host */
    struct tls_client *via_tls; /* TLS with hops that want it; a reference */
};

struct target {
    struct endpoint endpoint;
    bool tls;                       /* written as tls://host:port */
    struct target_options *options; /* NULL without any; owned */
};

/* The word of its scheme: "socks5", "http", "socks5+tls", "https". */
const char *hop_scheme(const struct hop *h);
/* Parses "socks5://[user:password@]host[:port]", "http://…", or the same over TLS, "socks5+tls://…"
 * and "https://…" (ports 1080, 3128, 1080 and 443 may be left out; user and password are
 * percent-decoded). 0; or -EINVAL or -ENOMEM with a message in `why`, which never shows the login,
 * and *out empty. */
int hop_parse(const char *text, struct hop *out, char *why, size_t why_cap);
void hop_deinit(struct hop *h);
/* "socks5://10.0.0.1:1080", without the login. Returns `buf`. */
const char *hop_format(const struct hop *h, char *buf, size_t cap);

/* Options that say nothing yet; NULL when out of memory. */
struct target_options *target_options_new(void);
/* Frees; NULL is fine. */
void target_options_free(struct target_options *o);
/* A copy of its own, NULL when out of memory. */
struct target_options *target_options_copy(const struct target_options *o);
/* Appends a hop: like hop_parse(), and -EINVAL beyond TARGET_HOPS_MAX. */
int target_options_add_hop(struct target_options *o, const char *text, char *why, size_t why_cap);
/* Appends an option of the PROXY header, its value copied. 0, -ENOMEM, or -EINVAL when all together
 * would be over PROXY_TLVS_MAX. */
int target_options_add_tlv(struct target_options *o, uint8_t type, const void *value, size_t len);

/* Forgets the hops or the PROXY options given so far. */
void target_options_clear_hops(struct target_options *o);
void target_options_clear_tlvs(struct target_options *o);
/* Whether the options fit the endpoint and each other. 0, or -EINVAL with a message in `why`. */
int target_check(const struct target *t, char *why, size_t why_cap);
void target_deinit(struct target *t);

/* Is there TLS without a client to speak it: tls://, or a hop? */
bool target_lacks_tls(const struct target *t);
/* Gives it `client` (held) where that is missing. 0 or -ENOMEM. */
int target_give_tls(struct target *t, struct tls_client *client);
/* The name that the upstream's certificate must be for, and what is asked for by SNI; NULL for a
 * UNIX socket without one. Returns `buf` or a text of the target. */
const char *target_tls_name(const struct target *t, char *buf, size_t cap);
/* The same of a hop. */
const char *hop_tls_name(const struct hop *h, char *buf, size_t cap);

/* What is connected to first: the first hop, or the target itself. */
const struct endpoint *target_first(const struct target *t);
static inline size_t target_n_hops(const struct target *t)
{
    return t->options ? t->options->n_hops : 0;
}
/* A connection to the target is attempted: its accounts and those of its hops are entered. Each
 * call is undone by one target_leave(). */
void target_enter(const struct target *t);
void target_leave(const struct target *t);
/* Tells the accounts what the attempt came to. The `n_good` first of the way (its hops, then its
 * endpoint) have done their part, and the next one has not; TARGET_ALL_GOOD: it is connected. */
enum { TARGET_ALL_GOOD = TARGET_HOPS_MAX + 1 };
void target_dialled(const struct target *t, size_t n_good, uint64_t now_ms);
/* By when a connection to the target that chose it at `chosen_ms` is to end; 0: it may stay. */
uint64_t target_ends(const struct target *t, uint64_t chosen_ms);
/* Is `a` the account of the target, or of one of its hops? */
bool target_uses(const struct target *t, const struct account *a);
/* The hops, "socks5://a:1080,http://b:3128"; "" without any. Returns `buf`, cut when too long. */
const char *target_format_via(const struct target *t, char *buf, size_t cap);

#endif
