/* What the codecs share. A codec is pure: it is given all the bytes received so far, from the first
 * one of its message on, and keeps nothing between two calls. It never sees a socket and allocates
 * nothing. */
#ifndef PENSTOCK_PROTO_PROTO_H
#define PENSTOCK_PROTO_PROTO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a parser returns instead of the number of bytes that its message has (always positive). */
enum {
    PROTO_MORE = 0,  /* right so far, but not whole: call again with more */
    PROTO_BAD = -1,  /* whatever follows, it is no such message, or longer than allowed */
    PROTO_LONG = -2, /* of parsers that say so: it could be one, but is longer than allowed */
};

#endif
