/* What the tests of core/proto share: messages in blocks of their exact length, so that a read
 * beyond the end is seen by the sanitizer, at every length. */
#ifndef PENSTOCK_TESTS_PROTO_SUPPORT_H
#define PENSTOCK_TESTS_PROTO_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "penstock/proto/proto.h"

/* The parser under test, its result thrown away or kept by the test. */
typedef ssize_t parse_fn(const void *bytes, size_t n);

static inline ssize_t parse_exact(parse_fn *parse, const void *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    ssize_t result = parse(copy, n);
    free(copy);
    return result;
}

/* The message is whole at its last byte and not before, wherever it is cut, and what follows it is
 * left alone. */
static inline void assert_whole(parse_fn *parse, const void *bytes, size_t n)
{
    char more[8] = "\xff\0\r\nabc";
    char *longer = malloc(n + sizeof more);
    assert_non_null(longer);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(parse_exact(parse, bytes, cut), PROTO_MORE);
    memcpy(longer, bytes, n);
    memcpy(longer + n, more, sizeof more);
    for (size_t extra = 1; extra <= sizeof more; extra++)
        assert_int_equal(parse_exact(parse, longer, n + extra), n);
    free(longer);
    assert_int_equal(parse_exact(parse, bytes, n), n); /* last: its result stays */
}

/* Refused from byte `certain` on (counted from 1), and never before: then it could still have been
 * right. */
static inline void assert_bad_at(parse_fn *parse, const void *bytes, size_t n, size_t certain)
{
    for (size_t cut = 0; cut <= n; cut++)
        assert_int_equal(parse_exact(parse, bytes, cut), cut < certain ? PROTO_MORE : PROTO_BAD);
}

#define ASSERT_WHOLE(parse, text) assert_whole(parse, text, sizeof(text) - 1)
#define ASSERT_BAD_AT(parse, text, certain) assert_bad_at(parse, text, sizeof(text) - 1, certain)
/* Refused once it is all there. */
#define ASSERT_BAD(parse, text)                                                                    \
    assert_int_equal(parse_exact(parse, text, sizeof(text) - 1), PROTO_BAD)

#endif
