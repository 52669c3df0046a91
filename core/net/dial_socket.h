/* A dial's system calls: making a socket that connects, and what became of it. */
#ifndef PENSTOCK_CORE_NET_DIAL_SOCKET_H
#define PENSTOCK_CORE_NET_DIAL_SOCKET_H

#include "penstock/net/dial.h"

/* What to connect to, and from. */
struct dial_socket_way {
    const struct dial_socket *options;
    const struct addr *source; /* AF_UNSPEC: the kernel chooses */
    const struct sockaddr *to;
    socklen_t len; /* of `to` */
};

/* Starts connecting `s`, registered edge-triggered with `p`. 0, or a negative errno, and it is
 * closed. */
int dial_socket_connect(struct stream *s, struct poller *p, const struct dial_socket_way *way);
/* After the poller's events for a connecting stream: 0 (connected), a negative errno (failed), or
 * -EINPROGRESS. */
int dial_socket_outcome(struct stream *s, unsigned events, const struct addr *to);

#endif
