/* What the files of the virtual network share and nobody else needs. */
#ifndef PENSTOCK_NET_VNET_PRIV_H
#define PENSTOCK_NET_VNET_PRIV_H

#include "penstock/base/list.h"
#include "penstock/net/vnet.h"

struct vnet {
    struct list ready; /* struct vnet_end: with events to deliver, in their order */
    struct list ports, faults, names;
    struct vnet_observer observer;
    unsigned invented; /* addresses given to names so far */
};

struct vnet_port {
    struct list node; /* in net->ports */
    struct vnet *net;
    struct poller_entry *entry;
    struct list backlog; /* struct vnet_end: not accepted yet */
    size_t window_bytes;
    bool watched;
    char address[];
};

/* vnet_names.c */
/* Takes one failure ordered for the address `text` ("ip:port" or "unix:/path"). Returns
 * VNET_FAULT_COUNT when there is none. */
enum vnet_fault vnet_take_fault(struct vnet *net, const char *text);
/* Is `address`, as a user wrote it, the one that `text` has after names were resolved? */
bool vnet_address_is(const struct vnet *net, const char *address, const char *text);
void vnet_free_names(struct vnet *net);

#endif
