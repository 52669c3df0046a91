/* `penstock ctl [OPTIONS] COMMAND`: which request it is, and what its answer means. */
#include "penstock/cli/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl_http.h"
#include "ctl_lua.h"
#include "ctl_path.h"
#include "ctl_print.h"
#include "ctl_shared.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"
#include "suggest.h"

enum { DONE, FAILED, WRONG };
enum { PATIENCE_MS = 10000, CHANGE_PATIENCE_MS = 300000, WATCH_MS = 2000 };
enum { PAGE_MAX = 1000, SCREEN_EXTRA_ROWS = 3, SCREEN_BYTES = 128 << 10 };

enum { LUA_TIMEOUT_MS = 10000, LUA_TIMEOUT_MAX_MS = 60000 };

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

enum takes {
    FILTERS = 1,
    PAGES = 2,
    ALL = 4,
    WATCH = 8,
    JSON = 16,
    OPERAND = 32,
    LISTENER = 64, /* the operand names one */
    SERVER = 256,
    STORE = 512,
    LUA = 1024
};

struct command {
    const char *name;
    const char *method, *path;
    int (*print)(const char *json); /* NULL: the answer is text */
    unsigned takes;                 /* bits of enum takes */
};

static const struct command commands[] = {
    {"health", "GET", "/v1/health", ctl_print_status, WATCH | JSON},
    {"version", "GET", "/v1/version", ctl_print_version, JSON},
    {"listeners", "GET", "/v1/listeners", ctl_print_listeners, WATCH | JSON},
    {"conns", "GET", "/v1/connections", ctl_print_conns, FILTERS | PAGES | WATCH | JSON},
    {"kill", "POST", "/v1/connections", ctl_print_killed, FILTERS | ALL | JSON | OPERAND},
    {"drain", "POST", "/v1/listeners/", ctl_print_listener_state, LISTENER | OPERAND | JSON},
    {"up", "POST", "/v1/listeners/", ctl_print_listener_state, LISTENER | OPERAND | JSON},
    {"reload", "POST", "/v1/reload", ctl_print_reload, JSON},
    {"upgrade", "POST", "/v1/upgrade", ctl_print_upgrade, JSON},
    {"pools", "GET", "/v1/pools", ctl_print_pools, WATCH | JSON},
    {"server", NULL, NULL, NULL, SERVER | JSON},
    {"stores", "GET", "/v1/stores", ctl_print_stores, WATCH | JSON},
    {"store", NULL, NULL, NULL, STORE | JSON},
    {"buckets", "GET", "/v1/buckets", ctl_print_buckets, WATCH | JSON},
    {"stats", "GET", "/v1/stats", ctl_print_stats, WATCH | JSON},
    {"config", "GET", "/v1/config", ctl_print_config, JSON},
    {"log", "PUT", "/v1/log-level", ctl_print_level, JSON | OPERAND},
    {"lua", "POST", "/v1/lua", ctl_print_lua, JSON | OPERAND | LUA},
    {"metrics", "GET", "/metrics", NULL, 0},
};

