/* What a server is to do: filled from the command line, read-only once the server has
 * started. Whoever makes a config owns it; config_deinit() frees all it points to. */
#ifndef PENSTOCK_PROXY_CONFIG_H
#define PENSTOCK_PROXY_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "penstock/base/addr.h"
#include "penstock/base/log.h"
#include "penstock/base/networks.h"
#include "penstock/net/dial.h"
#include "penstock/net/relay.h"
#include "penstock/net/tls_ctx.h"
#include "penstock/proxy/targets.h"

/* Limits; 0 switches one off. What happens at each is in docs/operations.md. */
struct config_limits {
    uint32_t conns;      /* connections of the listener at once; more wait in the backlog */
    uint32_t per_ip;     /* connections of one client address (/32 or /64); more are closed */
    uint32_t rate;       /* new connections a second; more wait in the backlog */
    uint64_t up_bytes;   /* bytes a second, client to upstream, of each connection */
    uint64_t down_bytes; /* the same, upstream to client */
    uint32_t handshakes; /* TLS handshakes of the listener at once; more clients are reset */
};

/* Deadlines in milliseconds; 0 switches one off. */
struct config_timeouts {
    uint64_t connect_ms;   /* resolve and connect, all targets together; default 5 s */
    uint64_t handshake_ms; /* the PROXY header, each look at the client before there is an upstream,
                              and the handshake hook; default 10 s */
    uint64_t first_byte_ms; /* first byte of the client, from the start of the relay; default off */
    uint64_t idle_ms;       /* nothing moved in either direction; default 1 h */
    uint64_t half_closed_ms; /* one side has ended, the other moves next to nothing; default 60 s */
    uint64_t life_ms;        /* the whole connection; default off */
};

struct config_socket {
    bool nodelay;          /* TCP_NODELAY on both sides; default on */
    uint32_t keepalive_s;  /* idle seconds before keep-alive probes; 0 off; default off */
    uint32_t rcvbuf_bytes; /* SO_RCVBUF; 0 leaves it to the kernel */
    uint32_t sndbuf_bytes; /* SO_SNDBUF */
    uint32_t backlog;      /* default 4096, cut by the kernel to net.core.somaxconn */
    struct addr source;    /* source address for dialling; AF_UNSPEC: the kernel chooses */
};

/* PROXY headers of clients. */
struct config_accept_proxy {
    struct networks *from; /* who must send one, and is believed; a reference; NULL: nobody */
    int others;            /* enum config_others: what becomes of everybody else */
};
enum config_others { OTHERS_ACCEPT, OTHERS_DENY };

/* An option, to be shown: its name on the command line, and its value as JSON. */
struct config_setting {
    const char *name; /* static storage */
    char *json;       /* owned */
};
struct config_settings {
    struct config_settings *next; /* of the same config, which owns it */
    size_t n;
    struct config_setting items[];
};

struct config_listener {
    char *name;           /* for logs and metrics; the bind text when not given; owned */
    struct endpoint bind; /* one address, one port */
    struct targets *to;   /* NULL: only the connect hook can name a destination */
    struct config_limits limits;
    struct config_timeouts timeouts;
    struct config_socket socket;
    struct config_accept_proxy accept_proxy;
    struct dial_socket dial_socket;         /* the same towards the upstream: config_settle() */
    struct tls_server *tls;                 /* TLS with clients; one reference; NULL: none */
    enum relay_choice relay;                /* auto, copy or splice */
    const struct config_settings *settings; /* its options, as they were given; the config's; NULL
                                               where none were noted */
    size_t policy;                          /* number of its policy in each worker's policy_set */
};

struct config {
    struct config_listener *listeners;
    size_t n_listeners;
    char *policy;       /* path of the file with the policy or the configuration, NULL without;
                           with a preset, what it is called */
    const char *preset; /* the ready policy "socks" or "connect" instead of a file; NULL: none */
    char *allow;        /* its destinations, "any" or with commas between them */
    char *auth;         /* its file of users and passwords; NULL: none */
    bool anonymous;     /* nobody has to show who he is, by a login or a certificate, to use it */
    bool watch;         /* reload when a file that was read has changed */
    uint32_t workers;   /* threads, at least 1 */
    uint32_t max_conns; /* of the whole process; more wait in the backlog; 0: what ulimit -n has
                           room for */
    uint32_t max_versions; /* with policies, at once: of older ones the connections are ended */
    uint64_t drain_ms;     /* after TERM: how long connections may live on; default 30 s */
    uint32_t spin_us;      /* poll that long before blocking; default 0 */
    uint32_t gather_us;    /* pause between rounds while only bulk transfers run; default 400 */
    char *resolver; /* DNS servers "ip[:port],…" instead of resolv.conf's; NULL: the system's */
    char *pid_file; /* NULL: none */
    char *admin;    /* where the admin listens; NULL: nowhere */
    char *admin_token_file; /* NULL: none */
    char *user;             /* "user[:group]" to become once all is open; NULL: stay who we are */
    uint64_t upgrade_ms;    /* for a new process to come up; default 30 s */
    bool admin_no_token;    /* on loopback whoever is on this host may */
    bool admin_lua;         /* who may use the admin may run Lua */
    bool sandbox;           /* give up system calls that nothing needs; default true */
    bool core_dumps;        /* allowed although there are private keys in memory */
    uint64_t seed;          /* of ps.random(); 0: from the system */
    bool unsafe_lua;        /* open all Lua libraries to the policy */
    char *lua_modules;      /* C modules that policies may require, "cjson,lpeg"; NULL: none */
    bool jit;               /* compile policies (then they cannot be interrupted) */
    struct log_options log; /* strings owned */
    struct config_settings *noted;    /* all that follow; owned */
    struct config_settings *settings; /* those of the process, one of them; may be NULL */
    atomic_uint refs;                 /* 1 at first */
};

/* One on the heap with one reference and every default; NULL when out of memory. */
struct config *config_new(void);
/* References are counted atomically: each generation of a worker has one. */
struct config *config_hold(struct config *c);
/* Frees at the last; NULL is fine. */
void config_drop(struct config *c);

/* Room for `n` settings, all empty, which `c` owns; NULL when out of memory. */
struct config_settings *config_add_settings(struct config *c, size_t n);

/* Sets every default; no listener. */
void config_init(struct config *c);
void config_deinit(struct config *c);

/* Does it have files of TLS, with clients or upstreams, that may change? */
bool config_has_tls(const struct config *c);
/* Derives what follows from other fields, once all are set. */
void config_settle(struct config *c);

/* Appends a listener with default limits, timeouts and socket options. Returns it (valid until the
 * next call), or NULL when out of memory. */
struct config_listener *config_add_listener(struct config *c);

#endif
