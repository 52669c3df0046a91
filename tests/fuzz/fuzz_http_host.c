/* http_host_parse(): decided once and for all, and the name is one. */
#include "fuzz_proto.h"

#include "penstock/proto/http_host.h"

static ssize_t parse(const void *bytes, size_t n)
{
    struct http_host host;
    return http_host_parse(bytes, n, &host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_host host;
    ssize_t n = check_prefixes(parse, data, size);
    if (n <= 0)
        return 0;
    http_host_parse(data, size, &host);
    MUST(n <= HTTP_HEAD_MAX && memcmp(data + n - 4, "\r\n\r\n", 4) == 0);
    MUST(host.name[0] && memchr(host.name, '\0', sizeof host.name));
    MUST(host.name[strspn(host.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.:")] == '\0');
    return 0;
}