__attribute__((format(printf, 1, 2))) static int complain(const char *fmt, ...)
{
    va_list args;
    fputs("penstock ctl: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    return WRONG;
}

/* --- the command line
 * ------------------------------------------------------------------------------------ */

static const struct option {
    const char *name;
    size_t offset;    /* of the value, or of a flag */
    const char *good; /* what its value is; NULL: a flag */
    unsigned takes;   /* which commands have it; 0: all */
} options[] = {
    {"--admin", offsetof(struct ctl, admin), "unix:/path or 127.0.0.1:9180", 0},
    {"--token-file", offsetof(struct ctl, token_file), "a file", 0},
    {"--listener", offsetof(struct ctl, listener), "the name of a listener", FILTERS},
    {"--client", offsetof(struct ctl, client), "networks: 10.0.0.0/8,192.0.2.1", FILTERS},
    {"--tag", offsetof(struct ctl, tag), "KEY or KEY=VALUE", FILTERS},
    {"--min-age", offsetof(struct ctl, min_age), "a time: 30, 500ms, 2m or 1h", FILTERS},
    {"--min-rate", offsetof(struct ctl, min_rate), "bytes a second: 1000, 64K or 1M", FILTERS},
    {"--rates", offsetof(struct ctl, rates), NULL, PAGES},
    {"--after", offsetof(struct ctl, after), "where the page before ended", PAGES | STORE},
    {"--limit", offsetof(struct ctl, limit), "1 to 1000", PAGES | STORE},
    {"--worker", offsetof(struct ctl, worker), "the number of a worker, or all", LUA},
    {"--timeout", offsetof(struct ctl, timeout), "a time up to 60 s: 10, 500ms, 1m", LUA},
    {"--max-wait", offsetof(struct ctl, max_wait), "a time: 30, 500ms, 2m or 1h", 0},
    {"--over", offsetof(struct ctl, over), "a time: 30, 500ms, 5m or 1h", SERVER | LISTENER},
    {"--prefix", offsetof(struct ctl, prefix), "the beginning of keys", STORE},
    {"--type", offsetof(struct ctl, type), "string, number or boolean", STORE},
    {"--ttl", offsetof(struct ctl, ttl), "a time: 30, 500ms, 5m or 1h", STORE},
    {"--json", offsetof(struct ctl, json), NULL, JSON},
    {"--all", offsetof(struct ctl, all), NULL, ALL},
    {"--watch", offsetof(struct ctl, watch), NULL, WATCH},
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
        return complain("unknown option %s; did you mean %s?", word, near);
    return complain("unknown option %s; penstock ctl --help lists them", word);
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
        return DONE;
    if (strcmp(o->name, "--watch") != 0)
        return complain("%s takes no value", o->name);
    if (units_parse_time_ms(value, &c->watch_ms) || c->watch_ms < 100)
        return complain("--watch is a time of 100ms at least: --watch=5");
    return DONE;
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
        return complain("%s needs %s", o->name, o->good);
    *value_of(c, o) = value;
    return DONE;
}

static int read_words(struct ctl *c, int argc, char *argv[])
{
    bool literal = false; /* behind "--" there are no options */
    for (int next = 1; next < argc;) {
        const char *word = argv[next++];
        int status = DONE;
        if (!literal && strcmp(word, "--") == 0)
            literal = true;
        else if (!literal && word[0] == '-' && word[1])
            status = take_option(c, argc, argv, &next);
        else if (c->n_words == sizeof c->words / sizeof *c->words)
            return complain("\"%s\" is one word too many; see penstock ctl --help", word);
        else
            c->words[c->n_words++] = word;
        if (status)
            return status;
    }
    return DONE;
}

static const struct command *find_command(const char *name)
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
        return complain("unknown command \"%s\"; did you mean \"%s\"?", word, near);
    return complain("unknown command \"%s\"; penstock ctl --help lists them", word);
}

static bool is_given(struct ctl *c, const struct option *o)
{
    return o->good ? *value_of(c, o) != NULL : *(bool *)((char *)c + o->offset);
}

static int check_options(struct ctl *c, const struct command *command)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].takes && !(options[i].takes & command->takes) && is_given(c, &options[i]))
            return complain("%s has no %s; see penstock ctl --help", command->name,
                            options[i].name);
    return DONE;
}

static int check_times(struct ctl *c)
{
    if (c->max_wait && (units_parse_time_ms(c->max_wait, &c->max_wait_ms) || !c->max_wait_ms))
        return complain("--max-wait is a time of 1ms at least: --max-wait 30");
    return DONE;
}

static bool has_filter(const struct ctl *c)
{
    return c->listener || c->client || c->tag || c->min_age || c->min_rate;
}

static int check_operand(const struct ctl *c, const struct command *command)
{
    bool operand = c->n_words == 2;
    if (command->takes & (SERVER | STORE))
        return DONE; /* their words are read by ctl_shared.c */
    bool kill = strcmp(command->name, "kill") == 0;
    if (c->n_words > 2 || (operand && !(command->takes & OPERAND)))
        return complain("\"%s\" is one word too many; see penstock ctl --help",
                        c->words[command->takes & OPERAND ? 2 : 1]);
    if (kill && operand == (has_filter(c) || c->all))
        return complain("kill takes the id of a connection, or filters, or --all: penstock ctl "
                        "kill --client 192.0.2.0/24");
    uint64_t id;
    if (kill && operand && units_parse_uint(c->words[1], 1, UINT64_MAX, &id))
        return complain("\"%s\" is no id of a connection; penstock ctl conns shows them",
                        c->words[1]);
    if (!kill && (command->takes & (OPERAND | LUA)) == OPERAND && !operand)
        return complain(command->takes & LISTENER
                            ? "%s needs the name of a listener; penstock ctl listeners shows them"
                            : "%s needs a level: error, warn, info or debug",
                        command->name);
    if (strcmp(command->name, "up") == 0 && c->over)
        return complain("up has no --over; see penstock ctl --help");
    return DONE;
}

