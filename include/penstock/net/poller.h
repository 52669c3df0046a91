/* Readiness of descriptors: edge-triggered for relayed sockets (registered once, never modified,
 * removed by close), level-triggered for listeners and resolver sockets. epoll on Linux; another
 * system needs a poller_*.c of its own and nothing else. */
#ifndef PENSTOCK_NET_POLLER_H
#define PENSTOCK_NET_POLLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    POLLER_IN = 1u << 0,
    POLLER_OUT = 1u << 1,
    POLLER_END =
        1u << 2, /* the other side has ended or reset: a short read does not mean drained */
    POLLER_ERROR = 1u << 3,  /* the socket has a pending error (SO_ERROR) */
    POLLER_URGENT = 1u << 4, /* urgent data: reads stop at its mark */
};

/* Embedded in whatever owns the descriptor. The callback may close any entry, its own included; the
 * memory of an entry must live until the batch is over (loop_defer). */
struct poller_entry {
    void (*on_event)(struct poller_entry *entry, unsigned events);
    struct poller *poller; /* that it is registered with; NULL: none yet */
    int fd;                /* -1 when closed or not open yet */
};

struct poller {
    int fd; /* readable when an entry is ready: fits into another loop */
    /* Another process may have copies of the descriptors now, as after fork(): what is closed here
     * goes on there, and with it what is registered. NULL: never. */
    const atomic_bool *copied;
};

/* Returns 0 or a negative errno. */
int poller_init(struct poller *p);
void poller_deinit(struct poller *p);

/* Registers entry->fd for everything, edge-triggered. Returns 0 or a negative errno (-ENOSPC,
 * -ENOMEM). */
int poller_add_edge(struct poller *p, struct poller_entry *entry);
/* Registers or changes entry->fd for the level-triggered `events` (POLLER_IN, POLLER_OUT; 0 parks
 * it). */
int poller_add_level(struct poller *p, struct poller_entry *entry, unsigned events);
int poller_set_level(struct poller *p, struct poller_entry *entry, unsigned events);
/* Hands the edge-triggered registration of from->fd over to `to`; from->fd becomes -1. */
int poller_move_edge(struct poller *p, struct poller_entry *from, struct poller_entry *to);
/* Unregisters without closing, for descriptors that somebody else closes (c-ares). */
void poller_remove(struct poller *p, struct poller_entry *entry);
/* Closes the descriptor, which unregisters it. Harmless when it is closed already. */
void poller_close(struct poller_entry *entry);

/* Waits up to timeout_ms (-1: for ever, 0: not at all) and calls back for one batch of ready
 * entries; calls `on_wake` (may be NULL) right after the wait, before the callbacks. Returns the
 * number of entries served. */
int poller_wait(struct poller *p, int timeout_ms, void (*on_wake)(void *), void *arg);

#endif
