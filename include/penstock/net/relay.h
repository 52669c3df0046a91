/* One direction of a connection: bytes read from one stream are written to another.
 *
 * Modes. COPY reads into the loop's buffer and writes straight on. SPLICE moves pages through a
 * pooled pipe; a direction gets there by itself after three reads that fill 64 KiB. SCRIPT hands
 * each chunk to the connection's policy. In STREAM a script reads and writes as it likes, by the
 * functions of the second half (relay_script.c): nothing is read that it does not ask for. When the
 * destination blocks, what was read is held (one buffer or one pipe at most) and the source is not
 * read until it has gone: that bounds memory and is the back-pressure.
 *
 * A relay without a destination, or without a source, serves a script that talks to one socket. */
#ifndef PENSTOCK_NET_RELAY_H
#define PENSTOCK_NET_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/buf.h"
#include "penstock/net/loop.h"
#include "penstock/net/rate_shared.h"
#include "penstock/net/stream.h"

enum relay_direction {
    RELAY_UP,   /* client to upstream */
    RELAY_DOWN, /* upstream to client */
};

enum relay_mode { RELAY_COPY, RELAY_SPLICE, RELAY_SCRIPT, RELAY_STREAM, RELAY_DISCARD };

/* What the user allows. */
enum relay_choice { RELAY_CHOICE_AUTO, RELAY_CHOICE_COPY, RELAY_CHOICE_SPLICE };

enum relay_state {
    RELAY_IDLE,   /* not started */
    RELAY_OPEN,   /* relaying */
    RELAY_ENDED,  /* the source's end and all before it have been delivered */
    RELAY_BROKEN, /* the source was aborted, or the destination takes no more */
};

/* How a SCRIPT direction goes on after a chunk. */
enum relay_verdict {
    RELAY_GO_ON, /* next chunk, please */
    RELAY_PASS,  /* no further chunks to the policy: relay in C from here */
    RELAY_FAIL,  /* the script failed: break */
};

struct relay;

/* What a relay tells its owner. */
struct relay_ops {
    /* Pump me: a rate limit allows more, or a fairness pause is over. */
    void (*on_ready)(struct relay *r);
    /* SCRIPT mode: a chunk; the owner calls relay_write() for what shall go on and returns true
     * when it is done
     * (*verdict set), false when the script waits: then relay_data_done() follows later. */
    bool (*on_data)(struct relay *r, const char *bytes, size_t n, enum relay_verdict *verdict);
    /* STREAM mode: the source has more, or has ended, and the script has asked for it
     * (relay_want_input). Returns true when it took something: then it may be called again. */
    bool (*on_input)(struct relay *r);
    /* STREAM mode: what was held has gone, or is little (relay_want_room). */
    void (*on_room)(struct relay *r);
};

struct relay {
    struct stream *from, *to;
    struct loop *loop;
    const struct relay_ops *ops;
    struct buf unread;           /* read, and left to the script or to whoever comes after it */
    struct buf held;             /* to be written */
    struct pipe_pool_pipe *pipe; /* SPLICE: the pipe in use, NULL between bursts */
    struct relay_rate *rate;     /* NULL without a limit; owned */
    struct loop_task task;       /* fairness */
    uint64_t bytes;              /* taken from the source */
    uint8_t direction;           /* enum relay_direction */
    uint8_t mode;                /* enum relay_mode */
    uint8_t state;               /* enum relay_state */
    uint8_t choice;              /* enum relay_choice */
    uint8_t full_reads;          /* reads in a row that filled the small buffer */
    uint8_t small_splices;       /* splices in a row under 16 KiB */
    uint64_t pass_left;          /* `passing`: bytes still to be relayed in C */
    size_t room_mark;            /* `wants_room`: once no more than that is held */
    bool passing;                /* a script lets some bytes pass: relayed in C for the moment */
    bool wants_input;            /* STREAM: tell the script when there is some */
    bool wants_room;             /* STREAM: tell the script when most has gone */
    bool corked;                 /* the destination takes nothing yet: what is put is held */
    bool finishing;              /* shut the destination once all is written; nothing may follow */
    bool waiting;                /* SCRIPT: the policy has not answered yet */
    bool pumping;                /* relay_pump() is on the stack */
    bool last; /* the other direction has ended: no shutdown needed, the owner closes */
};

