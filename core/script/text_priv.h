/* Plain text replacement for string.gsub (text.c). */
#ifndef PENSTOCK_SCRIPT_TEXT_PRIV_H
#define PENSTOCK_SCRIPT_TEXT_PRIV_H

#include <lua.h>

/* lua_CFunction: replace(s, find, by [, n]) -> text, count. `find` is plain and not empty; at most
 * n replacements. Give it one upvalue, nil: its scratch buffer. */
int text_replace(lua_State *L);

#endif
