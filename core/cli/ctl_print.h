/* Answers of an admin as text for people: at most 80 columns. */
#ifndef PENSTOCK_CORE_CLI_CTL_PRINT_H
#define PENSTOCK_CORE_CLI_CTL_PRINT_H

#include <stdbool.h>
#include <stdio.h>

/* Each prints a whole answer, JSON that ends with a zero. 0; -EPROTO when it is not what was
 * asked for; or 1 when standard error has been told that it is not to be shown. */
int ctl_print_status(const char *json);
int ctl_print_version(const char *json);
int ctl_print_listeners(const char *json);
int ctl_print_conns(const char *json);
int ctl_print_listener_state(const char *json);
int ctl_print_rates(const char *json); /* connections, with bytes a second */
int ctl_print_killed(const char *json);
int ctl_print_reload(const char *json);
int ctl_print_upgrade(const char *json);
int ctl_print_level(const char *json);
int ctl_print_lua(const char *json); /* errors of chunks to standard error */
/* Has a chunk in such an answer failed? Does the first break off? */
bool ctl_lua_has_failed(const char *json);
bool ctl_lua_is_incomplete(const char *json);
/* Text as it is, line by line, but for what a terminal would obey. */
void ctl_print_lines(const char *text, FILE *to);
/* The "error" of an answer to standard error, behind "penstock ctl: "; or `otherwise`. */
void ctl_print_error(const char *json, const char *otherwise);

#endif
