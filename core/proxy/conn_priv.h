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
/* HANG begins: the timer goes after so long, or at the time of conn_end_by(). */
void conn_start_hang(struct conn *c, uint64_t ms);
/* Ends it when the time of conn_end_by() has come; for who uses its timer. Returns true then. */
bool conn_end_if_due(struct conn *c);
/* One side has ended: the half-closed window begins. */
void conn_half_closed(struct conn *c);
/* LINGER begins; and may it go on, the other side's queue being `unsent` bytes now? */
void conn_start_linger(struct conn *c);
bool conn_may_linger(struct conn *c, size_t unsent);

/* conn_script.c */
/* The policy serves the client itself. */
void conn_start_serving(struct conn *c);
/* The policy has said all: deliver it, then end for this reason. */
void conn_say_goodbye(struct conn *c, enum close_reason reason, const char *detail);
/* Sends `reply`, taken over, and does the same. */
void conn_reply(struct conn *c, struct buf *reply, enum close_reason reason, const char *detail);
/* GOODBYE: the client may have taken it, or have gone. */
void conn_look_at_goodbye(struct conn *c);

/* conn_tls.c */
/* After the accept hook and the PROXY header: the client's TLS handshake where the listener wants
 * one, then the connect hook. */
void conn_start_tls(struct conn *c);
/* TLS: bytes may have come. */
void conn_look_at_tls(struct conn *c);
/* The sni hook has decided: `cert` (taken over; NULL: as configured), or no. */
void conn_tls_chosen(struct conn *c, struct tls_cert *cert, bool refuse);
/* It is no handshake in flight any more. */
void conn_leave_handshakes(struct conn *c);

/* conn_capture.c */
/* A side may have come that is to be captured. */
void conn_capture_begin(struct conn *c);

/* conn.c */
/* Ends the client cleanly although TLS has failed, so that it gets the alert. */
void conn_close_after_alert(struct conn *c, const char *why);
void conn_set_state(struct conn *c, enum conn_state state);
/* Runs a hook and does what it says. */
void conn_decide(struct conn *c, enum policy_hook hook);

/* conn_proxy.c */
/* Whether a PROXY header is to come before anything else, or its absence refused. */
bool conn_expects_proxy(const struct conn *c);
/* PROXY begins: leads to conn_start_tls() or to the end of the connection. */
void conn_start_proxy(struct conn *c);
/* PROXY: the client has sent something, or ended. */
void conn_read_proxy(struct conn *c);
/* PROXY: its deadline has passed; logs and counts it. */
void conn_proxy_is_late(struct conn *c);
void conn_free_proxy(struct conn *c);

/* conn_stats.c: each counts in the statistics of its listener. */
void conn_count_begin(struct conn *c);
/* What was relayed since the last call. */
void conn_count_bytes(struct conn *c);
/* The dial has ended: an enum close_reason, DIAL_OK or DIAL_CANCELLED. */
void conn_count_dial(struct conn *c, int result);
/* The client's handshake has succeeded, or is ended by the end of the connection. */
void conn_count_handshake(struct conn *c);
/* The end of the connection, while it has its dial still. */
void conn_count_end(struct conn *c);

/* conn_log.c */
/* The access line and the close hook. */
void conn_report(struct conn *c);
void conn_free_tags(struct conn *c);

/* conn_dial.c */
/* Whom a PROXY header is to tell of. */
struct dial_proxy conn_dial_proxy(const struct conn *c);
/* A further word on why the dial failed, for the access log. */
const char *conn_failed_detail(const struct conn *c);
/* The close reason that stands for it. */
enum close_reason conn_failed_reason(const struct conn *c);
/* It is connected: to a server that is being drained since it was chosen? */
void conn_keep_to_drain(struct conn *c);
/* Keeps what a failed dial has said. */
void conn_note_failure(struct conn *c, const struct dial_result *result);

#endif
