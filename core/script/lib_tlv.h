/* Options of PROXY headers (version 2) as scripts see them: a table by type, whose known types have
 * names, too. */
#ifndef PENSTOCK_SCRIPT_LIB_TLV_H
#define PENSTOCK_SCRIPT_LIB_TLV_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

/* Registers the metatable. May raise. */
void lib_tlv_open(lua_State *L);

/* Pushes the table of `n` bytes of whole options. Of two of one type the first counts. May raise.
 */
void lib_tlv_push(lua_State *L, const uint8_t *tlvs, size_t n);

/* Pushes a table of strings by type, 0 to 255, for the table at `index`, whose keys may be names.
 * NULL, or what is wrong in it (a text on the stack; nothing else is pushed then). May raise when
 * memory is out. */
const char *lib_tlv_read(lua_State *L, int index);

#endif
