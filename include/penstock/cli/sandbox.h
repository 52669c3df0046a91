/* Giving up system calls that a forwarder never makes, once it runs. */
#ifndef PENSTOCK_CLI_SANDBOX_H
#define PENSTOCK_CLI_SANDBOX_H

#include <stdbool.h>

/* Denies them (EPERM) in all threads of this process, in those to come, and in all programs that it
 * executes, for good; sets no_new_privs. docs/security.md lists what is denied. A process that has
 * inherited the same filter keeps that one. 0; 1 when built without libseccomp; or a negative
 * errno of the kernel's, and nothing has changed but perhaps no_new_privs. */
int sandbox_enter(void);

/* Has the process that executed this one entered it? It cannot be left. */
bool sandbox_is_inherited(void);

/* What it is made with: "seccomp (libseccomp 2.5.4)", or "none". Written to `buf` unless that is a
 * constant. */
#define SANDBOX_TEXT_MAX 64
const char *sandbox_describe(char buf[SANDBOX_TEXT_MAX]);

#endif
