/* What the libraries over struct shared have in common: ps.store, ps.bucket, metrics. */
#ifndef PENSTOCK_SCRIPT_LIB_SHARED_H
#define PENSTOCK_SCRIPT_LIB_SHARED_H

#include "penstock/base/clock.h"
#include "penstock/proxy/shared.h"
#include "script_priv.h"

/* A key, which may hold zero bytes. */
struct lib_bytes {
    const char *bytes;
    size_t n;
};

/* Registers a type of userdata with these methods; the VM is their upvalue. Leaves the table of
 * methods on the stack. May raise. */
void lib_type(lua_State *L, struct vm *vm, const char *type, const luaL_Reg *methods);
/* The userdata of that type at 1, or an error that shows the right call. */
void *lib_self(lua_State *L, const char *type, const char *call);
/* The key at 2: a string, or a number as text. May raise. */
struct lib_bytes lib_key(lua_State *L, const char *call);
/* Pushes nil and a word; returns 2. */
int lib_fail(lua_State *L, const char *word);

/* Monotonic: the loop's clock, or while loading, when that may be another thread's, the system's;
 * a spec's in both cases. */
static inline uint64_t lib_now_ns(const struct vm *vm)
{
    if (vm->loading && vm->options && vm->options->clock)
        return vm->options->clock->now_ns;
    return vm->loading || !vm->loop ? clock_now_ns() : vm->loop->now_ns;
}
static inline uint64_t lib_now_ms(const struct vm *vm)
{
    return lib_now_ns(vm) / 1000000;
}

/* Each adds its primitives to the table `core` on the top. May raise. */
void lib_store_open(lua_State *L, struct vm *vm);
void lib_bucket_open(lua_State *L, struct vm *vm);
void lib_metrics_open(lua_State *L, struct vm *vm);
void lib_pool_open(lua_State *L, struct vm *vm);

#endif
