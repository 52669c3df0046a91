/* One structure for all timers of a loop: an intrusive pairing heap. Starting never allocates and
 * never fails. */
#ifndef PENSTOCK_NET_TIMERS_H
#define PENSTOCK_NET_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
    struct timer *child, *next, *prev; /* heap links; prev is the parent of a first child */
    void (*on_timer)(struct timer *timer);
    uint64_t due_ms; /* monotonic; 0 while stopped */
};

struct timers {
    struct timer *root;
};

/* Sets the callback. A zeroed timer that was never started may be stopped. */
void timer_init(struct timer *t, void (*on_timer)(struct timer *timer));
static inline bool timer_is_active(const struct timer *t)
{
    return t->due_ms != 0;
}
/* Starts, or moves, a timer to the absolute time `due_ms` (1 at least). */
void timers_start(struct timers *ts, struct timer *t, uint64_t due_ms);
/* Harmless on a stopped timer. */
void timers_stop(struct timers *ts, struct timer *t);
/* Milliseconds from `now_ms` to the next timer; -1 when there is none; at most 1 hour. */
int timers_next_ms(const struct timers *ts, uint64_t now_ms);
/* Calls back every timer that is due; a callback may start and stop any timer. */
void timers_run(struct timers *ts, uint64_t now_ms);

#endif
