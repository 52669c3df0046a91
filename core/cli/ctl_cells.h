/* Values of an answer, and cells of a table for a terminal. What an answer holds may be anybody's
 * bytes: controls are shown as question marks. */
#ifndef PENSTOCK_CORE_CLI_CTL_CELLS_H
#define PENSTOCK_CORE_CLI_CTL_CELLS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CELLS_WIDTH = 80 };

/* A column of names, which are operands of other commands. */
struct cell_names {
    const char *title;
    size_t usual;   /* width where the table would not fit otherwise */
    size_t longest; /* of the names, in columns; 0 to begin with */
    size_t width;   /* names_fit() sets it */
};

/* The member of that name: its text, "-" without one; its number, 0 without one. */
const char *member_text(const cJSON *o, const char *key);
uint64_t member_number(const cJSON *o, const char *key);

/* At most four columns: "950", "9.5K", "512K", "12G". Returns `buf`. */
const char *cell_size(uint64_t bytes, char *buf, size_t cap);
/* At most four columns: "0.3s", "59s", "90m", "71h", "12d". Returns `buf`. */
const char *cell_time(uint64_t ms, char *buf, size_t cap);

/* Length of the next character of the `left` bytes at `s` that may be shown; 0: show a question
 * mark for one byte. */
size_t cell_shown(const unsigned char *s, size_t left);

/* Counts a name of the column, before names_fit(). */
void names_count(struct cell_names *column, const char *text);
/* Sets the widths of n columns: as their longest names need, on a terminal as far as the table,
 * which takes `rest` columns besides, fits into it. */
void names_fit(struct cell_names *columns, size_t n, size_t rest);
/* Prints their titles, each with a blank behind it. */
void names_titles(const struct cell_names *columns, size_t n);

/* Each prints one cell, and a blank behind it, or the end of the line when it is the last. */
/* `text` in `width` columns, cut with … when it is longer. A width of 0 is as long as it is. NULL,
 * which the name of a list's entry is, is "-". */
void cell_text(const char *text, size_t width, bool last);
/* `text` in the column, cut in the middle when it is longer. */
void cell_name(const char *text, const struct cell_names *column);
void cell_right(const char *text, int width, bool last);
void cell_number(uint64_t n, int width, bool last);

#endif
