/* The new side of an upgrade: this process takes over from the one that has started it.
 *
 * Until it says that it is bound, and is told to go, it accepts nobody, so that it may be given up
 * without loss. When the old one dies meanwhile, it goes on alone. All on the main thread, and
 * blocking, but for handover_channel(). */
#ifndef PENSTOCK_PROXY_HANDOVER_H
#define PENSTOCK_PROXY_HANDOVER_H

#include <stddef.h>

#include "penstock/proxy/listener.h"

struct handover;
struct tls_tickets;

/* Takes what the old process hands over; NULL in *out when nobody does ($PENSTOCK_HANDOVER is not
 * set). $LISTEN_PID and $WATCHDOG_PID, where they named the old process, name this one afterwards.
 * Returns 0, or a negative error with a message in `why`. Before any other thread. */
int handover_open(struct handover **out, char *why, size_t why_cap);
/* Whose a socket is: `admin`, or the listeners'. The sockets that were bound by this text, for
 * listener_adopt(), the first of several and each once; NULL: there are none, as when `h` is NULL.
 */
struct listener_sockets *handover_take(struct handover *h, const char *bind, bool admin);
/* Puts the old one's keys in the place of these. */
void handover_give_tickets(struct handover *h, struct tls_tickets *tickets);
/* Everything is open: closes the sockets that nobody has taken, and waits until this process may
 * accept. 0, or a negative error with a message in `why`: it may not. */
int handover_wait(struct handover *h, char *why, size_t why_cap);
/* It accepts on every listener. */
void handover_tell_ready(struct handover *h);
/* It does not come up. NULL is fine. */
void handover_tell_failure(struct handover *h, const char *why);
/* Readable once the service manager knows this process, or the old one has gone. */
int handover_channel(const struct handover *h);
/* There is nothing more to say: closes the channel. */
void handover_end(struct handover *h);
/* Closes what is left. NULL is fine. */
void handover_free(struct handover *h);

#endif
