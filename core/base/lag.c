/* The longest round of a loop, by two windows of time: a peak is seen for one whole window at least
 * and forgotten after the second. */
#include "penstock/base/lag.h"

#include <stdbool.h>

#define WINDOW_NS ((uint64_t)LAG_WINDOW_MS * 1000000)

static void set(struct count *c, uint64_t value)
{
    atomic_store_explicit(&c->n, value, memory_order_relaxed);
}

void lag_begin(struct lag *lag, uint64_t now_ns)
{
    set(&lag->began_ns, now_ns);
}

static void open_window(struct lag *lag, uint64_t now_ns)
{
    bool adjacent = now_ns - count_get(&lag->window_ns) < 2 * WINDOW_NS;
    set(&lag->before_ns, adjacent ? count_get(&lag->longest_ns) : 0);
    set(&lag->longest_ns, 0);
    set(&lag->window_ns, now_ns);
}

void lag_end(struct lag *lag, uint64_t now_ns)
{
    uint64_t began_ns = count_get(&lag->began_ns);
    uint64_t took_ns = began_ns && now_ns > began_ns ? now_ns - began_ns : 0;
    set(&lag->began_ns, 0);
    if (now_ns > count_get(&lag->window_ns) + WINDOW_NS)
        open_window(lag, now_ns);
    if (took_ns > count_get(&lag->longest_ns))
        set(&lag->longest_ns, took_ns);
}

uint64_t lag_longest_ns(const struct lag *lag, uint64_t now_ns)
{
    uint64_t window_ns = count_get(&lag->window_ns), began_ns = count_get(&lag->began_ns);
    uint64_t age_ns = now_ns > window_ns ? now_ns - window_ns : 0;
    uint64_t longest = age_ns < 2 * WINDOW_NS ? count_get(&lag->longest_ns) : 0;
    uint64_t before = age_ns < WINDOW_NS ? count_get(&lag->before_ns) : 0;
    uint64_t running = began_ns && now_ns > began_ns ? now_ns - began_ns : 0;
    longest = before > longest ? before : longest;
    return running > longest ? running : longest;
}
