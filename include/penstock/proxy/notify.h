/* Telling the service manager how we are (sd_notify(3)'s datagram protocol). */
#ifndef PENSTOCK_PROXY_NOTIFY_H
#define PENSTOCK_PROXY_NOTIFY_H

/* Sends `state` ("READY=1", "STOPPING=1") to $NOTIFY_SOCKET; does nothing when that is
 * not set. */
void notify_service(const char *state);

#endif
