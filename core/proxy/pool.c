/* The servers of a pool, and the order in which they are to be tried. */
#include "penstock/proxy/pool.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "penstock/base/hash.h"
#include "penstock/base/list.h"
#include "penstock/base/log.h"
#include "penstock/net/account.h"

struct pool {
    uv_mutex_t lock;  /* of everything, its servers' members included */
    atomic_uint refs; /* its owner, and each server */
    struct list servers;
    struct pool_eject eject;
    enum pool_algo algo;
    uint32_t users; /* workers whose configuration has it */
    char name[];
};

struct pool_server {
    struct account account; /* first: targets point to it */
    struct list node;
    struct pool *pool; /* one reference */
    unsigned refs;
    uint32_t active;     /* connections */
    uint32_t checks;     /* in a row that contradict its state */
    uint32_t fails;      /* dials in a row */
    uint64_t ejected_ms; /* out until then */
    uint64_t drained_ms; /* since then; its connections of before are to end */
    uint64_t end_ms;     /* until then; 0: they may stay */
    uint64_t name_hash;  /* HASH */
    double turn;         /* ROUND_ROBIN: who has most is next */
    uint64_t good, bad;  /* dials */
    char *address;       /* NULL: like its name */
    double configured;   /* weight */
    double weight;       /* in its place, given by hand; 0: none */
    uint32_t users;      /* as of the pool */
    bool drained, is_down;
    bool checked; /* there are checks */
    enum pool_check last_check;
    char name[];
};

/* The same in every process: a key stays with its server over a restart, and on another machine. */
static const struct hash_key name_key = {0x706f6f6c, 0x73657276};

#define X(name, word) [POOL_##name] = word,
const char *pool_state_name(enum pool_state state)
{
    static const char *const names[] = {POOL_STATES(X)};
    return names[state];
}

const char *pool_check_name(enum pool_check check)
{
    static const char *const names[] = {POOL_CHECKS(X)};
    return names[check];
}

const char *pool_algo_name(enum pool_algo algo)
{
    static const char *const names[] = {POOL_ALGOS(X)};
    return names[algo];
}
#undef X

/* ---- life ---- */

struct pool *pool_new(const char *name)
{
    size_t len = strlen(name);
    struct pool *p = calloc(1, sizeof *p + len + 1);
    if (!p || uv_mutex_init(&p->lock)) {
        free(p);
        return NULL;
    }
    memcpy(p->name, name, len + 1);
    atomic_init(&p->refs, 1);
    list_init(&p->servers);
    return p;
}

void pool_free(struct pool *p)
{
    if (!p || atomic_fetch_sub(&p->refs, 1) > 1)
        return;
    uv_mutex_destroy(&p->lock);
    free(p);
}

static struct pool_server *find(struct pool *p, const char *name)
{
    list_for_each (node, next, &p->servers) {
        struct pool_server *s = container_of(node, struct pool_server, node);
        if (!strcmp(s->name, name))
            return s;
    }
    return NULL;
}

static const struct account_ops account_ops;

static struct pool_server *server_new(struct pool *p, const char *name)
{
    size_t len = strlen(name);
    struct pool_server *s = calloc(1, sizeof *s + len + 1);
    if (!s)
        return NULL;
    memcpy(s->name, name, len + 1);
    s->account.ops = &account_ops;
    s->name_hash = hash_bytes(&name_key, name, len);
    s->pool = p;
    atomic_fetch_add(&p->refs, 1); /* dropped in pool_server_drop() */
    list_push(&p->servers, &s->node);
    return s;
}

struct pool_server *pool_server(struct pool *p, const char *name)
{
    uv_mutex_lock(&p->lock);
    struct pool_server *s = find(p, name);
    if (!s)
        s = server_new(p, name);
    if (s)
        s->refs++;
    uv_mutex_unlock(&p->lock);
    return s;
}

struct pool_server *pool_find(struct pool *p, const char *name)
{
    uv_mutex_lock(&p->lock);
    struct pool_server *s = find(p, name);
    if (s)
        s->refs++;
    uv_mutex_unlock(&p->lock);
    return s;
}

struct pool_server *pool_server_hold(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    s->refs++;
    uv_mutex_unlock(&s->pool->lock);
    return s;
}

void pool_server_drop(struct pool_server *s)
{
    if (!s)
        return;
    struct pool *p = s->pool;
    uv_mutex_lock(&p->lock);
    bool last = --s->refs == 0;
    if (last)
        list_remove(&s->node);
    uv_mutex_unlock(&p->lock);
    if (!last)
        return;
    free(s->address);
    free(s);
    pool_free(p);
}

const char *pool_server_name(const struct pool_server *s)
{
    return s->name;
}

/* ---- configurations ---- */

static void set_address(struct pool_server *s, const char *address)
{
    if (s->address && address && !strcmp(s->address, address))
        return;
    free(s->address);
    s->address = address ? strdup(address) : NULL;
}

