/* --version. The one place outside of core/net that calls c-ares and OpenSSL: to ask which they
 * are. */
#include <ares.h>
#include <openssl/crypto.h>
#include <uv.h>

#include "penstock/cli/help.h"
#include "penstock/cli/sandbox.h"
#include "penstock/net/tls_ctx.h"
#include "penstock/script/script.h"

#ifndef PENSTOCK_VERSION
#define PENSTOCK_VERSION "unknown"
#endif

static const char build[] =
#ifdef PENSTOCK_BUILD_TYPE
    PENSTOCK_BUILD_TYPE
#elif defined __OPTIMIZE__
    "optimized"
#else
    "not optimized"
#endif
#ifdef __SANITIZE_ADDRESS__
    ", AddressSanitizer"
#endif
#ifdef __SANITIZE_THREAD__
    ", ThreadSanitizer"
#endif
    ;

/* What of the kernel's is compiled in (core/net chooses by the same macros). */
static const char features[] =
#ifdef __linux__
    "splice, epoll";
#else
    "none (portable paths)";
#endif

void help_print_version(FILE *out)
{
    char sandbox[SANDBOX_TEXT_MAX];
    fprintf(out,
            "penstock %s\n"
            "build: %s\n"
            "kernel features: %s\n"
            "sandbox: %s\n"
            "TLS in the kernel: %s\n"
            "libuv %s, %s, c-ares %s, %s\n",
            PENSTOCK_VERSION, build, features, sandbox_describe(sandbox),
            tls_kernel_encrypts() ? "offered" : "not offered (see modprobe tls)",
            uv_version_string(), script_engine(), ares_version(NULL),
            OpenSSL_version(OPENSSL_VERSION));
}
