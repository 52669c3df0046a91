/* sd_notify(3) in its documented form: one datagram to the socket named by NOTIFY_SOCKET. */
#include "penstock/proxy/notify.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "penstock/base/addr.h"

void notify_service(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un un;
    socklen_t len = path ? addr_unix(path, &un) : 0;
    if (!len)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&un, len);
    close(fd);
}
