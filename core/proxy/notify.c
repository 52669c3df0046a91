/* sd_notify(3) in its documented form: one datagram to the socket named by NOTIFY_SOCKET. */
#include "penstock/proxy/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "penstock/base/addr.h"
#include "penstock/base/units.h"

bool notify_is_wanted(void)
{
    return getenv("NOTIFY_SOCKET") != NULL;
}

uint64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us, whose;
    if (!usec || units_parse_uint(usec, 1000, INT64_MAX, &us))
        return 0;
    if (pid && (units_parse_uint(pid, 1, INT32_MAX, &whose) || whose != (uint64_t)getpid()))
        return 0;
    return us / 1000;
}

static void send_state(const char *state, int flags)
{
    const struct timeval patience = {.tv_sec = 1};
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un un;
    socklen_t len = path ? addr_unix(path, &un) : 0;
    if (!len)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    sendto(fd, state, strlen(state), MSG_NOSIGNAL | flags, (struct sockaddr *)&un, len);
    close(fd);
}

void notify_service(const char *state)
{
    send_state(state, MSG_DONTWAIT);
}

void notify_main(pid_t pid)
{
    char state[32];
    snprintf(state, sizeof state, "MAINPID=%ld", (long)pid);
    send_state(state, 0);
}
