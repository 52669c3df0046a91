/* Names to addresses: c-ares on the loop's poller, and a small cache. Which address to try is
 * dial.c's business. */
#include "penstock/net/resolver.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/net/vnet.h"

enum {
    CACHE_MAX = 1024,  /* entries; the least recently used go first */
    TTL_MIN_MS = 1000, /* TTL 0 and /etc/hosts: a burst of connections asks once */
    TTL_MAX_MS = 3600000,
    FAILURE_MS = 1000, /* how long a failure is believed */
    STALE_MS = 10000, /* how long the last good answer is used before the servers are asked again */
    ATTEMPT_MS = 1500, /* c-ares: first timeout of a server */
    TRIES = 3,
};

static const char resolv_conf[] = "/etc/resolv.conf";

struct cache_entry {
    struct list node;    /* in resolver->cache, most recently used last */
    struct list waiters; /* resolver_query */
    struct resolver *resolver;
    struct addr *addrs; /* last good answer, NULL without */
    size_t n;
    uint64_t fresh_until_ms;
    int err; /* of the last lookup: 0, or an ARES_ code while it is believed */
    int family;
    bool asking;
    bool answering; /* answer_all() is on the stack */
    char name[];
};

/* A socket of c-ares. */
struct resolver_socket {
    struct poller_entry entry;
    struct list node;
    struct resolver *resolver;
    struct loop_task free_task;
};

struct resolver {
    struct loop *loop;
    ares_channel channel;
    char *servers;
    struct list cache, sockets;
    size_t n_cached;
    size_t asking; /* lookups in flight */
    struct timer timer;
    struct timespec conf_time; /* of resolv.conf when the channel was made */
    struct count *results;     /* by enum resolver_result; NULL: nobody counts */
    bool freeing;
};

static void arm_timer(struct resolver *r)
{
    struct timeval tv, *next = ares_timeout(r->channel, NULL, &tv);
    if (next)
        loop_timer(r->loop, &r->timer,
                   (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
    else
        timers_stop(&r->loop->timers, &r->timer);
}

static void on_timer(struct timer *timer)
{
    struct resolver *r = container_of(timer, struct resolver, timer);
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(r);
}

static void on_socket(struct poller_entry *entry, unsigned events)
{
    struct resolver_socket *s = container_of(entry, struct resolver_socket, entry);
    struct resolver *r = s->resolver;
    int fd = entry->fd;
    ares_process_fd(r->channel, events & ~(unsigned)POLLER_OUT ? fd : ARES_SOCKET_BAD,
                    events & POLLER_OUT ? fd : ARES_SOCKET_BAD);
    arm_timer(r);
}

static void free_socket(struct loop_task *task)
{
    free(container_of(task, struct resolver_socket, free_task));
}

static struct resolver_socket *find_socket(struct resolver *r, int fd)
{
    list_for_each (node, tmp, &r->sockets) {
        struct resolver_socket *s = container_of(node, struct resolver_socket, node);
        if (s->entry.fd == fd)
            return s;
    }
    return NULL;
}

static void drop_socket(struct resolver *r, struct resolver_socket *s)
{
    poller_remove(&r->loop->poller, &s->entry);
    list_remove(&s->node);
    loop_defer(r->loop, &s->free_task);
}

/* c-ares tells what it waits for on a socket; nothing means that it is about to close it. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = arg;
    unsigned events = (readable ? POLLER_IN : 0u) | (writable ? POLLER_OUT : 0u);
    struct resolver_socket *s = find_socket(r, fd);
    if (!events) {
        if (s)
            drop_socket(r, s);
        return;
    }
    if (s) {
        poller_set_level(&r->loop->poller, &s->entry, events);
        return;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        return; /* the query times out */
    s->entry = (struct poller_entry){.on_event = on_socket, .fd = fd};
    s->resolver = r;
    s->free_task.run = free_socket;
    list_init(&s->free_task.node);
    list_push(&r->sockets, &s->node);
    if (poller_add_level(&r->loop->poller, &s->entry, events)) {
        s->entry.fd = -1;
        drop_socket(r, s);
    }
}

static struct timespec conf_time(void)
{
    struct stat st;
    return stat(resolv_conf, &st) ? (struct timespec){0} : st.st_mtim;
}

static int open_channel(struct resolver *r)
{
    struct ares_options options = {.timeout = ATTEMPT_MS,
                                   .tries = TRIES,
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = r};
    r->conf_time = conf_time();
    int status = ares_init_options(&r->channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS)
        return status == ARES_ENOMEM ? -ENOMEM : -EIO;
    if (r->servers && ares_set_servers_ports_csv(r->channel, r->servers) != ARES_SUCCESS) {
        ares_destroy(r->channel);
        return -EINVAL;
    }
    return 0;
}

int resolver_new(struct loop *loop, const char *servers, struct resolver **out)
{
    struct resolver *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->loop = loop;
    list_init(&r->cache);
    list_init(&r->sockets);
    timer_init(&r->timer, on_timer);
    int err = -ENOMEM;
    if (servers && !(r->servers = strdup(servers)))
        goto fail;
    err = open_channel(r);
    if (err)
        goto fail;
    *out = r;
    return 0;
fail:
    free(r->servers);
    free(r);
    return err;
}

void resolver_count_in(struct resolver *r, struct count *results)
{
    r->results = results;
}

static void free_entry(struct cache_entry *e)
{
    list_remove(&e->node);
    e->resolver->n_cached--;
    free(e->addrs);
    free(e);
}

void resolver_free(struct resolver *r)
{
    r->freeing = true;
    ares_destroy(r->channel); /* calls back with ARES_EDESTRUCTION */
    timers_stop(&r->loop->timers, &r->timer);
    list_for_each (node, tmp, &r->cache) {
        struct cache_entry *e = container_of(node, struct cache_entry, node);
        while (!list_is_empty(&e->waiters))
            resolver_cancel(container_of(e->waiters.next, struct resolver_query, node));
        free_entry(e);
    }
    free(r->servers);
    free(r);
}

/* A laptop changes networks, a container gets new servers: follow resolv.conf while no question is
 * open. */
static void follow_conf(struct resolver *r)
{
    struct timespec now = conf_time();
    if (r->servers || r->asking ||
        (now.tv_sec == r->conf_time.tv_sec && now.tv_nsec == r->conf_time.tv_nsec))
        return;
    ares_channel old = r->channel;
    struct timespec old_time = r->conf_time;
    if (open_channel(r)) {
        r->channel = old;
        r->conf_time = old_time;
        return;
    }
    ares_destroy(old);
    log_info("%s has changed: using its name servers", resolv_conf);
}

static void answer(struct resolver_query *q, const struct cache_entry *e)
{
    q->waiting = false;
    if (e->n)
        q->done(q, 0, e->addrs, e->n, NULL);
    else
        q->done(q, PS_EDNS, NULL, 0, ares_strerror(e->err));
}

static void ask(struct cache_entry *e);

static void answer_all(struct cache_entry *e)
{
    struct list waiters;
    list_take(&waiters, &e->waiters);
    e->asking = false;
    e->answering =
        true; /* a callback may look up again: the entry and its addresses stay meanwhile */
    while (!list_is_empty(&waiters)) {
        struct resolver_query *q = container_of(waiters.next, struct resolver_query, node);
        list_remove(&q->node);
        answer(q, e);
    }
    e->answering = false;
    if (!list_is_empty(&e->waiters)) /* a callback was in doubt */
        ask(e);
}

static size_t count_nodes(const struct ares_addrinfo *info, int family)
{
    size_t n = 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next)
        n += node->ai_family == family;
    return n;
}

