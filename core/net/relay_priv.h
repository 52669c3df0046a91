/* What the two halves of a relay share. */
#ifndef PENSTOCK_NET_RELAY_PRIV_H
#define PENSTOCK_NET_RELAY_PRIV_H

#include "penstock/net/relay.h"

/* The mode that is relayed in C. */
void relay_in_c(struct relay *r);
/* Reads up to `most` bytes into the loop's buffer, as many as limits allow. Returns the count; 0 at
 * the end; -EAGAIN when there is nothing or a limit wants a pause (its timer runs); or a negative
 * errno. */
ssize_t relay_take(struct relay *r, char **bytes, size_t most);

#endif
