/* Commands and options of `penstock ctl`, and how they are read. scripts/check-control holds the
 * tables and the documents together. */
#include "ctl_command_line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_lua.h"
#include "ctl_print.h"
#include "ctl_shared.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "suggest.h"

#define DEFAULT_ADMIN "unix:/run/penstock/admin.sock"

/* clang-format off */
static const char help[] =
    "usage: penstock ctl [OPTIONS] COMMAND\n"
    "Asks a penstock that runs with --admin, and tells it what to do.\n"
    "\n"
    "  health             does it serve? status 0 when it does, 1 while it drains\n"
    "  version            which version, and which configuration is in force\n"
    "  listeners          listeners with their connections and limits\n"
    "  conns [FILTER…]    connections; --after ID for those behind the first 1000\n"
    "  kill ID            reset a connection\n"
    "  kill FILTER…|--all reset those that fit\n"
    "  drain LISTENER     accept no more there; --over TIME: end the connections it\n"
    "                     has within TIME (500ms, 5m), at random moments\n"
    "  up LISTENER        accept again\n"
    "  reload             load policy, configuration and certificates again, and wait\n"
    "                     for the result: status 1 and the message when the new one\n"
    "                     does not load\n"
    "  upgrade            start the program again, maybe a newer one, to take over\n"
    "                     the sockets, and wait for the result: status 1 and the\n"
    "                     message when it does not come up; else this one drains\n"
    "  pools              pools with the state and weight of their servers\n"
    "  server POOL SERVER drain|up|weight N\n"
    "                     no new connections, or some again, or more or fewer;\n"
    "                     drain --over TIME as for a listener\n"
    "  stores, buckets    what policies share, with its limits\n"
    "  store STORE keys|get KEY|set KEY VALUE|delete KEY\n"
    "                     keys: --prefix TEXT, --limit N, --after NEXT; set:\n"
    "                     --ttl TIME, --type string, number or boolean; -- before\n"
    "                     words that begin with -\n"
    "  stats              what was counted since the start\n"
    "  config             every option as it is in force\n"
    "  lua [CHUNK]        run Lua in a worker, where --admin-lua allows it: CHUNK,\n"
    "                     standard input, or line by line at a terminal\n"
    "  log LEVEL          log error, warn, info or debug, until the next reload\n"
    "  metrics            in Prometheus' text format\n"
    "\n"
    "Filters, all of which must fit:\n"
    "  --listener NAME    of this listener\n"
    "  --client NET,…     from these networks: 10.0.0.0/8, 192.0.2.1, 2001:db8::/32,\n"
    "                     unix\n"
    "  --tag KEY[=VALUE]  with this tag\n"
    "  --min-age TIME     accepted at least so long ago: 30, 500ms, 2m, 1h\n"
    "  --min-rate SIZE    moves at least so many bytes a second, both directions\n"
    "                     together: 64K, 1M\n"
    "\n"
    "  --admin ADDR       where it answers: unix:/path or 127.0.0.1:9180\n"
    "                     (default: $PENSTOCK_ADMIN, else\n"
    "                     " DEFAULT_ADMIN ")\n"
    "  --token-file FILE  holds the token, where one is asked for\n"
    "  --json             the answer as it comes: docs/admin.md explains it\n"
    "  --watch[=TIME]     again and again, every 2 seconds, until interrupted\n"
    "  --limit N          conns: at most so many (default 1000; with --watch as many\n"
    "                     as the terminal has room for)\n"
    "  --rates            conns: bytes a second, measured for a second\n"
    "  --worker N|all     lua: in this worker (default 0)\n"
    "  --timeout TIME     lua: so long it may wait (default 10 s, at most 60 s)\n"
    "  --max-wait TIME    for the whole answer (default 10 s; reload, upgrade 5 m)\n"
    "  --help             show this\n"
    "\n"
    "Examples:\n"
    "  penstock ctl conns --listener db --min-age 1h\n"
    "  penstock ctl kill --client 192.0.2.0/24\n"
    "  penstock ctl --watch listeners\n"
    "  penstock ctl lua 'ps.store(\"seen\"):get(\"192.0.2.1\")'\n"
    "\n"
    "Exit status: 0 when it was done, 1 when penstock cannot be reached or says no\n"
    "(kill: when nothing was killed; lua: when the chunk fails), 2 when the command\n"
    "line is wrong.\n";
