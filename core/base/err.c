/* Error words and texts.
 *
 * The one place that knows how system errors map to penstock's own. It must not know libuv, though
 * libuv's few codes that are no errno travel through here too: their numbers are part of libuv's
 * ABI. */
#include "penstock/base/err.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* uv.h: UV_EAI_ADDRFAMILY … UV_EAI_PROTOCOL, and UV_EOF. */
enum { UV_EAI_FIRST = -3014, UV_EAI_LAST = -3000, UV_END_OF_FILE = -4095 };

static const char *own_word(int err)
{
    switch (err) {
#define X(name, code, word, text)                                                                  \
    case PS_E##name:                                                                               \
        return word;
        PENSTOCK_ERRORS(X)
#undef X
    default:
        return NULL;
    }
}

static const char *own_text(int err)
{
    switch (err) {
#define X(name, code, word, text)                                                                  \
    case PS_E##name:                                                                               \
        return text;
        PENSTOCK_ERRORS(X)
#undef X
    default:
        return NULL;
    }
}

const char *err_word(int err)
{
    if (err == 0)
        return "ok";
    const char *word = own_word(err_from_errno(err));
    return word ? word : "system";
}

/* strerror() in words that are the same in every locale, without its shared buffer. */
static const char *system_text(int err)
{
#ifdef __GLIBC__
    return strerrordesc_np(err);
#else
    return strerror(err); /* static strings, as in musl */
#endif
}

const char *err_text(int err)
{
    const char *text = own_text(err);
    if (!text && err <= 0 && err > UV_EAI_LAST)
        text = system_text(-err);
    if (!text)
        text = own_text(err_from_errno(err));
    return text ? text : "unknown error";
}

/* What no row of the table below says is PS_ESYSTEM. */
static const struct {
    int system;
    int own;
} errno_map[] = {
    {ETIMEDOUT, PS_ETIMEOUT},
    {ECONNREFUSED, PS_EREFUSED},
    {ENOENT, PS_EREFUSED}, /* connect() to a UNIX socket that nobody has made */
    {EHOSTUNREACH, PS_EUNREACHABLE},
    {ENETUNREACH, PS_EUNREACHABLE},
    {EHOSTDOWN, PS_EUNREACHABLE},
    {ENETDOWN, PS_EUNREACHABLE},
    {EAFNOSUPPORT, PS_EUNREACHABLE},  /* an IPv6 address where IPv6 is off … */
    {EADDRNOTAVAIL, PS_EUNREACHABLE}, /* … or has no source address */
    {ECONNRESET, PS_ERESET},
    {ECONNABORTED, PS_ERESET},
    {ENETRESET, PS_ERESET},
    {EPIPE, PS_ERESET},
    {EACCES, PS_EDENIED},
    {EPERM, PS_EDENIED}, /* a firewall rule */
    {EMFILE, PS_ELIMIT},
    {ENFILE, PS_ELIMIT},
    {ENOMEM, PS_ELIMIT},
    {ENOBUFS, PS_ELIMIT},
    {EMSGSIZE, PS_ETOO_LONG},
    {ENAMETOOLONG, PS_ETOO_LONG},
    {ECANCELED, PS_ECLOSED},
    {ENOTCONN, PS_ECLOSED},
    {ESHUTDOWN, PS_ECLOSED},
};

int err_from_errno(int err)
{
    if (err == 0 || own_word(err))
        return err;
    if (err == UV_END_OF_FILE)
        return PS_EEOF;
    if (err >= UV_EAI_FIRST && err <= UV_EAI_LAST)
        return PS_EDNS;
    for (size_t i = 0; i < sizeof errno_map / sizeof errno_map[0]; i++)
        if (err == -errno_map[i].system)
            return errno_map[i].own;
    return PS_ESYSTEM;
}

void err_require_failed(const char *cond, const char *file, int line)
{
    /* Not through the log: its writer may never run again. */
    fprintf(stderr, "penstock: bug at %s:%d: this must hold: %s\n", file, line, cond);
    abort();
}
