/* proxy_parse(): decided once and for all; what it read builds a header that reads the same. */
#include "fuzz_proto.h"

#include "penstock/proto/proxy_protocol.h"

static ssize_t parse(const void *bytes, size_t n)
{
    struct proxy_header h;
    return proxy_parse(bytes, n, &h);
}

/* IPv4 mapped into IPv6 is told as IPv4: compare what people see. */
static void check_same(const struct addr *a, const struct addr *b)
{
    char text[2][ADDR_TEXT_MAX];
    MUST(strcmp(addr_format(a, text[0], ADDR_TEXT_MAX), addr_format(b, text[1], ADDR_TEXT_MAX)) ==
         0);
}

static void check_v1(const struct proxy_header *h)
{
    char line[PROXY_V1_MAX];
    struct proxy_header again;
    size_t n = proxy_build_v1(h, line);
    MUST(n <= sizeof line && proxy_parse(line, n, &again) == (ssize_t)n);
    if (again.from.sa.sa_family != AF_UNSPEC) {
        check_same(&h->from, &again.from);
        check_same(&h->to, &again.to);
    }
}

static void check_v2(const struct proxy_header *h)
{
    struct proxy_tlv tlvs[16];
    struct proxy_header again;
    size_t at = 0, n_tlvs = 0;
    static uint8_t out[PROXY_BUILD_MAX];
    while (n_tlvs < 16 && proxy_next_tlv(h, &at, &tlvs[n_tlvs]))
        n_tlvs++;
    if (proxy_tlvs_size(tlvs, n_tlvs) > PROXY_TLVS_MAX)
        return;
    size_t n = proxy_build_v2(h, tlvs, n_tlvs, out);
    MUST(n <= sizeof out && proxy_parse(out, n, &again) == (ssize_t)n);
    MUST(again.local == h->local);
    if (again.from.sa.sa_family != AF_UNSPEC) {
        check_same(&h->from, &again.from);
        MUST(again.tlvs_len == proxy_tlvs_size(tlvs, n_tlvs));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header h;
    struct proxy_ssl ssl;
    if (proxy_read_ssl(data, size, &ssl))
        MUST(ssl.tlvs_len == size - PROXY_SSL_HEAD);
    if (check_prefixes(parse, data, size) <= 0)
        return 0;
    proxy_parse(data, size, &h);
    MUST(h.version == 1 || h.version == 2);
    MUST((h.tlvs != NULL) == (h.tlvs_len > 0));
    check_v1(&h);
    check_v2(&h);
    return 0;
}