/* Most bytes read but not written that a direction may hold in memory (a pipe of 1 MiB comes on top
 * in SPLICE); a script that writes waits above it. */
enum { RELAY_HIGH_WATER = BUF_POOL_LARGE };

/* A relay that is not started. Streams, loop and ops outlive it. */
void relay_init(struct relay *r, enum relay_direction direction, struct loop *loop,
                struct stream *from, struct stream *to, const struct relay_ops *ops);
/* Frees buffer, pipe and limit. */
void relay_deinit(struct relay *r);

/* Opens it (or goes on, after STREAM) in mode SCRIPT, STREAM or DISCARD, or for RELAY_COPY in the
 * mode that `choice` allows; the owner pumps. What is unread comes first. */
void relay_start(struct relay *r, enum relay_choice choice, enum relay_mode mode);

/* Limits to `bytes_per_second` by not reading (splice included); 0 removes the limit. Returns 0 or
 * -ENOMEM. */
int relay_limit(struct relay *r, uint64_t bytes_per_second);
/* The same by a bucket that others may draw from, too, on any thread; takes a reference of its own.
 * They get equal portions. NULL removes the limit. */
int relay_limit_shared(struct relay *r, struct rate_shared *bucket);

/* Moves what can be moved now. Never closes anything and never calls the owner but for on_data,
 * on_input and on_room; look at r->state afterwards. Returns true when bytes moved. */
bool relay_pump(struct relay *r);

/* From on_data, or while the policy waits: sends `bytes` on (queues what does not go at once,
 * copied). Returns 0, or a negative errno when the destination takes no more or memory is out. */
int relay_write(struct relay *r, const void *bytes, size_t n);
/* The policy that waited has an answer. The caller pumps afterwards. */
void relay_data_done(struct relay *r, enum relay_verdict verdict);

/* ---- for scripts (relay_script.c): STREAM mode, or before the relay has been started ---- */

/* Reads once from the source, up to `want` bytes, behind what is unread. Returns how many; 0 when
 * the source has ended; -EAGAIN when there is nothing now, or a rate limit wants a pause (on_ready
 * follows); or a negative errno when it was aborted. */
ssize_t relay_fill(struct relay *r, size_t want);
/* The same into the loop's own buffer, for a caller that makes something else of the bytes at once:
 * *bytes is valid until anything else is read in this loop. Only while nothing is unread. */
ssize_t relay_read(struct relay *r, char **bytes, size_t want);
/* Puts bytes before what is unread. 0 or -ENOMEM. */
int relay_unread(struct relay *r, const void *bytes, size_t n);
/* Calls on_input from the next pump on in which the source has something. */
void relay_want_input(struct relay *r);
/* Queues bytes for the destination; large ones are written at once if it takes them. Returns 0, or
 * a negative errno when the destination takes no more or memory is out. */
int relay_put(struct relay *r, const void *bytes, size_t n);
/* Writes what is held as far as the destination takes it. */
void relay_flush(struct relay *r);
/* Nothing comes after what is held: the destination is shut for writing once that has gone. */
void relay_finish(struct relay *r);
/* Calls on_room once no more than `mark` bytes are held. */
void relay_want_room(struct relay *r, size_t mark);
/* The script is told nothing more, by on_input or on_room. */
void relay_want_nothing(struct relay *r);
/* Relays the next n bytes (UINT64_MAX: all to the end) in C, then calls on_input. */
void relay_pass(struct relay *r, uint64_t n);

/* Bytes read but not yet given to the destination. */
size_t relay_held(const struct relay *r);
/* The same with those that the destination has, and its socket has not taken; for a relay that has
 * one. */
size_t relay_unsent(const struct relay *r);
/* The mode's name for people: "copy", "splice", "lua". */
const char *relay_mode_name(const struct relay *r);

#endif
