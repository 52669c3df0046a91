/* Cells of 80 columns, and what goes into them. */
#include "ctl_cells.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "penstock/base/utf8.h"

/* --- values
 * ------------------------------------------------------------------------------------------------
 */

const char *member_text(const cJSON *o, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return text ? text : "-";
}

uint64_t member_number(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? (uint64_t)item->valuedouble : 0;
}

const char *cell_size(uint64_t bytes, char *buf, size_t cap)
{
    static const char units[] = " KMGTPE";
    double n = (double)bytes;
    size_t unit = 0;
    for (; n >= 999.5 && units[unit + 1]; unit++)
        n /= 1024;
    if (unit == 0)
        snprintf(buf, cap, "%" PRIu64, bytes);
    else
        snprintf(buf, cap, n < 9.95 ? "%.1f%c" : "%.0f%c", n, units[unit]);
    return buf;
}

const char *cell_time(uint64_t ms, char *buf, size_t cap)
{
    uint64_t s = ms / 1000;
    if (ms < 10000)
        snprintf(buf, cap, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
    else if (s < 100)
        snprintf(buf, cap, "%" PRIu64 "s", s);
    else if (s < UINT64_C(100) * 60)
        snprintf(buf, cap, "%" PRIu64 "m", s / 60);
    else if (s < UINT64_C(100) * 3600)
        snprintf(buf, cap, "%" PRIu64 "h", s / 3600);
    else
        snprintf(buf, cap, "%" PRIu64 "d", s / 86400);
    return buf;
}

/* --- cells
 * -------------------------------------------------------------------------------------------------
 */

size_t cell_shown(const unsigned char *s, size_t left)
{
    size_t n = utf8_len(s, left);
    return utf8_is_control(s, n) ? 0 : n;
}

/* At most so many columns of it; returns how many. */
static size_t put_text(const char *text, size_t most)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t columns = 0;
    for (size_t left = strlen(text); left && columns < most; columns++) {
        size_t n = cell_shown(s, left);
        if (n)
            fwrite(s, 1, n, stdout);
        else
            putchar('?');
        n = n ? n : 1;
        s += n;
        left -= n;
    }
    return columns;
}

static size_t columns_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += !utf8_is_continuation((unsigned char)*text);
    return n;
}

void cell_text(const char *text, size_t width, bool last)
{
    text = text ? text : "-";
    bool cut = width && columns_of(text) > width;
    size_t columns = put_text(text, cut ? width - 1 : width ? width : SIZE_MAX);
    if (cut) {
        fputs("…", stdout);
        columns++;
    }
    for (; !last && columns < width; columns++)
        putchar(' ');
    fputs(last ? "\n" : " ", stdout);
}

/* --- names
 * ----------------------------------------------------------------------------------------------
 */

/* How many a line may have. */
static size_t line_columns(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO))
        return SIZE_MAX;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : CELLS_WIDTH;
}

void names_count(struct cell_names *column, const char *text)
{
    size_t n = columns_of(text);
    column->longest = n > column->longest ? n : column->longest;
}

/* Gives the column what it lacks, as far as there is room. */
static void widen(struct cell_names *column, size_t width, size_t *room)
{
    size_t more = width > column->width ? width - column->width : 0;
    more = more < *room ? more : *room;
    column->width += more;
    *room -= more;
}

void names_fit(struct cell_names *columns, size_t n, size_t rest)
{
    size_t room = line_columns(), taken = rest;
    for (size_t i = 0; i < n; i++) {
        struct cell_names *c = &columns[i];
        names_count(c, c->title);
        c->width = c->longest < c->usual ? c->longest : c->usual;
        taken += c->width;
    }
    room = room > taken ? room - taken : 0;
    for (size_t i = 0; i < n; i++)
        widen(&columns[i], columns[i].longest, &room);
    for (size_t i = 0; i < n; i++)
        widen(&columns[i], columns[i].usual, &room);
}

void names_titles(const struct cell_names *columns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cell_text(columns[i].title, columns[i].width, false);
}

void cell_name(const char *text, const struct cell_names *column)
{
    size_t all = columns_of(text), head = (column->width - 1) / 2;
    if (all > column->width && column->width > 2) {
        put_text(text, head);
        fputs("…", stdout);
        for (size_t skip = all - (column->width - 1 - head) + 1; *text; text++)
            if (!utf8_is_continuation((unsigned char)*text) && --skip == 0)
                break;
        cell_text(text, column->width - 1 - head, false);
    } else {
        cell_text(text, column->width, false);
    }
}

void cell_right(const char *text, int width, bool last)
{
    printf("%*s%s", width, text, last ? "\n" : " ");
}

void cell_number(uint64_t n, int width, bool last)
{
    printf("%*" PRIu64 "%s", width, n, last ? "\n" : " ");
}