/* Takes the addresses over into the cache. Returns false when there are none (or no memory for
 * them). */
static bool store(struct cache_entry *e, const struct ares_addrinfo *info)
{
    size_t n = count_nodes(info, e->family);
    struct addr *addrs = n ? calloc(n, sizeof *addrs) : NULL;
    uint64_t ttl_ms = TTL_MAX_MS;
    if (!addrs)
        return false;
    free(e->addrs);
    e->addrs = addrs;
    e->n = 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next) {
        if (node->ai_family != e->family)
            continue;
        memcpy(&addrs[e->n++], node->ai_addr,
               e->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        if ((uint64_t)node->ai_ttl * 1000 < ttl_ms)
            ttl_ms = node->ai_ttl > 0 ? (uint64_t)node->ai_ttl * 1000 : 0;
    }
    e->err = 0;
    e->fresh_until_ms = e->resolver->loop->now_ms + (ttl_ms > TTL_MIN_MS ? ttl_ms : TTL_MIN_MS);
    return true;
}

/* The servers have answered: there is no such address (any more). */
static bool is_missing(int status)
{
    return status == ARES_ENOTFOUND || status == ARES_ENODATA || status == ARES_SUCCESS;
}

static void store_failure(struct cache_entry *e, int status)
{
    e->err = status == ARES_SUCCESS ? ARES_ENODATA : status;
    if (is_missing(status)) {
        free(e->addrs);
        e->addrs = NULL;
        e->n = 0;
    } else if (e->n) {
        log_warn("%s: %s; using its last good answer", e->name, ares_strerror(status));
    }
    e->fresh_until_ms = e->resolver->loop->now_ms + (e->n ? STALE_MS : FAILURE_MS);
}

