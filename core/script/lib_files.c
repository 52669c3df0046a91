/* Files, for the library's own Lua: policies are never given this. Nothing here waits: a pipe or a
 * device in the place of a file is refused. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "script_priv.h"

enum { SECRETS_MAX = 256 * 1024 };

/* Its descriptor, of a regular file; or a negative errno: -EINVAL when it is no file. */
static int open_file(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0)
        return -errno;
    int err = fstat(fd, st) != 0 ? -errno : S_ISREG(st->st_mode) ? 0 : -EINVAL;
    if (!err)
        return fd;
    close(fd);
    return err;
}

/* What is wrong with a file that open_file() or a read has refused. */
static const char *file_err_text(int err)
{
    return err == -EINVAL ? "it is no file" : err_text(err);
}

/* ---- secrets ---- */

/* Reads it whole. Returns its length, or a negative errno: -EFBIG over `cap` bytes, -EINVAL when
 * it is no file, -EACCES with *open_to_others when everybody may read it or write to it. */
static ssize_t read_whole(const char *path, char *bytes, size_t cap, bool *open_to_others)
{
    struct stat st = {0};
    ssize_t n = 0, got = 1;
    *open_to_others = false;
    int fd = open_file(path, &st);
    if (fd < 0)
        return fd;
    if ((*open_to_others = (st.st_mode & (S_IROTH | S_IWOTH)) != 0))
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
        lua_pushfstring(L, "cannot read %s: %s", path, file_err_text((int)n));
    return 2;
}

/* ---- Lua ---- */

struct source {
    int fd, err;
    char room[4096];
};

static const char *read_source(lua_State *L, void *arg, size_t *n)
{
    struct source *s = arg;
    ssize_t got = read(s->fd, s->room, sizeof s->room);
    (void)L;
    if (got < 0)
        s->err = -errno;
    *n = got > 0 ? (size_t)got : 0;
    return s->room;
}

/* load_source(path) -> the function that its text is; nil and what is wrong with it */
static int files_load_source(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct source s = {.err = 0};
    struct stat st = {0};
    lua_settop(L, 1);
    const char *name = lua_pushfstring(L, "@%s", path); /* before there is something to close */
    s.fd = open_file(path, &st);
    if (s.fd < 0) {
        lua_pushnil(L);
        lua_pushfstring(L, "cannot open %s: %s", path, file_err_text(s.fd));
        return 2;
    }
    int status = lua_loadx(L, read_source, &s, name, "t"); // stack: path, name, chunk or message
    close(s.fd);
    if (!status && !s.err)
        return 1;
    lua_pushnil(L);
    if (s.err)
        lua_pushfstring(L, "cannot read %s: %s", path, err_text(s.err));
    else
        lua_pushvalue(L, -2);
    return 2;
}

static bool is_file(const char *path)
{
    struct stat st = {0};
    int fd = open_file(path, &st);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* search(name, path[, separator[, replacement]]): package.searchpath */
static int files_search(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1), *rest = luaL_checkstring(L, 2);
    const char *separator = luaL_optstring(L, 3, "."), *by = luaL_optstring(L, 4, "/");
    if (*separator)
        name = luaL_gsub(L, name, separator, by);
    lua_pushliteral(L, ""); // stack: …, what has been tried
    while (*rest) {
        size_t n = strcspn(rest, ";");
        lua_pushlstring(L, rest, n);
        rest += n + (rest[n] == ';');
        const char *file = luaL_gsub(L, lua_tostring(L, -1), "?", name); // …, tried, template, file
        if (n && is_file(file))
            return 1;
        if (n)
            lua_pushfstring(L, "%s\n\tno file '%s'", lua_tostring(L, -3), file);
        else
            lua_pushvalue(L, -3);
        lua_replace(L, -4);
        lua_pop(L, 2); // stack: …, tried
    }
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

void lib_files_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read_private", files_read_private},
        {"load_source", files_load_source},
        {"search_files", files_search},
        {NULL, NULL},
    };
    // stack: …, core
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}
