/* The log's writer: two bounded queues and the thread that writes them out.
 *
 * Producers copy finished lines into a queue; the writer swaps the queue for an empty one and so
 * never makes a producer wait for a write(). It sleeps only when all is written, and writes at most
 * every LINGER_NS, so that thousands of lines a second are a hundred wakeups, not thousands. It
 * knows nothing of how lines look but for the notice that some were lost. */
#include "log_writer.h"

#include "log_format.h"
#include "log_sink.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    QUEUE_BYTES = 1024 * 1024,
    RESERVED_BYTES = 64 * 1024, /* the last part of a queue is for warnings and errors */
    LINGER_NS = 10 * 1000000,
    TELL_AGAIN_NS = 1000000000,
};

/* One sink with its queue. */
struct channel {
    struct log_sink sink;
    bool is_open;
    char *filling;  /* QUEUE_BYTES, `len` of them used */
    char *draining; /* swapped with `filling` by the writer */
    size_t len;
    uint64_t dropped; /* lines that found the queue full, since the last swap */
    uint64_t lost;    /* lines not written that no line has told of yet */
    uint64_t told_ns; /* when a line last told of lost ones */
    int new_fd;       /* log_reopen()'s descriptor, until the writer takes it; -1: none */
};

enum writer_state {
    BUSY,    /* looks at the queues again before it sleeps */
    IDLE,    /* waits for any line */
    LINGERS, /* waits for the end of LINGER_NS, an urgent line, or a queue that fills up */
};

/* What one log_open() makes and one log_close() ends; a writer stuck in write() outlives it. All is
 * under the mutex but `sink`, `draining`, `lost` and `told_ns` of its channels: they are the
 * thread's. */
struct log_writer {
    struct log_shared *shared;
    enum log_format format; /* of the notice that lines were lost */
    pthread_t thread;
    pthread_cond_t wake;     /* for the writer */
    pthread_cond_t finished; /* for log_close() */
    enum writer_state state;
    bool urgent;
    bool stop; /* finish when the queues are empty */
    bool is_finished;
    atomic_bool orphan; /* log_close() has gone: free everything, write nothing more */
    uint64_t last_write_ns;
    struct channel channels[LOG_CHANNELS];
};

static uint64_t count_lines(const char *lines, size_t n)
{
    uint64_t count = 0;
    const char *end = lines + n;
    while (lines < end && (lines = memchr(lines, '\n', (size_t)(end - lines)))) {
        lines++;
        count++;
    }
    return count;
}

/* ---- queues ---- */

static void wake_writer(struct log_writer *w, bool now)
{
    bool sleeps = w->state == IDLE || (w->state == LINGERS && now);
    if (!sleeps)
        return;
    w->state = BUSY; /* so that the next line does not signal again */
    pthread_cond_signal(&w->wake);
}

bool log_writer_push(struct log_writer *w, enum log_channel name, const char *line, size_t n,
                     bool urgent)
{
    struct channel *c = &w->channels[w->channels[name].is_open ? name : LOG_MAIN];
    size_t cap = urgent ? QUEUE_BYTES : QUEUE_BYTES - RESERVED_BYTES;
    if (w->is_finished || c->len > cap || n > cap - c->len) {
        c->dropped++;
        atomic_fetch_add(&w->shared->dropped, 1);
        return false;
    }
    memcpy(c->filling + c->len, line, n);
    c->len += n;
    w->urgent = w->urgent || urgent;
    wake_writer(w, urgent || c->len > QUEUE_BYTES / 2);
    return true;
}

/* ---- the thread ---- */

static bool tell_in_main(struct log_writer *w, const struct log_out *line)
{
    return log_sink_write(&w->channels[LOG_MAIN].sink, line->data, line->len, &w->orphan) ==
           line->len;
}

/* In the main log too: an access file is read by programs. */
static bool tell_for_access(struct log_writer *w, const struct log_out *line)
{
    pthread_mutex_lock(&w->shared->mutex);
    bool told = log_writer_push(w, LOG_MAIN, line->data, line->len, true);
    pthread_mutex_unlock(&w->shared->mutex);
    return told;
}