static void count_result(struct resolver *r, enum resolver_result result)
{
    if (r->results)
        count_add(&r->results[result], 1);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct cache_entry *e = arg;
    struct resolver *r = e->resolver;
    (void)timeouts;
    if (!r->freeing) {
        bool found = status == ARES_SUCCESS && store(e, info);
        count_result(r, found                ? RESOLVER_FOUND
                        : is_missing(status) ? RESOLVER_MISSING
                                             : RESOLVER_FAILED);
        if (!found)
            store_failure(e, status);
        answer_all(e);
    }
    if (info)
        ares_freeaddrinfo(info);
    r->asking--; /* last: until here the channel is on the stack and must not be replaced */
}

static void ask(struct cache_entry *e)
{
    struct resolver *r = e->resolver;
    follow_conf(r);
    e->asking = true;
    r->asking++;
    struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = e->family, .ai_socktype = SOCK_STREAM};
    ares_getaddrinfo(r->channel, e->name, NULL, &hints, on_answer, e);
    arm_timer(r);
}

static struct cache_entry *find_entry(struct resolver *r, const char *name, int family)
{
    list_for_each (node, tmp, &r->cache) {
        struct cache_entry *e = container_of(node, struct cache_entry, node);
        if (e->family == family && strcasecmp(e->name, name) == 0) {
            list_remove(node);
            list_push(&r->cache, node);
            return e;
        }
    }
    return NULL;
}

static void evict(struct resolver *r)
{
    list_for_each (node, tmp, &r->cache) {
        struct cache_entry *e = container_of(node, struct cache_entry, node);
        if (r->n_cached < CACHE_MAX)
            return;
        if (!e->asking && !e->answering)
            free_entry(e);
    }
}

static struct cache_entry *new_entry(struct resolver *r, const char *name, int family)
{
    evict(r);
    size_t size = strlen(name) + 1;
    struct cache_entry *e = calloc(1, sizeof *e + size);
    if (!e)
        return NULL;
    memcpy(e->name, name, size);
    e->family = family;
    e->resolver = r;
    list_init(&e->waiters);
    list_push(&r->cache, &e->node);
    r->n_cached++;
    return e;
}

/* "localhost" and what ends in ".localhost" is this machine and nothing else (RFC 6761
 * section 6.3). */
static bool is_localhost(const char *name)
{
    static const char localhost[] = "localhost";
    size_t len = strlen(name), n = sizeof localhost - 1;
    if (len && name[len - 1] == '.')
        len--;
    return len >= n && strncasecmp(name + len - n, localhost, n) == 0 &&
           (len == n || name[len - n - 1] == '.');
}

static void answer_localhost(struct resolver_query *q, int family)
{
    struct addr self;
    q->waiting = false;
    addr_parse_ip(family == AF_INET ? "127.0.0.1" : "::1", &self);
    q->done(q, 0, &self, 1, NULL);
}

/* The virtual network knows at once, or never. */
static void answer_virtually(struct resolver *r, struct resolver_query *q, const char *name,
                             int family)
{
    const struct addr *addrs = NULL;
    size_t n = 0;
    const char *why = NULL;
    int err = vnet_resolve(r->loop->options.vnet, name, &addrs, &n, &why);
    list_init(&q->node);
    q->waiting = err == -EAGAIN;
    if (q->waiting)
        return;
    struct addr *found = n ? calloc(n, sizeof *found) : NULL;
    size_t n_found = 0;
    for (size_t i = 0; found && i < n; i++)
        if (addrs[i].sa.sa_family == family)
            found[n_found++] = addrs[i];
    if (n_found)
        q->done(q, 0, found, n_found, NULL);
    else
        q->done(q, PS_EDNS, NULL, 0, err ? why : ares_strerror(ARES_ENODATA));
    free(found);
}

void resolver_lookup(struct resolver *r, struct resolver_query *q, const char *name, int family,
                     resolver_done_fn *done)
{
    q->done = done;
    if (is_localhost(name)) {
        answer_localhost(q, family);
        return;
    }
    if (r->loop->options.vnet) {
        answer_virtually(r, q, name, family);
        return;
    }
    struct cache_entry *e = find_entry(r, name, family);
    if (!e && !(e = new_entry(r, name, family))) {
        q->waiting = false; /* the dial has marked it */
        done(q, PS_EDNS, NULL, 0, "out of memory");
        return;
    }
    if (!e->asking && r->loop->now_ms < e->fresh_until_ms) {
        answer(q, e);
        return;
    }
    q->waiting = true;
    list_push(&e->waiters, &q->node);
    if (!e->asking && !e->answering)
        ask(e);
}

void resolver_cancel(struct resolver_query *q)
{
    if (q->waiting)
        list_remove(&q->node);
    q->waiting = false;
}

void resolver_doubt(struct resolver *r, const char *name)
{
    static const int families[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < 2; i++) {
        struct cache_entry *e = find_entry(r, name, families[i]);
        if (e)
            e->fresh_until_ms = 0;
    }
}
