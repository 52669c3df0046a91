/* Copies of sockets are made by the workers, who alone know what they listen on. */
#include "upgrade_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "handover_wire.h"
#include "penstock/base/units.h"
#include "penstock/proxy/acceptor.h"
#include "server_priv.h"

/* A worker's part in taking them. */
struct socket_take {
    struct worker_task task;
    struct upgrade_sockets *all;
};

struct socket_out {
    int fd; /* a copy, ours; -1: the worker had none, or it has been sent */
    size_t listener;
};

/* ---- taking ---- */

static void copy_sockets(struct upgrade_sockets *u, const struct acceptor *a, size_t listener,
                         unsigned worker)
{
    for (; a; a = a->also) {
        bool shared = a->socket != worker && a->socket < a->listener->workers;
        if (a->entry.fd < 0 || shared)
            continue;
        int fd = fcntl(a->entry.fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            atomic_store(&u->err, -errno);
        u->items[u->first[listener] + a->socket].fd = fd;
    }
}

/* On the worker's thread. */
static void run_take(struct worker_task *task, struct worker *w)
{
    struct upgrade_sockets *u = container_of(task, struct socket_take, task)->all;
    struct server *s = u->server;
    for (size_t i = 0; w && i < w->n_acceptors; i++)
        if (u->first[i] != SIZE_MAX)
            copy_sockets(u, w->acceptors[i], i, w->index);
    atomic_fetch_sub(&u->n_busy, 1); /* from here on `u` may be gone */
    uv_async_send(&s->changed);
}

/* Inherited sockets go over by their numbers; whoever has opened them keeps them open. */
static int make_room(struct upgrade_sockets *u)
{
    struct server *s = u->server;
    size_t n = s->listeners.n, sockets = 1;
    for (size_t i = 0; i < n; i++)
        sockets += s->listeners.items[i]->n_fds;
    u->takes = calloc(s->n_workers, sizeof *u->takes);
    u->items = calloc(sockets, sizeof *u->items);
    u->first = calloc(n + 1, sizeof *u->first);
    u->adopted = calloc(n + 1, sizeof *u->adopted);
    if (!u->takes || !u->items || !u->first || !u->adopted)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        bool inherited = s->version.config->listeners[i].bind.kind == ENDPOINT_FD;
        u->first[i] = inherited ? SIZE_MAX : u->n;
        u->adopted[i] = inherited;
        for (unsigned k = 0; !inherited && k < s->listeners.items[i]->n_fds; k++)
            u->items[u->n++] = (struct socket_out){-1, i};
    }
    return 0;
}

int upgrade_sockets_take(struct upgrade_sockets *u, struct server *s)
{
    u->server = s;
    int err = make_room(u);
    if (err)
        return err;
    atomic_store(&u->n_busy, s->n_workers);
    for (uint32_t i = 0; i < s->n_workers; i++) {
        u->takes[i] = (struct socket_take){.task.run = run_take, .all = u};
        worker_post(&s->workers[i], &u->takes[i].task);
    }
    return 0;
}

int upgrade_sockets_add_guest(struct upgrade_sockets *u)
{
    const struct server *s = u->server;
    if (!s->guest)
        return 0;
    int fd = fcntl(s->guest->listener->fds[0], F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return -errno;
    u->items[u->n++] = (struct socket_out){fd, s->listeners.n};
    return 0;
}

/* ---- sending ---- */

int upgrade_sockets_send(struct upgrade_sockets *u, size_t i, int channel)
{
    const struct server *s = u->server;
    struct socket_out *out = &u->items[i];
    bool guest = out->listener == s->listeners.n;
    const struct listener *l = guest ? s->guest->listener : s->listeners.items[out->listener];
    struct handover_socket message = {
        .role = guest ? HANDOVER_ADMIN : HANDOVER_LISTENER,
        .index = out->listener,
        .dev = l->path ? (uint64_t)l->path_dev : 0,
        .ino = l->path ? (uint64_t)l->path_ino : 0,
    };
    if (out->fd < 0)
        return 0;
    snprintf(message.bind, sizeof message.bind, "%s", l->bind);
    int err = handover_send_socket(channel, &message, out->fd);
    if (err)
        return err;
    close(out->fd);
    out->fd = -1;
    return 0;
}

/* ---- what has come of them ---- */

void upgrade_sockets_adopted(struct upgrade_sockets *u, const char *number)
{
    uint64_t index;
    if (units_parse_uint(number, 0, u->server->listeners.n, &index) == 0)
        u->adopted[index] = true;
}

void upgrade_sockets_hand_over(struct upgrade_sockets *u)
{
    struct server *s = u->server;
    for (size_t i = 0; i < s->listeners.n; i++)
        if (u->adopted[i])
            listener_hand_over(s->listeners.items[i]);
    if (!s->guest || !u->adopted[s->listeners.n])
        return;
    listener_hand_over(s->guest->listener);
    s->guest->on_handed_over(s->guest->arg);
}

void upgrade_sockets_deinit(struct upgrade_sockets *u)
{
    for (size_t i = 0; i < u->n; i++)
        if (u->items[i].fd >= 0)
            close(u->items[i].fd);
    free(u->takes);
    free(u->items);
    free(u->first);
    free(u->adopted);
}