/* Says that lines are missing, if any are. */
static void tell_lost(struct log_writer *w, enum log_channel name)
{
    struct channel *c = &w->channels[name];
    struct log_out line;
    char text[160];
    if (c->lost == 0)
        return;
    int len = snprintf(text, sizeof text, "%" PRIu64 " lines of the %slog were lost: %s", c->lost,
                       name == LOG_ACCESS ? "access " : "",
                       c->sink.error ? err_text(-c->sink.error) : "the queue was full");
    log_out_init(&line);
    log_put_line(&line, w->format, LOG_WARN, 0, text, (size_t)len);
    if (!line.failed && (name == LOG_MAIN ? tell_in_main : tell_for_access)(w, &line)) {
        c->lost = 0;
        c->sink.error = 0;
        c->told_ns = clock_now_ns();
    }
    log_out_deinit(&line);
}

/* What the writer took from a channel under the mutex. */
struct batch {
    size_t len;
    uint64_t dropped;
    int new_fd;
};

static struct batch take(struct channel *c)
{
    struct batch b = {.len = c->len, .dropped = c->dropped, .new_fd = c->new_fd};
    char *full = c->filling;
    c->filling = c->draining;
    c->draining = full;
    c->len = 0;
    c->dropped = 0;
    c->new_fd = -1;
    return b;
}

static void flush(struct log_writer *w, enum log_channel name, const struct batch *b)
{
    struct channel *c = &w->channels[name];
    if (b->new_fd >= 0)
        log_sink_replace(&c->sink, b->new_fd);
    if (b->len == 0 && b->dropped == 0)
        return;
    if (name == LOG_MAIN)
        tell_lost(w, name); /* what failed before comes before this batch */
    size_t done = log_sink_write(&c->sink, c->draining, b->len, &w->orphan);
    uint64_t failed = count_lines(c->draining + done, b->len - done);
    atomic_fetch_add(&w->shared->dropped, failed);
    c->lost += failed + b->dropped;
    /* An access file that cannot be written is news at once, but not with every batch. */
    bool due = name == LOG_ACCESS && clock_now_ns() - c->told_ns >= TELL_AGAIN_NS;
    if (due || (name == LOG_MAIN && done == b->len))
        tell_lost(w, name); /* what found no room comes after the batch */
}

static bool has_work(const struct log_writer *w)
{
    for (int i = 0; i < LOG_CHANNELS; i++) {
        const struct channel *c = &w->channels[i];
        if (c->len > 0 || c->dropped > 0 || c->new_fd >= 0)
            return true;
    }
    return false;
}

static bool is_filling_up(const struct log_writer *w)
{
    return w->channels[LOG_MAIN].len > QUEUE_BYTES / 2 ||
           w->channels[LOG_ACCESS].len > QUEUE_BYTES / 2;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
                             .tv_nsec = (long)(ns % 1000000000)};
}

/* Under the mutex: lets lines gather, unless the last write is long past. */
static void linger(struct log_writer *w)
{
    struct timespec until = timespec_of(w->last_write_ns + LINGER_NS);
    w->state = LINGERS;
    while (w->state == LINGERS && !w->urgent && !w->stop && !is_filling_up(w))
        if (pthread_cond_timedwait(&w->wake, &w->shared->mutex, &until) != 0)
            break;
    w->state = BUSY;
}

/* Under the mutex. False when there is nothing more to do, ever. */
static bool wait_for_work(struct log_writer *w)
{
    while (!has_work(w)) {
        if (w->stop)
            return false;
        w->state = IDLE;
        pthread_cond_wait(&w->wake, &w->shared->mutex);
        w->state = BUSY;
    }
    linger(w);
    return !atomic_load(&w->orphan);
}

void log_writer_free(struct log_writer *w)
{
    for (int i = 0; i < LOG_CHANNELS; i++) {
        struct channel *c = &w->channels[i];
        if (c->new_fd >= 0)
            close(c->new_fd);
        log_sink_deinit(&c->sink);
        free(c->filling);
        free(c->draining);
    }
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->finished);
    free(w);
}

