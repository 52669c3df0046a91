/* Which option or command somebody meant who typed another word. */
#include <stdbool.h>
#include <string.h>

#include "penstock/cli/options.h"
#include "suggest.h"

enum { LONGEST = 40 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to insert, drop, change or swap to make `b` of `a`; both at most LONGEST long. */
static unsigned distance(const char *a, const char *b)
{
    unsigned d[LONGEST + 1][LONGEST + 1];
    size_t la = strlen(a), lb = strlen(b);
    for (size_t i = 0; i <= la; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= lb; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        for (size_t j = 1; j <= lb; j++) {
            unsigned changed = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            d[i][j] = least(changed, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[la][lb];
}

/* The shortest name that has `typed` as a part: "timeout" is no misspelling, but half a name. */
static const struct option_spec *containing(const char *typed)
{
    size_t n;
    const struct option_spec *table = options_table(&n), *best = NULL;
    for (size_t i = 0; i < n && strlen(typed) >= 3; i++) {
        if (strstr(table[i].name, typed) && (!best || strlen(table[i].name) < strlen(best->name)))
            best = &table[i];
    }
    return best;
}

/* The longest name that `typed` begins with: --log for "log-level". */
static const struct option_spec *beginning(const char *typed)
{
    size_t n;
    const struct option_spec *table = options_table(&n), *best = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(table[i].name);
        if (strncmp(typed, table[i].name, len) == 0 && (!best || len > strlen(best->name)))
            best = &table[i];
    }
    return best;
}

/* Two of five letters may be wrong: enough for --max-connections, too few to fit any word. */
static const struct option_spec *similar(const char *typed)
{
    size_t n;
    const struct option_spec *table = options_table(&n), *best = NULL;
    unsigned best_distance = (unsigned)strlen(typed) * 2 / 5 + 1;
    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(typed, table[i].name);
        if (d < best_distance) {
            best = &table[i];
            best_distance = d;
        }
    }
    return best;
}

const char *suggest_word(const char *typed, const char *const words[], size_t n)
{
    size_t len = strlen(typed);
    const char *best = NULL;
    unsigned best_distance = len > 4 ? 3 : 2;
    if (len < 3 || len > LONGEST)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        bool begins = strncmp(words[i], typed, len) == 0;
        unsigned d = begins ? 0 : distance(typed, words[i]);
        if (d < best_distance) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

const char *options_nearest_command(const char *typed)
{
    static const char *const commands[] = {"run", "check", "test", "ctl", "socks", "connect"};
    /* No address is a word of small letters; and "-", a target, is none either. */
    if (strspn(typed, "abcdefghijklmnopqrstuvwxyz") != strlen(typed))
        return NULL;
    return suggest_word(typed, commands, sizeof commands / sizeof commands[0]);
}

const char *options_nearest(const char *typed)
{
    size_t len = strlen(typed);
    if (len < 2 || len > LONGEST)
        return NULL;
    const struct option_spec *best = similar(typed);
    if (!best)
        best = containing(typed);
    if (!best)
        best = beginning(typed);
    return best ? best->name : NULL;
}
