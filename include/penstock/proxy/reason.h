/* Why a connection ended: one list for the access log, metrics and the close hook. */
#ifndef PENSTOCK_PROXY_REASON_H
#define PENSTOCK_PROXY_REASON_H

/* X(NAME, word, what it means) */
#define CLOSE_REASONS(X)                                                                           \
    X(EOF, "eof", "both sides ended cleanly")                                                      \
    X(RESET, "reset", "one side aborted")                                                          \
    X(TLS, "tls", "TLS failed; detail says why")                                                   \
    X(TRUNCATED, "truncated", "TLS of one side was cut off without a goodbye")                     \
    X(TIMEOUT, "timeout", "a deadline passed; detail names it")                                    \
    X(REFUSED, "refused", "the last destination tried refused the connection")                     \
    X(UNREACHABLE, "unreachable", "the last destination tried cannot be reached")                  \
    X(DNS, "dns", "no destination's name could be resolved")                                       \
    X(DENIED, "denied", "a policy said no; detail is its word")                                    \
    X(PROXY, "proxy", "the PROXY header was missing, wrong or not allowed; detail tells how")      \
    X(LIMIT, "limit", "a limit was reached; detail names it")                                      \
    X(SCRIPT, "script", "a hook failed")                                                           \
    X(CLOSED, "closed", "a policy closed it")                                                      \
    X(KILLED, "killed", "an operator ended it")                                                    \
    X(SHUTDOWN, "shutdown", "the process ended before the connection did")                         \
    X(SYSTEM, "system", "a local failure: memory, descriptors; detail is the system's error")

enum close_reason {
#define X(name, word, text) REASON_##name,
    CLOSE_REASONS(X)
#undef X
        REASON_COUNT
};

/* The word of a reason; static storage. */
const char *reason_word(enum close_reason reason);
/* The reason that fits an error code of err.h or a negative errno. */
enum close_reason reason_from_err(int err);

#endif
