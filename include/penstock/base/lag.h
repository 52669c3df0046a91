/* How long the rounds of an event loop take: written by its thread, read by another. What becomes
 * ready during a round waits for its end.
 *
 * The end of a round is read from the coarse clock, which costs next to nothing and is some
 * milliseconds late: shorter rounds count as none. */
#ifndef PENSTOCK_BASE_LAG_H
#define PENSTOCK_BASE_LAG_H

#include <stdint.h>

#include "penstock/base/count.h"

enum { LAG_WINDOW_MS = 10000 };

/* All zero at first. */
struct lag {
    struct count began_ns;   /* of the round that runs; 0 while the loop waits */
    struct count window_ns;  /* when the present window began */
    struct count longest_ns; /* round of the present window */
    struct count before_ns;  /* … and of the one before */
};

/* The loop has come back from waiting, at `now_ns`. */
void lag_begin(struct lag *lag, uint64_t now_ns);
/* It goes to wait again. `now_ns` may be a little earlier than the begin. */
void lag_end(struct lag *lag, uint64_t now_ns);
/* The longest round of the last one to two windows, the one that runs included. From any thread. */
uint64_t lag_longest_ns(const struct lag *lag, uint64_t now_ns);

#endif
