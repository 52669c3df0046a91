/* The command line of `penstock ctl`: which commands and options there are, and what was given. */
#ifndef PENSTOCK_CORE_CLI_CTL_COMMAND_LINE_H
#define PENSTOCK_CORE_CLI_CTL_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ctl_http.h"

/* Exit statuses. */
enum { CTL_DONE, CTL_FAILED, CTL_WRONG };

/* The command line, read. */
struct ctl {
    const char *admin, *token_file;
    const char *listener, *client, *tag, *min_age, *min_rate, *after, *limit, *max_wait;
    const char *over, *prefix, *type, *ttl, *worker, *timeout;
    bool json, watch, all, rates, help;
    bool prompt;                    /* lua: line by line at the terminal */
    char *chunk;                    /* of standard input; NULL without */
    bool screen;                    /* --watch writes over what it wrote before */
    char rows[16];                  /* that fit on it below a heading, as text */
    uint64_t watch_ms, max_wait_ms; /* the latter 0: what the command takes */
    const char *words[6];           /* command and operands; a sixth is one too many */
    size_t n_words;
    char token[CTL_TOKEN_MAX];
};

/* What a command takes; bits. */
enum ctl_takes {
    CTL_TAKES_FILTERS = 1,
    CTL_TAKES_PAGES = 2,
    CTL_TAKES_ALL = 4,
    CTL_TAKES_WATCH = 8,
    CTL_TAKES_JSON = 16,
    CTL_TAKES_OPERAND = 32,
    CTL_TAKES_LISTENER = 64, /* the operand names one */
    CTL_TAKES_SERVER = 128,
    CTL_TAKES_STORE = 256,
    CTL_TAKES_LUA = 512
};

struct ctl_command {
    const char *name;
    const char *method, *path;
    int (*print)(const char *json); /* NULL: the answer is text */
    unsigned takes;                 /* bits of enum ctl_takes */
};

/* Reads the command line into `c`, {0} at first. CTL_DONE with the command, or with NULL when the
 * help was asked for and has been printed; else the exit status, and a message was printed. */
int ctl_read(struct ctl *c, int argc, char *argv[], const struct ctl_command **command);

/* "penstock ctl: …" on standard error. Returns CTL_WRONG. */
int ctl_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
