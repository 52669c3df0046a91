/* `penstock ctl [OPTIONS] COMMAND`: which request it is, and what its answer means. */
#include "penstock/cli/ctl.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl_command_line.h"
#include "ctl_lua.h"
#include "ctl_path.h"
#include "ctl_print.h"
#include "ctl_shared.h"
#include "penstock/base/err.h"
#include "penstock/base/units.h"

enum { PATIENCE_MS = 10000, CHANGE_PATIENCE_MS = 300000, WATCH_MS = 2000 };
enum { PAGE_MAX = 1000, SCREEN_EXTRA_ROWS = 3, SCREEN_BYTES = 128 << 10 };
enum { LUA_TIMEOUT_MS = 10000, LUA_TIMEOUT_MAX_MS = 60000 };

/* --- the request
 * ----------------------------------------------------------------------------------------- */

static void build_path(const struct ctl *c, const struct ctl_command *command, struct ctl_path *p)
{
    *p = (struct ctl_path){0};
    ctl_path_put(p, command->path);
    if (strcmp(command->name, "kill") == 0) {
        ctl_path_put(p, "/");
        ctl_path_put(p, c->n_words == 2 ? c->words[1] : "");
        ctl_path_put(p, c->n_words == 2 ? "/kill" : "kill");
    }
    if (command->takes & CTL_TAKES_LISTENER) {
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
    ctl_path_put_argument(p, "limit",
                          command->takes & CTL_TAKES_PAGES && !c->limit ? c->rows : c->limit);
    ctl_path_put_argument(p, "all", c->all ? "true" : NULL);
    ctl_path_put_argument(p, "worker", c->worker);
    ctl_path_put_argument(p, "timeout", c->timeout);
}

/* --- the answer
 * ------------------------------------------------------------------------------------------ */

/* Is the answer, which is a success, what the operator wanted? */
static int judge(const struct ctl_command *command, const struct ctl_answer *a)
{
    const char *body = buf_bytes(&a->body);
    bool none = strcmp(command->name, "kill") == 0 && strstr(body, "\"killed\":0}");
    bool failed = command->takes & CTL_TAKES_LUA && ctl_lua_has_failed(body);
    return none || failed ? CTL_FAILED : CTL_DONE;
}

static int print(const struct ctl *c, const struct ctl_command *command, const char *body)
{
    bool rates = command->takes & CTL_TAKES_PAGES && (c->rates || c->min_rate);
    return rates ? ctl_print_rates(body) : command->print(body);
}

static int show(const struct ctl *c, const struct ctl_command *command, const struct ctl_answer *a)
{
    const char *body = buf_bytes(&a->body);
    char no[64];
    int err;
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
    } else if ((err = print(c, command, body))) {
        if (err < 0)
            ctl_complain("what answers at %s is no admin of this version", c->admin);
        return CTL_FAILED;
    }
    return good ? judge(command, a) : CTL_FAILED;
}

static uint64_t patience_ms(const struct ctl *c, const struct ctl_command *command)
{
    uint64_t chunk_ms = LUA_TIMEOUT_MS;
    if (c->max_wait_ms)
        return c->max_wait_ms;
    if (command->print == ctl_print_reload || command->print == ctl_print_upgrade ||
        command->takes & CTL_TAKES_LISTENER)
        return CHANGE_PATIENCE_MS;
    if (!(command->takes & CTL_TAKES_LUA))
        return PATIENCE_MS;
    if (c->timeout)
        units_parse_time_ms(c->timeout, &chunk_ms); /* what is wrong with it the admin will say */
    return PATIENCE_MS + (chunk_ms < LUA_TIMEOUT_MAX_MS ? chunk_ms : LUA_TIMEOUT_MAX_MS);
}

static const char *body_of(const struct ctl *c, const struct ctl_command *command)
{
    bool operand = c->n_words == 2 && strcmp(command->name, "kill") != 0;
    return c->chunk ? c->chunk : operand ? c->words[1] : "";
}

/* The command, with what its words say where it has several. */
static int build_call(const struct ctl *c, struct ctl_command *command, struct ctl_call *call)
{
    char why[400];
    struct ctl_words words = {c->words, c->n_words, c->over,  c->prefix,
                              c->type,  c->ttl,     c->after, c->limit};
    if (!(command->takes & (CTL_TAKES_SERVER | CTL_TAKES_STORE))) {
        *call = (struct ctl_call){
            .method = command->method,
            .body = body_of(c, command),
            .print = command->print,
        };
        build_path(c, command, &call->path);
    } else if (command->takes & CTL_TAKES_SERVER ? ctl_read_server(&words, call, why, sizeof why)
                                                 : ctl_read_store(&words, call, why, sizeof why)) {
        return ctl_complain("%s", why);
    }
    command->print = call->print;
    return call->path.full ? ctl_complain("the names or filters are too long") : CTL_DONE;
}

