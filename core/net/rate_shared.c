/* Token bucket with a lock. The level is a double: exact to a millionth of a token up to gigabytes,
 * and below zero by what is reserved. */
#include "penstock/net/rate_shared.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

/* A portion of bytes for one that waited is worth this time, bounded by a quarter of the burst:
 * short, so that many who share a bucket get their turns often. */
#define PORTION_SECONDS 0.02
enum { PORTION_MAX = 1 << 20, WAIT_MAX_S = 365 * 24 * 3600 };
/* Tokens that sums of fractions may be short of. */
#define SLACK 1e-6

struct rate_shared {
    uv_mutex_t lock;
    struct rate_limits limits;
    double level; /* as of last_ns */
    uint64_t last_ns;
    atomic_uint refs;
};

struct rate_shared *rate_shared_new(const struct rate_limits *limits, uint64_t now_ns)
{
    struct rate_shared *r = calloc(1, sizeof *r);
    if (!r || uv_mutex_init(&r->lock)) {
        free(r);
        return NULL;
    }
    r->limits = *limits;
    r->level = limits->burst;
    r->last_ns = now_ns;
    atomic_init(&r->refs, 1);
    return r;
}

struct rate_shared *rate_shared_hold(struct rate_shared *r)
{
    atomic_fetch_add(&r->refs, 1);
    return r;
}

void rate_shared_drop(struct rate_shared *r)
{
    if (!r || atomic_fetch_sub(&r->refs, 1) > 1)
        return;
    uv_mutex_destroy(&r->lock);
    free(r);
}

bool rate_shared_is_alone(struct rate_shared *r)
{
    return atomic_load(&r->refs) == 1;
}

static void enter(struct rate_shared *r, uint64_t now_ns)
{
    uv_mutex_lock(&r->lock);
    if (now_ns <= r->last_ns)
        return;
    double earned = (double)(now_ns - r->last_ns) / 1e9 * r->limits.per_second;
    r->level = fmin(r->limits.burst, r->level + earned);
    r->last_ns = now_ns;
}

static void leave(struct rate_shared *r)
{
    uv_mutex_unlock(&r->lock);
}

/* Seconds until the level is `level`. */
static double seconds_to(const struct rate_shared *r, double level)
{
    return level > r->level + SLACK ? (level - r->level) / r->limits.per_second : 0;
}

void rate_shared_set(struct rate_shared *r, const struct rate_limits *limits, uint64_t now_ns)
{
    enter(r, now_ns);
    /* Who had saved up all that could be, still has. */
    if (r->level >= r->limits.burst || r->level > limits->burst)
        r->level = limits->burst;
    r->limits = *limits;
    leave(r);
}

double rate_shared_take(struct rate_shared *r, double n, uint64_t now_ns)
{
    enter(r, now_ns);
    double wait = n > r->limits.burst ? HUGE_VAL : seconds_to(r, n);
    if (wait == 0)
        r->level -= n;
    leave(r);
    return wait;
}

double rate_shared_reserve(struct rate_shared *r, double n, double max_s, uint64_t now_ns)
{
    enter(r, now_ns);
    double wait = seconds_to(r, n);
    if (wait > max_s)
        wait = -1;
    else
        r->level -= n;
    leave(r);
    return wait;
}

static double portion(const struct rate_limits *limits)
{
    double bytes = fmin(limits->burst / 4, limits->per_second * PORTION_SECONDS);
    return fmax(1, floor(fmin(bytes, PORTION_MAX)));
}

uint64_t rate_shared_draw(struct rate_shared *r, uint64_t want, uint64_t now_ns, uint64_t *wait_ms)
{
    enter(r, now_ns);
    double n = portion(&r->limits), wait = seconds_to(r, n);
    if (wait == 0)
        n = fmin((double)want, floor(r->level + SLACK));
    r->level -= n;
    leave(r);
    /* One more: the timers of a loop may be early by the part of a millisecond that has passed. */
    *wait_ms = wait > 0 ? (uint64_t)ceil(fmin(wait, WAIT_MAX_S) * 1000) + 1 : 0;
    return (uint64_t)n;
}

void rate_shared_give(struct rate_shared *r, double n)
{
    uv_mutex_lock(&r->lock);
    r->level = fmin(r->limits.burst, r->level + n);
    uv_mutex_unlock(&r->lock);
}

uint64_t rate_shared_full_ns(struct rate_shared *r, uint64_t now_ns)
{
    enter(r, now_ns);
    double ns = seconds_to(r, r->limits.burst) * 1e9;
    leave(r);
    return now_ns + (ns < 0x1p62 ? (uint64_t)ceil(ns) : UINT64_C(1) << 62);
}
