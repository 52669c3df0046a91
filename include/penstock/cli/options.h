/* The command line: from argv to a config, or to a message that says what would be right.
 *
 * One table (core/cli/option_table.c) holds every option; parsing and --help come from it, and
 * scripts/check-options holds the man page and the completions to it. */
#ifndef PENSTOCK_CLI_OPTIONS_H
#define PENSTOCK_CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "penstock/proxy/config.h"

/* X(NAME, heading of --help) in the order of --help */
#define OPTION_GROUPS(X)                                                                           \
    X(POLICY, "Policy (hooks in Lua)")                                                             \
    X(PROXY, "Proxies (penstock socks, penstock connect)")                                         \
    X(LIMITS, "Limits (0 means none)")                                                             \
    X(TIMES, "Times (30, 500ms, 2m, 1h; 0 switches one off)")                                      \
    X(TLS, "TLS with clients (--tls-cert …) and with upstreams (--tls …)")                         \
    X(SOCKETS, "Sockets and names")                                                                \
    X(PROCESS, "Process")                                                                          \
    X(LOGS, "Logs")                                                                                \
    X(MEET, "About")

enum option_group {
#define X(name, heading) GROUP_##name,
    OPTION_GROUPS(X)
#undef X
        GROUP_COUNT
};

struct option_type;

struct option_spec {
    enum option_group group;
    char letter;                    /* short form; 0: none */
    const char *name;               /* long form, without the dashes */
    const char *arg;                /* what stands for the value in --help; NULL: takes none */
    const struct option_type *type; /* how the value is read; NULL: --help and --version */
    size_t offset;                  /* where it goes in struct draft (options_priv.h) */
    uint64_t min, max;              /* of numbers; max is the value that a flag sets */
    const char *const *words;       /* of words: the allowed ones, NULL-terminated */
    const char *help;
};

/* The whole table, ordered by group; *n gets its length. */
const struct option_spec *options_table(size_t *n);

/* The option of that long name, NULL without one. */
const struct option_spec *options_find(const char *name);

/* The long name that is most like `typed` (both without dashes), NULL when none is near. */
const char *options_nearest(const char *typed);

/* The command that somebody may have meant who typed this word, NULL when none is near. */
const char *options_nearest_command(const char *typed);

enum options_result {
    OPTIONS_RUN,     /* there is something to do */
    OPTIONS_HELP,    /* --help was asked for */
    OPTIONS_VERSION, /* --version was asked for */
    OPTIONS_NOTHING, /* no argument at all */
    OPTIONS_WRONG,   /* `why` says what is wrong and what would be right */
};

enum options_command {
    COMMAND_FORWARD, /* penstock [-p POLICY.lua] [LISTEN TARGET]…, socks and connect */
    COMMAND_RUN,     /* penstock run CONFIG.lua */
    COMMAND_CHECK,   /* penstock check CONFIG.lua, or with -p as above */
};

/* A command line that has been read, and what the script that it names adds to it. */
struct options;
struct script_options;
struct script_sink;

/* Reads argv (argv[0] is skipped, the array is not reordered). Prints nothing. *out, for
 * options_free(), is there for OPTIONS_RUN only.
 * --help and --version win over what stands after them, as GNU programs do. */
enum options_result options_read(int argc, char *const argv[], struct options **out, char *why,
                                 size_t why_cap);
void options_free(struct options *o);

enum options_command options_command(const struct options *o);
/* What is known so far; listeners of the script come with options_finish(). Valid until then. */
const struct config *options_config(const struct options *o);
/* Fills what script_load() must know of the command line; strings belong to `o`. False when there
 * is no script to load. */
bool options_script(const struct options *o, struct script_options *out);
/* The sink that adds what the script configures to `o`. */
struct script_sink options_sink(struct options *o);
/* Moves the whole configuration to *out, for config_deinit(); `o` is left without one. 0, or a
 * negative error with a message in `why`. */
int options_finish(struct options *o, struct config *out, char *why, size_t why_cap);

/* All of it, where no script is loaded. But for OPTIONS_RUN, *config is empty. */
enum options_result options_parse(int argc, char *const argv[], struct config *config, char *why,
                                  size_t why_cap);

/* CPUs this process may run on, at least 1. */
uint32_t options_auto_workers(void);

/* The format for standard error when none is asked for: the journal's when `journal_stream`
 * (systemd's JOURNAL_STREAM, "device:inode", may be NULL) names the file that `fd` is. */
enum log_format options_default_log_format(const char *journal_stream, int fd);

#endif
