/* A connection as JSON. On its worker's thread. */
#ifndef PENSTOCK_CORE_ADMIN_CONN_JSON_H
#define PENSTOCK_CORE_ADMIN_CONN_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "penstock/base/json.h"

struct conn;

/* Milliseconds since it was accepted. */
uint64_t conn_json_age_ms(const struct conn *c);
/* Writes it as an object of a list; `rates`: those of its directions, too. */
void conn_json_write(struct json *j, const struct conn *c, bool rates);

#endif
