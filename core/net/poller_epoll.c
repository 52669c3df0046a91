/* The poller on Linux: one epoll instance. Knows nothing of what it watches. */
#include "penstock/net/poller.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Served per wait: enough to amortise the call, few enough that timers are not kept waiting. */
enum { BATCH = 256 };

int poller_init(struct poller *p)
{
    *p = (struct poller){.fd = epoll_create1(EPOLL_CLOEXEC)};
    return p->fd < 0 ? -errno : 0;
}

void poller_deinit(struct poller *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static int control(struct poller *p, int op, struct poller_entry *entry, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = entry};
    entry->poller = p;
    return epoll_ctl(p->fd, op, entry->fd, &ev) ? -errno : 0;
}

enum { EDGE_EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI };

int poller_add_edge(struct poller *p, struct poller_entry *entry)
{
    return control(p, EPOLL_CTL_ADD, entry, EDGE_EVENTS | EPOLLET);
}

static uint32_t level_events(unsigned events)
{
    return (events & POLLER_IN ? EPOLLIN : 0u) | (events & POLLER_OUT ? EPOLLOUT : 0u);
}

int poller_add_level(struct poller *p, struct poller_entry *entry, unsigned events)
{
    return control(p, EPOLL_CTL_ADD, entry, level_events(events));
}

int poller_set_level(struct poller *p, struct poller_entry *entry, unsigned events)
{
    return control(p, EPOLL_CTL_MOD, entry, level_events(events));
}

int poller_move_edge(struct poller *p, struct poller_entry *from, struct poller_entry *to)
{
    to->fd = from->fd;
    from->fd = -1;
    return control(p, EPOLL_CTL_MOD, to, EDGE_EVENTS | EPOLLET);
}

void poller_remove(struct poller *p, struct poller_entry *entry)
{
    if (entry->fd >= 0)
        control(p, EPOLL_CTL_DEL, entry, 0);
    entry->fd = -1;
}

static bool is_copied(const struct poller *p)
{
    return p && p->copied && atomic_load_explicit(p->copied, memory_order_relaxed);
}

void poller_close(struct poller_entry *entry)
{
    if (entry->fd >= 0 && is_copied(entry->poller))
        control(entry->poller, EPOLL_CTL_DEL, entry, 0);
    if (entry->fd >= 0)
        close(entry->fd);
    entry->fd = -1;
}

static unsigned from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? POLLER_IN : 0u) | (events & EPOLLOUT ? POLLER_OUT : 0u) |
           (events & (EPOLLRDHUP | EPOLLHUP) ? POLLER_END : 0u) |
           (events & EPOLLERR ? POLLER_ERROR : 0u) | (events & EPOLLPRI ? POLLER_URGENT : 0u);
}

int poller_wait(struct poller *p, int timeout_ms, void (*on_wake)(void *), void *arg)
{
    struct epoll_event events[BATCH];
    int n = epoll_wait(p->fd, events, BATCH, timeout_ms);
    if (on_wake)
        on_wake(arg);
    for (int i = 0; i < n; i++) {
        struct poller_entry *entry = events[i].data.ptr;
        /* An earlier callback of this batch may have closed it. */
        if (entry->fd >= 0)
            entry->on_event(entry, from_epoll(events[i].events));
    }
    return n > 0 ? n : 0;
}
