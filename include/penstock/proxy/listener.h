/* A listening address: one for all workers, each of which has an acceptor of it (acceptor.h). */
#ifndef PENSTOCK_PROXY_LISTENER_H
#define PENSTOCK_PROXY_LISTENER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "penstock/base/addr.h"
#include "penstock/net/rate.h"
#include "penstock/proxy/config.h"

struct clients;

/* Shared by all workers; counters are atomic, the rate has its lock. It lives on when a reload
 * replaces its configuration, for which the others ask the acceptor or the connection. */
struct listener {
    atomic_uint refs;    /* the server's, each acceptor's, each connection's */
    char *bind;          /* what was written: "127.0.0.1:0", "unix:/run/x", "fd:3" */
    struct addr address; /* as bound, with the real port; AF_UNIX for a path */
    char text[256];      /* "127.0.0.1:8080", "unix:/run/x" */
    int *fds; /* one a worker (SO_REUSEPORT), or one for all (UNIX, fd:N), or as many as were
                 adopted; -1 when closed */
    unsigned n_fds;
    unsigned workers;            /* threads that accept */
    struct clients *clients;     /* NULL as long as there was no limit per client */
    uint32_t rate_limit;         /* what `rate` was made for; the main thread's */
    atomic_ullong refused;       /* clients over the limit per client */
    atomic_ullong proxy_refused; /* connections ended for their PROXY header */
    uv_mutex_t rate_lock;
    struct rate rate;
    atomic_ullong seq;      /* connections accepted so far */
    atomic_uint conns;      /* connections now */
    atomic_uint handshakes; /* TLS handshakes now */
    atomic_ullong
        limited;  /* times a limit was reached: a series of pauses, or one client refused */
    bool drained; /* accepts nobody until it is resumed; the main thread's */
    bool shared;  /* other processes have these sockets, too */
    char *path;   /* a UNIX socket that we made: removed at the end, while it is still this one */
    dev_t path_dev;
    ino_t path_ino;
    bool adopted;  /* its sockets get their options, and listen, when they are accepted from */
    bool borrowed; /* the process before may go on yet: the file is its */
    atomic_bool handed_over; /* another process accepts from these sockets */
};

/* Opens the sockets of `config` for `workers` threads. Returns 0 and a listener with one reference,
 * or a negative errno with a message in `why` and nothing left open. */
int listener_open(struct listener **out, const struct config_listener *config, unsigned workers,
                  char *why, size_t why_cap);
/* Listening sockets that another process has opened for an address. */
struct listener_sockets {
    int *fds; /* in the order of its workers */
    unsigned n;
    dev_t path_dev; /* of a UNIX socket's file, of which ino is 0 without one */
    ino_t path_ino;
};
/* listener_open() with these sockets, whose descriptors it takes over, on failure too; `n` is 0
 * afterwards. More workers than sockets open further ones of the group, or share where that cannot
 * be; fewer have several each, since closing one would lose the clients in its backlog. Returns 0
 * or a negative errno. */
int listener_adopt(struct listener **out, const struct config_listener *config, unsigned workers,
                   struct listener_sockets *from);
/* The same without a socket, for a worker whose loop has a virtual network; the bind address needs
 * a numeric address. Returns 0 or -ENOMEM. */
int listener_open_virtual(struct listener **out, const struct config_listener *config,
                          uint64_t now_ns);
/* Allocates what a configuration needs, before it is sure that a worker will have it: on the main
 * thread. 0 or -ENOMEM. */
int listener_prepare(struct listener *l, const struct config_listener *config);
/* Sets the rate at which all workers together accept: on the main thread, once nothing can fail any
 * more. A rate that stays keeps what is left of it. */
void listener_set_rate(struct listener *l, const struct config_listener *config, uint64_t now_ns);
/* Every worker has its own copy of the sockets by now (acceptor_start): close ours, so that the
 * workers' last close ends the listening. */
void listener_release(struct listener *l);
/* A client over the limit per client is turned away: counts and logs it. */
void listener_refused_client(struct listener *l, const struct config_listener *config,
                             const struct addr *client);
/* Opens the sockets of a drained listener again, where they were (port 0: the same port), for
 * listener_release() once the workers have their copies. On the main thread. Returns 0, or a
 * negative errno with a message in `why`. */
int listener_reopen(struct listener *l, const struct config_listener *config, unsigned workers,
                    char *why, size_t why_cap);
/* A descriptor of its own for worker `index`, or of the socket of that number where there are more
 * of them, or a negative errno. */
int listener_copy_socket(const struct listener *l, unsigned index);
/* No connection is to come any more: removes the file of a UNIX socket, while that is open. On the
 * main thread. */
void listener_unlink(struct listener *l);
/* An adopted one is this process's own from now on: until then listener_unlink() leaves its file.
 * On the main thread. */
void listener_own(struct listener *l);
/* Another process accepts from its sockets: a drain leaves the backlog to that, and
 * listener_unlink() the file. On the main thread. */
void listener_hand_over(struct listener *l);
struct listener *listener_hold(struct listener *l);
/* Frees at the last. */
void listener_drop(struct listener *l);

#endif
