/* Token bucket that many may draw from, on any thread: counted references and a lock. Rate and
 * burst may be fractional. Time is given by the caller; a thread whose clock is behind earns
 * nothing.
 *
 * Who must wait reserves: the tokens are taken at once, below zero if need be, and may be used
 * after the wait. Those who come later wait behind, so everybody's turn comes, in order. */
#ifndef PENSTOCK_NET_RATE_SHARED_H
#define PENSTOCK_NET_RATE_SHARED_H

#include <stdbool.h>
#include <stdint.h>

struct rate_shared;

/* Tokens a second, and the most that can be saved up. */
struct rate_limits {
    double per_second; /* above 0 */
    double burst;      /* above 0 */
};

/* A full bucket with one reference, NULL when out of memory. */
struct rate_shared *rate_shared_new(const struct rate_limits *limits, uint64_t now_ns);
struct rate_shared *rate_shared_hold(struct rate_shared *r);
/* May be NULL. */
void rate_shared_drop(struct rate_shared *r);
/* Nobody but the caller holds it. */
bool rate_shared_is_alone(struct rate_shared *r);

/* Other limits from now on. Waits that have begun stay as they are. */
void rate_shared_set(struct rate_shared *r, const struct rate_limits *limits, uint64_t now_ns);

/* Takes n tokens when they are there: 0. Otherwise takes none and returns the seconds until they
 * would be, HUGE_VAL when n is more than the burst. */
double rate_shared_take(struct rate_shared *r, double n, uint64_t now_ns);

/* Takes n tokens (also more than the burst), to be used in as many seconds as it returns. When that
 * would be more than `max_s`, takes none and returns -1. */
double rate_shared_reserve(struct rate_shared *r, double n, double max_s, uint64_t now_ns);

/* For bytes: takes at least 1 and returns how many. With *wait_ms 0 these are what is there, at
 * most `want`; else there was too little, and they are a portion that may be used in *wait_ms. What
 * is not used goes back by rate_shared_give(). */
uint64_t rate_shared_draw(struct rate_shared *r, uint64_t want, uint64_t now_ns, uint64_t *wait_ms);

/* Gives n tokens back that were taken and not used. */
void rate_shared_give(struct rate_shared *r, double n);

/* When it will be full if nobody takes any more; not after now_ns when it is. */
uint64_t rate_shared_full_ns(struct rate_shared *r, uint64_t now_ns);

#endif
