/* Files with secrets, for the library's own Lua: policies are never given this. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "script_priv.h"

enum { SECRETS_MAX = 256 * 1024 };

/* Reads it whole. Returns its length, or a negative errno: -EFBIG over `cap` bytes, -EINVAL when
 * it is no file, -EACCES with *open_to_others when everybody may read it or write to it. */
static ssize_t read_whole(const char *path, char *bytes, size_t cap, bool *open_to_others)
{
    struct stat st;
    ssize_t n = 0, got = 1;
    *open_to_others = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0)
        n = -errno;
    else if (!S_ISREG(st.st_mode))
        n = -EINVAL;
    else if ((*open_to_others = (st.st_mode & (S_IROTH | S_IWOTH)) != 0))
        n = -EACCES;
    while (n >= 0 && got > 0 && (size_t)n < cap) {
        got = read(fd, bytes + n, cap - (size_t)n);
        n = got < 0 ? -errno : n + got;
    }
    close(fd);
    return n == (ssize_t)cap ? -EFBIG : n;
}

/* read_private(path) -> its text; nil and what is wrong with it */
static int files_read_private(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    bool open_to_others;
    char *bytes = lua_newuserdata(L, SECRETS_MAX); // stack: path, bytes
    ssize_t n = read_whole(path, bytes, SECRETS_MAX, &open_to_others);
    if (n >= 0) {
        lua_pushlstring(L, bytes, (size_t)n);
        memset(bytes, 0, (size_t)n);
        return 1;
    }
    lua_pushnil(L);
    if (open_to_others)
        lua_pushfstring(L, "%s can be read or written by everybody: chmod o= %s", path, path);
    else
        lua_pushfstring(L, "cannot read %s: %s", path,
                        n == -EINVAL ? "it is no file" : err_text((int)n));
    return 2;
}

void lib_files_open(lua_State *L)
{
    // stack: …, core
    lua_pushcfunction(L, files_read_private);
    lua_setfield(L, -2, "read_private");
}