/* A page of keys may hold few of them that fit, or none: asks on, until there are as many as were
 * asked for. Ends at the first page that fails, whose answer it leaves. */
static int follow_keys(const struct ctl *c, const struct ctl_command *command,
                       const struct ctl_request *first, struct ctl_answer *answer, char *why,
                       size_t why_cap)
{
    size_t wanted = c->limit ? (size_t)strtoul(c->limit, NULL, 10) : CTL_KEYS;
    struct ctl_keys keys;
    struct ctl_call call;
    struct ctl rest = *c;
    struct ctl_request request = *first;
    struct ctl_answer page;
    char limit[24], after[sizeof keys.next] = "";
    int err = 0;
    ctl_read_keys(buf_bytes(&answer->body), &keys);
    while (!err && keys.n < wanted && keys.next[0] && strcmp(keys.next, after) != 0) {
        struct ctl_command filled = *command;
        snprintf(after, sizeof after, "%s", keys.next);
        snprintf(limit, sizeof limit, "%zu", wanted - keys.n);
        rest.after = after;
        rest.limit = limit;
        if (build_call(&rest, &filled, &call))
            return -EINVAL;
        request.path = call.path.text;
        if ((err = ctl_ask(&request, &page, why, why_cap)))
            return err;
        if (page.status != 200) {
            buf_deinit(&answer->body);
            *answer = page;
            return 0;
        }
        err = ctl_join_keys(&answer->body, buf_bytes(&page.body));
        buf_deinit(&page.body);
        if (!err)
            ctl_read_keys(buf_bytes(&answer->body), &keys);
    }
    if (err)
        snprintf(why, why_cap, "what answers at %s is no admin of this version", c->admin);
    return err;
}

static int ask(const struct ctl *c, const struct ctl_command *which)
{
    struct ctl_command filled = *which, *command = &filled;
    struct ctl_call call;
    struct ctl_answer answer;
    char why[400];
    if (build_call(c, command, &call))
        return CTL_WRONG;
    struct ctl_request request = {
        .admin = c->admin,
        .token = c->token,
        .method = call.method,
        .path = call.path.text,
        .body = call.body,
        .patience_ms = patience_ms(c, command),
    };
    if (c->prompt)
        return ctl_lua_prompt(&request) ? CTL_DONE : CTL_FAILED;
    if (ctl_ask(&request, &answer, why, sizeof why)) {
        ctl_complain("%s", why);
        return CTL_FAILED;
    }
    if (call.pages && !c->json && answer.status == 200 &&
        follow_keys(c, which, &request, &answer, why, sizeof why)) {
        ctl_complain("%s", why);
        buf_deinit(&answer.body);
        return CTL_FAILED;
    }
    int status = show(c, command, &answer);
    buf_deinit(&answer.body);
    if (fflush(stdout) || ferror(stdout)) {
        ctl_complain("cannot write to standard output: %s", err_text(-errno));
        return CTL_FAILED;
    }
    return status;
}

/* `lua` without a chunk: from where does it come? */
static int find_chunk(struct ctl *c)
{
    char why[200];
    c->prompt = !c->json && ctl_lua_at_terminal();
    if (c->prompt && c->worker && strcmp(c->worker, "all") == 0)
        return ctl_complain("the prompt is in one worker: --worker 0; --worker all takes a CHUNK");
    if (c->prompt)
        return CTL_DONE;
    c->chunk = ctl_lua_read(why, sizeof why);
    if (c->chunk)
        return CTL_DONE;
    ctl_complain("%s", why);
    return CTL_FAILED;
}

/* As many connections as the terminal has room for now. */
static void fit_screen(struct ctl *c)
{
    struct winsize size;
    if (c->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
        size.ws_row > SCREEN_EXTRA_ROWS && size.ws_row < PAGE_MAX)
        snprintf(c->rows, sizeof c->rows, "%d", size.ws_row - SCREEN_EXTRA_ROWS);
}

static int watch_on(struct ctl *c, const struct ctl_command *command)
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
static int watch(struct ctl *c, const struct ctl_command *command)
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
    const struct ctl_command *command;
    int status = ctl_read(&c, argc, argv, &command);
    if (status || !command)
        return status;
    if (command->takes & CTL_TAKES_LUA && c.n_words == 1)
        status = find_chunk(&c);
    if (!status)
        status = c.watch ? watch(&c, command) : ask(&c, command);
    free(c.chunk);
    return status;
}
