/* The virtual network's names and the failures that were ordered. Addresses are kept as they were
 * written and compared when they are used, so it does not matter what was said first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "penstock/base/err.h"
#include "vnet_priv.h"

enum { INVENTED_FIRST = 0xc6120000 }; /* 198.18.0.0/15, for benchmarks (RFC 2544): in no network */

struct fault {
    struct list node;
    enum vnet_fault what;
    unsigned left; /* 0: for ever */
    char address[];
};

struct name {
    struct list node;
    char *text;
    enum vnet_name_fault fault;
    size_t n;
    struct addr addrs[];
};

/* ---- addresses ---- */

/* Length of the host in "host:port". */
static size_t host_len(const char *address)
{
    const char *colon = strrchr(address, ':');
    return colon ? (size_t)(colon - address) : strlen(address);
}

static bool is_host(const char *address, const char *name)
{
    size_t len = host_len(address);
    return strlen(name) == len && strncasecmp(address, name, len) == 0;
}

static bool has_address(const struct name *name, const char *text)
{
    char ip[ADDR_TEXT_MAX];
    for (size_t i = 0; i < name->n; i++) {
        struct addr a = name->addrs[i];
        addr_set_port(&a, (uint16_t)strtoul(text + host_len(text) + 1, NULL, 10));
        if (!strcmp(addr_format(&a, ip, sizeof ip), text))
            return true;
    }
    return false;
}

bool vnet_address_is(const struct vnet *net, const char *address, const char *text)
{
    if (!strcmp(address, text))
        return true;
    if (!strncmp(text, "unix:", 5) ||
        strcmp(address + host_len(address), text + host_len(text)) != 0)
        return false;
    list_for_each (node, tmp, &net->names) {
        const struct name *name = container_of(node, struct name, node);
        if (is_host(address, name->text) && has_address(name, text))
            return true;
    }
    return false;
}

/* ---- failures ---- */

static void free_fault(struct fault *f)
{
    list_remove(&f->node);
    free(f);
}

int vnet_fail(struct vnet *net, const char *address, enum vnet_fault what, unsigned times)
{
    size_t size = strlen(address) + 1;
    struct fault *f = calloc(1, sizeof *f + size);
    if (!f)
        return -ENOMEM;
    list_for_each (node, tmp, &net->faults)
        if (!strcmp(container_of(node, struct fault, node)->address, address))
            free_fault(container_of(node, struct fault, node));
    memcpy(f->address, address, size);
    f->what = what;
    f->left = times;
    list_push(&net->faults, &f->node);
    return 0;
}

enum vnet_fault vnet_take_fault(struct vnet *net, const char *text)
{
    list_for_each (node, tmp, &net->faults) {
        struct fault *f = container_of(node, struct fault, node);
        if (!vnet_address_is(net, f->address, text))
            continue;
        enum vnet_fault what = f->what;
        if (f->left && --f->left == 0)
            free_fault(f);
        return what;
    }
    return VNET_FAULT_COUNT;
}

/* ---- names ---- */

static void free_name(struct name *name)
{
    list_remove(&name->node);
    free(name->text);
    free(name);
}

static struct name *find_name(struct vnet *net, const char *text)
{
    list_for_each (node, tmp, &net->names) {
        struct name *name = container_of(node, struct name, node);
        if (!strcasecmp(name->text, text))
            return name;
    }
    return NULL;
}

/* A new entry, after all others; NULL when out of memory. */
static struct name *add_name(struct vnet *net, const char *text, const struct addr *addrs, size_t n)
{
    struct name *name = calloc(1, sizeof *name + n * sizeof *addrs);
    if (!name)
        return NULL;
    name->text = strdup(text);
    if (!name->text) {
        free(name);
        return NULL;
    }
    if (n)
        memcpy(name->addrs, addrs, n * sizeof *addrs);
    name->n = n;
    list_push(&net->names, &name->node);
    return name;
}

int vnet_set_name(struct vnet *net, const char *text, const struct addr *addrs, size_t n,
                  enum vnet_name_fault fault)
{
    struct name *old = find_name(net, text), *name = add_name(net, text, addrs, n);
    if (!name)
        return -ENOMEM;
    name->fault = fault;
    if (old)
        free_name(old);
    return 0;
}

/* Does a port or an ordered failure speak of that name? */
static bool is_mentioned(const struct vnet *net, const char *name)
{
    list_for_each (node, tmp, &net->ports)
        if (is_host(container_of(node, struct vnet_port, node)->address, name))
            return true;
    list_for_each (node, tmp, &net->faults)
        if (is_host(container_of(node, struct fault, node)->address, name))
            return true;
    return false;
}

static struct name *invent(struct vnet *net, const char *text)
{
    struct addr a = {.in = {.sin_family = AF_INET}};
    if (!is_mentioned(net, text))
        return NULL;
    a.in.sin_addr.s_addr = htonl(INVENTED_FIRST + ++net->invented);
    return add_name(net, text, &a, 1);
}

int vnet_resolve(struct vnet *net, const char *text, const struct addr **addrs, size_t *n,
                 const char **why)
{
    static const char *const words[VNET_NAME_FAULT_COUNT] = {
#define X(name, word, why) [VNET_NAME_##name] = why,
        VNET_NAME_FAULTS(X)
#undef X
    };
    const struct name *name = find_name(net, text);
    if (!name)
        name = invent(net, text);
    enum vnet_name_fault fault = name ? name->fault : VNET_NAME_NXDOMAIN;
    *why = words[fault];
    if (fault != VNET_NAME_GOOD)
        return fault == VNET_NAME_SILENCE ? -EAGAIN : PS_EDNS;
    *addrs = name->addrs;
    *n = name->n;
    return 0;
}

void vnet_free_names(struct vnet *net)
{
    list_for_each (node, tmp, &net->names)
        free_name(container_of(node, struct name, node));
    list_for_each (node, tmp, &net->faults)
        free_fault(container_of(node, struct fault, node));
}
