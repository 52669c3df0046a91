/* Networks by their prefixes. Few are expected: the list is walked. */
#include "penstock/base/networks.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock/base/units.h"

struct network {
    int family;
    unsigned bits;
    uint8_t bytes[16];
};

struct networks {
    atomic_uint refs;
    char *text;
    size_t n;
    struct network items[];
};

/* The bytes of an address, *n of them; IPv4 mapped into IPv6 is IPv4. */
static const uint8_t *bytes_of(const struct addr *a, int *family, unsigned *n)
{
    *family = a->sa.sa_family;
    *n = 0;
    if (*family == AF_INET) {
        *n = 4;
        return (const uint8_t *)&a->in.sin_addr;
    }
    if (*family != AF_INET6)
        return NULL;
    *n = 16;
    if (!IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
        return a->in6.sin6_addr.s6_addr;
    *family = AF_INET;
    *n = 4;
    return a->in6.sin6_addr.s6_addr + 12;
}

/* Whether the first `bits` bits are the same. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, odd = bits % 8;
    return memcmp(a, b, whole) == 0 && (!odd || (a[whole] ^ b[whole]) >> (8 - odd) == 0);
}

static bool has_bits_behind(const uint8_t *bytes, unsigned n, unsigned bits)
{
    for (unsigned i = bits; i < n * 8; i++)
        if (bytes[i / 8] & (0x80 >> (i % 8)))
            return true;
    return false;
}

/* "10" in "10/8" is 10.0.0.0. */
static void fill_up(char *ip, size_t cap)
{
    size_t len = strlen(ip), dots = 0;
    for (size_t i = 0; i < len; i++)
        dots += ip[i] == '.';
    for (; dots < 3 && len + sizeof ".0" <= cap; dots++, len += 2)
        memcpy(ip + len, ".0", sizeof ".0");
}

static int parse_one(const char *text, struct network *out)
{
    char ip[64];
    struct addr a;
    uint64_t bits = 0;
    unsigned n;
    *out = (struct network){.family = AF_UNIX};
    if (strcmp(text, "unix") == 0)
        return 0;
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (len == 0 || len >= sizeof ip || memchr(text, '%', len))
        return -EINVAL;
    memcpy(ip, text, len);
    ip[len] = '\0';
    if (slash && !strchr(ip, ':'))
        fill_up(ip, sizeof ip);
    if (addr_parse_ip(ip, &a))
        return -EINVAL;
    const uint8_t *bytes = bytes_of(&a, &out->family, &n);
    unsigned mapped = a.sa.sa_family == out->family ? 0 : 96; /* bits before the IPv4 address */
    memcpy(out->bytes, bytes, n);
    if (slash && units_parse_uint(slash + 1, mapped, mapped + n * 8, &bits))
        return -EINVAL;
    out->bits = slash ? (unsigned)bits - mapped : n * 8;
    return has_bits_behind(out->bytes, n, out->bits) ? -EINVAL : 0;
}

static int parse_all(char *list, struct networks *out)
{
    int err = 0;
    for (char *item = strsep(&list, ","); item && !err; item = strsep(&list, ","))
        err = parse_one(item, &out->items[out->n++]);
    return err;
}

int networks_parse(const char *text, struct networks **out)
{
    size_t most = 1;
    for (const char *c = text; *c; c++)
        most += *c == ',';
    struct networks *n = calloc(1, sizeof *n + most * sizeof n->items[0]);
    char *list = strdup(text);
    int err = -ENOMEM;
    if (n)
        n->text = strdup(text);
    if (list && n && n->text)
        err = parse_all(list, n);
    free(list);
    if (err)
        goto fail;
    n->refs = 1;
    *out = n;
    return 0;

fail:
    if (n)
        free(n->text);
    free(n);
    return err;
}

struct networks *networks_hold(struct networks *n)
{
    if (n)
        atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    return n;
}

void networks_drop(struct networks *n)
{
    /* The last one to drop must see what the others did before they let go. */
    if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(n->text);
    free(n);
}

bool networks_has(const struct networks *n, const struct addr *a)
{
    int family;
    unsigned len;
    const uint8_t *bytes = bytes_of(a, &family, &len);
    for (size_t i = 0; n && i < n->n; i++) {
        const struct network *one = &n->items[i];
        if (one->family == family && (!bytes || same_prefix(one->bytes, bytes, one->bits)))
            return true;
    }
    return false;
}

const char *networks_text(const struct networks *n)
{
    return n->text;
}
