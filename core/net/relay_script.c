/* The half of a relay that scripts drive: they read, write and let pass as they like. */
#include <errno.h>
#include <string.h>

#include "relay_priv.h"

enum {
    DIRECT_BYTES = 16 * 1024,    /* from here on a write of its own is cheaper than a copy */
    FLUSH_BYTES = 64 * 1024,     /* small writes are gathered up to that */
    HAND_OVER_BYTES = 32 * 1024, /* a read as large as that is worth a buffer of its own */
};

ssize_t relay_read(struct relay *r, char **bytes, size_t want)
{
    if (r->state == RELAY_BROKEN)
        return r->from->err ? r->from->err : -EPIPE;
    if (r->from->eof)
        return r->from->err;
    if (!r->from->readable)
        return -EAGAIN;
    return relay_take(r, bytes, want);
}

ssize_t relay_fill(struct relay *r, size_t want)
{
    char *bytes = NULL;
    ssize_t n = relay_read(r, &bytes, want);
    if (n <= 0)
        return n;
    if (n >= HAND_OVER_BYTES && !buf_len(&r->unread)) {
        buf_pool_give_back(&r->loop->bufs, &r->unread);
        buf_pool_hand_over(&r->loop->bufs, &r->unread, 0, (size_t)n);
    } else if (buf_append(&r->unread, bytes, (size_t)n)) {
        /* They were read and are lost: this must never pass for an end. */
        r->from->err = -ENOMEM;
        r->from->eof = true;
        return -ENOMEM;
    }
    return n;
}

int relay_unread(struct relay *r, const void *bytes, size_t n)
{
    struct buf whole = {0};
    if (!n)
        return 0;
    if (r->unread.start >= n) {
        r->unread.start -= n;
        memcpy(r->unread.data + r->unread.start, bytes, n);
        return 0;
    }
    if (buf_append(&whole, bytes, n) ||
        buf_append(&whole, buf_bytes(&r->unread), buf_len(&r->unread))) {
        buf_deinit(&whole);
        return -ENOMEM;
    }
    buf_pool_give_back(&r->loop->bufs, &r->unread);
    r->unread = whole;
    return 0;
}

void relay_want_input(struct relay *r)
{
    r->wants_input = true;
    if (!r->pumping && (r->from->readable || r->from->eof)) /* nothing else will tell */
        loop_ready(r->loop, &r->task);
}

void relay_want_room(struct relay *r, size_t mark)
{
    r->wants_room = true;
    r->room_mark = mark;
}

void relay_want_nothing(struct relay *r)
{
    r->wants_input = r->wants_room = false;
}

static int lost(struct relay *r, int err)
{
    r->state = RELAY_BROKEN;
    if (err == -ENOMEM && r->from) { /* half of it must never pass for the whole */
        r->from->err = r->from->err ? r->from->err : err;
        r->from->eof = true;
    }
    return err;
}

int relay_put(struct relay *r, const void *bytes, size_t n)
{
    size_t put = 0;
    if (r->state == RELAY_BROKEN)
        return r->to->err ? r->to->err : -EPIPE;
    if (n >= DIRECT_BYTES && r->state == RELAY_OPEN && !r->corked) {
        relay_flush(r);
        if (r->state == RELAY_OPEN && !relay_held(r) && r->to->writable) {
            ssize_t direct = stream_write(r->to, bytes, n);
            if (direct < 0)
                return lost(r, (int)direct);
            put = (size_t)direct;
        }
    }
    if (put < n && buf_append(&r->held, (const char *)bytes + put, n - put))
        return lost(r, -ENOMEM);
    if (buf_len(&r->held) >= FLUSH_BYTES && r->state == RELAY_OPEN)
        relay_flush(r);
    return r->state == RELAY_BROKEN ? -EPIPE : 0;
}

void relay_finish(struct relay *r)
{
    r->finishing = true;
}

void relay_pass(struct relay *r, uint64_t n)
{
    r->passing = true;
    r->pass_left = n;
    relay_in_c(r);
    loop_ready(r->loop, &r->task);
}
