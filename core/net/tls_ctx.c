/* What contexts of both sides have in common: versions, ciphers, lists that users write. */
#include "penstock/net/tls_ctx.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>

#include "tls_ctx_priv.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"

/* AEAD with forward secrecy only. The order is the server's where the client shows no wish of its
 * own for ChaCha20: without AES in hardware that is much faster. */
#define CIPHERS_1_2                                                                                \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"     \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERS_1_3 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256:P-384"

enum {
    ALPN_NAME_MAX = 255,
};

const char *tls_last_error(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
    return text ? text : "unknown error";
}

/* ---- kTLS ---- */

#if defined(TCP_ULP) && !defined(OPENSSL_NO_KTLS)
static bool kernel_encrypts;

/* The module is there when it is no connection that it minds. */
static void probe_kernel(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    kernel_encrypts = fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") < 0 &&
                      errno == ENOTCONN;
    if (fd >= 0)
        close(fd);
}

bool tls_kernel_encrypts(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, probe_kernel);
    return kernel_encrypts;
}
#else
bool tls_kernel_encrypts(void)
{
    return false;
}
#endif

/* ---- SSLKEYLOGFILE ---- */

const char *tls_keylog_path(void)
{
    const char *path = secure_getenv("SSLKEYLOGFILE");
    return path && *path ? path : NULL;
}

/* One write for each line: lines of several threads stay whole. */
static void log_key(const SSL *ssl, const char *line)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s\n", line);
    int fd = open(tls_keylog_path(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    (void)ssl;
    if (fd < 0)
        return;
    if (n > 0 && (size_t)n < sizeof text && write(fd, text, (size_t)n) != n)
        log_debug("SSLKEYLOGFILE: a line could not be written");
    close(fd);
}

/* ---- of the process ---- */

static atomic_bool may_dump, has_keys, was_warned;

void tls_allow_core_dumps(void)
{
    atomic_store(&may_dump, true);
}

void tls_hide_memory(void)
{
#ifdef PR_SET_DUMPABLE
    if (atomic_load(&has_keys) && !atomic_load(&may_dump))
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

static void guard_secrets(void)
{
    atomic_store(&has_keys, true);
    tls_hide_memory();
    if (tls_keylog_path() && !atomic_exchange(&was_warned, true))
        log_warn(
            "SSLKEYLOGFILE: the secrets of ALL TLS sessions are written to \"%s\": who reads it "
            "reads them",
            tls_keylog_path());
}

SSL_CTX *tls_ctx_new(const SSL_METHOD *method, enum tls_version min)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx)
        return NULL;
    guard_secrets();
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (tls_keylog_path())
        SSL_CTX_set_keylog_callback(ctx, log_key);
    SSL_CTX_set_read_ahead(ctx, 1);
    bool good =
        SSL_CTX_set_min_proto_version(ctx, min == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION) == 1 &&
        SSL_CTX_set_cipher_list(ctx, CIPHERS_1_2) == 1 &&
        SSL_CTX_set_ciphersuites(ctx, CIPHERS_1_3) == 1 &&
        SSL_CTX_set1_groups_list(ctx, GROUPS) == 1;
    if (good)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

__attribute__((format(printf, 3, 4))) int tls_refuse(char *why, size_t why_cap, const char *fmt,
                                                     ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, why_cap, fmt, args);
    va_end(args);
    return -EINVAL;
}

/* "h2,http/1.1" as RFC 7301 has it, into `out` of TLS_ALPN_MAX bytes. The length, or -EINVAL. */
int tls_alpn_wire(const char *list, unsigned char *out, char *why, size_t why_cap)
{
    size_t used = 0;
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ",");
        if (len == 0 || len > ALPN_NAME_MAX)
            return tls_refuse(why, why_cap, "\"%s\" is no list of protocols; write h2,http/1.1",
                              list);
        if (used + 1 + len > TLS_ALPN_MAX)
            return tls_refuse(why, why_cap, "a list of protocols has at most %d bytes",
                              TLS_ALPN_MAX - 1);
        out[used++] = (unsigned char)len;
        memcpy(out + used, at, len);
        used += len;
        at += len;
        if (!*at)
            return (int)used;
    }
}

int tls_check_alpn(const char *list, char *why, size_t why_cap)
{
    unsigned char wire[TLS_ALPN_MAX];
    int n = tls_alpn_wire(list, wire, why, why_cap);
    return n < 0 ? n : 0;
}