void pool_use(struct pool *p, const struct pool_use *use)
{
    uv_mutex_lock(&p->lock);
    p->users++;
    p->algo = use->algo;
    p->eject = use->eject;
    for (size_t i = 0; i < use->n_members; i++) {
        struct pool_server *s = use->members[i].server;
        s->users++;
        if (s->configured != use->members[i].weight)
            s->weight = 0; /* what it was to replace is gone */
        s->configured = use->members[i].weight;
        set_address(s, use->members[i].address);
        s->checked = use->checks;
    }
    uv_mutex_unlock(&p->lock);
}

void pool_unuse(struct pool *p, const struct pool_use *use)
{
    uv_mutex_lock(&p->lock);
    p->users--;
    for (size_t i = 0; i < use->n_members; i++)
        use->members[i].server->users--;
    uv_mutex_unlock(&p->lock);
}

void pool_set_weight(struct pool_server *s, double weight)
{
    uv_mutex_lock(&s->pool->lock);
    s->weight = weight;
    uv_mutex_unlock(&s->pool->lock);
}

/* An older configuration goes on with its own. */
static double weight_of(const struct pool_member *m)
{
    const struct pool_server *s = m->server;
    return s->weight > 0 && s->configured == m->weight ? s->weight : m->weight;
}

/* ---- states ---- */

static enum pool_state state_of(const struct pool_server *s, uint64_t now_ms)
{
    if (s->drained)
        return POOL_DRAINED;
    if (s->is_down)
        return POOL_DOWN;
    return s->ejected_ms > now_ms ? POOL_EJECTED : POOL_UP;
}

enum pool_state pool_state(struct pool_server *s, uint64_t now_ms)
{
    uv_mutex_lock(&s->pool->lock);
    enum pool_state state = state_of(s, now_ms);
    uv_mutex_unlock(&s->pool->lock);
    return state;
}

void pool_drain(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    s->drained = true;
    uv_mutex_unlock(&s->pool->lock);
}

void pool_drain_until(struct pool_server *s, uint64_t now_ms, uint64_t end_ms)
{
    uv_mutex_lock(&s->pool->lock);
    s->drained = true;
    s->drained_ms = now_ms;
    s->end_ms = end_ms;
    uv_mutex_unlock(&s->pool->lock);
}

void pool_restore(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    s->drained = s->is_down = false;
    s->ejected_ms = s->end_ms = 0;
    s->checks = s->fails = 0;
    uv_mutex_unlock(&s->pool->lock);
}

bool pool_checked(struct pool_server *s, bool success, uint32_t fall, uint32_t rise)
{
    uv_mutex_lock(&s->pool->lock);
    bool contradicts = success == s->is_down;
    s->last_check = success ? POOL_PASSED : POOL_FAILED;
    s->checks = contradicts ? s->checks + 1 : 0;
    bool changes = contradicts && s->checks >= (success ? rise : fall);
    if (changes) {
        s->is_down = !success;
        s->checks = 0;
    }
    uv_mutex_unlock(&s->pool->lock);
    return changes;
}

bool pool_dialled(struct pool_server *s, bool success, uint64_t now_ms)
{
    struct pool *p = s->pool;
    uv_mutex_lock(&p->lock);
    s->fails = success ? 0 : s->fails + 1;
    s->good += success;
    s->bad += !success;
    if (success)
        s->ejected_ms = 0;
    bool ejects = p->eject.fails && s->fails >= p->eject.fails;
    if (ejects) {
        s->ejected_ms = now_ms + p->eject.ms;
        s->fails = 0;
    }
    uv_mutex_unlock(&p->lock);
    return ejects;
}

void pool_enter(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    s->refs++;
    s->active++;
    uv_mutex_unlock(&s->pool->lock);
}

void pool_leave(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    s->active--;
    uv_mutex_unlock(&s->pool->lock);
    pool_server_drop(s);
}

uint32_t pool_active(struct pool_server *s)
{
    uv_mutex_lock(&s->pool->lock);
    uint32_t active = s->active;
    uv_mutex_unlock(&s->pool->lock);
    return active;
}

/* ---- accounts ---- */

static struct pool_server *server_of(struct account *a)
{
    return (struct pool_server *)a; /* its first member */
}

static void on_hold(struct account *a)
{
    pool_server_hold(server_of(a));
}

static void on_drop(struct account *a)
{
    pool_server_drop(server_of(a));
}

static void on_enter(struct account *a)
{
    pool_enter(server_of(a));
}

static void on_leave(struct account *a)
{
    pool_leave(server_of(a));
}

static void on_dialled(struct account *a, bool success, uint64_t now_ms)
{
    struct pool_server *s = server_of(a);
    if (pool_dialled(s, success, now_ms))
        log_warn("pool %s: %s is ejected: it could not be connected to", s->pool->name, s->name);
}

static uint64_t on_ends(struct account *a, uint64_t chosen_ms)
{
    struct pool_server *s = server_of(a);
    uv_mutex_lock(&s->pool->lock);
    uint64_t end_ms = s->end_ms && chosen_ms <= s->drained_ms ? s->end_ms : 0;
    uv_mutex_unlock(&s->pool->lock);
    return end_ms;
}

