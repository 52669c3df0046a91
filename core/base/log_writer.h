/* The log's queues and the thread that empties them; private to core/base. */
#ifndef PENSTOCK_BASE_LOG_WRITER_H
#define PENSTOCK_BASE_LOG_WRITER_H

#include "penstock/base/log.h"

#include <pthread.h>
#include <stdatomic.h>

enum log_channel { LOG_MAIN, LOG_ACCESS, LOG_CHANNELS };

struct log_writer;

/* What outlives every writer: they are made and left while other threads log. */
struct log_shared {
    pthread_mutex_t mutex;        /* for the pointer to the writer and for its queues */
    atomic_uint_fast64_t dropped; /* lines dropped since the start of the program */
};

/* Opens the files. Returns 0 or a negative errno (*which names what failed). */
int log_writer_new(const struct log_options *options, struct log_shared *shared,
                   struct log_writer **out, const char **which);
/* Before log_writer_start() only; after it log_writer_stop() is the end. */
void log_writer_free(struct log_writer *w);
/* Starts the thread. Returns 0 or a negative errno. */
int log_writer_start(struct log_writer *w);

/* With the mutex held. Queues one or more whole lines; false when there was no room, which is
 * counted. Access lines go to the main channel when they have none of their own. */
bool log_writer_push(struct log_writer *w, enum log_channel name, const char *line, size_t n,
                     bool urgent);

/* Opens the channel's file anew. Returns 0, also for a channel without a file, or a negative errno;
 * *file is its name. Without the mutex; not at the same time as log_writer_stop(). */
int log_writer_reopen(struct log_writer *w, enum log_channel name, const char **file);

/* With the mutex held, which is given up while waiting. Writes what is queued, for at most wait_ms.
 * True when all is written: then log_writer_join() it, without the mutex. False when the thread is
 * stuck: it is left alone, `w` is no longer ours, and it frees itself should it ever return. */
bool log_writer_stop(struct log_writer *w, unsigned wait_ms);
void log_writer_join(struct log_writer *w);

#endif
