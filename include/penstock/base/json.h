/* Writes JSON (RFC 8259) piece by piece to a byte queue. Text that is not ours may hold anything:
 * what is not UTF-8 becomes U+FFFD, and control characters are escaped. */
#ifndef PENSTOCK_BASE_JSON_H
#define PENSTOCK_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock/base/buf.h"

struct json {
    struct buf *out;
    bool failed; /* out of memory: what is in `out` is not whole */
    bool comma;  /* something stands before the next value */
};

/* Values are appended to `out`, which stays its owner's. */
void json_init(struct json *j, struct buf *out);

/* Each writes one value; `key` is its name in an object, NULL in a list and at the top. Each begin
 * has its end. */
void json_begin_object(struct json *j, const char *key);
void json_end_object(struct json *j);
void json_begin_list(struct json *j, const char *key);
void json_end_list(struct json *j);
/* `text` of `n` bytes, or up to its zero; NULL is null. */
void json_bytes(struct json *j, const char *key, const char *text, size_t n);
void json_text(struct json *j, const char *key, const char *text);
/* The bytes as base64 (RFC 4648). */
void json_base64(struct json *j, const char *key, const void *bytes, size_t n);
/* What is JSON already. */
void json_raw(struct json *j, const char *key, const char *json);
void json_uint(struct json *j, const char *key, uint64_t value);
/* null where it is no finite number. */
void json_number(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);

#endif
