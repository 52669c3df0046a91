/* tls_hello_parse(): decided once and for all, within bounds, and what it tells is well-formed. */
#include "fuzz_proto.h"

#include "penstock/proto/tls_hello.h"

static ssize_t parse(const void *bytes, size_t n)
{
    struct tls_hello hello;
    return tls_hello_parse(bytes, n, &hello);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_hello hello;
    if (check_prefixes(parse, data, size) <= 0)
        return 0;
    tls_hello_parse(data, size, &hello);
    size_t at = 0, len, names = 0;
    MUST(memchr(hello.sni, '\0', sizeof hello.sni));
    MUST(hello.n_versions <= TLS_HELLO_VERSIONS_MAX);
    MUST(hello.n_ciphers > 0 && hello.n_ciphers <= TLS_HELLO_LIST_MAX);
    MUST(hello.n_extensions <= TLS_HELLO_LIST_MAX);
    MUST(hello.alpn_len <= sizeof hello.alpn);
    while (tls_hello_alpn(&hello, &at, &len)) {
        MUST(len > 0);
        names++;
    }
    MUST(at == hello.alpn_len && (names > 0) == (at > 0));
    return 0;
}
