/* Blocks of pcapng. */
#include "penstock/proto/pcapng.h"

#include <string.h>

enum {
    BLOCK_SECTION = PCAPNG_MAGIC,
    BLOCK_INTERFACE = 1,
    BLOCK_PACKET = 6,
    BYTE_ORDER_MAGIC = 0x1a2b3c4d,
    LINKTYPE_RAW = 101, /* an IP packet from its first byte on */
    OPTION_COMMENT = 1,
    OPTION_NAME = 2,
    OPTION_APPLICATION = 4,
    OPTION_RESOLUTION = 9,
    NANOSECONDS = 9,
    BLOCK_FRAME = 12,   /* type, and the length at both ends */
    PACKET_FIELDS = 20, /* of a packet's block, before its bytes */
    OPTION_HEAD = 4,
};

static size_t padded(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

static uint8_t *put16(uint8_t *at, uint16_t number)
{
    memcpy(at, &number, sizeof number);
    return at + sizeof number;
}

static uint8_t *put32(uint8_t *at, uint32_t number)
{
    memcpy(at, &number, sizeof number);
    return at + sizeof number;
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t n)
{
    memcpy(at, bytes, n);
    memset(at + n, 0, padded(n) - n);
    return at + padded(n);
}

static uint8_t *put_option(uint8_t *at, uint16_t code, const void *bytes, size_t n)
{
    return put_bytes(put16(put16(at, code), (uint16_t)n), bytes, n);
}

static uint8_t *put_text(uint8_t *at, uint16_t code, const char *text)
{
    return put_option(at, code, text, strlen(text));
}

static uint8_t *end_options(uint8_t *at)
{
    return put32(at, 0);
}

/* The length goes to both ends, once it is known. */
static uint8_t *end_block(uint8_t *block, uint8_t *at)
{
    uint32_t size = (uint32_t)(at - block) + 4;
    put32(block + 4, size);
    return put32(at, size);
}

static uint8_t *put_section(uint8_t *block)
{
    uint8_t *at = put32(block, BLOCK_SECTION) + 4;
    at = put32(at, BYTE_ORDER_MAGIC);
    at = put16(put16(at, 1), 0); /* the version */
    memset(at, 0xff, 8);         /* how long the section is, nobody knows */
    at = put_text(at + 8, OPTION_APPLICATION, "penstock");
    return end_block(block, end_options(at));
}

static uint8_t *put_interface(uint8_t *block, const char *name)
{
    uint8_t resolution = NANOSECONDS;
    uint8_t *at = put32(block, BLOCK_INTERFACE) + 4;
    at = put16(put16(at, LINKTYPE_RAW), 0);
    at = put32(at, 0); /* packets are whole */
    at = put_text(at, OPTION_NAME, name);
    at = put_option(at, OPTION_RESOLUTION, &resolution, 1);
    return end_block(block, end_options(at));
}

size_t pcapng_write_head(uint8_t *out)
{
    uint8_t *at = put_section(out);
    at = put_interface(at, "client");
    at = put_interface(at, "upstream");
    return (size_t)(at - out);
}

static size_t comment_size(const struct pcapng_packet *p)
{
    return p->comment ? strnlen(p->comment, PCAPNG_COMMENT_MAX) : 0;
}

size_t pcapng_packet_size(const struct pcapng_packet *p)
{
    size_t options = p->comment ? OPTION_HEAD + padded(comment_size(p)) + OPTION_HEAD : 0;
    return BLOCK_FRAME + PACKET_FIELDS + padded(segment_size(&p->segment)) + options;
}

void pcapng_write_packet(const struct pcapng_packet *p, uint8_t *out)
{
    size_t n = segment_size(&p->segment);
    uint8_t *at = put32(out, BLOCK_PACKET) + 4;
    at = put32(at, p->interface);
    at = put32(at, (uint32_t)(p->unix_ns >> 32));
    at = put32(at, (uint32_t)p->unix_ns);
    at = put32(at, (uint32_t)n);
    at = put32(at, (uint32_t)n);
    segment_write(&p->segment, at);
    memset(at + n, 0, padded(n) - n);
    at += padded(n);
    if (p->comment)
        at = end_options(put_option(at, OPTION_COMMENT, p->comment, comment_size(p)));
    end_block(out, at);
}

size_t pcapng_block_size(const void *block)
{
    uint32_t size;
    memcpy(&size, (const uint8_t *)block + 4, sizeof size);
    return size;
}
