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
    "       penstock check CONFIG.lua | -p POLICY.lua [LISTEN TARGET]…    what it would do\n"
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
