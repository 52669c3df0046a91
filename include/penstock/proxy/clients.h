/* How many connections each client address has, for limits per client. One table a listener, shared
 * by workers. */
#ifndef PENSTOCK_PROXY_CLIENTS_H
#define PENSTOCK_PROXY_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "penstock/base/addr.h"

struct clients;

/* Returns NULL when out of memory. */
struct clients *clients_new(void);
void clients_free(struct clients *t);
/* Counts one more connection of `client`, unless it has `limit` already (or memory is out): then
 * false. */
bool clients_enter(struct clients *t, const struct addr *client, uint32_t limit);
/* One connection less. */
void clients_leave(struct clients *t, const struct addr *client);

#endif
