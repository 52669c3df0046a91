/* TCP segments in IP packets (RFC 791, 8200, 9293), made up for a capture: bytes that were moved by
 * a socket, with the headers that tell whose they are. */
#ifndef PENSTOCK_PROTO_SEGMENT_H
#define PENSTOCK_PROTO_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "penstock/base/addr.h"

enum segment_flags {
    SEGMENT_FIN = 0x01,
    SEGMENT_SYN = 0x02,
    SEGMENT_RST = 0x04,
    SEGMENT_PSH = 0x08,
    SEGMENT_ACK = 0x10,
};

/* Bytes of one segment at most, so that the packet's length has room in its header. */
enum { SEGMENT_BYTES_MAX = 65000 };

struct segment {
    const struct addr *from, *to; /* IPv4 or IPv6, ports included; of two families, IPv4 is mapped
                                     into IPv6 */
    uint32_t seq, ack;
    uint8_t flags; /* enum segment_flags; SYN brings the widest window scale along, since there is
                      no window to tell of */
    const void *bytes;
    size_t n; /* at most SEGMENT_BYTES_MAX */
};

/* Length of the whole packet. */
size_t segment_size(const struct segment *s);
/* Writes it, checksums included, to segment_size() bytes. */
void segment_write(const struct segment *s, uint8_t *out);

#endif
