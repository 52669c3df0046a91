/* Telling the service manager how we are (sd_notify(3)'s datagram protocol). */
#ifndef PENSTOCK_PROXY_NOTIFY_H
#define PENSTOCK_PROXY_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Sends `state` ("READY=1", "STOPPING=1") to $NOTIFY_SOCKET; does nothing when that is
 * not set. */
void notify_service(const char *state);

/* Tells it which process is the service's main one from now on. Waits a second for room in its
 * socket at most: all further messages count only if this one has come. */
void notify_main(pid_t pid);

/* Is there a service manager that listens? */
bool notify_is_wanted(void);

/* How often, in ms, it wants WATCHDOG=1 at least: $WATCHDOG_USEC, where $WATCHDOG_PID is this
 * process or is not set. 0: it does not. */
uint64_t notify_watchdog_ms(void);

#endif