/* clang-format on */

static const struct ctl_command commands[] = {
    {"health", "GET", "/v1/health", ctl_print_status, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"version", "GET", "/v1/version", ctl_print_version, CTL_TAKES_JSON},
    {"listeners", "GET", "/v1/listeners", ctl_print_listeners, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"conns", "GET", "/v1/connections", ctl_print_conns,
     CTL_TAKES_FILTERS | CTL_TAKES_PAGES | CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"kill", "POST", "/v1/connections", ctl_print_killed,
     CTL_TAKES_FILTERS | CTL_TAKES_ALL | CTL_TAKES_JSON | CTL_TAKES_OPERAND},
    {"drain", "POST", "/v1/listeners/", ctl_print_listener_state,
     CTL_TAKES_LISTENER | CTL_TAKES_OPERAND | CTL_TAKES_JSON},
    {"up", "POST", "/v1/listeners/", ctl_print_listener_state,
     CTL_TAKES_LISTENER | CTL_TAKES_OPERAND | CTL_TAKES_JSON},
    {"reload", "POST", "/v1/reload", ctl_print_reload, CTL_TAKES_JSON},
    {"upgrade", "POST", "/v1/upgrade", ctl_print_upgrade, CTL_TAKES_JSON},
    {"pools", "GET", "/v1/pools", ctl_print_pools, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"server", NULL, NULL, NULL, CTL_TAKES_SERVER | CTL_TAKES_JSON},
    {"stores", "GET", "/v1/stores", ctl_print_stores, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"store", NULL, NULL, NULL, CTL_TAKES_STORE | CTL_TAKES_JSON},
    {"buckets", "GET", "/v1/buckets", ctl_print_buckets, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"stats", "GET", "/v1/stats", ctl_print_stats, CTL_TAKES_WATCH | CTL_TAKES_JSON},
    {"config", "GET", "/v1/config", ctl_print_config, CTL_TAKES_JSON},
    {"log", "PUT", "/v1/log-level", ctl_print_level, CTL_TAKES_JSON | CTL_TAKES_OPERAND},
    {"lua", "POST", "/v1/lua", ctl_print_lua, CTL_TAKES_JSON | CTL_TAKES_OPERAND | CTL_TAKES_LUA},
    {"metrics", "GET", "/metrics", NULL, 0},
};

int ctl_complain(const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(stderr, "penstock ctl: %s\n", text);
    return CTL_WRONG;
}

/* --- reading
 * ------------------------------------------------------------------------------------ */

static const struct option {
    const char *name;
    size_t offset;    /* of the value, or of a flag */
    const char *good; /* what its value is; NULL: a flag */
    unsigned takes;   /* which commands have it; 0: all */
} options[] = {
    {"--admin", offsetof(struct ctl, admin), "unix:/path or 127.0.0.1:9180", 0},
    {"--token-file", offsetof(struct ctl, token_file), "a file", 0},
    {"--listener", offsetof(struct ctl, listener), "the name of a listener", CTL_TAKES_FILTERS},
    {"--client", offsetof(struct ctl, client), "networks: 10.0.0.0/8,192.0.2.1", CTL_TAKES_FILTERS},
    {"--tag", offsetof(struct ctl, tag), "KEY or KEY=VALUE", CTL_TAKES_FILTERS},
    {"--min-age", offsetof(struct ctl, min_age), "a time: 30, 500ms, 2m or 1h", CTL_TAKES_FILTERS},
    {"--min-rate", offsetof(struct ctl, min_rate), "bytes a second: 1000, 64K or 1M",
     CTL_TAKES_FILTERS},
    {"--rates", offsetof(struct ctl, rates), NULL, CTL_TAKES_PAGES},
    {"--after", offsetof(struct ctl, after), "where the page before ended",
     CTL_TAKES_PAGES | CTL_TAKES_STORE},
    {"--limit", offsetof(struct ctl, limit), "1 to 1000", CTL_TAKES_PAGES | CTL_TAKES_STORE},
    {"--worker", offsetof(struct ctl, worker), "the number of a worker, or all", CTL_TAKES_LUA},
    {"--timeout", offsetof(struct ctl, timeout), "a time up to 60 s: 10, 500ms, 1m", CTL_TAKES_LUA},
    {"--max-wait", offsetof(struct ctl, max_wait), "a time: 30, 500ms, 2m or 1h", 0},
    {"--over", offsetof(struct ctl, over), "a time: 30, 500ms, 5m or 1h",
     CTL_TAKES_SERVER | CTL_TAKES_LISTENER},
    {"--prefix", offsetof(struct ctl, prefix), "the beginning of keys", CTL_TAKES_STORE},
    {"--type", offsetof(struct ctl, type), "string, number or boolean", CTL_TAKES_STORE},
    {"--ttl", offsetof(struct ctl, ttl), "a time: 30, 500ms, 5m or 1h", CTL_TAKES_STORE},
    {"--json", offsetof(struct ctl, json), NULL, CTL_TAKES_JSON},
    {"--all", offsetof(struct ctl, all), NULL, CTL_TAKES_ALL},
    {"--watch", offsetof(struct ctl, watch), NULL, CTL_TAKES_WATCH},
    {"--help", offsetof(struct ctl, help), NULL, 0},
};

