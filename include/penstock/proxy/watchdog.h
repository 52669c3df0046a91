/* Names the hook that holds up a worker: once a second the main thread looks at where each stays.
 */
#ifndef PENSTOCK_PROXY_WATCHDOG_H
#define PENSTOCK_PROXY_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include "penstock/base/stay.h"

enum {
    WATCHDOG_LOOK_MS = 1000,   /* between two looks, and the stay that is told of */
    WATCHDOG_REPEAT_MS = 10000 /* until the same one is told of again */
};

/* What is known of one worker. Zero it before use. */
struct watchdog {
    unsigned long long count; /* the stay that was seen last */
    uint64_t since_ns;        /* when it was seen first */
    uint64_t told_ns;         /* when it was last told of, 0: not yet */
};

/* Looks at the stay of worker number `worker`, and logs what has lasted too long. */
void watchdog_look(struct watchdog *dog, struct stay *stay, unsigned worker, uint64_t now_ns);

/* The entry of hook `what` ("data hook", "up filter") in the text `where` of a stay:
 * "data (guard.lua:3)". Fills `buf`; the whole text when there is no such entry. */
const char *watchdog_place(const char *what, const char *where, char *buf, size_t cap);

#endif
