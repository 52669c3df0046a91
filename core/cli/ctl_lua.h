/* `penstock ctl lua`: where its chunks come from, and the prompt. */
#ifndef PENSTOCK_CORE_CLI_CTL_LUA_H
#define PENSTOCK_CORE_CLI_CTL_LUA_H

#include <stdbool.h>

#include "ctl_http.h"

/* Standard input to its end, as a text that the caller frees. NULL with a message in `why`. */
char *ctl_lua_read(char *why, size_t why_cap);

/* Is there somebody to talk to, at a terminal? */
bool ctl_lua_at_terminal(void);

/* Reads chunks line by line at the terminal and has them run by `request`, which lacks its body,
 * until the end of input. False when penstock does not take them: a message was printed. */
bool ctl_lua_prompt(struct ctl_request *request);

#endif
