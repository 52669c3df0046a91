/* Attempts to connect: the first on the stream itself, racing ones on descriptors of their own. The
 * first that connects takes the stream; what has to be said there first (via.c) is said under the
 * same deadlines. */
#include <errno.h>
#include <stdlib.h>

#include "dial_priv.h"
#include "dial_socket.h"
#include "penstock/net/vnet.h"

/* --- ending
 * ----------------------------------------------------------------------------------------- */

static void free_attempt(struct loop_task *task)
{
    free(container_of(task, struct attempt, free_task));
}

static void drop_attempt(struct attempt *a)
{
    stream_close(&a->stream);
    list_remove(&a->node);
    loop_defer(a->dial->o.loop, &a->free_task);
}

static void drop_attempts(struct dial *d)
{
    list_for_each (node, tmp, &d->attempts)
        drop_attempt(container_of(node, struct attempt, node));
}

static void drop_direct(struct dial *d)
{
    if (d->direct_open)
        stream_close(d->o.stream);
    if (d->speaking) /* what it said of its end is not of the next one's */
        stream_init(d->o.stream, d->o.stream->entry.on_event);
    d->direct_open = d->speaking = false;
}

void dial_attempt_drop_all(struct dial *d)
{
    drop_attempts(d);
    drop_direct(d);
}

/* --- connected
 * --------------------------------------------------------------------------------------- */

/* What was connected to was reached, but leads no further. */
static void fail_target(struct dial *d, int err)
{
    d->last_err = err;
    d->last_addr = d->direct;
    dial_next_target(d);
}

/* Says what can be said on the connected stream now. */
static void speak(struct dial *d)
{
    int err = via_step(d->via, d->o.stream);
    if (err == -EINPROGRESS)
        return;
    if (err == 0) {
        dial_succeed(d);
        return;
    }
    d->hop_blamed = d->via->why[0];
    fail_target(d, err);
}

/* A connected socket, on `entry` (the stream's own, or an attempt's): the race is over. */
static void win(struct dial *d, struct attempt *a)
{
    int err = 0;
    if (a) {
        drop_direct(d);
        d->direct = a->address;
        err = stream_move(&a->stream, d->o.stream, &d->o.loop->poller);
        d->direct_open = true;
    }
    drop_attempts(d);
    dial_address_drop(d);
    timers_stop(&d->o.loop->timers, &d->next);
    d->o.stream->writable = true;
    if (!err && !via_is_needed(dial_target(d))) {
        dial_succeed(d);
        return;
    }
    d->speaking = !err;
    if (!err)
        err = dial_need_via(d);
    if (!err)
        err = via_start(d->via, d->o.loop, dial_target(d), &d->o.proxy);
    if (err)
        fail_target(d, err);
    else
        speak(d);
}

/* --- events
 * ------------------------------------------------------------------------------------------ */

static void attempt_failed(struct dial *d, const struct addr *address, int err)
{
    d->last_err = err;
    d->last_addr = *address;
    dial_address_try_next(d);
}

static void on_attempt(struct poller_entry *entry, unsigned events)
{
    struct attempt *a = container_of(entry, struct attempt, stream.entry);
    struct dial *d = a->dial;
    int err = dial_socket_outcome(&a->stream, events, &a->address);
    if (err == -EINPROGRESS)
        return;
    if (err == 0) {
        win(d, a);
        return;
    }
    struct addr address = a->address;
    drop_attempt(a);
    attempt_failed(d, &address, err);
}

void dial_on_stream(struct dial *d, unsigned events)
{
    if (!d->direct_open || d->finished)
        return;
    if (d->speaking) {
        stream_note_events(d->o.stream, events);
        speak(d);
        return;
    }
    int err = dial_socket_outcome(d->o.stream, events, &d->direct);
    if (err == -EINPROGRESS)
        return;
    if (err == 0) {
        stream_note_events(d->o.stream, events);
        win(d, NULL);
        return;
    }
    drop_direct(d);
    attempt_failed(d, &d->direct, err);
}

/* --- starting
 * ---------------------------------------------------------------------------------------- */

static int begin_connect(struct dial *d, struct stream *s, const struct sockaddr *to, socklen_t len)
{
    if (d->o.loop->options.vnet)
        return vnet_connect(d->o.loop->options.vnet, s, to, len);
    const struct target_options *o = dial_target(d)->options;
    bool own = o && o->source.sa.sa_family != AF_UNSPEC;
    struct dial_socket_way way = {.options = d->o.socket,
                                  .source = own ? &o->source : &d->o.socket->source,
                                  .to = to,
                                  .len = len};
    return dial_socket_connect(s, &d->o.loop->poller, &way);
}

static int race(struct dial *d, const struct sockaddr *to, socklen_t len,
                const struct addr *address)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (!a)
        return -ENOMEM;
    *a = (struct attempt){.dial = d, .address = *address, .free_task = {.run = free_attempt}};
    stream_init(&a->stream, on_attempt);
    list_init(&a->free_task.node);
    list_push(&d->attempts, &a->node);
    int err = begin_connect(d, &a->stream, to, len);
    if (err)
        drop_attempt(a);
    return err;
}

int dial_attempt_start(struct dial *d, const struct sockaddr *to, socklen_t len,
                       const struct addr *address)
{
    if (d->direct_used)
        return race(d, to, len, address);
    int err = begin_connect(d, d->o.stream, to, len);
    if (err)
        return err;
    d->direct_used = d->direct_open = true;
    d->direct = *address;
    return 0;
}
