/* Token bucket: so many bytes (or connections) a second, with a burst. Time is given by the caller.
 */
#ifndef PENSTOCK_NET_RATE_H
#define PENSTOCK_NET_RATE_H

#include <stdint.h>

struct rate {
    uint64_t per_second;
    uint64_t burst;  /* most tokens that can be saved up */
    uint64_t tokens; /* as of last_ns */
    uint64_t last_ns;
};

/* Starts full. `burst` 0 stands for a tenth of a second's worth, at least 1. */
void rate_init(struct rate *r, uint64_t per_second, uint64_t burst, uint64_t now_ns);
/* Tokens there are now. */
uint64_t rate_available(struct rate *r, uint64_t now_ns);
/* Takes n tokens (never more than are available). */
void rate_take(struct rate *r, uint64_t n);
/* Milliseconds until `n` tokens (cut to the burst) are there; at least 1. */
uint64_t rate_wait_ms(const struct rate *r, uint64_t n);

#endif