static void *run_writer(void *arg)
{
    struct log_writer *w = arg;
    pthread_mutex_lock(&w->shared->mutex);
    while (wait_for_work(w)) {
        struct batch batches[LOG_CHANNELS];
        for (int i = 0; i < LOG_CHANNELS; i++)
            batches[i] = take(&w->channels[i]);
        w->urgent = false;
        pthread_mutex_unlock(&w->shared->mutex);
        for (int i = 0; i < LOG_CHANNELS; i++)
            flush(w, (enum log_channel)i, &batches[i]);
        pthread_mutex_lock(&w->shared->mutex);
        w->last_write_ns = clock_now_ns();
    }
    bool orphan = atomic_load(&w->orphan);
    w->is_finished = true;
    pthread_cond_signal(&w->finished);
    pthread_mutex_unlock(&w->shared->mutex);
    if (orphan)
        log_writer_free(w);
    return NULL;
}

/* ---- life ---- */

static int channel_init(struct channel *c, const char *file, int fd)
{
    int err = log_sink_init(&c->sink, file, fd);
    if (err)
        return err;
    c->filling = malloc(QUEUE_BYTES);
    c->draining = malloc(QUEUE_BYTES);
    c->is_open = true;
    return c->filling && c->draining ? 0 : -ENOMEM; /* log_writer_free() takes what is there */
}

static bool is_word(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

static int open_channels(struct log_writer *w, const struct log_options *o, const char **which)
{
    *which = o->file ? o->file : "standard error";
    int err = channel_init(&w->channels[LOG_MAIN], o->file, STDERR_FILENO);
    if (err || !o->access_file || is_word(o->access_file, "off"))
        return err;
    bool to_stdout = is_word(o->access_file, "-");
    *which = to_stdout ? "standard output" : o->access_file;
    return channel_init(&w->channels[LOG_ACCESS], to_stdout ? NULL : o->access_file, STDOUT_FILENO);
}

static struct log_writer *allocate(struct log_shared *shared, enum log_format format)
{
    struct log_writer *w = calloc(1, sizeof *w);
    pthread_condattr_t monotonic;
    if (!w)
        return NULL;
    w->shared = shared;
    w->format = format;
    for (int i = 0; i < LOG_CHANNELS; i++)
        w->channels[i].new_fd = w->channels[i].sink.fd = -1;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_cond_init(&w->finished, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return w;
}

int log_writer_new(const struct log_options *options, struct log_shared *shared,
                   struct log_writer **out, const char **which)
{
    *which = "the log";
    *out = NULL;
    struct log_writer *w = allocate(shared, options->format);
    if (!w)
        return -ENOMEM;
    int err = open_channels(w, options, which);
    if (err)
        log_writer_free(w);
    else
        *out = w;
    return err;
}

/* The thread has every signal blocked: they are for the main loop, and SIGPIPE is for nobody. */
int log_writer_start(struct log_writer *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&w->thread, NULL, run_writer, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -err;
}

int log_writer_reopen(struct log_writer *w, enum log_channel name, const char **file)
{
    struct channel *c = &w->channels[name];
    *file = c->sink.file; /* never changes, so the writer may be at work on the sink */
    if (!c->sink.file)
        return 0;
    int fd = log_sink_reopen(&c->sink);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&w->shared->mutex);
    if (c->new_fd >= 0)
        close(c->new_fd);
    c->new_fd = fd;
    wake_writer(w, true);
    pthread_mutex_unlock(&w->shared->mutex);
    return 0;
}

/* The thread is stuck in write(), perhaps for ever. */
static void abandon(struct log_writer *w)
{
    for (int i = 0; i < LOG_CHANNELS; i++)
        atomic_fetch_add(&w->shared->dropped,
                         count_lines(w->channels[i].filling, w->channels[i].len));
    atomic_store(&w->orphan, true);
    pthread_detach(w->thread);
}

bool log_writer_stop(struct log_writer *w, unsigned wait_ms)
{
    struct timespec until = timespec_of(clock_now_ns() + (uint64_t)wait_ms * 1000000);
    w->stop = true;
    wake_writer(w, true);
    while (!w->is_finished)
        if (pthread_cond_timedwait(&w->finished, &w->shared->mutex, &until) != 0)
            break;
    bool finished = w->is_finished;
    if (!finished)
        abandon(w);
    return finished;
}

void log_writer_join(struct log_writer *w)
{
    pthread_join(w->thread, NULL);
    log_writer_free(w);
}