/* First line of the file. */
static int read_token(struct ctl *c)
{
    if (!c->token_file)
        return DONE;
    FILE *file = fopen(c->token_file, "re");
    if (!file || !fgets(c->token, sizeof c->token, file)) {
        complain("cannot read a token from %s: %s", c->token_file,
                 file ? "it is empty" : err_text(-errno));
        if (file)
            fclose(file);
        return FAILED;
    }
    fclose(file);
    c->token[strcspn(c->token, "\r\n")] = '\0';
    return DONE;
}

/* --- the request
 * ----------------------------------------------------------------------------------------- */

static void build_path(const struct ctl *c, const struct command *command, struct ctl_path *p)
{
    *p = (struct ctl_path){0};
    ctl_path_put(p, command->path);
    if (strcmp(command->name, "kill") == 0) {
        ctl_path_put(p, "/");
        ctl_path_put(p, c->n_words == 2 ? c->words[1] : "");
        ctl_path_put(p, c->n_words == 2 ? "/kill" : "kill");
    }
    if (command->takes & LISTENER) {
        ctl_path_put_encoded(p, c->words[1]);
        ctl_path_put(p, "/");
        ctl_path_put(p, command->name);
    }
    ctl_path_put_argument(p, "over", c->over);
    ctl_path_put_argument(p, "listener", c->listener);
    ctl_path_put_argument(p, "client", c->client);
    ctl_path_put_argument(p, "tag", c->tag);
    ctl_path_put_argument(p, "min_age", c->min_age);
    ctl_path_put_argument(p, "min_rate", c->min_rate);
    ctl_path_put_argument(p, "rates", c->rates ? "true" : NULL);
    ctl_path_put_argument(p, "after", c->after);
    ctl_path_put_argument(p, "limit", command->takes & PAGES && !c->limit ? c->rows : c->limit);
    ctl_path_put_argument(p, "all", c->all ? "true" : NULL);
    ctl_path_put_argument(p, "worker", c->worker);
    ctl_path_put_argument(p, "timeout", c->timeout);
}

/* --- the answer
 * ------------------------------------------------------------------------------------------ */

/* Is the answer, which is a success, what the operator wanted? */
static int judge(const struct command *command, const struct ctl_answer *a)
{
    const char *body = buf_bytes(&a->body);
    bool none = strcmp(command->name, "kill") == 0 && strstr(body, "\"killed\":0}");
    bool failed = command->takes & LUA && ctl_lua_has_failed(body);
    return none || failed ? FAILED : DONE;
}

static int print(const struct ctl *c, const struct command *command, const char *body)
{
    bool rates = command->takes & PAGES && (c->rates || c->min_rate);
    return rates ? ctl_print_rates(body) : command->print(body);
}

static int show(const struct ctl *c, const struct command *command, const struct ctl_answer *a)
{
    const char *body = buf_bytes(&a->body);
    char no[64];
    bool good = a->status == 200;
    if (c->screen)
        fputs("\033[H\033[2J", stdout);
    bool status = command->print == ctl_print_status && a->status == 503; /* tells of draining */
    if (c->json || (!command->print && good)) {
        if (isatty(STDOUT_FILENO))
            ctl_print_lines(body, stdout);
        else
            fwrite(body, 1, buf_len(&a->body), stdout);
        if (command->print)
            putchar('\n');
    } else if (!command->print || (!good && !status)) {
        snprintf(no, sizeof no, "status %u, from what is no admin of penstock", a->status);
        ctl_print_error(body, no);
    } else if (print(c, command, body)) {
        complain("what answers at %s is no admin of this version", c->admin);
        return FAILED;
    }
    return good ? judge(command, a) : FAILED;
}

static uint64_t patience_ms(const struct ctl *c, const struct command *command)
{
    uint64_t chunk_ms = LUA_TIMEOUT_MS;
    if (c->max_wait_ms)
        return c->max_wait_ms;
    if (command->print == ctl_print_reload || command->print == ctl_print_upgrade)
        return CHANGE_PATIENCE_MS;
    if (!(command->takes & LUA))
        return PATIENCE_MS;
    if (c->timeout)
        units_parse_time_ms(c->timeout, &chunk_ms); /* what is wrong with it the admin will say */
    return PATIENCE_MS + (chunk_ms < LUA_TIMEOUT_MAX_MS ? chunk_ms : LUA_TIMEOUT_MAX_MS);
}

static const char *body_of(const struct ctl *c, const struct command *command)
{
    bool operand = c->n_words == 2 && strcmp(command->name, "kill") != 0;
    return c->chunk ? c->chunk : operand ? c->words[1] : "";
}

