/* The log's front: levels, and the way of a line from any thread to the writer.
 *
 * A line is formatted by its thread (log_format.c), queued under one mutex, and written by the
 * writer's thread (log_writer.c). The one global of the program is here. */
#include "penstock/base/log.h"

#include "log_format.h"
#include "log_writer.h"
#include "penstock/base/err.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    struct log_shared shared;
    struct log_writer *writer; /* under the mutex; NULL: lines go to stderr at once */
    bool muted;                /* the last writer is stuck, so stderr may be as well */
    atomic_int level;
    atomic_int format;
    atomic_int access_format;
    atomic_bool access;
    const struct log_tap *tap; /* gets every line instead of the files; NULL: none */
} the_log = {.shared.mutex = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO};

static void lock(void)
{
    pthread_mutex_lock(&the_log.shared.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&the_log.shared.mutex);
}

/* ---- lines ---- */

static void count_dropped(void)
{
    atomic_fetch_add(&the_log.shared.dropped, 1);
}

/* Before log_open() and after log_close(). */
static void write_directly(const struct log_out *line)
{
    if (write(STDERR_FILENO, line->data, line->len) != (ssize_t)line->len)
        count_dropped();
}

static void emit(enum log_channel name, const struct log_out *line, bool urgent)
{
    if (line->failed) {
        count_dropped();
        return;
    }
    lock();
    struct log_writer *w = the_log.writer;
    bool muted = the_log.muted;
    if (w)
        log_writer_push(w, name, line->data, line->len, urgent);
    unlock();
    if (!w && muted)
        count_dropped();
    else if (!w)
        write_directly(line); /* outside the mutex: it may block */
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&the_log.level, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
    atomic_store(&the_log.level, (int)level);
}

const char *log_level_word(void)
{
    static const char *const words[] = {
#define X(name, word, priority) word,
        LOG_LEVELS(X)
#undef X
    };
    return words[atomic_load(&the_log.level)];
}

int log_parse_level(const char *word, enum log_level *out)
{
    static const char *const words[] = {
#define X(name, word, priority) word,
        LOG_LEVELS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_bytes(enum log_level level, uint64_t conn_id, const char *text, size_t len)
{
    struct log_out line;
    if (!log_enabled(level))
        return;
    if (the_log.tap) {
        the_log.tap->line(the_log.tap->arg, level, conn_id, text, len);
        return;
    }
    log_out_init(&line);
    log_put_line(&line, (enum log_format)atomic_load(&the_log.format), level, conn_id, text, len);
    emit(LOG_MAIN, &line, level <= LOG_WARN);
    log_out_deinit(&line);
}

void log_line(enum log_level level, uint64_t conn_id, const char *fmt, ...)
{
    char text[512], *heap = NULL;
    va_list args;
    if (!log_enabled(level))
        return;
    va_start(args, fmt);
    int len = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (len >= (int)sizeof text) {
        va_start(args, fmt);
        len = vasprintf(&heap, fmt, args);
        va_end(args);
    }
    if (len < 0) { /* out of memory; `heap` is not set then */
        count_dropped();
        return;
    }
    log_bytes(level, conn_id, heap ? heap : text, (size_t)len);
    free(heap);
}

bool log_access_enabled(void)
{
    return atomic_load_explicit(&the_log.access, memory_order_relaxed);
}

void log_access(const struct log_access *a)
{
    struct log_out line;
    if (!log_access_enabled())
        return;
    if (the_log.tap) {
        the_log.tap->access(the_log.tap->arg, a);
        return;
    }
    log_out_init(&line);
    log_put_access(&line, (enum log_format)atomic_load(&the_log.access_format), a);
    emit(LOG_ACCESS, &line, false);
    log_out_deinit(&line);
}

void log_set_tap(const struct log_tap *tap)
{
    the_log.tap = tap;
    atomic_store(&the_log.access, tap != NULL);
}

uint64_t log_dropped(void)
{
    return atomic_load(&the_log.shared.dropped);
}

/* ---- open, reopen, close ---- */

/* Under the mutex, with the writer in place. */
static void apply_options(const struct log_options *o)
{
    /* A file of its own has no use for the journal's prefix; standard output may well lead to the
     * journal. */
    bool own_file = o->access_file && strcmp(o->access_file, "-") != 0;
    bool plain = o->format == LOG_JOURNAL && own_file;
    atomic_store(&the_log.level, (int)o->level);
    atomic_store(&the_log.format, (int)o->format);
    atomic_store(&the_log.access_format, (int)(plain ? LOG_TEXT : o->format));
    atomic_store(&the_log.access, !(o->access_file && strcmp(o->access_file, "off") == 0));
    the_log.muted = false;
}

int log_open(const struct log_options *options, const char **which)
{
    const char *ignored;
    struct log_writer *w;
    if (!which)
        which = &ignored;
    PENSTOCK_REQUIRE(!the_log.writer);
    int err = log_writer_new(options, &the_log.shared, &w, which);
    if (err)
        return err;
    err = log_writer_start(w);
    if (err) {
        *which = "the log's thread";
        log_writer_free(w);
        return err;
    }
    lock();
    the_log.writer = w;
    apply_options(options);
    unlock();
    return 0;
}

static void reopen(struct log_writer *w, enum log_channel name)
{
    const char *file;
    int err = log_writer_reopen(w, name, &file);
    if (err)
        log_error("log file %s cannot be reopened: %s; the old one stays in use", file,
                  err_text(err));
}

void log_reopen(void)
{
    lock();
    struct log_writer *w = the_log.writer; /* stays: who calls us calls log_close() too */
    unlock();
    if (!w)
        return;
    reopen(w, LOG_MAIN);
    reopen(w, LOG_ACCESS);
}

void log_close(unsigned wait_ms)
{
    lock();
    struct log_writer *w = the_log.writer;
    if (!w) {
        unlock();
        return;
    }
    bool finished = log_writer_stop(w, wait_ms);
    the_log.writer = NULL;
    the_log.muted = !finished;
    atomic_store(&the_log.access, false);
    atomic_store(&the_log.format, (int)LOG_TEXT);
    unlock();
    if (finished)
        log_writer_join(w);
}
