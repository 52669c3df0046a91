/* Makes segments of what a stream has moved. */
#include "penstock/net/capture.h"

#include <stdlib.h>
#include <time.h>

#include "capture_file.h"
#include "penstock/proto/pcapng.h"

enum {
    PORTION = 32 * 1024,       /* bytes a segment */
    UNACKED_MAX = 1024 * 1024, /* then the other side says that it has them */
    NUMBERS_A_SECOND = 15625,  /* of first sequence numbers: 64 µs a step (RFC 9293 section 3.4.1:
                                  a port that is used again begins elsewhere) */
    NS_PER_NUMBER = 1000000000 / NUMBERS_A_SECOND,
};

/* One end. */
struct end {
    struct addr addr;
    uint32_t next;    /* sequence number of the next byte it sends */
    uint32_t unacked; /* bytes it has sent since the other said something */
    bool ended;
};

struct capture {
    struct capture_file *file;
    uint64_t *left_bytes;
    struct end peer, own;
    enum pcapng_interface interface;
    bool over; /* it was aborted, or both have ended */
};

static uint64_t unix_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

struct piece {
    uint8_t flags;
    const void *bytes;
    size_t n;
    const char *comment;
};

/* A segment from one end to the other. */
static void put(struct capture *c, struct end *from, struct end *to, const struct piece *piece)
{
    struct pcapng_packet p = {
        .interface = c->interface,
        .unix_ns = unix_ns(),
        .segment = {.from = &from->addr,
                    .to = &to->addr,
                    .seq = from->next,
                    .ack = to->next,
                    .flags = piece->flags,
                    .bytes = piece->bytes,
                    .n = piece->n},
        .comment = piece->comment,
    };
    size_t size = pcapng_packet_size(&p);
    uint8_t *room = capture_file_reserve(c->file, size);
    if (room) {
        pcapng_write_packet(&p, room);
        capture_file_commit(c->file, size);
    }
    from->next += (uint32_t)piece->n + (piece->flags & (SEGMENT_SYN | SEGMENT_FIN) ? 1 : 0);
    to->unacked = 0;
}

static void put_flags(struct capture *c, struct end *from, struct end *to, uint8_t flags)
{
    put(c, from, to, &(struct piece){.flags = flags});
}

static void shake_hands(struct capture *c, const char *comment)
{
    struct end *caller = c->interface == PCAPNG_UPSTREAM ? &c->own : &c->peer;
    struct end *called = caller == &c->own ? &c->peer : &c->own;
    put(c, caller, called, &(struct piece){.flags = SEGMENT_SYN, .comment = comment});
    put_flags(c, called, caller, SEGMENT_SYN | SEGMENT_ACK);
    put_flags(c, caller, called, SEGMENT_ACK);
}

struct capture *capture_new(const struct capture_options *o)
{
    struct capture *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->file = capture_file_hold(o->file); /* dropped in capture_free() */
    c->left_bytes = o->left_bytes;
    c->peer.addr = *o->peer;
    c->own.addr = *o->own;
    c->peer.next = c->own.next = (uint32_t)(unix_ns() / NS_PER_NUMBER);
    c->interface = o->upstream ? PCAPNG_UPSTREAM : PCAPNG_CLIENT;
    shake_hands(c, o->comment);
    c->own.next += (uint32_t)o->unseen_bytes; /* a gap, as if packets had been lost */
    return c;
}

/* Returns how many of n bytes may be captured. */
static size_t allowed(struct capture *c, size_t n)
{
    if (!c->left_bytes)
        return n;
    if (n > *c->left_bytes)
        n = (size_t)*c->left_bytes;
    *c->left_bytes -= n;
    return n;
}

static bool moved(struct capture *c, struct end *from, struct end *to, const char *bytes, size_t n)
{
    n = allowed(c, n);
    for (size_t done = 0, size; done < n; done += size) {
        size = n - done < PORTION ? n - done : PORTION;
        put(c, from, to,
            &(struct piece){.flags = SEGMENT_PSH | SEGMENT_ACK, .bytes = bytes + done, .n = size});
        from->unacked += (uint32_t)size;
        if (from->unacked >= UNACKED_MAX)
            put_flags(c, to, from, SEGMENT_ACK);
    }
    return !c->left_bytes || *c->left_bytes;
}

bool capture_received(struct capture *c, const void *bytes, size_t n)
{
    return moved(c, &c->peer, &c->own, bytes, n);
}

bool capture_sent(struct capture *c, const void *bytes, size_t n)
{
    return moved(c, &c->own, &c->peer, bytes, n);
}

static void end(struct capture *c, struct end *from, struct end *to, bool aborted)
{
    if (c->over || (from->ended && !aborted))
        return;
    put_flags(c, from, to, (aborted ? SEGMENT_RST : SEGMENT_FIN) | SEGMENT_ACK);
    from->ended = true;
    c->over = aborted || to->ended;
    if (c->over && !aborted)
        put_flags(c, to, from, SEGMENT_ACK);
}

void capture_peer_ended(struct capture *c, bool aborted)
{
    end(c, &c->peer, &c->own, aborted);
}

void capture_own_ended(struct capture *c, bool aborted)
{
    end(c, &c->own, &c->peer, aborted);
}

void capture_free(struct capture *c)
{
    if (!c)
        return;
    capture_file_drop(c->file);
    free(c);
}
