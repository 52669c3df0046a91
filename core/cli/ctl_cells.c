/* Cells of 80 columns, and what goes into them. */
#include "ctl_cells.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

void cell_text(const char *text, size_t width, bool last)
{
    text = text ? text : "-";
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strlen(text), columns = 0, all = 0;
    for (size_t i = 0; i < left; i++)
        all += !utf8_is_continuation(s[i]);
    while (left && (!width || columns < width)) {
        if (width && all > width && columns == width - 1) {
            fputs("…", stdout);
            columns++;
            break;
        }
        size_t n = cell_shown(s, left);
        if (n)
            fwrite(s, 1, n, stdout);
        else
            putchar('?');
        n = n ? n : 1;
        s += n;
        left -= n;
        columns++;
    }
    for (; !last && columns < width; columns++)
        putchar(' ');
    fputs(last ? "\n" : " ", stdout);
}

void cell_right(const char *text, int width, bool last)
{
    printf("%*s%s", width, text, last ? "\n" : " ");
}

void cell_number(uint64_t n, int width, bool last)
{
    printf("%*" PRIu64 "%s", width, n, last ? "\n" : " ");
}
