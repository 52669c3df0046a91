/* How fast connections move bytes. On their worker's thread. */
#ifndef PENSTOCK_CORE_ADMIN_RATES_H
#define PENSTOCK_CORE_ADMIN_RATES_H

#include <stdint.h>

#include "penstock/net/relay.h"

struct conn;
struct worker;

enum { RATES_MS = 1000 };

/* Notes what each connection has moved, unless that was done less than RATES_MS ago. */
void rates_note(struct worker *w);
/* Bytes a second since then; or, where nothing is noted, since it was accepted. */
uint64_t rates_of(const struct conn *c, enum relay_direction dir);

#endif
