/* Error codes and the words users see for them.
 *
 * Functions return 0 or a negative code. System errors travel as negative errno values (libuv uses
 * the same numbers on Unix); penstock's own have their own range. The words are a contract: scripts
 * compare them and the access log prints them (docs/lua-api.md). */
#ifndef PENSTOCK_BASE_ERR_H
#define PENSTOCK_BASE_ERR_H

/* X(NAME, code, word, text) */
#define PENSTOCK_ERRORS(X)                                                                         \
    X(TIMEOUT, -20001, "timeout", "timed out")                                                     \
    X(REFUSED, -20002, "refused", "connection refused")                                            \
    X(UNREACHABLE, -20003, "unreachable", "host or network unreachable")                           \
    X(RESET, -20004, "reset", "connection reset")                                                  \
    X(DNS, -20005, "dns", "name could not be resolved")                                            \
    X(TLS, -20006, "tls", "TLS failed")                                                            \
    X(EOF, -20007, "eof", "end of stream")                                                         \
    X(TOO_LONG, -20008, "too_long", "longer than allowed")                                         \
    X(DENIED, -20009, "denied", "denied")                                                          \
    X(LIMIT, -20010, "limit", "limit reached")                                                     \
    X(CLOSED, -20011, "closed", "closed")                                                          \
    X(SYSTEM, -20012, "system", "system error")                                                    \
    X(TRUNCATED, -20013, "truncated", "cut off: TLS ended without a goodbye")

enum penstock_err {
#define X(name, code, word, text) PS_E##name = (code),
    PENSTOCK_ERRORS(X)
#undef X
};

/* The fixed word for `err` ("refused", "timeout", …); any system error maps to the word that fits
 * it best
 * ("system" when none does). Never NULL; static storage. */
const char *err_word(int err);

/* A sentence for people: penstock's own text, or strerror() of a negative errno. Thread-safe; never
 * NULL. */
const char *err_text(int err);

/* The penstock code that stands for a negative errno from connect(), send() or recv():
 * -ECONNREFUSED is PS_EREFUSED, -ETIMEDOUT is PS_ETIMEOUT, …; PS_ESYSTEM when none fits. penstock's
 * own codes pass through. */
int err_from_errno(int err);

/* Our own invariants, always compiled in; never for what a peer, the kernel or a script can cause.
 */
#define PENSTOCK_REQUIRE(cond)                                                                     \
    do {                                                                                           \
        if (!(cond))                                                                               \
            err_require_failed(#cond, __FILE__, __LINE__);                                         \
    } while (0)
_Noreturn void err_require_failed(const char *cond, const char *file, int line);

#endif
