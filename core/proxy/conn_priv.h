/* What the files of a connection share and nobody else needs. */
#ifndef PENSTOCK_PROXY_CONN_PRIV_H
#define PENSTOCK_PROXY_CONN_PRIV_H

#include "penstock/proxy/conn.h"

/* conn_deadline.c */
/* Starts the watch over the deadlines that hold in its present state. */
void conn_watch(struct conn *c);
/* Takes the connection's timer for something else: it is stopped, and calls `on_timer` from now on.
 */
void conn_use_timer(struct conn *c, void (*on_timer)(struct timer *timer));
/* One side has ended: the half-closed window begins. */
void conn_half_closed(struct conn *c);
/* LINGER begins; and may it go on, the other side's queue being `unsent` bytes now? */
void conn_start_linger(struct conn *c);
bool conn_may_linger(struct conn *c, size_t unsent);

/* conn_log.c */
/* The access line and the close hook. */
void conn_report(struct conn *c);
void conn_free_tags(struct conn *c);
/* A further word on why the dial failed, for the access log. */
const char *conn_failed_detail(const struct conn *c);

#endif
