/* Close reasons: words, and how they follow from errors. */
#include "penstock/proxy/reason.h"

#include "penstock/base/err.h"

const char *reason_word(enum close_reason reason)
{
    static const char *const words[] = {
#define X(name, word, text) word,
        CLOSE_REASONS(X)
#undef X
    };
    return words[reason];
}

enum close_reason reason_from_err(int err)
{
    switch (err_from_errno(err)) {
    case PS_ETIMEOUT:
        return REASON_TIMEOUT;
    case PS_EREFUSED:
        return REASON_REFUSED;
    case PS_EUNREACHABLE:
        return REASON_UNREACHABLE;
    case PS_ERESET:
        return REASON_RESET;
    case PS_EDNS:
        return REASON_DNS;
    case PS_ETLS:
        return REASON_TLS;
    case PS_ETRUNCATED:
        return REASON_TRUNCATED;
    default:
        return REASON_SYSTEM;
    }
}
