/* Byte queue: bytes are appended at the end and consumed at the front. One contiguous region, grown
 * by doubling up to a limit, compacted when it pays. Nobody does pointer arithmetic outside. */
#ifndef PENSTOCK_BASE_BUF_H
#define PENSTOCK_BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data;   /* heap, NULL while empty */
    size_t start; /* first byte not consumed */
    size_t end;   /* one past the last byte */
    size_t cap;
};

void buf_init(struct buf *b);
/* Frees the memory; the buffer is empty and usable afterwards. */
void buf_deinit(struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}
/* First unconsumed byte; valid until the next append, reserve or deinit. */
static inline const char *buf_bytes(const struct buf *b)
{
    return b->data + b->start;
}
/* Appends n bytes. Returns 0 or -ENOMEM (nothing appended). */
int buf_append(struct buf *b, const void *bytes, size_t n);
/* Makes room for n more bytes and returns where to put them, NULL when out of memory; then
 * buf_commit(). */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);
/* Drops n bytes from the front (n <= buf_len). Memory is kept; buf_deinit() gives it back. */
void buf_consume(struct buf *b, size_t n);

#endif
