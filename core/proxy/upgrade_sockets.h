/* The listening sockets that go over in an upgrade: taken from the workers, then sent. On the main
 * thread. */
#ifndef PENSTOCK_CORE_PROXY_UPGRADE_SOCKETS_H
#define PENSTOCK_CORE_PROXY_UPGRADE_SOCKETS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server;
struct socket_take;
struct socket_out;

struct upgrade_sockets {
    struct server *server;
    struct socket_take *takes; /* one a worker */
    atomic_uint n_busy;        /* workers that have not given theirs yet; they know this record */
    atomic_int err;            /* of a copy that could not be made: a socket would be lost */
    struct socket_out *items;  /* listener by listener, those of a guest last */
    size_t n;
    size_t *first; /* of each listener, among them; SIZE_MAX: it goes over by its number */
    bool *adopted; /* which listeners the new process has taken, a guest behind the last */
};

/* Asks the workers for copies of their sockets; server->changed is woken by each. No change of the
 * configuration is under way, nor begins. 0 or -ENOMEM. To be freed by upgrade_sockets_deinit()
 * once none is busy, also on failure. */
int upgrade_sockets_take(struct upgrade_sockets *u, struct server *s);
/* Adds that of the guest, if there is one. 0 or a negative errno. */
int upgrade_sockets_add_guest(struct upgrade_sockets *u);
/* Sends the i-th, of which ours is closed then. 0 or a negative errno. */
int upgrade_sockets_send(struct upgrade_sockets *u, size_t i, int channel);
/* The new process has taken the listener of this number. */
void upgrade_sockets_adopted(struct upgrade_sockets *u, const char *number);
/* The new process accepts from those that it has taken. */
void upgrade_sockets_hand_over(struct upgrade_sockets *u);
void upgrade_sockets_deinit(struct upgrade_sockets *u);

#endif
