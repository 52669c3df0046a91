/* Where log bytes go.
 *
 * A failed write is final for its bytes and nothing more: the next write tries again, so a disk
 * that has room again or a rotated file needs no help. */
#include "log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int open_file(const char *file)
{
    /* O_NONBLOCK for the open alone: a FIFO without a reader is an error then, not a hang. */
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = open(file, flags, 0640);
    if (fd < 0)
        return -errno;
    fcntl(fd, F_SETFL, O_APPEND);
    return fd;
}

int log_sink_init(struct log_sink *s, const char *file, int fd)
{
    *s = (struct log_sink){.fd = fd};
    if (!file)
        return 0;
    s->fd = open_file(file);
    if (s->fd < 0)
        return s->fd;
    s->file = strdup(file);
    if (s->file)
        return 0;
    close(s->fd);
    s->fd = -1;
    return -ENOMEM;
}

void log_sink_deinit(struct log_sink *s)
{
    if (s->file)
        close(s->fd);
    free(s->file);
    *s = (struct log_sink){.fd = -1};
}

int log_sink_reopen(const struct log_sink *s)
{
    return open_file(s->file);
}

void log_sink_replace(struct log_sink *s, int fd)
{
    close(s->fd);
    s->fd = fd;
    s->torn = false;
}

/* For a descriptor that somebody else has made non-blocking, as terminals and inherited pipes can
 * be. The sleep keeps us from spinning where poll() says ready and write() does not agree. */
static void wait_writable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    poll(&p, 1, 50);
}

static size_t write_all(struct log_sink *s, const char *bytes, size_t n, const atomic_bool *give_up)
{
    size_t done = 0;
    while (done < n && !atomic_load(give_up)) {
        ssize_t got = write(s->fd, bytes + done, n - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got < 0 && errno == EAGAIN) {
            wait_writable(s->fd);
        } else if (got == 0 || errno != EINTR) {
            s->error = got == 0 ? EIO : errno;
            break;
        }
    }
    return done;
}

size_t log_sink_write(struct log_sink *s, const char *lines, size_t n, const atomic_bool *give_up)
{
    if (n == 0)
        return 0;
    /* Do not append a whole line to half of one. */
    if (s->torn && write_all(s, "\n", 1, give_up) == 0)
        return 0;
    s->torn = false;
    size_t done = write_all(s, lines, n, give_up);
    s->torn = done > 0 && lines[done - 1] != '\n';
    return done;
}