static const struct account_ops account_ops = {.hold = on_hold,
                                               .drop = on_drop,
                                               .enter = on_enter,
                                               .leave = on_leave,
                                               .dialled = on_dialled,
                                               .ends = on_ends};

struct account *pool_server_account(struct pool_server *s)
{
    return &s->account;
}

/* ---- the choice ---- */

struct candidate {
    double score; /* the greater the better */
    uint32_t number;
};

/* splitmix64: from one number to another that looks like chance. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Weighted rendezvous: with a number of its own for each server the greatest score is at each with
 * a probability that goes by its weight, and one more or less server changes no other's score. */
static double rendezvous(uint64_t chance, double weight)
{
    double u = ((double)(chance >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
    return -weight / log(u);
}

static double score_of(const struct pool_choice *c, uint32_t number)
{
    const struct pool_member *m = &c->members[number];
    switch (c->algo) {
    case POOL_HASH:
        return rendezvous(mix(c->key ^ m->server->name_hash), weight_of(m));
    case POOL_RANDOM:
        return rendezvous(mix(c->random + number), weight_of(m));
    case POOL_LEAST_CONN:
        return -(m->server->active + 1.0) / weight_of(m);
    default:
        return 0;
    }
}

/* Chance decides among equals. */
static double tie_of(const struct pool_choice *c, uint32_t number)
{
    return (double)(mix(c->random + number) >> 11);
}

static void sort(const struct pool_choice *c, struct candidate *list, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct candidate x = list[i];
        size_t at = i;
        while (at && (list[at - 1].score < x.score ||
                      (list[at - 1].score == x.score &&
                       tie_of(c, list[at - 1].number) < tie_of(c, x.number)))) {
            list[at] = list[at - 1];
            at--;
        }
        list[at] = x;
    }
}

/* Each turn gives everyone its weight and takes the whole from who is served: the turns of the
 * heavy lie between those of the light. */
static size_t take_turn(const struct pool_choice *c, const uint32_t *order, size_t n)
{
    double sum = 0;
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        const struct pool_member *m = &c->members[order[i]];
        double weight = weight_of(m);
        m->server->turn += weight;
        sum += weight;
        if (m->server->turn > c->members[order[best]].server->turn)
            best = i;
    }
    if (n)
        c->members[order[best]].server->turn -= sum;
    return best;
}

/* The one whose turn it is, and those after it, round. */
static void rotate(const struct pool_choice *c, uint32_t *order, size_t n)
{
    size_t first = take_turn(c, order, n);
    uint32_t before[POOL_SERVERS_MAX];
    memcpy(before, order, n * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = before[(first + i) % n];
}

static void rank(const struct pool_choice *c, uint32_t *order, size_t n)
{
    struct candidate list[POOL_SERVERS_MAX];
    for (size_t i = 0; i < n; i++)
        list[i] = (struct candidate){score_of(c, order[i]), order[i]};
    sort(c, list, n);
    for (size_t i = 0; i < n; i++)
        order[i] = list[i].number;
}

/* The members in this state. */
static size_t select_state(const struct pool_choice *c, enum pool_state state, uint32_t *order)
{
    size_t n = 0;
    for (uint32_t i = 0; i < c->n_members; i++)
        if (state_of(c->members[i].server, c->now_ms) == state)
            order[n++] = i;
    return n;
}

size_t pool_choose(struct pool *p, const struct pool_choice *choice, uint32_t *order)
{
    uv_mutex_lock(&p->lock);
    size_t n = select_state(choice, POOL_UP, order);
    if (!n)
        n = select_state(choice, POOL_EJECTED, order);
    if (choice->algo == POOL_ROUND_ROBIN)
        rotate(choice, order, n);
    else
        rank(choice, order, n);
    uv_mutex_unlock(&p->lock);
    return n;
}

static enum pool_check check_of(const struct pool_server *s)
{
    if (!s->checked)
        return POOL_UNCHECKED;
    return s->last_check == POOL_UNCHECKED ? POOL_WAITING : s->last_check;
}

static struct pool_view view_of(const struct pool_server *s, uint64_t now_ms)
{
    return (struct pool_view){.pool = s->pool->name,
                              .server = s->name,
                              .address = s->address ? s->address : s->name,
                              .state = state_of(s, now_ms),
                              .active = s->active,
                              .algo = s->pool->algo,
                              .used = s->users > 0,
                              .pool_used = s->pool->users > 0,
                              .weight = s->weight > 0 ? s->weight : s->configured,
                              .configured_weight = s->configured,
                              .good = s->good,
                              .bad = s->bad,
                              .check = check_of(s)};
}

void pool_visit(struct pool *p, uint64_t now_ms,
                void (*visit)(void *arg, const struct pool_view *view), void *arg)
{
    uv_mutex_lock(&p->lock);
    list_for_each (node, next, &p->servers) {
        const struct pool_server *s = container_of(node, struct pool_server, node);
        struct pool_view view = view_of(s, now_ms);
        visit(arg, &view);
    }
    uv_mutex_unlock(&p->lock);
}
