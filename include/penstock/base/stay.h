/* How long a thread stays in one place from which it may not come back: written by that thread,
 * looked at by another.
 *
 * The watchdog (proxy/watchdog.c) looks; the door into Lua (script/sched.c) writes. */
#ifndef PENSTOCK_BASE_STAY_H
#define PENSTOCK_BASE_STAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stay {
    atomic_ullong count;         /* odd while the thread is inside; each stay has its own number */
    atomic_ullong conn;          /* id of the connection it is for, 0 without */
    _Atomic(const char *) what;  /* "data hook"; static storage */
    _Atomic(const char *) where; /* where hooks stand, "data (guard.lua:3), close (guard.lua:9)";
                                    what is told stays valid until stay_forget() */
    pthread_mutex_t lock;        /* held while `where` is read, and by stay_forget() */
};

/* What stay_look() has found. */
struct stay_view {
    unsigned long long count, conn;
    const char *what;
    char where[512]; /* cut where it is longer */
};

void stay_init(struct stay *s);
void stay_deinit(struct stay *s);

/* The thread goes in. */
static inline void stay_enter(struct stay *s, unsigned long long conn, const char *what,
                              const char *where)
{
    atomic_store_explicit(&s->conn, conn, memory_order_relaxed);
    atomic_store_explicit(&s->what, what, memory_order_relaxed);
    atomic_store_explicit(&s->where, where, memory_order_relaxed);
    unsigned long long n = atomic_load_explicit(&s->count, memory_order_relaxed);
    atomic_store_explicit(&s->count, n + 1, memory_order_release);
}

/* It has come out. */
static inline void stay_leave(struct stay *s)
{
    unsigned long long n = atomic_load_explicit(&s->count, memory_order_relaxed);
    atomic_store_explicit(&s->count, n + 1, memory_order_release);
}

/* What `where` was told may be freed from now on. By the thread itself, outside. */
void stay_forget(struct stay *s);

/* From another thread: false when it is outside. A stay that begins meanwhile may be described by
 * parts of two; one that has lasted since an earlier look with the same count is not. */
bool stay_look(struct stay *s, struct stay_view *out);

#endif
