/* `penstock test [OPTIONS] [SPEC…]`: which specs, and an exit status. What a spec can do is
 * docs/testing-policies.md. */
#include "penstock/cli/test_command.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "penstock/cli/options.h"
#include "penstock/script/script.h"
#include "penstock/script/test.h"

enum { PASSED, FAILED, WRONG };
enum { WHY_MAX = 8192 };

/* clang-format off */
static const char help[] =
    "usage: penstock test [OPTIONS] [SPEC…]\n"
    "Runs specs of policies: the policy is the one that serves live, the network and the clock are\n"
    "virtual. No socket is opened and no time passes.\n"
    "\n"
    "SPEC  a spec file, or a folder to search for *_spec.lua; without any, the folders spec and\n"
    "      examples of this directory\n"
    "\n"
    "  --filter PATTERN   only tests whose full name matches the Lua pattern\n"
    "  --output NAME      how to report: plainTerminal, utfTerminal, TAP, json, junit, gtest\n"
    "  --seed N           seed of ps.random() in policies, and of math.random() (default 1)\n"
    "  --help             show this\n"
    "\n"
    "A spec is one of busted (Debian: lua-busted) that says  local t = require \"penstock.test\".\n"
    "Exit status: 0 when every test passed, 1 when one failed or none could be run, 2 when the\n"
    "command line is wrong. More: docs/testing-policies.md.\n";
/* clang-format on */

/* The command line being read. */
struct words {
    char **argv;
    int argc, next;
    struct script_test_options options;
    char **specs; /* room for argc and 2 more */
    bool help;
};

static bool store_seed(struct words *w, const char *value)
{
    return units_parse_uint(value, 0, UINT64_MAX, &w->options.seed) == 0;
}

static bool store_filter(struct words *w, const char *value)
{
    w->options.filter = value;
    return true;
}

static bool store_output(struct words *w, const char *value)
{
    w->options.output = value;
    return *value != '\0';
}

static const struct option {
    const char *name;
    bool (*store)(struct words *w, const char *value);
    const char *good;
} options[] = {
    {"--seed", store_seed, "a whole number"},
    {"--filter", store_filter, "a Lua pattern"},
    {"--output", store_output, "plainTerminal, utfTerminal, TAP, json, junit or gtest"},
};

static int complain(const char *fmt, const char *a, const char *b)
{
    fputs("penstock test: ", stderr);
    fprintf(stderr, fmt, a, b);
    fputc('\n', stderr);
    return WRONG;
}

/* "--name value" or "--name=value". Returns 0 or WRONG. */
static int take_option(struct words *w, const char *word)
{
    size_t len = strcspn(word, "=");
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
        w->help = true;
        return 0;
    }
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        const struct option *o = &options[i];
        if (strlen(o->name) != len || strncmp(o->name, word, len) != 0)
            continue;
        const char *value = word[len] ? word + len + 1 : NULL;
        if (!value && w->next < w->argc)
            value = w->argv[w->next++];
        if (!value || !o->store(w, value))
            return complain("%s needs %s", o->name, o->good);
        return 0;
    }
    return complain("unknown option %s; they are --filter, --output, --seed and --help%s", word,
                    "");
}

static int take_spec(struct words *w, char *spec)
{
    if (access(spec, R_OK) != 0)
        return complain("%s: %s", spec, err_text(-errno));
    w->specs[w->options.n_specs++] = spec;
    return 0;
}

static int default_specs(struct words *w)
{
    static char spec[] = "spec", examples[] = "examples";
    if (access(spec, R_OK) == 0)
        w->specs[w->options.n_specs++] = spec;
    if (access(examples, R_OK) == 0)
        w->specs[w->options.n_specs++] = examples;
    if (!w->options.n_specs)
        return complain("there is no folder spec or examples here; name a spec: %s%s",
                        "penstock test guard_spec.lua", "");
    return 0;
}

static int read_words(struct words *w)
{
    bool ended = false;
    while (w->next < w->argc && !w->help) {
        char *word = w->argv[w->next++];
        int status = 0;
        if (!ended && !strcmp(word, "--"))
            ended = true;
        else if (!ended && word[0] == '-' && word[1])
            status = take_option(w, word);
        else
            status = take_spec(w, word);
        if (status)
            return status;
    }
    return w->help || w->options.n_specs ? 0 : default_specs(w);
}

/* Reads a file as `penstock run` does, but that it may return a policy instead. */
static int load_listening(struct options *o, struct script_options *script, struct config *config,
                          struct policy_set **out, char *why, size_t why_cap)
{
    struct script_sink sink = options_sink(o);
    script->sink = &sink;
    int err = script_load(script, out, why, why_cap);
    script->sink = NULL;
    if (err || !options_config(o)->n_listeners)
        return err;
    err = options_finish(o, config, why, why_cap);
    if (err)
        (*out)->ops->free(*out);
    return err;
}

static int load(struct script_options *script, struct config *config, struct policy_set **out,
                char *why, size_t why_cap)
{
    char name[] = "penstock", command[] = "run", *path = strdup(script->path);
    char *words[] = {name, command, path};
    struct options *o;
    if (!path)
        return -ENOMEM;
    int err = -EINVAL;
    if (options_read(3, words, &o, why, why_cap) == OPTIONS_RUN) {
        err = load_listening(o, script, config, out, why, why_cap);
        options_free(o);
    }
    free(path);
    if (err || config->n_listeners || *script_hooks(*out, 0))
        return err;
    /* Neither listener nor hook: only as a policy can it be right, or told what is wrong. */
    (*out)->ops->free(*out);
    script->operands = true;
    return script_load(script, out, why, why_cap);
}

static int run(const struct words *w)
{
    char why[WHY_MAX] = "";
    if (w->help) {
        fputs(help, stdout);
        return fflush(stdout) ? FAILED : PASSED;
    }
    int failed = script_test(&w->options, why, sizeof why);
    if (failed < 0)
        fprintf(stderr, "penstock test: %s\n", why);
    return failed ? FAILED : PASSED;
}

int test_command(int argc, char *argv[])
{
    struct words w = {.argv = argv, .argc = argc, .next = 1, .options = {.load = load, .seed = 1}};
    w.specs = calloc((size_t)argc + 2, sizeof *w.specs);
    if (!w.specs) {
        complain("%s%s", err_text(-ENOMEM), "");
        return FAILED;
    }
    w.options.specs = w.specs;
    int status = read_words(&w);
    if (!status)
        status = run(&w);
    free(w.specs);
    return status;
}