static const struct option *find_option(const char *word, size_t len)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (strlen(options[i].name) == len && strncmp(options[i].name, word, len) == 0)
            return &options[i];
    return NULL;
}

static int refuse_option(const char *word, size_t len)
{
    const char *names[sizeof options / sizeof *options];
    char typed[48];
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        names[i] = options[i].name;
    snprintf(typed, sizeof typed, "%.*s", (int)len, word);
    const char *near = suggest_word(typed, names, sizeof options / sizeof *options);
    if (near)
        return ctl_complain("unknown option %s; did you mean %s?", word, near);
    return ctl_complain("unknown option %s; penstock ctl --help lists them", word);
}

/* Where the value of an option is kept. */
static const char **value_of(struct ctl *c, const struct option *o)
{
    return (const char **)((char *)c + o->offset);
}

static int take_flag(struct ctl *c, const struct option *o, const char *value)
{
    *(bool *)((char *)c + o->offset) = true;
    if (!value)
        return CTL_DONE;
    if (strcmp(o->name, "--watch") != 0)
        return ctl_complain("%s takes no value", o->name);
    if (units_parse_time_ms(value, &c->watch_ms) || c->watch_ms < 100)
        return ctl_complain("--watch is a time of 100ms at least: --watch=5");
    return CTL_DONE;
}

/* "--name value" or "--name=value"; *next moves on when the value is the next word. */
static int take_option(struct ctl *c, int argc, char *argv[], int *next)
{
    const char *word = argv[*next - 1];
    size_t len = strcspn(word, "=");
    const struct option *o = find_option(word, len);
    const char *value = word[len] ? word + len + 1 : NULL;
    if (!strcmp(word, "-h"))
        o = find_option("--help", 6);
    if (!o)
        return refuse_option(word, len);
    if (!o->good)
        return take_flag(c, o, value);
    if (!value && *next < argc)
        value = argv[(*next)++];
    if (!value || !*value)
        return ctl_complain("%s needs %s", o->name, o->good);
    *value_of(c, o) = value;
    return CTL_DONE;
}

static int read_words(struct ctl *c, int argc, char *argv[])
{
    bool literal = false; /* behind "--" there are no options */
    for (int next = 1; next < argc;) {
        const char *word = argv[next++];
        int status = CTL_DONE;
        if (!literal && strcmp(word, "--") == 0)
            literal = true;
        else if (!literal && word[0] == '-' && word[1])
            status = take_option(c, argc, argv, &next);
        else if (c->n_words == sizeof c->words / sizeof *c->words)
            return ctl_complain("\"%s\" is one word too many; see penstock ctl --help", word);
        else
            c->words[c->n_words++] = word;
        if (status)
            return status;
    }
    return CTL_DONE;
}

static const struct ctl_command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int refuse_command(const char *word)
{
    const char *names[sizeof commands / sizeof *commands];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        names[i] = commands[i].name;
    const char *near = suggest_word(word, names, sizeof commands / sizeof *commands);
    if (near)
        return ctl_complain("unknown command \"%s\"; did you mean \"%s\"?", word, near);
    return ctl_complain("unknown command \"%s\"; penstock ctl --help lists them", word);
}

