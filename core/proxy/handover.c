/* Takes over the sockets and secrets of the process that has started this one. */
#include "penstock/proxy/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "handover_wire.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/base/units.h"
#include "penstock/net/tls_ctx.h"

enum { PATIENCE_S = 60 /* for the old one, which has nothing else to do */ };

/* The sockets of one listener. */
struct group {
    struct handover_socket of;
    struct listener_sockets sockets;
    bool taken;
};

struct handover {
    int channel;
    struct group *groups; /* in the order of the old one */
    size_t n_groups;
    unsigned char *tickets; /* NULL: none */
    size_t n_tickets;
};

/* ---- the environment ---- */

static void take_over_variable(const char *name)
{
    char pid[16];
    const char *value = getenv(name);
    snprintf(pid, sizeof pid, "%ld", (long)getppid());
    if (!value || strcmp(value, pid) != 0)
        return;
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv(name, pid, 1);
}

static int find_channel(const char *text, int *out)
{
    uint64_t fd;
    int type = 0, family = 0;
    socklen_t len = sizeof type;
    if (units_parse_uint(text, 3, INT32_MAX, &fd))
        return -EINVAL;
    *out = (int)fd;
    if (getsockopt(*out, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_SEQPACKET)
        return -EINVAL;
    len = sizeof family;
    if (getsockopt(*out, SOL_SOCKET, SO_DOMAIN, &family, &len) || family != AF_UNIX)
        return -EINVAL;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    setsockopt(*out, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(*out, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fcntl(*out, F_SETFD, FD_CLOEXEC) ? -errno : 0;
}

/* ---- taking ---- */

static struct group *group_of(struct handover *h, const struct handover_socket *s)
{
    struct group *last = h->n_groups ? &h->groups[h->n_groups - 1] : NULL;
    if (last && last->of.role == s->role && last->of.index == s->index)
        return last;
    struct group *grown = realloc(h->groups, (h->n_groups + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    h->groups = grown;
    grown[h->n_groups] =
        (struct group){.of = *s, .sockets = {.path_dev = (dev_t)s->dev, .path_ino = (ino_t)s->ino}};
    return &grown[h->n_groups++];
}

/* `fd` is the group's, on failure the caller's. */
static int add_socket(struct handover *h, const char *text, int fd)
{
    struct handover_socket s;
    if (!handover_read_socket(text, &s))
        return -EPROTO;
    if (fd < 0)
        return -EMFILE; /* the kernel has dropped it */
    struct group *g = group_of(h, &s);
    int *grown = g ? realloc(g->sockets.fds, (g->sockets.n + 1) * sizeof *grown) : NULL;
    if (!grown)
        return -ENOMEM;
    g->sockets.fds = grown;
    grown[g->sockets.n++] = fd;
    return 0;
}

static int keep_tickets(struct handover *h, const char *bytes, size_t n)
{
    if (h->tickets)
        return -EPROTO;
    h->tickets = malloc(n ? n : 1);
    if (!h->tickets)
        return -ENOMEM;
    memcpy(h->tickets, bytes, n);
    h->n_tickets = n;
    return 0;
}

/* 1 when that was the last, 0 when more follows, or a negative error. */
static int take_message(struct handover *h, struct handover_message *m, bool *begun)
{
    const char *text;
    size_t n;
    int err = 0;
    if ((text = handover_is(m, "begin", &n)))
        *begun = atoi(text) == HANDOVER_FORM;
    if (!*begun)
        return -EPROTO;
    if (handover_is(m, "end", &n))
        return 1;
    if ((text = handover_is(m, "tickets", &n)))
        return keep_tickets(h, text, n);
    if ((text = handover_is(m, "socket", &n))) {
        err = add_socket(h, text, m->fd);
        if (!err)
            m->fd = -1;
    }
    return err;
}

static int take_all(struct handover *h)
{
    struct handover_message m;
    bool begun = false;
    int err;
    do {
        err = handover_receive(h->channel, &m);
        if (err > 0)
            err = take_message(h, &m, &begun);
        else if (err == 0)
            err = -EPIPE;
        if (m.fd >= 0)
            close(m.fd);
    } while (err == 0);
    explicit_bzero(&m, sizeof m);
    return err > 0 ? 0 : err;
}

static const char *trouble(int err)
{
    switch (err) {
    case -EPIPE:
        return "it has ended";
    case -EPROTO:
        return "it does so in a way that this version does not know";
    case -EAGAIN:
        return "it does not go on";
    default:
        return err_text(err);
    }
}

int handover_open(struct handover **out, char *why, size_t why_cap)
{
    const char *text = getenv(HANDOVER_VARIABLE);
    *out = NULL;
    if (!text)
        return 0;
    int channel, err = find_channel(text, &channel);
    if (err) {
        snprintf(why, why_cap,
                 HANDOVER_VARIABLE " is \"%s\", which is no socket of a penstock that hands over: "
                                   "unset it",
                 text);
        return err;
    }
    unsetenv(HANDOVER_VARIABLE);
    take_over_variable("LISTEN_PID");
    take_over_variable("WATCHDOG_PID");
    struct handover *h = calloc(1, sizeof *h);
    if (!h) {
        close(channel);
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
        return -ENOMEM;
    }
    h->channel = channel;
    err = take_all(h);
    if (!err) {
        *out = h;
        return 0;
    }
    snprintf(why, why_cap, "cannot take over from the running process: %s", trouble(err));
    handover_tell_failure(h, why);
    handover_free(h);
    return err;
}

struct listener_sockets *handover_take(struct handover *h, const char *bind, bool admin)
{
    char message[64];
    enum handover_role role = admin ? HANDOVER_ADMIN : HANDOVER_LISTENER;
    for (size_t i = 0; h && i < h->n_groups; i++) {
        struct group *g = &h->groups[i];
        if (g->taken || g->of.role != role || strcmp(g->of.bind, bind) != 0)
            continue;
        g->taken = true;
        snprintf(message, sizeof message, "%zu", g->of.index);
        handover_send_text(h->channel, "adopted", message);
        return &g->sockets;
    }
    return NULL;
}

void handover_give_tickets(struct handover *h, struct tls_tickets *tickets)
{
    if (!h->tickets)
        return;
    tls_tickets_read(tickets, h->tickets, h->n_tickets);
    explicit_bzero(h->tickets, h->n_tickets);
    free(h->tickets);
    h->tickets = NULL;
}

static void close_rest(struct handover *h)
{
    for (size_t i = 0; i < h->n_groups; i++) {
        struct listener_sockets *s = &h->groups[i].sockets;
        while (s->n)
            close(s->fds[--s->n]);
        free(s->fds);
    }
    free(h->groups);
    h->groups = NULL;
    h->n_groups = 0;
}

/* ---- coming up ---- */

int handover_wait(struct handover *h, char *why, size_t why_cap)
{
    struct handover_message m;
    size_t n;
    close_rest(h);
    handover_send_word(h->channel, "bound");
    int err;
    do {
        err = handover_receive(h->channel, &m);
        if (m.fd >= 0)
            close(m.fd);
    } while (err > 0 && !handover_is(&m, "go", &n));
    if (err < 0) {
        snprintf(why, why_cap, "cannot take over from the running process: %s", trouble(err));
        return err;
    }
    if (err == 0)
        log_warn("the process before has ended: this one takes over without it");
    return 0;
}

void handover_tell_ready(struct handover *h)
{
    handover_send_word(h->channel, "ready");
}

void handover_tell_failure(struct handover *h, const char *why)
{
    if (h && h->channel >= 0)
        handover_send_text(h->channel, "failed", why);
}

int handover_channel(const struct handover *h)
{
    return h->channel;
}

void handover_end(struct handover *h)
{
    if (h->channel >= 0)
        close(h->channel);
    h->channel = -1;
}

void handover_free(struct handover *h)
{
    if (!h)
        return;
    close_rest(h);
    if (h->tickets)
        explicit_bzero(h->tickets, h->n_tickets);
    free(h->tickets);
    handover_end(h);
    free(h);
}
