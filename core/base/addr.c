/* Numeric socket addresses: parse, format, and the key under which a client is counted.
 *
 * Pure but for the names of network interfaces (fe80::1%eth0), which the kernel is asked for. What
 * users write is endpoint.c's. */
#include "penstock/base/addr.h"

#include "penstock/base/units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

enum key_tag { KEY_NONE, KEY_UNIX, KEY_IP4 = 4, KEY_IP6 = 6 };

socklen_t addr_len(const struct addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET:
        return sizeof a->in;
    case AF_INET6:
        return sizeof a->in6;
    default:
        return 0;
    }
}

/* "eth0", or the interface's number; 0 when there is no such thing. */
static uint32_t parse_zone(const char *zone)
{
    uint64_t number = 0;
    unsigned index = if_nametoindex(zone);
    if (index == 0 && units_parse_uint(zone, 1, UINT32_MAX, &number) == 0)
        index = (unsigned)number;
    return index;
}

static int parse_ip6(const char *text, struct addr *out)
{
    char ip[INET6_ADDRSTRLEN];
    const char *zone = strchr(text, '%');
    size_t len = zone ? (size_t)(zone - text) : strlen(text);
    if (len >= sizeof ip)
        return -EINVAL;
    memcpy(ip, text, len);
    ip[len] = '\0';

    struct addr a = {.in6 = {.sin6_family = AF_INET6}};
    if (inet_pton(AF_INET6, ip, &a.in6.sin6_addr) != 1)
        return -EINVAL;
    if (zone) {
        /* The kernel ignores the zone of any other address: better to refuse it than to do
         * something else. */
        if (!IN6_IS_ADDR_LINKLOCAL(&a.in6.sin6_addr))
            return -EINVAL;
        a.in6.sin6_scope_id = parse_zone(zone + 1);
        if (a.in6.sin6_scope_id == 0)
            return -EINVAL;
    }
    *out = a;
    return 0;
}

int addr_parse_ip(const char *text, struct addr *out)
{
    struct addr a = {.in = {.sin_family = AF_INET}};
    if (inet_pton(AF_INET, text, &a.in.sin_addr) != 1)
        return parse_ip6(text, out);
    *out = a;
    return 0;
}

uint16_t addr_port(const struct addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET:
        return ntohs(a->in.sin_port);
    case AF_INET6:
        return ntohs(a->in6.sin6_port);
    default:
        return 0;
    }
}

void addr_set_port(struct addr *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET)
        a->in.sin_port = htons(port);
    else if (a->sa.sa_family == AF_INET6)
        a->in6.sin6_port = htons(port);
}

/* The four bytes of an IPv4 address, mapped into IPv6 or not; NULL for any other. */
static const uint8_t *ip4_bytes(const struct addr *a)
{
    if (a->sa.sa_family == AF_INET)
        return (const uint8_t *)&a->in.sin_addr;
    if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
        return a->in6.sin6_addr.s6_addr + 12;
    return NULL;
}

static const char *format_ip4(const uint8_t b[4], char *buf, size_t cap)
{
    snprintf(buf, cap, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    return buf;
}

static const char *format_ip6(const struct sockaddr_in6 *in6, char *buf, size_t cap)
{
    char ip[INET6_ADDRSTRLEN], name[IF_NAMESIZE];
    inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
    if (in6->sin6_scope_id == 0)
        snprintf(buf, cap, "%s", ip);
    else if (if_indextoname(in6->sin6_scope_id, name))
        snprintf(buf, cap, "%s%%%s", ip, name);
    else
        snprintf(buf, cap, "%s%%%u", ip, in6->sin6_scope_id);
    return buf;
}

const char *addr_format_ip(const struct addr *a, char *buf, size_t cap)
{
    const uint8_t *ip4 = ip4_bytes(a);
    if (ip4)
        return format_ip4(ip4, buf, cap);
    if (a->sa.sa_family == AF_INET6)
        return format_ip6(&a->in6, buf, cap);
    snprintf(buf, cap, "%s", a->sa.sa_family == AF_UNIX ? "unix" : "-");
    return buf;
}

const char *addr_format(const struct addr *a, char *buf, size_t cap)
{
    char ip[ADDR_TEXT_MAX];
    if (addr_len(a) == 0)
        return addr_format_ip(a, buf, cap);
    addr_format_ip(a, ip, sizeof ip);
    snprintf(buf, cap, ip4_bytes(a) ? "%s:%u" : "[%s]:%u", ip, addr_port(a));
    return buf;
}

struct addr_key addr_client_key(const struct addr *a)
{
    struct addr_key key = {{KEY_NONE}};
    const uint8_t *ip4 = ip4_bytes(a);
    if (ip4) {
        key.bytes[0] = KEY_IP4;
        memcpy(key.bytes + 1, ip4, 4);
    } else if (a->sa.sa_family == AF_INET6) {
        key.bytes[0] = KEY_IP6;
        memcpy(key.bytes + 1, &a->in6.sin6_addr, 8);
    } else if (a->sa.sa_family == AF_UNIX) {
        key.bytes[0] = KEY_UNIX;
    }
    return key;
}

const char *addr_format_key(const struct addr *a, char *buf, size_t cap)
{
    char ip[ADDR_TEXT_MAX];
    struct addr_key key = addr_client_key(a);
    if (key.bytes[0] != KEY_IP6)
        return addr_format_ip(a, buf, cap);
    struct sockaddr_in6 net = {.sin6_family = AF_INET6};
    memcpy(&net.sin6_addr, key.bytes + 1, 8);
    snprintf(buf, cap, "%s/64", format_ip6(&net, ip, sizeof ip));
    return buf;
}

bool addr_is_loopback(const struct addr *a)
{
    const uint8_t *ip4 = ip4_bytes(a);
    if (ip4)
        return ip4[0] == 127;
    return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

socklen_t addr_unix(const char *path, struct sockaddr_un *out)
{
    size_t len = strlen(path);
    bool abstract = path[0] == '@';
    if (len == 0 || len >= sizeof out->sun_path || (abstract && len == 1))
        return 0;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, path, len);
    if (abstract)
        out->sun_path[0] = '\0';
    /* A path counts its terminator; an abstract name is exactly its bytes. */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (abstract ? 0 : 1));
}
