/* How fast connections move bytes. Nobody pays for it but who asks: what each has moved is noted,
 * and looked at again a second later. */
#include "rates.h"

#include "penstock/net/loop.h"
#include "penstock/proxy/conn.h"
#include "penstock/proxy/worker.h"

void rates_note(struct worker *w)
{
    uint64_t now = w->loop.now_ms;
    list_for_each (node, tmp, &w->conns) {
        struct conn *c = container_of(node, struct conn, node);
        if (c->noted_ms && now - c->noted_ms < RATES_MS)
            continue;
        c->noted_ms = now;
        c->noted_bytes[RELAY_UP] = c->up.bytes;
        c->noted_bytes[RELAY_DOWN] = c->down.bytes;
    }
}

uint64_t rates_of(const struct conn *c, enum relay_direction dir)
{
    const struct loop *loop = conn_loop(c);
    uint64_t bytes = (dir == RELAY_UP ? c->up.bytes : c->down.bytes) - c->noted_bytes[dir];
    uint64_t ms =
        c->noted_ms ? loop->now_ms - c->noted_ms : (loop->now_ns - c->accepted_ns) / 1000000;
    return (uint64_t)((double)bytes * 1000 / (double)(ms ? ms : 1));
}
