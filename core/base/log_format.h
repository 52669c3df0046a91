/* Log lines as bytes: text, JSON or journal. Pure but for the clock; private to core/base. */
#ifndef PENSTOCK_BASE_LOG_FORMAT_H
#define PENSTOCK_BASE_LOG_FORMAT_H

#include "penstock/base/log.h"

/* A line in the making. On the stack of its caller; longer lines go to the heap. */
struct log_out {
    char *data;
    size_t len;
    size_t cap;
    bool failed; /* out of memory: the line is not complete and must not be used */
    char room[1024];
};

void log_out_init(struct log_out *o);
void log_out_deinit(struct log_out *o);

/* One line with its end, whatever bytes `text` has. Text over 64 KiB is cut. */
void log_put_line(struct log_out *o, enum log_format format, enum log_level level, uint64_t conn_id,
                  const char *text, size_t len);
/* One access line with its end. Values over 4 KiB are cut. */
void log_put_access(struct log_out *o, enum log_format format, const struct log_access *a);

#endif
