/* The prompt keeps its history for as long as it lives: chunks may hold what no file should. */
#include "ctl_lua.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl_print.h"
#include "penstock/base/err.h"

enum { CHUNK_MAX = 64 << 10, HISTORY_MAX = 500 };

/* A signal handler has nothing else to tell it by. */
static volatile sig_atomic_t interrupted;

char *ctl_lua_read(char *why, size_t why_cap)
{
    char *text = malloc(CHUNK_MAX + 2);
    size_t n = text ? fread(text, 1, CHUNK_MAX + 1, stdin) : 0;
    const char *wrong = NULL;
    if (!text || ferror(stdin))
        wrong = err_text(-errno);
    else if (n > CHUNK_MAX)
        wrong = "a chunk has 64 KiB at most";
    else if (memchr(text, '\0', n))
        wrong = "there is a zero byte in it, which is no Lua";
    if (text && !wrong) {
        text[n] = '\0';
        return text;
    }
    snprintf(why, why_cap, "standard input: %s", wrong);
    free(text);
    return NULL;
}

bool ctl_lua_at_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

/* --- lines
 * -------------------------------------------------------------------------------------------------
 */

struct prompt {
    EditLine *line;
    History *history;
    struct ctl_request *request;
    struct buf chunk; /* the lines so far */
};

static void on_interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

static char *prompt_text(EditLine *line)
{
    static char first[] = "> ", more[] = ">> ";
    struct prompt *p;
    el_get(line, EL_CLIENTDATA, &p);
    return buf_len(&p->chunk) ? more : first;
}

static bool open_prompt(struct prompt *p)
{
    HistEvent event;
    setlocale(LC_CTYPE, "");
    p->line = el_init("penstock", stdin, stdout, stderr);
    p->history = history_init();
    if (!p->line || !p->history)
        return false;
    history(p->history, &event, H_SETSIZE, HISTORY_MAX);
    history(p->history, &event, H_SETUNIQUE, 1);
    el_set(p->line, EL_CLIENTDATA, p);
    el_set(p->line, EL_PROMPT, prompt_text);
    el_set(p->line, EL_EDITOR, "emacs");
    el_set(p->line, EL_HIST, history, p->history);
    el_set(p->line, EL_SIGNAL, 1); /* it puts the terminal right before a signal does its work */
    el_set(p->line, EL_BIND, "^I", "ed-insert", NULL); /* of what is pasted; nothing is completed */
    el_source(p->line, NULL);
    struct sigaction on_int = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &on_int, NULL);
    return true;
}

static void close_prompt(struct prompt *p)
{
    if (p->history)
        history_end(p->history);
    if (p->line)
        el_end(p->line);
    buf_deinit(&p->chunk);
}

static void remember(struct prompt *p, const char *line)
{
    HistEvent event;
    if (line[strspn(line, " \t\r\n")])
        history(p->history, &event, H_ENTER, line);
}

/* --- chunks
 * ------------------------------------------------------------------------------------------------
 */

/* True when the chunk has to go on in another line. */
static bool run(struct prompt *p)
{
    struct ctl_answer answer;
    char why[400];
    bool incomplete = false;
    p->request->body = buf_bytes(&p->chunk);
    if (ctl_ask(p->request, &answer, why, sizeof why)) {
        fprintf(stderr, "penstock ctl: %s\n", interrupted ? "interrupted" : why);
        return false;
    }
    if (answer.status != 200)
        ctl_print_error(buf_bytes(&answer.body), "the admin says no");
    else if (ctl_lua_is_incomplete(buf_bytes(&answer.body)))
        incomplete = true;
    else
        ctl_print_lua(buf_bytes(&answer.body));
    buf_deinit(&answer.body);
    fflush(stdout);
    return incomplete;
}

/* `exit` or `quit` alone. */
static bool is_farewell(const char *line)
{
    line += strspn(line, " \t");
    size_t n = strcspn(line, " \t\r\n");
    return n == 4 && (strncmp(line, "exit", n) == 0 || strncmp(line, "quit", n) == 0) &&
           !line[n + strspn(line + n, " \t\r\n")];
}

/* False at the end of input. */
static bool take_line(struct prompt *p)
{
    int n;
    interrupted = 0;
    const char *line = el_gets(p->line, &n);
    if (interrupted) { /* another chunk */
        putchar('\n');
        el_reset(p->line);
        buf_deinit(&p->chunk);
        return true;
    }
    if (!line || n <= 0)
        return false;
    if (!buf_len(&p->chunk) && is_farewell(line))
        return false;
    remember(p, line);
    if (buf_append(&p->chunk, line, strlen(line) + 1))
        return false;
    p->chunk.end--; /* the zero is there, and does not count */
    if (!run(p))
        buf_deinit(&p->chunk);
    return true;
}

/* Does penstock take chunks? Better told now than at the first. */
static bool is_welcome(struct ctl_request *request)
{
    struct ctl_answer answer;
    char why[400];
    request->body = "";
    if (ctl_ask(request, &answer, why, sizeof why)) {
        fprintf(stderr, "penstock ctl: %s\n", why);
        return false;
    }
    bool welcome = answer.status == 200;
    if (!welcome)
        ctl_print_error(buf_bytes(&answer.body), "the admin says no");
    buf_deinit(&answer.body);
    return welcome;
}

bool ctl_lua_prompt(struct ctl_request *request)
{
    struct prompt p = {.request = request};
    if (!is_welcome(request))
        return false;
    request->interrupted = &interrupted;
    bool good = open_prompt(&p);
    if (good) {
        puts("Lua in penstock; Ctrl-D ends.");
        while (take_line(&p))
            ;
        putchar('\n');
    } else {
        fputs("penstock ctl: cannot read from this terminal\n", stderr);
    }
    close_prompt(&p);
    return good;
}
