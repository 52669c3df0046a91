/* TLS for scripts (lib_tls.c). */
#ifndef PENSTOCK_SCRIPT_LIB_TLS_H
#define PENSTOCK_SCRIPT_LIB_TLS_H

#include "penstock/net/tls_ctx.h"
#include "stream_priv.h"

struct tls_cert;

/* Adds its primitives to the table on the top. May raise. */
void lib_tls_open(lua_State *L, struct vm *vm);
/* Frees the contexts that the VM keeps. */
void lib_tls_deinit(struct vm *vm);

/* What the value at `index` (true or a table; 0: nothing is said) asks for TLS with an upstream:
 * the context, kept by the VM, and the name that its certificate must be for, NULL without, valid
 * as long as what was pushed stays on the stack. 0, or -EINVAL with a message in `why`. Pushes. May
 * raise when out of memory. */
int lib_tls_client(lua_State *L, int index, struct tls_client **client, const char **name,
                   char *why, size_t why_cap);
/* The certificate at `index` that ps.certificate made; NULL when there is something else. */
struct tls_cert *lib_tls_cert_at(lua_State *L, int index);
/* Pushes what an open TLS stream has agreed on; false, and nothing is pushed, when it is none. */
bool lib_tls_push_info(lua_State *L, const struct stream *s);
/* Pushes what a client of a virtual network, where no TLS is spoken, has where its listener ends
 * TLS: no name, no protocol, no certificate. May raise. */
void lib_tls_push_virtual(lua_State *L);
/* READ_TLS: goes on with the handshake of the stream's source. As try_read() in lib_stream.c. */
int lib_tls_shake(lua_State *L, struct script_stream *s);

#endif
