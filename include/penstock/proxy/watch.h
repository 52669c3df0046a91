/* Tells when one of some files has changed: looks at them twice a second, which works on every file
 * system, and takes no notice of how an editor replaces them. */
#ifndef PENSTOCK_PROXY_WATCH_H
#define PENSTOCK_PROXY_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct watched;

struct watch {
    uv_timer_t timer;
    void (*on_change)(struct watch *w);
    struct watched *files;
    size_t n;
    bool dirty; /* one has changed, and may not be complete yet */
};

/* A watch over nothing; its handle is on `loop`. */
void watch_init(struct watch *w, uv_loop_t *loop, void (*on_change)(struct watch *w));
/* Watches these from now on, as they are now, and no others. `on_change` is called once after each
 * series of changes, when the files have been the same for half a second. Without memory, a file is
 * left out. */
void watch_set(struct watch *w, char *const *paths, size_t n);
/* Frees what it holds; the handle is the caller's to close. */
void watch_deinit(struct watch *w);

#endif
