/* A list of networks: who is believed, or let in. Immutable once made, and counted. */
#ifndef PENSTOCK_BASE_NETWORKS_H
#define PENSTOCK_BASE_NETWORKS_H

#include <stdbool.h>

#include "penstock/base/addr.h"

struct networks;

/* Parses a comma list of "10.0.0.0/8", "10/8", "192.0.2.1", "2001:db8::/32" and "unix" (all UNIX
 * sockets). Bits behind a prefix are refused. 0 and a list with one reference; -EINVAL or -ENOMEM.
 */
int networks_parse(const char *text, struct networks **out);
/* References are counted atomically. NULL is fine for both. */
struct networks *networks_hold(struct networks *n);
/* Frees at the last. */
void networks_drop(struct networks *n);

/* Whether the address is in one of them; an IPv4 address mapped into IPv6 counts as IPv4. False
 * for NULL. */
bool networks_has(const struct networks *n, const struct addr *a);
/* As it was written. */
const char *networks_text(const struct networks *n);

#endif
