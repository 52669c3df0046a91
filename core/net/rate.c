/* Token bucket. Whole tokens only; the fraction stays in last_ns, so that no time is lost to
 * rounding. */
#include "penstock/net/rate.h"

enum { NS = 1000000000 };

void rate_init(struct rate *r, uint64_t per_second, uint64_t burst, uint64_t now_ns)
{
    if (!burst)
        burst = per_second / 10;
    if (!burst)
        burst = 1;
    *r =
        (struct rate){.per_second = per_second, .burst = burst, .tokens = burst, .last_ns = now_ns};
}

uint64_t rate_available(struct rate *r, uint64_t now_ns)
{
    if (now_ns <= r->last_ns)
        return r->tokens;
    unsigned __int128 passed = (unsigned __int128)(now_ns - r->last_ns) * r->per_second;
    unsigned __int128 earned = passed / NS;
    if (earned >= r->burst - r->tokens) {
        r->tokens = r->burst;
        r->last_ns = now_ns;
    } else if (earned) {
        r->tokens += (uint64_t)earned;
        r->last_ns = now_ns - (uint64_t)(passed % NS) / r->per_second;
    }
    return r->tokens;
}

void rate_take(struct rate *r, uint64_t n)
{
    r->tokens -= n < r->tokens ? n : r->tokens;
}

uint64_t rate_wait_ms(const struct rate *r, uint64_t n)
{
    if (n > r->burst)
        n = r->burst;
    if (n <= r->tokens)
        return 1;
    unsigned __int128 ns = (unsigned __int128)(n - r->tokens) * NS / r->per_second;
    return (uint64_t)(ns / 1000000) + 1;
}
