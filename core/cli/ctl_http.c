/* HTTP/1.0, so that an answer is what comes until the end, never in chunks. libcurl would bring
 * twenty libraries for these lines. */
#include "ctl_http.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "penstock/base/addr.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"

enum { ANSWER_MAX = 128 << 20, READ_BYTES = 64 << 10, HOST_BYTES = 24 };

/* --- the socket
 * ------------------------------------------------------------------------------------------- */

/* Lets what is called next on the socket wait no longer than until the deadline of the whole. */
static int set_patience(int fd, uint64_t deadline_ns)
{
    uint64_t now = clock_now_ns();
    if (now >= deadline_ns)
        return -ETIMEDOUT;
    uint64_t left_us = (deadline_ns - now + 999) / 1000; /* 0 would mean for ever */
    struct timeval t = {.tv_sec = (time_t)(left_us / 1000000),
                        .tv_usec = (suseconds_t)(left_us % 1000000)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t); /* of connect(), too */
    return 0;
}

static int open_socket(const struct sockaddr *sa, socklen_t len, uint64_t deadline_ns)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int err = set_patience(fd, deadline_ns);
    if (!err && connect(fd, sa, len) == 0)
        return fd;
    if (!err)
        err = errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT : -errno;
    close(fd);
    return err;
}

/* A descriptor, or a negative error; -EINVAL when it is no such address. */
static int connect_to(const struct endpoint *e, uint64_t deadline_ns)
{
    struct sockaddr_un un;
    struct addr ip = e->ip;
    if (e->kind == ENDPOINT_UNIX) {
        socklen_t len = addr_unix(e->host, &un);
        return len ? open_socket((struct sockaddr *)&un, len, deadline_ns) : -ENAMETOOLONG;
    }
    if (e->port != e->port_last)
        return -EINVAL;
    if (e->kind == ENDPOINT_NAME) {
        if (strcmp(e->host, "localhost") != 0 || addr_parse_ip("127.0.0.1", &ip))
            return -EINVAL;
        addr_set_port(&ip, e->port);
    }
    return open_socket(&ip.sa, addr_len(&ip), deadline_ns);
}

static int explain(const struct ctl_request *r, int err, char *why, size_t why_cap)
{
    const char *text = err_text(err), *advice = "";
    if (err == -EINVAL)
        text = "no address of an admin; write unix:/run/penstock/admin.sock, 127.0.0.1:9180 or "
               "localhost:9180";
    else if (err == -EPROTO)
        text = "what answers there is no admin of penstock, or it broke off";
    else if (err == -ETIMEDOUT)
        text = "no whole answer came in time; --max-wait TIME waits longer";
    else if (err == -ENOENT || err == -ECONNREFUSED)
        advice = " (is penstock running, with --admin? --admin ADDR tells ctl where)";
    else if (err == -EACCES || err == -EPERM)
        advice = " (the socket belongs to the user that penstock runs as)";
    snprintf(why, why_cap, "%s: %s%s", r->admin, text, advice);
    return err;
}

static int open_admin(const struct ctl_request *r, uint64_t deadline_ns, char host[HOST_BYTES],
                      char *why, size_t why_cap)
{
    struct endpoint e;
    if (endpoint_parse(r->admin, ENDPOINT_DIAL, &e, why, why_cap))
        return -EINVAL;
    int fd = connect_to(&e, deadline_ns);
    /* The one name that every admin goes by, however it was written here. */
    snprintf(host, HOST_BYTES, e.kind == ENDPOINT_UNIX ? "localhost" : "localhost:%u", e.port);
    endpoint_deinit(&e);
    return fd < 0 ? explain(r, fd, why, why_cap) : fd;
}

/* --- request and answer
 * ------------------------------------------------------------------------------------ */

static bool goes_on(const struct ctl_request *r)
{
    return errno == EINTR && !(r->interrupted && *r->interrupted);
}

/* The connection to an admin, and until when. */
struct exchange {
    int fd;
    uint64_t deadline_ns;
    const struct ctl_request *request;
};

static int send_all(const struct exchange *x, const char *bytes, size_t n)
{
    while (n) {
        int err = set_patience(x->fd, x->deadline_ns);
        if (err)
            return err;
        ssize_t sent = send(x->fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0 && goes_on(x->request))
            continue;
        if (sent < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        bytes += sent;
        n -= (size_t)sent;
    }
    return 0;
}

static int send_request(const struct exchange *x, const char *host)
{
    const struct ctl_request *r = x->request;
    char *text;
    int n = asprintf(&text, "%s %s HTTP/1.0\r\nHost: %s\r\n%s%s%sContent-Length: %zu\r\n\r\n%s",
                     r->method, r->path, host, *r->token ? "Authorization: Bearer " : "", r->token,
                     *r->token ? "\r\n" : "", strlen(r->body), r->body);
    if (n < 0)
        return -ENOMEM;
    int err = send_all(x, text, (size_t)n);
    free(text);
    return err;
}

/* Reads to the end, and puts a zero behind it. */
static int read_all(const struct exchange *x, struct buf *in)
{
    for (;;) {
        char *room = buf_reserve(in, READ_BYTES);
        if (!room || buf_len(in) > ANSWER_MAX)
            return -ENOMEM;
        int err = set_patience(x->fd, x->deadline_ns);
        if (err)
            return err;
        ssize_t n = recv(x->fd, room, READ_BYTES, 0);
        if (n < 0 && goes_on(x->request))
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        buf_commit(in, (size_t)n);
        if (n == 0) {
            *room = '\0';
            return 0;
        }
    }
}

/* The value of Content-Length in the headers, UINT64_MAX without one. */
static uint64_t told_length(const char *headers)
{
    uint64_t n = UINT64_MAX;
    char digits[24];
    for (const char *line = strstr(headers, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, "Content-Length:", 15) != 0)
            continue;
        const char *value = line + 15 + strspn(line + 15, " ");
        snprintf(digits, sizeof digits, "%.*s", (int)strcspn(value, "\r\n"), value);
        units_parse_uint(digits, 0, UINT64_MAX - 1, &n);
    }
    return n;
}

/* Leaves the body in it. */
static int take_headers(struct ctl_answer *a)
{
    struct buf *in = &a->body;
    char *text = in->data + in->start, *end = strstr(text, "\r\n\r\n");
    if (!end || sscanf(text, "HTTP/1.%*[01] %3u ", &a->status) != 1)
        return -EPROTO;
    end[2] = '\0';
    uint64_t told = told_length(text);
    buf_consume(in, (size_t)(end + 4 - text));
    return told == UINT64_MAX || told == buf_len(in) ? 0 : -EPROTO;
}

int ctl_ask(const struct ctl_request *r, struct ctl_answer *answer, char *why, size_t why_cap)
{
    *answer = (struct ctl_answer){0};
    struct exchange x = {.deadline_ns = clock_now_ns() + r->patience_ms * 1000000, .request = r};
    char host[HOST_BYTES];
    x.fd = open_admin(r, x.deadline_ns, host, why, why_cap);
    if (x.fd < 0)
        return x.fd;
    int err = send_request(&x, host);
    if (!err)
        err = read_all(&x, &answer->body);
    close(x.fd);
    if (!err)
        err = take_headers(answer);
    if (!err)
        return 0;
    buf_deinit(&answer->body);
    return explain(r, err, why, why_cap);
}
