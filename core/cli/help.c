/* --help, made from the option table, and the short usage. */
#include "penstock/cli/help.h"

#include <stdbool.h>
#include <string.h>

#include "penstock/cli/options.h"

enum { TEXT_COLUMN = 33 };

/* clang-format off */
static const char usage[] =
    "usage: penstock [OPTIONS] LISTEN TARGET [LISTEN TARGET]…\n"
    "       penstock [OPTIONS] -p POLICY.lua [LISTEN TARGET]…\n"
    "       penstock [OPTIONS] run CONFIG.lua         listeners and hooks from one Lua file\n"
    "       penstock socks|connect [OPTIONS] LISTEN   a SOCKS5 server, an HTTP proxy; they have a --help\n"
    "       penstock check CONFIG.lua | -p POLICY.lua [LISTEN TARGET]…    what it would do\n"
    "       penstock ctl [OPTIONS] COMMAND            asks one that runs with --admin; has a --help\n"
    "       penstock test [OPTIONS] [SPEC…]           specs of policies; see penstock test --help\n";

static const char intro[] =
    "penstock forwards TCP connections: from LISTEN to TARGET, through a policy in Lua if you like.\n"
    "\n"
    "Examples:\n"
    "  penstock 8080 db.internal:5432            from 127.0.0.1:8080, for programs of this host\n"
    "  penstock :5432 db1:5432,db2:5432          from everywhere; db2 when db1 does not answer\n"
    "  penstock --idle-timeout 10m --max-per-ip 20 :9000-9010 game.internal:9000-9010\n"
    "  penstock -p guard.lua :6379 redis:6379    guard.lua decides, rewrites, logs; with - instead\n"
    "                                            of redis:6379 it names the destination too\n"
    "\n"
    "LISTEN  8080 (loopback only), :8080 or 0.0.0.0:8080 (all of IPv4), [::]:8080 (IPv4 and IPv6),\n"
    "        10.0.0.1:8080, unix:/run/x.sock; several with commas; 9000-9010 is a range; port 0\n"
    "        takes a free one, which the log tells\n"
    "TARGET  db.internal:5432, 10.0.0.7:80, [2001:db8::1]:443, unix:/run/x.sock; several with commas\n"
    "        are tried in order; a range goes with an equally long one of LISTEN, port by port\n";

static const char outro[] =
    "\n"
    "TERM and INT stop accepting and let connections end; a second one ends at once. HUP loads policy\n"
    "and configuration anew, without touching open connections. USR1 opens the log files anew.\n"
    "Exit status: 0 after a clean stop, 1 when something failed, 2 when the command line, the policy\n"
    "or the configuration is wrong.\n"
    "\n"
    "More: man penstock; policies in docs/lua-api.md; running it for months in docs/operations.md.\n";

static const char proxy_usage[] =
    "usage: penstock %s [OPTIONS] --allow HOST:PORT,… LISTEN\n"
    "%s. Clients say where they want to go, and penstock connects\n"
    "them to what --allow names, and to nothing else. It looks up the names.\n"
    "\n"
    "For programs of this host, to all of the open internet:\n"
    "  penstock %s --allow any %s\n"
    "For everybody who has a login, to some places:\n"
    "  penstock %s --allow '*.example.com:443,10.0.0.0/8:22' --auth users.txt :%s\n"
    "Its clients:\n"
    "  curl -x %s://alice:password@127.0.0.1:%s https://www.example.com/\n"
    "  penstock --via %s://127.0.0.1:%s 8443 www.example.com:443\n"
    "\n"
    "A host is a name, *.NAME for all below it, a network, or *; a port is one, a range 80-90, or *.\n"
    "Loopback, private and link-local addresses are reached only where a rule names their network\n"
    "(127.0.0.0/8:8080), whatever name leads there.\n"
    "\n";

static const char proxy_outro[] =
    "\n"
    "Limits, times, sockets and logs are set as for forwarding; penstock --help lists them. HUP reads\n"
    "--auth anew. Which clients may come at all, and more policies beside it: docs/policies.md.\n";

static const char examples[] =
    "\n"
    "  penstock 8080 db.internal:5432            forward 127.0.0.1:8080 to db.internal:5432\n"
    "  penstock -p guard.lua :6379 redis:6379    the same from everywhere, with hooks in Lua\n"
    "\n"
    "penstock --help explains all of it.\n";
/* clang-format on */

/* Columns of UTF-8 text: bytes that begin a character. Nothing here is wide. */
static size_t columns(const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* Prints `text` from TEXT_COLUMN on, broken at blanks; the cursor stands at TEXT_COLUMN. */
static void print_wrapped(FILE *out, const char *text)
{
    size_t column = TEXT_COLUMN;
    for (bool first = true; *text; first = false) {
        size_t bytes = strcspn(text, " ");
        size_t width = columns(text, bytes);
        if (!first && column + 1 + width > HELP_COLUMNS) {
            fprintf(out, "\n%*s", TEXT_COLUMN, "");
            column = TEXT_COLUMN;
        } else if (!first) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", (int)bytes, text);
        column += width;
        text += bytes + (text[bytes] == ' ');
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const struct option_spec *spec)
{
    char letter[] = "    ";
    if (spec->letter)
        snprintf(letter, sizeof letter, "-%c, ", spec->letter);
    const char *arg = spec->arg ? spec->arg : "";
    size_t width = 2 + 4 + 2 + strlen(spec->name) + (spec->arg != NULL) + columns(arg, strlen(arg));
    fprintf(out, "  %s--%s%s%s", letter, spec->name, spec->arg ? " " : "", arg);
    if (width + 2 > TEXT_COLUMN)
        fprintf(out, "\n%*s", TEXT_COLUMN, "");
    else
        fprintf(out, "%*s", (int)(TEXT_COLUMN - width), "");
    print_wrapped(out, spec->help);
}

void help_print_short(FILE *out)
{
    fputs(usage, out);
    fputs(examples, out);
}

/* How one of the proxies is spoken of. */
struct proxy_words {
    const char *command, *what, *port, *curl, *scheme;
};

static void print_proxy(FILE *out, const struct proxy_words *p)
{
    size_t n;
    const struct option_spec *table = options_table(&n);
    fprintf(out, proxy_usage, p->command, p->what, p->command, p->port, p->command, p->port,
            p->curl, p->port, p->scheme, p->port);
    for (size_t i = 0; i < n; i++)
        if (table[i].group == GROUP_PROXY)
            print_option(out, &table[i]);
    fputs(proxy_outro, out);
}

static void print_socks(FILE *out)
{
    static const struct proxy_words words = {"socks", "A SOCKS5 server", "1080", "socks5h",
                                             "socks5"};
    print_proxy(out, &words);
}

static void print_connect(FILE *out)
{
    static const struct proxy_words words = {"connect", "An HTTP proxy that knows CONNECT", "3128",
                                             "http", "http"};
    print_proxy(out, &words);
}

void (*help_for(const char *word))(FILE *out)
{
    if (!strcmp(word, "socks"))
        return print_socks;
    return !strcmp(word, "connect") ? print_connect : help_print;
}

void help_print(FILE *out)
{
    static const char *const headings[] = {
#define X(name, heading) heading,
        OPTION_GROUPS(X)
#undef X
    };
    size_t n;
    const struct option_spec *table = options_table(&n);
    fprintf(out, "%s\n%s", usage, intro);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || table[i].group != table[i - 1].group)
            fprintf(out, "\n%s:\n", headings[table[i].group]);
        print_option(out, &table[i]);
    }
    fputs(outro, out);
}