/* The command, with what its words say where it has several. */
static int build_call(const struct ctl *c, struct command *command, struct ctl_call *call)
{
    char why[400];
    struct ctl_words words = {c->words, c->n_words, c->over,  c->prefix,
                              c->type,  c->ttl,     c->after, c->limit};
    if (!(command->takes & (SERVER | STORE))) {
        *call = (struct ctl_call){
            .method = command->method,
            .body = body_of(c, command),
            .print = command->print,
        };
        build_path(c, command, &call->path);
    } else if (command->takes & SERVER ? ctl_read_server(&words, call, why, sizeof why)
                                       : ctl_read_store(&words, call, why, sizeof why)) {
        return complain("%s", why);
    }
    command->print = call->print;
    return call->path.full ? complain("the names or filters are too long") : DONE;
}

static int ask(const struct ctl *c, const struct command *which)
{
    struct command filled = *which, *command = &filled;
    struct ctl_call call;
    struct ctl_answer answer;
    char why[400];
    if (build_call(c, command, &call))
        return WRONG;
    struct ctl_request request = {
        .admin = c->admin,
        .token = c->token,
        .method = call.method,
        .path = call.path.text,
        .body = call.body,
        .patience_ms = patience_ms(c, command),
    };
    if (c->prompt)
        return ctl_lua_prompt(&request) ? DONE : FAILED;
    if (ctl_ask(&request, &answer, why, sizeof why)) {
        complain("%s", why);
        return FAILED;
    }
    int status = show(c, command, &answer);
    buf_deinit(&answer.body);
    if (fflush(stdout) || ferror(stdout)) {
        complain("cannot write to standard output: %s", err_text(-errno));
        return FAILED;
    }
    return status;
}

/* `lua` without a chunk: from where does it come? */
static int find_chunk(struct ctl *c)
{
    char why[200];
    c->prompt = !c->json && ctl_lua_at_terminal();
    if (c->prompt && c->worker && strcmp(c->worker, "all") == 0)
        return complain("the prompt is in one worker: --worker 0; --worker all takes a CHUNK");
    if (c->prompt)
        return DONE;
    c->chunk = ctl_lua_read(why, sizeof why);
    if (c->chunk)
        return DONE;
    complain("%s", why);
    return FAILED;
}

/* As many connections as the terminal has room for now. */
static void fit_screen(struct ctl *c)
{
    struct winsize size;
    if (c->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
        size.ws_row > SCREEN_EXTRA_ROWS && size.ws_row < PAGE_MAX)
        snprintf(c->rows, sizeof c->rows, "%d", size.ws_row - SCREEN_EXTRA_ROWS);
}

static int watch_on(struct ctl *c, const struct command *command)
{
    struct timespec pause = {.tv_sec = (time_t)(c->watch_ms / 1000),
                             .tv_nsec = (long)(c->watch_ms % 1000 * 1000000)};
    for (;;) {
        fit_screen(c);
        int status = ask(c, command);
        if (status)
            return status;
        nanosleep(&pause, NULL);
        if (!c->screen && !c->json)
            putchar('\n');
    }
}

/* Until it fails, or is interrupted. A screen is written at once, so that it is never seen empty.
 */
static int watch(struct ctl *c, const struct command *command)
{
    c->screen = isatty(STDOUT_FILENO) && !c->json;
    char *room = c->screen ? malloc(SCREEN_BYTES) : NULL;
    if (room)
        setvbuf(stdout, room, _IOFBF, SCREEN_BYTES);
    int status = watch_on(c, command);
    if (room)
        setvbuf(stdout, NULL, _IONBF, 0);
    free(room);
    return status;
}

int ctl_command(int argc, char *argv[])
{
    struct ctl c = {.watch_ms = WATCH_MS, .rows = "1000"};
    int status = read_words(&c, argc, argv);
    if (status)
        return status;
    if (c.help || (c.n_words && strcmp(c.words[0], "help") == 0)) {
        fputs(help, stdout);
        return fflush(stdout) ? FAILED : DONE;
    }
    if (!c.n_words) {
        fputs(help, stderr);
        return WRONG;
    }
    const struct command *command = find_command(c.words[0]);
    if (!command)
        return refuse_command(c.words[0]);
    status = check_options(&c, command);
    if (!status)
        status = check_times(&c);
    if (!status)
        status = check_operand(&c, command);
    if (!status)
        status = read_token(&c);
    if (!status && command->takes & LUA && c.n_words == 1)
        status = find_chunk(&c);
    if (status)
        return status;
    if (!c.admin)
        c.admin = getenv("PENSTOCK_ADMIN");
    if (!c.admin || !*c.admin)
        c.admin = DEFAULT_ADMIN;
    status = c.watch ? watch(&c, command) : ask(&c, command);
    free(c.chunk);
    return status;
}
