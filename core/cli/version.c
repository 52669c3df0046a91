/* --version. The one place outside of core/net that calls c-ares: to ask which one it is. */
#include <ares.h>
#include <uv.h>

#include "penstock/cli/help.h"
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
    fprintf(out,
            "penstock %s\n"
            "build: %s\n"
            "kernel features: %s\n"
            "libuv %s, %s, c-ares %s\n",
            PENSTOCK_VERSION, build, features, uv_version_string(), script_engine(),
            ares_version(NULL));
}
