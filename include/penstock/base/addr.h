/* Addresses: numeric socket addresses (struct addr) and what a user writes (struct endpoint). */
#ifndef PENSTOCK_BASE_ADDR_H
#define PENSTOCK_BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* An IPv4 or IPv6 socket address; AF_UNIX without its path (a connection record holds two of these,
 * and 108 bytes of path in each would be most of it); AF_UNSPEC when not known. */
struct addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
};

/* Long enough for "[ipv6%scope]:65535" and its terminator. */
enum { ADDR_TEXT_MAX = 80 };

/* Length of the sockaddr for bind() and connect(): 0 for other families than IPv4 and IPv6. */
socklen_t addr_len(const struct addr *a);

/* Parses a numeric IPv4 or IPv6 address without port ("10.0.0.1", "::1", "fe80::1%eth0"). 0 or
 * -EINVAL. */
int addr_parse_ip(const char *text, struct addr *out);

uint16_t addr_port(const struct addr *a);
void addr_set_port(struct addr *a, uint16_t port);

/* "127.0.0.1:80", "[::1]:80", "unix", "-". IPv4 mapped into IPv6 prints as IPv4. Returns `buf`. */
const char *addr_format(const struct addr *a, char *buf, size_t cap);
/* The same without the port: "127.0.0.1", "::1", "unix", "-". */
const char *addr_format_ip(const struct addr *a, char *buf, size_t cap);

/* The unit in which clients are counted and limited: the IPv4 address (also when mapped into IPv6),
 * or the /64 of an IPv6 address. `key` gets family-tagged bytes that compare with memcmp. */
struct addr_key {
    uint8_t bytes[16];
};
struct addr_key addr_client_key(const struct addr *a);
/* The key as text: "192.0.2.1", "2001:db8:0:1::/64". Returns `buf`. */
const char *addr_format_key(const struct addr *a, char *buf, size_t cap);

bool addr_is_loopback(const struct addr *a);

enum endpoint_kind {
    ENDPOINT_IP,   /* numeric address, `ip` filled, port included */
    ENDPOINT_NAME, /* host name to resolve, `host` and `port` */
    ENDPOINT_UNIX, /* UNIX socket, `host` is the path ("@name" is abstract) */
    ENDPOINT_FD, /* LISTEN forms only: an inherited listening socket: `fd` is its descriptor, or -1
                    and `host` its name */
};

/* What a user wrote: "127.0.0.1:80", "[::1]:80", "db:5432", "unix:/run/x", "fd:3", "fd:web". Owns
 * `host` and `text`. */
struct endpoint {
    enum endpoint_kind kind;
    struct addr ip; /* ENDPOINT_IP: the address with its port */
    char *host;     /* ENDPOINT_NAME: the name; ENDPOINT_UNIX: the path; ENDPOINT_FD: the name, or
                       NULL; else NULL */
    char *text;     /* canonical form for logs: "db:5432", "[::1]:80", "unix:/run/x" */
    uint16_t port;  /* first port */
    uint16_t port_last; /* last port of a range "9000-9010"; equals `port` without one */
    int fd;             /* ENDPOINT_FD; -1 when it has a name */
    bool bare_port;     /* LISTEN forms only: only a port was given, so loopback was chosen */
};

enum endpoint_use {
    ENDPOINT_LISTEN, /* "8080" binds 127.0.0.1, ":8080" 0.0.0.0; port 0 allowed; a name is not,
                        except "localhost" */
    ENDPOINT_DIAL, /* needs a host and a port from 1 to 65535 ("8080" and ":8080" dial 127.0.0.1) */
};

/* Parses one endpoint, port ranges included. Returns 0; or -EINVAL / -ENAMETOOLONG (UNIX path too
 * long) with a message in `why` that says what is wrong and what would be right, and *out empty.
 * Free with endpoint_deinit(). */
int endpoint_parse(const char *text, enum endpoint_use use, struct endpoint *out, char *why,
                   size_t why_cap);
/* A copy of `from` with its range narrowed to the one port `port`. Returns 0 or -ENOMEM. */
int endpoint_copy(struct endpoint *out, const struct endpoint *from, uint16_t port);
void endpoint_deinit(struct endpoint *e);

/* Fills a sockaddr_un from a path or "@abstract". Returns its length, or 0 when the path is too
 * long or empty. */
socklen_t addr_unix(const char *path, struct sockaddr_un *out);

#endif
