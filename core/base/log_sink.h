/* Where log bytes go: a file of ours, or standard output or error. Used by the log's writer thread
 * alone, after log_sink_open(); private to core/base. */
#ifndef PENSTOCK_BASE_LOG_SINK_H
#define PENSTOCK_BASE_LOG_SINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct log_sink {
    int fd;     /* -1: none */
    char *file; /* NULL: `fd` is not ours to close */
    bool torn;  /* the last write stopped inside a line */
    int error;  /* errno of the last write that failed */
};

/* Opens a copy of `file`, or takes the descriptor `fd` when it is NULL. Returns 0 or a negative
 * errno. */
int log_sink_init(struct log_sink *s, const char *file, int fd);
void log_sink_deinit(struct log_sink *s);
/* Another descriptor for the file, for after a rotation. Returns it or a negative errno. */
int log_sink_reopen(const struct log_sink *s);
/* Writes on to `fd` from here, and closes the old descriptor. */
void log_sink_replace(struct log_sink *s, int fd);

/* Writes the lines. Returns how many bytes went out: fewer than n when the descriptor failed, or
 * when *give_up came true while it would not take more. Blocks as long as the descriptor does. */
size_t log_sink_write(struct log_sink *s, const char *lines, size_t n, const atomic_bool *give_up);

#endif
