/* The kernel tells what execve(2) was given; libuv tells the file itself, links resolved. */
#include "penstock/cli/origin.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#if defined __linux__
#include <sys/auxv.h>
#endif

static const char *executed(void)
{
#if defined __linux__
    return (const char *)getauxval(AT_EXECFN);
#else
    return NULL;
#endif
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

const char *origin_path(char *buf, size_t cap)
{
    char folder[4096] = "", resolved[4096];
    size_t n = sizeof resolved;
    const char *path = executed();
    if (uv_exepath(resolved, &n))
        *resolved = '\0'; /* no /proc */
    if (path && *path != '/' && !getcwd(folder, sizeof folder))
        path = NULL;
    if (path && (size_t)snprintf(buf, cap, "%s%s%s", folder, *folder ? "/" : "", path) < cap &&
        (!*resolved || same_file(buf, resolved)))
        return buf;
    return *resolved && (size_t)snprintf(buf, cap, "%s", resolved) < cap ? buf : NULL;
}
