/* http_connect_parse(): decided once and for all, at an empty line. */
#include "fuzz_proto.h"

#include "penstock/proto/http_connect.h"

static ssize_t parse(const void *bytes, size_t n)
{
    unsigned status;
    return http_connect_parse(bytes, n, &status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned status = 0;
    ssize_t n = check_prefixes(parse, data, size);
    if (n <= 0)
        return 0;
    http_connect_parse(data, size, &status);
    MUST(n <= HTTP_CONNECT_ANSWER_MAX && memcmp(data + n - 4, "\r\n\r\n", 4) == 0);
    MUST(status >= 100 && status <= 599);
    MUST(http_connect_err(status) < 0 && http_connect_text(status)[0]);
    return 0;
}
