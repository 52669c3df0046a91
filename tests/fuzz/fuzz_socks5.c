/* Answers of a SOCKS5 proxy: decided once and for all. The first byte chooses which. */
#include "fuzz_proto.h"

#include "penstock/proto/socks5.h"

static ssize_t method_open(const void *bytes, size_t n)
{
    enum socks5_method method = SOCKS5_NONE;
    ssize_t result = socks5_parse_method(bytes, n, false, &method);
    MUST(result <= 0 || method != SOCKS5_LOGIN);
    return result;
}

static ssize_t method_login(const void *bytes, size_t n)
{
    enum socks5_method method;
    return socks5_parse_method(bytes, n, true, &method);
}

static ssize_t login(const void *bytes, size_t n)
{
    bool ok;
    return socks5_parse_login(bytes, n, &ok);
}

static ssize_t reply(const void *bytes, size_t n)
{
    uint8_t code = 0;
    ssize_t result = socks5_parse_reply(bytes, n, &code);
    MUST(result <= SOCKS5_ANSWER_MAX);
    if (result > 0 && code)
        MUST(socks5_reply_err(code) < 0 && socks5_reply_text(code)[0]);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static parse_fn *const parsers[] = {method_open, method_login, login, reply};
    if (size)
        check_prefixes(parsers[data[0] % 4], data + 1, size - 1);
    return 0;
}
