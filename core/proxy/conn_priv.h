/* What the files of a connection share and nobody else needs. */
#ifndef PENSTOCK_PROXY_CONN_PRIV_H
#define PENSTOCK_PROXY_CONN_PRIV_H

#include "penstock/proxy/conn.h"

/* conn.c: timer callbacks of two states that need no deadline but their own. */
void conn_on_linger(struct timer *timer);
void conn_on_hang_over(struct timer *timer);

/* conn_deadline.c */
/* Starts the watch over all deadlines of a relaying connection. */
void conn_arm_deadline(struct conn *c);
/* One side has ended: the half-closed window begins. */
void conn_half_closed(struct conn *c);
/* LINGER: the other side has had enough time to take what it was sent. */
bool conn_lingered_too_long(const struct conn *c);

/* conn_log.c */
/* The access line and the close hook. */
void conn_report(struct conn *c);
void conn_free_tags(struct conn *c);
/* A further word on why the dial failed, for the access log. */
const char *conn_failed_detail(const struct conn *c);

#endif
