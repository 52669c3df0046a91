/* Answers of an admin as text for people: at most 80 columns. */
#ifndef PENSTOCK_CORE_CLI_CTL_PRINT_H
#define PENSTOCK_CORE_CLI_CTL_PRINT_H

/* Each prints a whole answer, JSON that ends with a zero. 0; or -EPROTO when it is not what was
 * asked for. */
int ctl_print_status(const char *json);
int ctl_print_version(const char *json);
int ctl_print_listeners(const char *json);
int ctl_print_conns(const char *json);
int ctl_print_killed(const char *json);
int ctl_print_reload(const char *json);
int ctl_print_level(const char *json);
/* The "error" of an answer to standard error, behind "penstock ctl: "; or `otherwise`. */
void ctl_print_error(const char *json, const char *otherwise);

#endif
