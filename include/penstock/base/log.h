/* The log: levels, text or JSON, written by a thread of its own.
 *
 * Callers format into a bounded queue; one writer thread does the write() calls, so that a full
 * disk, a stalled pipe or a slow terminal never stops a worker. When the queue is full, lines are
 * dropped and counted, and the count is logged once there is room again. The sink is the one global
 * of the program. */
#ifndef PENSTOCK_BASE_LOG_H
#define PENSTOCK_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(NAME, word, syslog priority) */
#define LOG_LEVELS(X)                                                                              \
    X(ERROR, "error", 3)                                                                           \
    X(WARN, "warn", 4)                                                                             \
    X(INFO, "info", 6)                                                                             \
    X(DEBUG, "debug", 7)

enum log_level {
#define X(name, word, priority) LOG_##name,
    LOG_LEVELS(X)
#undef X
};

enum log_format {
    LOG_TEXT,
    LOG_JSON,
    LOG_JOURNAL, /* text without time, "<6>" priority prefix: what systemd and syslog bridges read
                    from stderr */
};

struct log_options {
    enum log_level level;
    enum log_format format;
    const char *file;        /* NULL: standard error */
    const char *access_file; /* NULL: with the other lines; "-": standard output; "off": none */
};

/* Opens the sink and starts its writer. Returns 0 or a negative errno (file cannot be opened;
 * *which then names it). Strings are copied. Before log_open() lines go to stderr as text. */
int log_open(const struct log_options *options, const char **which);
/* Reopens the files by name (log rotation). The old ones stay in use when that fails, which is
 * logged. Async-signal-unsafe: call from the main loop. */
void log_reopen(void);
/* Writes what is queued, for at most `wait_ms`, and stops the writer. */
void log_close(unsigned wait_ms);

bool log_enabled(enum log_level level);
void log_set_level(enum log_level level);
/* The word of the level that is in force; static storage. */
const char *log_level_word(void);
/* Parses "error|warn|info|debug". Returns 0 or -EINVAL. */
int log_parse_level(const char *word, enum log_level *out);

/* One line; `conn_id` 0 means that it belongs to no connection. A newline inside the text is kept
 * as such in JSON ("\n") and indented in text. Control characters are escaped: peers must not forge
 * lines. */
void log_line(enum log_level level, uint64_t conn_id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_bytes(enum log_level level, uint64_t conn_id, const char *text, size_t len);

#define log_error(...) log_line(LOG_ERROR, 0, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, 0, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, 0, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG))                                                                \
            log_line(LOG_DEBUG, 0, __VA_ARGS__);                                                   \
    } while (0)

/* The access line of one connection, printed once at its end. In text
 *   <time> access id=7 listener=8080 client=127.0.0.1:50000 upstream=127.0.0.1:80 up=12 down=345
 *   duration_ms=6 connect_ms=0.2 reason=eof side=- detail=- k="v"
 * on one line; in JSON an object with the same names plus "tags":{…}. */
struct log_access {
    uint64_t id;
    const char *listener;
    const char *client; /* address as text */
    const char
        *proxy; /* who has told it by a PROXY header; NULL without: then it is not in the line */
    const char *upstream; /* address as text, "-" when none was reached */
    const char *via; /* proxies on the way to it; NULL without any: then it is not in the line */
    uint64_t bytes_up, bytes_down;
    uint64_t duration_us;
    int64_t connect_us;      /* time the dial took, -1 when none succeeded */
    const char *reason;      /* one word */
    const char *side;        /* "client", "upstream", or "-" */
    const char *detail;      /* further words or "-" */
    const char *const *tags; /* key, value, key, value, …, NULL; or NULL */
};
bool log_access_enabled(void);
void log_access(const struct log_access *a);

/* Takes every line and access line instead of the files, before it is formatted. */
struct log_tap {
    void (*line)(void *arg, enum log_level level, uint64_t conn_id, const char *text, size_t len);
    void (*access)(void *arg, const struct log_access *a);
    void *arg;
};
/* For a program of one thread that has not called log_open(). The tap outlives its use; NULL
 * removes it. */
void log_set_tap(const struct log_tap *tap);

/* Lines dropped so far because the writer could not keep up. */
uint64_t log_dropped(void);

#endif
