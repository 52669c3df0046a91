/* Byte queue in one contiguous region.
 *
 * Bytes are moved to the front only when at least as many were consumed as must be moved, so that
 * each byte is moved a bounded number of times, whatever the pattern of appends and consumes. */
#include "penstock/base/buf.h"

#include "penstock/base/err.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAP = 256 };

void buf_init(struct buf *b)
{
    *b = (struct buf){0};
}

void buf_deinit(struct buf *b)
{
    free(b->data);
    buf_init(b);
}

/* The smallest doubling that holds `need`; need <= PTRDIFF_MAX, so it cannot overflow. */
static size_t grown_cap(size_t cap, size_t need)
{
    if (cap < FIRST_CAP)
        cap = FIRST_CAP;
    while (cap < need)
        cap *= 2;
    return cap;
}

static int grow(struct buf *b, size_t need)
{
    size_t len = buf_len(b), cap = grown_cap(b->cap, need);
    char *data = malloc(cap);
    if (!data)
        return -ENOMEM;
    if (len > 0)
        memcpy(data, buf_bytes(b), len);
    free(b->data);
    *b = (struct buf){.data = data, .end = len, .cap = cap};
    return 0;
}

static void compact(struct buf *b)
{
    size_t len = buf_len(b);
    memmove(b->data, b->data + b->start, len);
    b->start = 0;
    b->end = len;
}

char *buf_reserve(struct buf *b, size_t n)
{
    size_t len = buf_len(b);
    if (n > (size_t)PTRDIFF_MAX - len)
        return NULL;
    if (!b->data || b->cap - b->end < n) {
        if (b->start >= len && b->cap - len >= n && b->data)
            compact(b);
        else if (grow(b, len + n))
            return NULL;
    }
    return b->data + b->end;
}

void buf_commit(struct buf *b, size_t n)
{
    PENSTOCK_REQUIRE(n <= b->cap - b->end);
    b->end += n;
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0)
        return 0;
    char *room = buf_reserve(b, n);
    if (!room)
        return -ENOMEM;
    memcpy(room, bytes, n);
    buf_commit(b, n);
    return 0;
}

void buf_consume(struct buf *b, size_t n)
{
    PENSTOCK_REQUIRE(n <= buf_len(b));
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}
