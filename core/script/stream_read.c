/* Finding what a script has asked for in a run of bytes. Pure: knows no sockets, no Lua. */
#include <string.h>

#include "stream_priv.h"

static enum read_result whole(struct read_match *m, size_t n)
{
    *m = (struct read_match){.first = n, .consumed = n};
    return READ_FOUND;
}

static enum read_result more(bool ended)
{
    return ended ? READ_ENDED : READ_MORE;
}

static enum read_result look_for_some(const struct read_op *op, size_t n, bool ended,
                                      struct read_match *m)
{
    if (n)
        return whole(m, n < op->max ? n : op->max);
    return more(ended);
}

static enum read_result look_for_n(const struct read_op *op, size_t n, bool ended,
                                   struct read_match *m)
{
    return n >= op->max ? whole(m, op->max) : more(ended);
}

static enum read_result look_for_delim(struct read_op *op, const char *bytes, size_t n, bool ended,
                                       struct read_match *m)
{
    size_t from = op->scanned >= op->delim_len ? op->scanned - op->delim_len + 1 : 0;
    const char *hit = n > from ? memmem(bytes + from, n - from, op->delim, op->delim_len) : NULL;
    if (hit && (size_t)(hit - bytes) <= op->max) {
        m->first = (size_t)(hit - bytes);
        m->second = 0;
        m->consumed = m->first + op->delim_len;
        return READ_FOUND;
    }
    if (hit || n >= op->max + op->delim_len)
        return READ_TOO_LONG;
    op->scanned = n;
    return more(ended);
}

static enum read_result found_line(const struct read_op *op, size_t line, size_t terminator,
                                   struct read_match *m)
{
    if (line > op->max)
        return READ_TOO_LONG;
    *m = (struct read_match){.first = line, .second = terminator, .consumed = line + terminator};
    return READ_FOUND;
}

static enum read_result look_for_line(struct read_op *op, const char *bytes, size_t n, bool ended,
                                      struct read_match *m)
{
    const char *hit = n > op->scanned ? memchr(bytes + op->scanned, '\n', n - op->scanned) : NULL;
    if (hit) {
        size_t at = (size_t)(hit - bytes);
        size_t terminator = at && bytes[at - 1] == '\r' ? 2 : 1;
        return found_line(op, at + 1 - terminator, terminator, m);
    }
    if (n > op->max + 1 || (n > op->max && bytes[op->max] != '\r'))
        return READ_TOO_LONG; /* one more may be the CR of its terminator */
    op->scanned = n;
    if (ended && n) /* the last one has no terminator */
        return found_line(op, n, 0, m);
    return more(ended);
}

/* Reads the length behind op->skip bytes. Returns how many bytes it takes; 0: more are needed. */
static size_t read_length(const struct read_op *op, const unsigned char *at, size_t n,
                          uint64_t *length)
{
    *length = 0;
    if (op->len_bytes) {
        if (n < op->len_bytes)
            return 0;
        for (size_t i = 0; i < op->len_bytes; i++)
            *length = *length << 8 | at[op->little_endian ? op->len_bytes - 1 - i : i];
        return op->len_bytes;
    }
    for (size_t i = 0; i < n && i < 10; i++) { /* LEB128, as protobuf has it */
        *length |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (!(at[i] & 0x80))
            return i + 1;
    }
    *length = UINT64_MAX >> 1; /* no length has more than ten bytes */
    return n >= 10 ? 10 : 0;
}

static enum read_result look_for_frame(const struct read_op *op, const char *bytes, size_t n,
                                       bool ended, struct read_match *m)
{
    uint64_t length;
    if (n <= op->skip)
        return more(ended);
    size_t len_bytes =
        read_length(op, (const unsigned char *)bytes + op->skip, n - op->skip, &length);
    if (!len_bytes)
        return more(ended);
    int64_t body = length > INT64_MAX / 2 ? -1 : (int64_t)length + op->adjust;
    if (body < 0 || (uint64_t)body > op->max)
        return READ_TOO_LONG;
    m->first = op->skip + len_bytes;
    m->second = (size_t)body;
    m->consumed = m->first + m->second;
    return n >= m->consumed ? READ_FOUND : more(ended);
}

enum read_result read_look(struct read_op *op, const char *bytes, size_t n, bool ended,
                           struct read_match *m)
{
    enum read_result result;
    switch (op->kind) {
    case READ_EXACTLY:
        return look_for_n(op, n, ended, m);
    case READ_UPTO:
        return look_for_delim(op, bytes, n, ended, m);
    case READ_LINE:
        return look_for_line(op, bytes, n, ended, m);
    case READ_FRAME:
        return look_for_frame(op, bytes, n, ended, m);
    case READ_PEEK:
        result = look_for_n(op, n, ended, m);
        m->consumed = 0;
        return result;
    case READ_PEEK_LINE:
        result = look_for_line(op, bytes, n, ended, m);
        m->consumed = 0;
        return result;
    default:
        return look_for_some(op, n, ended, m);
    }
}
