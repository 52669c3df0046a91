/* What pools are to those who read destinations. */
#ifndef PENSTOCK_SCRIPT_LIB_POOL_H
#define PENSTOCK_SCRIPT_LIB_POOL_H

#include "penstock/proxy/pool.h"
#include "script_priv.h"

/* The word for a pool of which no server may be used. */
#define LIB_POOL_UNAVAILABLE "unavailable"

/* The VM has come into force, or been replaced: its pools are told. */
void lib_pool_use(struct vm *vm, bool used);
/* Is there a pool at `index`? */
bool lib_pool_is(lua_State *L, int index);
/* The server at `index`, which is its userdata's; NULL when there is something else. Its
 * environment has `spec`, a destination table, and, for a proxy, `url`. */
struct pool_server *lib_pool_server(lua_State *L, int index);
/* Pushes the list of the servers of the pool at the absolute `index` that may be used, best first,
 * for the client whose hook runs; returns how many. May raise. */
size_t lib_pool_push_order(lua_State *L, int index);

#endif
