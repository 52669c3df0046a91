/* Reaching an upstream. Targets in order; within a target all addresses of its name, raced. One
 * deadline over all; a target that does not answer gets its share of what is left, or the time it
 * was given, so that the next ones have theirs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dial_priv.h"
#include "penstock/base/err.h"

/* --- ending
 * ----------------------------------------------------------------------------------------- */

/* Nothing of the target: this process has run out of something, or may not use that source. */
static bool is_ours(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -EADDRNOTAVAIL;
}

/* The attempt at the present target has failed: tells those who count. */
static void book_failure(struct dial *d)
{
    size_t n_good = d->via ? d->via->hop + d->via->beyond : 0;
    if (d->entered && !is_ours(d->last_err))
        target_dialled(dial_target(d), n_good, d->o.loop->now_ms);
}

static void leave_target(struct dial *d)
{
    if (d->entered)
        target_leave(dial_target(d));
    d->entered = false;
    timers_stop(&d->o.loop->timers, &d->next);
    timers_stop(&d->o.loop->timers, &d->share);
    dial_address_drop(d);
    dial_attempt_drop_all(d);
    if (d->via)
        via_stop(d->via);
}

static void free_dial(struct loop_task *task)
{
    struct dial *d = container_of(task, struct dial, free_task);
    free(d->via);
    free(d);
}

static void end(struct dial *d)
{
    d->finished = true;
    leave_target(d);
    timers_stop(&d->o.loop->timers, &d->deadline);
    loop_forget(&d->finish_task);
    loop_defer(d->o.loop, &d->free_task);
}

void dial_cancel(struct dial *d)
{
    end(d);
}

int dial_need_via(struct dial *d)
{
    if (d->via)
        return 0;
    d->via = malloc(sizeof *d->via);
    if (!d->via)
        return -ENOMEM;
    via_init(d->via);
    return 0;
}

static void report_failure(struct dial *d)
{
    struct dial_result result = {.err = err_from_errno(d->last_err ? d->last_err : PS_EUNREACHABLE),
                                 .target =
                                     d->target < d->o.n_targets ? d->target : d->o.n_targets - 1,
                                 .address = d->last_addr};
    if (d->last_err == -EMFILE || d->last_err == -ENFILE || d->last_err == -ENOMEM)
        result.err = d->last_err; /* ours to mend, so keep the exact word */
    if (result.err == PS_EDNS)
        result.why = d->dns_why;
    if (result.err == PS_ETLS && d->via) {
        result.why = d->via->tls_why;
        result.advice = d->via->tls_advice;
    }
    result.hop = d->via && d->via->why[0] ? d->via->why : NULL;
    end(d);
    d->done(d->arg, &result);
}

void dial_succeed(struct dial *d)
{
    struct dial_result result = {.target = d->target, .address = d->direct};
    d->direct_open = d->speaking = d->entered = false; /* it is the caller's now */
    target_dialled(dial_target(d), TARGET_ALL_GOOD, d->o.loop->now_ms);
    if (result.address.sa.sa_family == AF_UNIX)
        d->o.stream->read_on = true; /* reads stop at the border of messages with descriptors */
    if (via_is_needed(dial_target(d)))
        d->o.stream->readable = true; /* what came behind an answer has made its edge */
    end(d);
    d->done(d->arg, &result);
}

static void on_finish(struct loop_task *task)
{
    report_failure(container_of(task, struct dial, finish_task));
}

static void fail_all(struct dial *d)
{
    if (d->starting)
        loop_ready(d->o.loop, &d->finish_task);
    else
        report_failure(d);
}

/* --- one target after the other
 * ---------------------------------------------------------------------- */

/* Names the proxy on the way to the present target that did not answer or was not reached. Kept for
 * the report: it may be the last target. */
static void blame_hop(struct dial *d)
{
    int err = err_from_errno(d->last_err);
    char text[100];
    if (!d->via && (!target_n_hops(dial_target(d)) || dial_need_via(d)))
        return;
    snprintf(text, sizeof text, "%s%s%s", err_text(err), err == PS_EDNS && d->dns_why ? ": " : "",
             err == PS_EDNS && d->dns_why ? d->dns_why : "");
    via_blame(d->via, dial_target(d), text);
}

static void on_deadline(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, deadline);
    d->last_err = PS_ETIMEOUT;
    if (d->target < d->o.n_targets) {
        blame_hop(d);
        book_failure(d);
    }
    report_failure(d);
}

void dial_next_target(struct dial *d)
{
    const struct endpoint *e = target_first(dial_target(d));
    if (e->kind == ENDPOINT_NAME && d->last_err != PS_EDNS)
        resolver_doubt(d->o.resolver, e->host);
    if (!d->hop_blamed)
        blame_hop(d);
    d->hop_blamed = false;
    book_failure(d);
    leave_target(d);
    d->target++;
    dial_begin_target(d);
}

static void on_share(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, share);
    d->last_err = PS_ETIMEOUT;
    dial_next_target(d);
}

static void on_next(struct timer *timer)
{
    struct dial *d = container_of(timer, struct dial, next);
    if (target_first(dial_target(d))->kind == ENDPOINT_UNIX)
        dial_begin_target(d);
    else
        dial_address_try_next(d);
}

static void begin_unix(struct dial *d, const struct endpoint *e)
{
    struct sockaddr_un un;
    struct addr address = {.sa.sa_family = AF_UNIX};
    socklen_t len = addr_unix(e->host, &un);
    int err = len ? dial_attempt_start(d, (struct sockaddr *)&un, len, &address) : -ENAMETOOLONG;
    bool may_wait = d->deadline_ms || d->target + 1 == d->o.n_targets;
    if (err == -EAGAIN && may_wait) {
        loop_timer(d->o.loop, &d->next, BUSY_DELAY_MS);
    } else if (err) {
        d->last_err = err;
        d->last_addr = address;
        dial_next_target(d);
    }
}

static void arm_share(struct dial *d)
{
    uint64_t now = d->o.loop->now_ms;
    size_t left = d->o.n_targets - d->target;
    const struct target_options *o = dial_target(d)->options;
    if (o && o->timeout_ms)
        loop_timer(d->o.loop, &d->share, o->timeout_ms);
    else if (d->deadline_ms && left > 1 && d->deadline_ms > now)
        loop_timer(d->o.loop, &d->share, (d->deadline_ms - now) / left);
}

void dial_begin_target(struct dial *d)
{
    if (d->target >= d->o.n_targets) {
        fail_all(d);
        return;
    }
    const struct endpoint *e = target_first(dial_target(d));
    if (!d->entered)
        target_enter(dial_target(d));
    d->entered = true;
    if (!timer_is_active(&d->share))
        arm_share(d);
    if (e->kind == ENDPOINT_UNIX)
        begin_unix(d, e);
    else
        dial_address_begin(d, e);
}

int dial_start(const struct dial_options *options, dial_done_fn *done, void *arg, struct dial **out)
{
    struct dial *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->o = *options;
    d->done = done;
    d->arg = arg;
    d->free_task.run = free_dial;
    d->finish_task.run = on_finish;
    list_init(&d->free_task.node);
    list_init(&d->finish_task.node);
    list_init(&d->attempts);
    timer_init(&d->deadline, on_deadline);
    timer_init(&d->share, on_share);
    timer_init(&d->next, on_next);
    if (d->o.timeout_ms) {
        d->deadline_ms = d->o.loop->now_ms + d->o.timeout_ms;
        timers_start(&d->o.loop->timers, &d->deadline, d->deadline_ms);
    }
    *out = d;
    d->starting = true;
    dial_begin_target(d);
    d->starting = false;
    return 0;
}
