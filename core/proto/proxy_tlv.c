/* Options of PROXY headers: walking them, and the two whose values have a form. */
#include "penstock/proto/proxy_protocol.h"
#include "proxy_wire.h"

const char *proxy_fault_word(enum proxy_fault fault)
{
    static const char *const words[] = {
#define X(name, word) [PROXY_##name] = word,
        PROXY_FAULTS(X)
#undef X
    };
    return words[fault];
}

bool proxy_are_tlvs(const uint8_t *tlvs, size_t n)
{
    while (n) {
        if (n < TLV_HEAD)
            return false;
        size_t size = TLV_HEAD + (size_t)(tlvs[1] << 8 | tlvs[2]);
        if (size > n)
            return false;
        tlvs += size;
        n -= size;
    }
    return true;
}

bool proxy_tlv_at(const uint8_t *tlvs, size_t n, size_t *at, struct proxy_tlv *out)
{
    if (*at >= n)
        return false;
    const uint8_t *tlv = tlvs + *at;
    *out = (struct proxy_tlv){.type = tlv[0], .len = (uint16_t)(tlv[1] << 8 | tlv[2])};
    out->value = out->len ? tlv + TLV_HEAD : NULL;
    *at += TLV_HEAD + (size_t)out->len;
    return true;
}

bool proxy_next_tlv(const struct proxy_header *h, size_t *at, struct proxy_tlv *out)
{
    return proxy_tlv_at(h->tlvs, h->tlvs_len, at, out);
}

bool proxy_read_ssl(const uint8_t *value, size_t n, struct proxy_ssl *out)
{
    if (n < PROXY_SSL_HEAD)
        return false;
    *out = (struct proxy_ssl){.client = value[0],
                              .verify = (uint32_t)value[1] << 24 | (uint32_t)value[2] << 16 |
                                        (uint32_t)value[3] << 8 | value[4],
                              .tlvs = value + PROXY_SSL_HEAD,
                              .tlvs_len = n - PROXY_SSL_HEAD};
    return proxy_are_tlvs(out->tlvs, out->tlvs_len);
}

/* ---- the checksum ---- */

/* Four bits at a time: headers are short. */
static uint32_t crc_add(uint32_t crc, uint8_t byte)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    crc ^= byte;
    crc = crc >> 4 ^ table[crc & 15];
    return crc >> 4 ^ table[crc & 15];
}

uint32_t proxy_crc32c(const uint8_t *bytes, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++)
        crc = crc_add(crc, bytes[i]);
    return ~crc;
}

uint32_t v2_checksum(const uint8_t *header, size_t n, size_t at)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++)
        crc = crc_add(crc, i >= at && i < at + V2_CRC ? 0 : header[i]);
    return ~crc;
}

bool v2_checksum_is(const uint8_t *header, size_t n, size_t at)
{
    uint32_t crc = v2_checksum(header, n, at);
    return header[at] == crc >> 24 && header[at + 1] == (uint8_t)(crc >> 16) &&
           header[at + 2] == (uint8_t)(crc >> 8) && header[at + 3] == (uint8_t)crc;
}
