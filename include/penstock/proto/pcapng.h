/* A capture as Wireshark and tcpdump read it: pcapng (draft-ietf-opsawg-pcapng) with raw IP
 * packets. Each block begins with its type and its length, in this machine's byte order. */
#ifndef PENSTOCK_PROTO_PCAPNG_H
#define PENSTOCK_PROTO_PCAPNG_H

#include "penstock/proto/segment.h"

enum pcapng_interface { PCAPNG_CLIENT, PCAPNG_UPSTREAM };

enum {
    PCAPNG_HEAD_MAX = 256,
    PCAPNG_COMMENT_MAX = 512,
    PCAPNG_MAGIC = 0x0a0d0d0a, /* what every such file begins with, in either byte order */
};

struct pcapng_packet {
    enum pcapng_interface interface;
    uint64_t unix_ns; /* since 1970 */
    struct segment segment;
    const char *comment; /* NULL: none; at most PCAPNG_COMMENT_MAX bytes of it are kept */
};

/* What a file begins with: who has written it, and the two interfaces. Returns its length, at most
 * PCAPNG_HEAD_MAX. */
size_t pcapng_write_head(uint8_t *out);
size_t pcapng_packet_size(const struct pcapng_packet *p);
/* Writes the block of a packet, pcapng_packet_size() bytes. */
void pcapng_write_packet(const struct pcapng_packet *p, uint8_t *out);
/* The length of the block that begins here. */
size_t pcapng_block_size(const void *block);

#endif
