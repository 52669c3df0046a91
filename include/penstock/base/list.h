/* Intrusive doubly linked list: the node lives in the struct that is listed. A list head is a node
 * linked to itself. Nothing here allocates. */
#ifndef PENSTOCK_BASE_LIST_H
#define PENSTOCK_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

/* The struct of `type` whose member `member` is at `ptr`. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

/* True for an empty head, and for a node that is on no list. */
static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

/* Appends `node` at the end of `head`. The node must be on no list. */
static inline void list_push(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Takes `node` off its list and leaves it initialised; harmless on a node that is on none. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Moves all nodes of `from` to the empty head `to`. */
static inline void list_take(struct list *to, struct list *from)
{
    list_init(to);
    if (list_is_empty(from))
        return;
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

/* Visits every node; the body may remove `pos` itself, no other. */
#define list_for_each(pos, tmp, head)                                                              \
    for (struct list *pos = (head)->next, *tmp = pos->next; pos != (head);                         \
         pos = tmp, tmp = pos->next)

#endif
