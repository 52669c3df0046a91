/* What a connection counts, in the numbers of its listener and worker. */
#include "conn_priv.h"
#include "penstock/base/clock.h"
#include "penstock/net/tls.h"
#include "penstock/proxy/stats.h"

void conn_count_begin(struct conn *c)
{
    count_add(&c->stats->opened, 1);
}

static uint64_t age_ns(const struct conn *c)
{
    return conn_loop(c)->now_ns - c->accepted_ns;
}

void conn_count_bytes(struct conn *c)
{
    uint64_t up = c->up.bytes - c->counted_bytes[RELAY_UP];
    uint64_t down = c->down.bytes - c->counted_bytes[RELAY_DOWN];
    if (up)
        count_add(&c->stats->bytes[RELAY_UP], up);
    if (!down && !up)
        return;
    count_add(&c->stats->bytes[RELAY_DOWN], down);
    if (down && !c->counted_bytes[RELAY_DOWN])
        duration_add_short(&c->stats->first_byte, age_ns(c));
    c->counted_bytes[RELAY_UP] += up;
    c->counted_bytes[RELAY_DOWN] += down;
}

void conn_count_dial(struct conn *c, int result)
{
    count_add(&c->stats->dials[result], 1);
    if (result == DIAL_OK)
        duration_add_short(&c->stats->connect, c->connected_ns - c->dial_ns);
}

void conn_count_handshake(struct conn *c)
{
    struct tls_info info;
    enum handshake_result result = SHAKEN_FAILED;
    if (!c->ending) {
        result = tls_get_info(&c->client, &info) && info.resumed ? SHAKEN_RESUMED : SHAKEN_FULL;
        duration_add_short(&c->stats->handshake, clock_now_ns() - c->shake_ns);
    } else if (c->reason == REASON_TIMEOUT) {
        result = SHAKEN_TIMEOUT;
    } else if (c->reason == REASON_LIMIT) {
        result = SHAKEN_LIMIT;
    }
    count_add(&c->stats->handshakes[result], 1);
}

void conn_count_end(struct conn *c)
{
    conn_count_bytes(c);
    if (c->dial)
        conn_count_dial(c, DIAL_CANCELLED);
    duration_add_long(&c->stats->life, age_ns(c));
    count_add(&c->stats->closed[c->reason], 1);
}
