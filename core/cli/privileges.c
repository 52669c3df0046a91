/* From root to a user. */
#include "penstock/cli/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/units.h"

enum { ENTRY_MAX = 16384 };

static int refuse(char *why, size_t why_cap, const char *what, const char *name)
{
    snprintf(why, why_cap, "--user: there is no %s \"%s\"", what, name);
    return -EINVAL;
}

static int find_user(const char *name, struct privileges *out, char *why, size_t why_cap)
{
    struct passwd entry, *found = NULL;
    char buf[ENTRY_MAX];
    uint64_t id;
    getpwnam_r(name, &entry, buf, sizeof buf, &found);
    if (!found && units_parse_uint(name, 0, UINT32_MAX - 1, &id) == 0)
        getpwuid_r((uid_t)id, &entry, buf, sizeof buf, &found);
    if (!found)
        return refuse(why, why_cap, "user", name);
    out->uid = found->pw_uid;
    out->gid = found->pw_gid;
    snprintf(out->name, sizeof out->name, "%s", found->pw_name);
    return 0;
}

static int find_group(const char *name, struct privileges *out, char *why, size_t why_cap)
{
    struct group entry, *found = NULL;
    char buf[ENTRY_MAX];
    uint64_t id;
    getgrnam_r(name, &entry, buf, sizeof buf, &found);
    if (!found && units_parse_uint(name, 0, UINT32_MAX - 1, &id) == 0)
        getgrgid_r((gid_t)id, &entry, buf, sizeof buf, &found);
    if (!found)
        return refuse(why, why_cap, "group", name);
    out->gid = found->gr_gid;
    return 0;
}

int privileges_find(const char *text, struct privileges *out, char *why, size_t why_cap)
{
    const char *colon = strchr(text, ':');
    char *user = strndup(text, colon ? (size_t)(colon - text) : strlen(text));
    int err = user ? find_user(user, out, why, why_cap) : -ENOMEM;
    free(user);
    if (!err && colon)
        err = find_group(colon + 1, out, why, why_cap);
    if (!err && geteuid() != 0 && (geteuid() != out->uid || getegid() != out->gid)) {
        snprintf(why, why_cap, "--user %s: only root can become another user", text);
        return -EPERM;
    }
    return err;
}

int privileges_drop(const struct privileges *p)
{
    if (geteuid() != 0)
        return 0; /* it is that user already */
    if (initgroups(p->name, p->gid) || setresgid(p->gid, p->gid, p->gid) ||
        setresuid(p->uid, p->uid, p->uid))
        return -errno;
    /* A way back would be a hole. */
    return p->uid != 0 && setuid(0) == 0 ? -EPERM : 0;
}