static bool is_given(struct ctl *c, const struct option *o)
{
    return o->good ? *value_of(c, o) != NULL : *(bool *)((char *)c + o->offset);
}

static int check_options(struct ctl *c, const struct ctl_command *command)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].takes && !(options[i].takes & command->takes) && is_given(c, &options[i]))
            return ctl_complain("%s has no %s; see penstock ctl --help", command->name,
                                options[i].name);
    return CTL_DONE;
}

static int check_times(struct ctl *c)
{
    if (c->max_wait && (units_parse_time_ms(c->max_wait, &c->max_wait_ms) || !c->max_wait_ms))
        return ctl_complain("--max-wait is a time of 1ms at least: --max-wait 30");
    return CTL_DONE;
}

static bool has_filter(const struct ctl *c)
{
    return c->listener || c->client || c->tag || c->min_age || c->min_rate;
}

static int check_operand(const struct ctl *c, const struct ctl_command *command)
{
    bool operand = c->n_words == 2;
    if (command->takes & (CTL_TAKES_SERVER | CTL_TAKES_STORE))
        return CTL_DONE; /* their words are read by ctl_shared.c */
    bool kill = strcmp(command->name, "kill") == 0;
    if (c->n_words > 2 || (operand && !(command->takes & CTL_TAKES_OPERAND)))
        return ctl_complain("\"%s\" is one word too many; see penstock ctl --help",
                            c->words[command->takes & CTL_TAKES_OPERAND ? 2 : 1]);
    if (kill && operand == (has_filter(c) || c->all))
        return ctl_complain("kill takes the id of a connection, or filters, or --all: penstock ctl "
                            "kill --client 192.0.2.0/24");
    uint64_t id;
    if (kill && operand && units_parse_uint(c->words[1], 1, UINT64_MAX, &id))
        return ctl_complain("\"%s\" is no id of a connection; penstock ctl conns shows them",
                            c->words[1]);
    if (!kill && (command->takes & (CTL_TAKES_OPERAND | CTL_TAKES_LUA)) == CTL_TAKES_OPERAND &&
        !operand)
        return ctl_complain(
            command->takes & CTL_TAKES_LISTENER
                ? "%s needs the name of a listener; penstock ctl listeners shows them"
                : "%s needs a level: error, warn, info or debug",
            command->name);
    if (strcmp(command->name, "up") == 0 && c->over)
        return ctl_complain("up has no --over; see penstock ctl --help");
    return CTL_DONE;
}

/* First line of the file. */
static int read_token(struct ctl *c)
{
    if (!c->token_file)
        return CTL_DONE;
    FILE *file = fopen(c->token_file, "re");
    if (!file || !fgets(c->token, sizeof c->token, file)) {
        ctl_complain("cannot read a token from %s: %s", c->token_file,
                     file ? "it is empty" : err_text(-errno));
        if (file)
            fclose(file);
        return CTL_FAILED;
    }
    fclose(file);
    c->token[strcspn(c->token, "\r\n")] = '\0';
    return CTL_DONE;
}

static int check(struct ctl *c, const struct ctl_command *command)
{
    int status = check_options(c, command);
    if (!status)
        status = check_times(c);
    if (!status)
        status = check_operand(c, command);
    return status ? status : read_token(c);
}

static void find_admin(struct ctl *c)
{
    if (!c->admin)
        c->admin = getenv("PENSTOCK_ADMIN");
    if (!c->admin || !*c->admin)
        c->admin = DEFAULT_ADMIN;
}

int ctl_read(struct ctl *c, int argc, char *argv[], const struct ctl_command **command)
{
    *command = NULL;
    int status = read_words(c, argc, argv);
    if (status)
        return status;
    if (c->help || (c->n_words && strcmp(c->words[0], "help") == 0)) {
        fputs(help, stdout);
        return fflush(stdout) ? CTL_FAILED : CTL_DONE;
    }
    if (!c->n_words) {
        fputs(help, stderr);
        return CTL_WRONG;
    }
    *command = find_command(c->words[0]);
    if (!*command)
        return refuse_command(c->words[0]);
    find_admin(c);
    return check(c, *command);
}
