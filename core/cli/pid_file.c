/* The pid file. Written in place: a file made in /run for an unprivileged user serves too. */
#include "penstock/cli/pid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"

/* Replaces the content without an empty moment in between. 0 or a negative errno. */
static int write_own_id(int fd)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    ssize_t written = pwrite(fd, text, (size_t)len, 0);
    if (written != len)
        return written < 0 ? -errno : -ENOSPC;
    return ftruncate(fd, len) == 0 ? 0 : -errno;
}

/* Opens it, and writes to it if `write` is true. */
static int use(const char *path, bool write, char *why, size_t why_cap)
{
    int err = 0;
    /* O_NONBLOCK: a FIFO without a reader must not hold up the start. */
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0)
        err = -errno;
    else if (write)
        err = write_own_id(fd);
    if (fd >= 0 && close(fd) != 0 && !err)
        err = -errno;
    if (err)
        snprintf(why, why_cap, "cannot write the pid file %s: %s", path,
                 err == -ELOOP ? "it is a symbolic link" : err_text(err));
    return err;
}

int pid_file_write(const char *path, char *why, size_t why_cap)
{
    return use(path, true, why, why_cap);
}

int pid_file_check(const char *path, char *why, size_t why_cap)
{
    return use(path, false, why, why_cap);
}

static long read_id(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? strtol(text, NULL, 10) : -1;
}

void pid_file_remove(const char *path)
{
    if (read_id(path) == (long)getpid() && unlink(path) != 0)
        log_warn("cannot remove the pid file %s: %s", path, err_text(-errno));
}
