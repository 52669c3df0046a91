/* Who may use the admin.
 *
 * A web page can make a browser send requests to any address (and, by DNS rebinding, read the
 * answers under its own name), which is why a request with an Origin, or for a Host that is neither
 * our address nor localhost, is refused whatever else it has. */
#include "access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "penstock/base/units.h"

/* ---- the token ---- */

static int check_file(int fd, const char *path, char *why, size_t why_cap)
{
    struct stat st;
    if (fstat(fd, &st))
        return -errno;
    if (!S_ISREG(st.st_mode)) {
        snprintf(why, why_cap, "%s is no file", path);
        return -EINVAL;
    }
    if (st.st_mode & (S_IROTH | S_IWOTH)) {
        snprintf(why, why_cap, "%s is open to everybody: chmod 600 it", path);
        return -EACCES;
    }
    return 0;
}

static int take_token(struct access_rules *rules, const char *text, const char *path, char *why,
                      size_t why_cap)
{
    size_t n = strcspn(text, "\r\n");
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            n = 0;
    if (n < ACCESS_TOKEN_MIN || n > ACCESS_TOKEN_MAX) {
        snprintf(why, why_cap,
                 "%s: its first line is no token of %d to %d printable characters without blanks: "
                 "openssl rand -hex 32 makes one",
                 path, ACCESS_TOKEN_MIN, ACCESS_TOKEN_MAX);
        return -EINVAL;
    }
    memcpy(rules->token, text, n);
    rules->token[n] = '\0';
    return 0;
}

int access_read_token(struct access_rules *rules, const char *path, char *why, size_t why_cap)
{
    char text[ACCESS_TOKEN_MAX + 4] = "";
    /* O_NONBLOCK: a FIFO must not hold up the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int err = -errno;
        snprintf(why, why_cap, "cannot read %s: %s", path, err_text(err));
        return err;
    }
    int err = check_file(fd, path, why, why_cap);
    ssize_t n = err ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    return err ? err : take_token(rules, n > 0 ? text : "", path, why, why_cap);
}

/* Takes as long for a token that differs early as for one that differs late. */
static bool same_secret(const char *secret, const char *given)
{
    size_t n = strlen(secret), m = strlen(given);
    volatile unsigned char difference = n != m;
    for (size_t i = 0; i < m; i++)
        difference |= (unsigned char)(given[i] ^ secret[i % n]);
    return difference == 0;
}

static bool has_token(const struct access_rules *rules, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    size_t n = sizeof scheme - 1;
    return authorization && strncasecmp(authorization, scheme, n) == 0 &&
           same_secret(rules->token, authorization + n);
}

/* ---- the host ---- */

static bool is_any(const struct addr *a)
{
    static const struct in6_addr any = IN6ADDR_ANY_INIT;
    if (a->sa.sa_family == AF_INET)
        return a->in.sin_addr.s_addr == htonl(INADDR_ANY);
    return memcmp(&a->in6.sin6_addr, &any, sizeof any) == 0;
}

/* Splits "host", "host:port", "[v6]" and "[v6]:port"; the host is left in `host`, without brackets.
 * Without a port it is HTTP's. */
static bool split(const char *text, char *host, size_t cap, uint64_t *port)
{
    bool bracket = *text == '[';
    size_t n = strcspn(text + bracket, bracket ? "]" : ":");
    const char *rest = text + bracket + n;
    if (n == 0 || n >= cap || (bracket && *rest++ != ']'))
        return false;
    memcpy(host, text + bracket, n);
    host[n] = '\0';
    *port = 80;
    return *rest == '\0' || (*rest == ':' && units_parse_uint(rest + 1, 1, 65535, port) == 0);
}

static bool is_our_host(const struct addr *bound, const char *text)
{
    char host[ADDR_TEXT_MAX], ours[ADDR_TEXT_MAX], theirs[ADDR_TEXT_MAX];
    uint64_t port;
    struct addr a;
    if (!split(text, host, sizeof host, &port) || port != addr_port(bound))
        return false;
    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (addr_parse_ip(host, &a))
        return false;
    return is_any(bound) || strcmp(addr_format_ip(bound, ours, sizeof ours),
                                   addr_format_ip(&a, theirs, sizeof theirs)) == 0;
}

/* ---- all of it ---- */

unsigned access_refused(const struct access_rules *rules, const struct access_headers *headers,
                        const char **why)
{
    if (headers->origin) {
        *why = "requests of web pages (with an Origin) are refused";
        return 403;
    }
    if (rules->bound.sa.sa_family != AF_UNIX &&
        (!headers->host || !is_our_host(&rules->bound, headers->host))) {
        *why = "Host is neither the address of the admin nor localhost, with its port";
        return 403;
    }
    if (rules->token[0] && !has_token(rules, headers->authorization)) {
        *why = "the token is missing or wrong: Authorization: Bearer TOKEN";
        return 401;
    }
    return 0;
}
