/* What the fuzzers of core/proto share. */
#ifndef PENSTOCK_FUZZ_PROTO_H
#define PENSTOCK_FUZZ_PROTO_H

#include "fuzz.h"

#include "penstock/proto/proto.h"

typedef ssize_t parse_fn(const void *bytes, size_t n);

/* A prefix in a block of its own: a byte read beyond it is seen. */
static inline ssize_t parse_prefix(parse_fn *parse, const uint8_t *data, size_t n)
{
    void *copy = malloc(n ? n : 1);
    MUST(copy);
    if (n)
        memcpy(copy, data, n);
    ssize_t result = parse(copy, n);
    free(copy);
    return result;
}

/* The answer to an input is MORE until it is decided, then the same for every longer one. Returns
 * the answer to all of it. */
static inline ssize_t check_prefixes(parse_fn *parse, const uint8_t *data, size_t size)
{
    ssize_t whole = parse_prefix(parse, data, size);
    MUST(whole == PROTO_BAD || whole == PROTO_LONG || whole == PROTO_MORE ||
         (whole > 0 && (size_t)whole <= size));
    /* All of them for short inputs, some for long ones. */
    size_t step = 1 + size / 64;
    for (size_t n = 0; n < size; n += step) {
        ssize_t part = parse_prefix(parse, data, n);
        MUST(part == PROTO_MORE || part == whole);
        MUST(part <= 0 || (size_t)part <= n);
        MUST(whole <= 0 || part == ((size_t)whole <= n ? whole : PROTO_MORE));
    }
    return whole;
}

#endif
