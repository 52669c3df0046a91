/* Policies and configuration in Lua: the one public face of the scripting layer. */
#ifndef PENSTOCK_SCRIPT_SCRIPT_H
#define PENSTOCK_SCRIPT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "penstock/proxy/policy.h"

struct loop;
struct shared;

/* A value that the script gives for what an option of the command line sets, too. */
struct script_setting {
    const char *option; /* long name without dashes: "max-per-ip" */
    const char *value;  /* as on the command line; "" for options that take none */
    const char *label;  /* how the script calls it, for messages: "ps.listen: limits.per_ip" */
};

/* One call of ps.listen{}. */
struct script_listener {
    const char *name; /* NULL: none given */
    const char *const *binds;
    size_t n_binds;
    const char *to; /* comma list; NULL: hooks choose */
    const struct script_setting *settings;
    size_t n_settings;
    size_t policy; /* number of its policy in the policy_set */
};

/* Who gets what the file configures; strings are valid during the call. Both return 0, or a
 * negative error with a message in `why` that says what is wrong and what would be right. */
struct script_sink {
    int (*listen)(void *arg, const struct script_listener *l, char *why, size_t why_cap);
    int (*option)(void *arg, const struct script_setting *s, char *why, size_t why_cap);
    void *arg;
};

/* Paths of the files that were read, each once. Zero it before use. */
struct script_files {
    char **paths;
    size_t n;
};
/* Adds a path; `files` may be NULL. Without memory it is left out. */
void script_files_add(struct script_files *files, const char *path);
void script_files_deinit(struct script_files *files);

struct script_options {
    const char *path;   /* the file; with a preset, what stands for it in messages */
    const char *preset; /* instead of a file: the ready policy "socks" or "connect"; NULL: none */
    const char *allow;  /* its destinations, "any" or with commas between them */
    const char *auth;   /* its file of users and passwords; NULL: none */
    bool config;        /* a configuration, which returns nothing; else a policy file */
    bool operands;      /* the command line has listeners, which get the policy that it returns */
    bool target;        /* one of them has a destination */
    bool
        accept_proxy; /* the command line takes PROXY headers, of listeners that say nothing else */
    bool unsafe;      /* open every Lua library */
    const char *modules; /* C modules that may be required all the same, "cjson,lpeg"; NULL: none */
    unsigned worker;     /* number of the worker it is for, from 0 */
    bool jit;            /* compile policy code */
    uint64_t seed;       /* of ps.random(); 0: from the system */
    struct shared *shared; /* what ps.store and its kin share; outlives every VM that has it. NULL:
                              one of this VM alone */
    /* Its milliseconds are those since 1970 that os.time() tells; outlives the VM. NULL: the
     * system's clock. */
    const struct loop *clock;
    const struct script_sink *sink; /* NULL: what it configures is only remembered as a text */
    struct script_files *files;     /* gets what was read, also when loading fails; may be NULL */
};

/* Loads the file into a fresh VM, on any thread: it touches no loop before it is activated. Returns
 * 0 and its policies (number 0 is what the file returned, the others are those of ps.listen{}), or
 * a negative error with file:line, message and traceback in `why`. out->ops->free closes the VM. */
int script_load(const struct script_options *options, struct policy_set **out, char *why,
                size_t why_cap);

/* What the file has configured, as text: two VMs with the same text have the same listeners. Valid
 * as long as the set. */
const char *script_configured(const struct policy_set *set);

/* The hooks of a policy and where they stand, "connect (guard.lua:3), close (guard.lua:9)"; "" when
 * it has none. Valid as long as the set. */
const char *script_hooks(const struct policy_set *set, size_t number);

/* Prints a line to `out` for each global that `files` read or assign although nobody knows it, and
 * returns how many there were; a negative error with a message in `why` when it cannot tell. `set`
 * is what was loaded from them. */
int script_check_globals(const struct policy_set *set, const struct script_files *files, FILE *out,
                         char *why, size_t why_cap);

/* LuaJIT's version, for --version. */
const char *script_engine(void);

#endif
