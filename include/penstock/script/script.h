/* Policies in Lua: the one public face of the scripting layer. */
#ifndef PENSTOCK_SCRIPT_SCRIPT_H
#define PENSTOCK_SCRIPT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/proxy/policy.h"

struct loop;
struct shared;

struct script_options {
    const char *path;      /* the policy file */
    bool unsafe;           /* open every Lua library */
    bool jit;              /* compile policy code */
    uint64_t seed;         /* of ps.random(); 0: from the system */
    struct shared *shared; /* what ps.store and its kin share; outlives every VM that has it. NULL:
                              one of this VM alone */
    /* Its milliseconds are those since 1970 that os.time() tells; outlives the VM. NULL: the
     * system's clock. */
    const struct loop *clock;
};

/* Loads the policy file into a fresh VM that will run on `loop`'s thread. Returns 0 and its
 * policies (number 0 is what the file returned), or a negative error with file:line, message and
 * traceback in `why`. The VM is closed by out->ops->free. */
int script_load(const struct script_options *options, struct loop *loop, struct policy_set **out,
                char *why, size_t why_cap);

/* LuaJIT's version, for --version. */
const char *script_engine(void);

#endif
