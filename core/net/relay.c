/* One direction a→b. Knows streams, buffers and pipes; nothing of connections, targets or Lua. */
#include "penstock/net/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "relay_priv.h"

enum {
    FULL_READS = 3,            /* full reads in a row that show a bulk transfer */
    SMALL_SPLICES = 8,         /* splices in a row under SPLICE_WORTH that show it is over */
    SPLICE_MOST = 1024 * 1024, /* bytes a splice; a pipe's capacity bounds it, too */
    SPLICE_WORTH = 16 * 1024,  /* copying is cheaper below */
    STEPS_PER_TURN = 16,       /* then others have their turn */
};

/* A bandwidth limit of one direction. */
struct relay_rate {
    struct rate_shared *bucket; /* one reference */
    uint64_t drawn;             /* taken from it, not read yet */
    struct timer timer;         /* while it runs, `drawn` may not be used */
    struct relay *relay;
};

/* What one step of the pump leads to. */
enum step {
    AGAIN, /* there may be more to do */
    STOP,  /* blocked, waiting, or over */
};

static void on_turn(struct loop_task *task)
{
    struct relay *r = container_of(task, struct relay, task);
    r->ops->on_ready(r);
}

void relay_init(struct relay *r, enum relay_direction direction, struct loop *loop,
                struct stream *from, struct stream *to, const struct relay_ops *ops)
{
    *r = (struct relay){
        .from = from, .to = to, .loop = loop, .ops = ops, .direction = (uint8_t)direction};
    r->task.run = on_turn;
    list_init(&r->task.node);
}

void relay_deinit(struct relay *r)
{
    relay_limit(r, 0);
    loop_forget(&r->task);
    if (r->pipe)
        pipe_pool_put(&r->loop->pipes, r->pipe);
    r->pipe = NULL;
    buf_pool_give_back(&r->loop->bufs, &r->held);
    buf_pool_give_back(&r->loop->bufs, &r->unread);
}

void relay_in_c(struct relay *r)
{
    r->mode = r->choice == RELAY_CHOICE_SPLICE ? RELAY_SPLICE : RELAY_COPY;
}

void relay_start(struct relay *r, enum relay_choice choice, enum relay_mode mode)
{
    r->choice = (uint8_t)choice;
    if (r->state == RELAY_IDLE)
        r->state = RELAY_OPEN;
    r->mode = (uint8_t)mode;
    if (mode == RELAY_COPY)
        relay_in_c(r);
}

static void on_rate_timer(struct timer *timer)
{
    struct relay *r = container_of(timer, struct relay_rate, timer)->relay;
    r->ops->on_ready(r);
}

/* What was drawn and is not used shall not be missing to others. */
static void give_back(struct relay_rate *rate)
{
    if (!rate || !rate->drawn || timer_is_active(&rate->timer))
        return;
    rate_shared_give(rate->bucket, (double)rate->drawn);
    rate->drawn = 0;
}

/* Leaves the bucket it draws from; what waits for it tries again. */
static void leave_bucket(struct relay *r)
{
    if (timer_is_active(&r->rate->timer)) {
        timers_stop(&r->loop->timers, &r->rate->timer);
        loop_ready(r->loop, &r->task);
    }
    give_back(r->rate);
    rate_shared_drop(r->rate->bucket);
}

int relay_limit_shared(struct relay *r, struct rate_shared *bucket)
{
    if (!bucket) {
        if (r->rate)
            leave_bucket(r);
        free(r->rate);
        r->rate = NULL;
        return 0;
    }
    rate_shared_hold(bucket); /* dropped in leave_bucket(); first, it may be the same one */
    if (r->rate) {
        leave_bucket(r);
    } else {
        r->rate = calloc(1, sizeof *r->rate);
        if (!r->rate) {
            rate_shared_drop(bucket);
            return -ENOMEM;
        }
        r->rate->relay = r;
        timer_init(&r->rate->timer, on_rate_timer);
    }
    r->rate->bucket = bucket;
    return 0;
}

int relay_limit(struct relay *r, uint64_t bytes_per_second)
{
    if (!bytes_per_second)
        return relay_limit_shared(r, NULL);
    uint64_t tenth = bytes_per_second / 10;
    struct rate_limits limits = {(double)bytes_per_second, tenth ? (double)tenth : 1};
    struct rate_shared *bucket = rate_shared_new(&limits, r->loop->now_ns);
    int err = bucket ? relay_limit_shared(r, bucket) : -ENOMEM;
    rate_shared_drop(bucket);
    return err;
}

/* How many bytes may be read now, at most `want`. 0 means that the timer will pump again. */
static size_t allowance(struct relay *r, size_t want)
{
    struct relay_rate *rate = r->rate;
    if (r->passing && want > r->pass_left)
        want = (size_t)r->pass_left;
    if (!rate)
        return want;
    if (timer_is_active(&rate->timer))
        return 0;
    if (!rate->drawn) {
        uint64_t wait_ms;
        rate->drawn = rate_shared_draw(rate->bucket, want, r->loop->now_ns, &wait_ms);
        if (wait_ms) {
            loop_timer(r->loop, &rate->timer, wait_ms);
            return 0;
        }
    }
    return rate->drawn < want ? (size_t)rate->drawn : want;
}

static void count(struct relay *r, size_t n)
{
    r->bytes += n;
    if (r->passing)
        r->pass_left -= n;
    if (r->rate)
        r->rate->drawn -= n;
}

static enum step broken(struct relay *r)
{
    r->state = RELAY_BROKEN;
    return STOP;
}

/* The source has nothing more and all of it has been delivered. */
static enum step end(struct relay *r)
{
    if (r->from->err)
        return broken(r);
    if (stream_staged(r->to)) /* a close would lose that */
        return r->to->err ? broken(r) : STOP;
    if (!r->to->shut && (!r->last || stream_says_goodbye(r->to))) {
        if (stream_shutdown(r->to))
            return broken(r);
        if (stream_staged(r->to))
            return STOP;
    }
    r->state = RELAY_ENDED;
    return STOP;
}

/* A script that waits for room, and has it. */
static void tell_room(struct relay *r)
{
    if (!r->wants_room || relay_unsent(r) > r->room_mark)
        return;
    r->wants_room = false;
    r->ops->on_room(r);
}

static enum step flush_held(struct relay *r)
{
    ssize_t n = stream_write(r->to, buf_bytes(&r->held), buf_len(&r->held));
    if (n < 0)
        return broken(r);
    buf_consume(&r->held, (size_t)n);
    if (!buf_len(&r->held))
        buf_pool_give_back(&r->loop->bufs, &r->held);
    tell_room(r);
    return AGAIN;
}

#ifdef SPLICE_F_MOVE
static enum step flush_pipe(struct relay *r)
{
    while (r->pipe->held_bytes) {
        ssize_t n = splice(r->pipe->rd, NULL, r->to->entry.fd, NULL, r->pipe->held_bytes,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n > 0) {
            r->pipe->held_bytes -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            r->to->writable = false;
            return STOP;
        } else if (n == 0 || errno != EINTR) {
            r->to->err = r->to->err ? r->to->err : (n ? -errno : -EPIPE);
            r->to->readable = r->to->read_on = true; /* as stream_write() does */
            return broken(r);
        }
    }
    return AGAIN;
}
#else
static enum step flush_pipe(struct relay *r)
{
    (void)r;
    return AGAIN;
}
#endif

/* Bytes have to be seen by somebody. */
static bool is_captured(const struct relay *r)
{
    return r->from->capture || r->to->capture;
}

/* A bulk transfer earns larger reads, or splice where it is allowed. */
static void note_read(struct relay *r, size_t n)
{
    if (n < BUF_POOL_SMALL) {
        r->full_reads = 0;
        return;
    }
    if (r->full_reads < FULL_READS)
        r->full_reads++;
    if (r->full_reads == FULL_READS && r->mode == RELAY_COPY && r->choice == RELAY_CHOICE_AUTO &&
        !r->from->urgent && !is_captured(r)) {
        r->mode = RELAY_SPLICE;
        r->small_splices = 0;
    }
}

static ssize_t take(struct relay *r, char **bytes, size_t most)
{
    size_t want = r->full_reads < FULL_READS ? BUF_POOL_SMALL : BUF_POOL_LARGE;
    want = allowance(r, want < most ? want : most);
    if (!want)
        return -EAGAIN;
    *bytes = buf_pool_current(&r->loop->bufs);
    if (!*bytes) {
        r->from->err = r->from->err ? r->from->err : -ENOMEM;
        r->from->eof = true;
        return -ENOMEM;
    }
    ssize_t n = stream_read(r->from, *bytes, want);
    if (n <= 0)
        return n;
    count(r, (size_t)n);
    note_read(r, (size_t)n);
    if (r->full_reads == FULL_READS)
        loop_served_bulk(r->loop);
    else
        loop_served_prompt(r->loop);
    return n;
}

ssize_t relay_take(struct relay *r, char **bytes, size_t most)
{
    ssize_t n = take(r, bytes, most);
    if (!r->pumping) /* else at the end of that */
        give_back(r->rate);
    return n;
}

/* Reads a chunk into the loop's buffer. Returns its length; 0 when there is none, with *next as the
 * step. */
static size_t read_chunk(struct relay *r, char **bytes, enum step *next)
{
    /* What becomes a string is better small: its memory is used again. */
    ssize_t n = relay_take(r, bytes, r->mode == RELAY_SCRIPT ? BUF_POOL_SMALL : BUF_POOL_LARGE);
    *next = n == -EAGAIN ? STOP : AGAIN; /* AGAIN: the next step sees the end */
    return n > 0 ? (size_t)n : 0;
}

static enum step copy(struct relay *r)
{
    char *bytes;
    enum step next;
    size_t n = read_chunk(r, &bytes, &next);
    if (!n)
        return next;
    ssize_t put = stream_write(r->to, bytes, n);
    if (put < 0)
        return broken(r);
    if ((size_t)put == n)
        return AGAIN;
    buf_pool_hand_over(&r->loop->bufs, &r->held, (size_t)put, n);
    return STOP;
}

static enum step answer(struct relay *r, enum relay_verdict verdict)
{
    if (verdict == RELAY_FAIL || r->state == RELAY_BROKEN)
        return broken(r);
    if (verdict == RELAY_PASS)
        relay_in_c(r);
    return AGAIN;
}

static enum step script(struct relay *r)
{
    char *bytes;
    enum step next;
    enum relay_verdict verdict = RELAY_GO_ON;
    size_t n = read_chunk(r, &bytes, &next);
    if (!n)
        return next;
    r->waiting = true;
    if (!r->ops->on_data(r, bytes, n, &verdict))
        return STOP;
    r->waiting = false;
    return answer(r, verdict);
}

#ifdef SPLICE_F_MOVE
static void no_more_splice(struct relay *r)
{
    r->choice = RELAY_CHOICE_COPY;
    r->mode = RELAY_COPY;
}

static enum step splice_failed(struct relay *r)
{
    if (errno == EINTR)
        return AGAIN;
    if (errno == EINVAL) { /* this kind of socket cannot */
        no_more_splice(r);
        return AGAIN;
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
        r->from->err = r->from->err ? r->from->err : -errno;
        r->from->eof = true;
        return AGAIN;
    }
    if (r->from->urgent) { /* EAGAIN at an urgent mark, too: only recv() gets past it */
        no_more_splice(r);
        return AGAIN;
    }
    r->from->readable = false;
    return STOP;
}

static enum step splice_on(struct relay *r)
{
    if (is_captured(r)) { /* for how long, who knows */
        if (r->choice == RELAY_CHOICE_AUTO)
            r->mode = RELAY_COPY;
        return copy(r);
    }
    if (r->from->ops || !stream_takes_splice(r->to)) { /* only sockets can */
        no_more_splice(r);
        return AGAIN;
    }
    size_t want = allowance(r, SPLICE_MOST);
    if (!want)
        return STOP;
    if (!r->pipe)
        r->pipe = pipe_pool_get(&r->loop->pipes);
    if (!r->pipe) {
        no_more_splice(r);
        return AGAIN;
    }
    ssize_t n = splice(r->from->entry.fd, NULL, r->pipe->wr, NULL,
                       want < r->pipe->size_bytes ? want : r->pipe->size_bytes,
                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n < 0)
        return splice_failed(r);
    if (n == 0)
        return copy(r); /* the end, or an urgent mark with the end behind it: recv() knows */
    count(r, (size_t)n);
    loop_served_bulk(r->loop);
    r->pipe->held_bytes = (size_t)n;
    r->small_splices = n < SPLICE_WORTH ? r->small_splices + 1 : 0;
    if (r->small_splices == SMALL_SPLICES && r->choice == RELAY_CHOICE_AUTO) {
        r->mode = RELAY_COPY;
        r->full_reads = 0;
    }
    return AGAIN;
}
#else
static enum step splice_on(struct relay *r)
{
    r->choice = RELAY_CHOICE_COPY;
    r->mode = RELAY_COPY;
    return AGAIN;
}
#endif

/* Nobody wants these bytes: the other side has been told all it will be told. */
static enum step discard(struct relay *r)
{
    char *bytes;
    enum step next;
    return read_chunk(r, &bytes, &next) ? AGAIN : next;
}

static enum step stream(struct relay *r)
{
    if (!r->wants_input || !(r->from->readable || r->from->eof))
        return STOP;
    return r->ops->on_input(r) ? AGAIN : STOP;
}

/* What a script let pass has passed, or the source has ended: it goes on reading. */
static enum step passed(struct relay *r)
{
    r->passing = false;
    r->mode = RELAY_STREAM;
    r->ops->on_input(r);
    return AGAIN;
}

static enum step finish(struct relay *r)
{
    if (!r->to->shut && stream_shutdown(r->to))
        return broken(r);
    if (stream_staged(r->to))
        return r->to->err ? broken(r) : STOP;
    if (r->mode != RELAY_STREAM)
        r->state = RELAY_ENDED;
    return STOP;
}

/* Bytes that a script has left go before what the source has. */
static enum step take_unread(struct relay *r)
{
    size_t n = buf_len(&r->unread);
    enum relay_verdict verdict = RELAY_GO_ON;
    if (r->passing && r->pass_left < n) {
        if (buf_append(&r->held, buf_bytes(&r->unread), (size_t)r->pass_left))
            return broken(r);
        buf_consume(&r->unread, (size_t)r->pass_left);
        r->pass_left = 0;
        return AGAIN;
    }
    struct buf taken = r->unread;
    buf_init(&r->unread);
    if (r->mode == RELAY_SCRIPT) {
        r->waiting = !r->ops->on_data(r, buf_bytes(&taken), n, &verdict);
        buf_pool_give_back(&r->loop->bufs, &taken);
        return r->waiting ? STOP : answer(r, verdict);
    }
    if (r->mode == RELAY_DISCARD) {
        buf_pool_give_back(&r->loop->bufs, &taken);
        return AGAIN;
    }
    r->held = taken;
    if (r->passing)
        r->pass_left -= n;
    return AGAIN;
}

static enum step at_end(struct relay *r)
{
    if (r->mode == RELAY_DISCARD) {
        r->state = RELAY_ENDED;
        return STOP;
    }
    if (r->passing && !r->from->err)
        return passed(r);
    return end(r);
}

static enum step flush(struct relay *r)
{
    return r->pipe && r->pipe->held_bytes ? flush_pipe(r) : flush_held(r);
}

static enum step step(struct relay *r)
{
    if (relay_held(r) && !r->corked)
        return r->to->writable ? flush(r) : STOP;
    if (r->waiting)
        return STOP;
    if (r->finishing)
        return finish(r);
    if (r->mode == RELAY_STREAM)
        return stream(r);
    if (r->passing && !r->pass_left)
        return passed(r);
    if (buf_len(&r->unread))
        return take_unread(r);
    if (r->from->eof)
        return at_end(r);
    if (!r->from->readable || (!r->to->writable && r->mode != RELAY_DISCARD))
        return STOP;
    switch (r->mode) {
    case RELAY_SPLICE:
        return splice_on(r);
    case RELAY_SCRIPT:
        return script(r);
    case RELAY_DISCARD:
        return discard(r);
    default:
        return copy(r);
    }
}

void relay_flush(struct relay *r)
{
    if (r->corked)
        return;
    /* The client is there from the start: it need not wait for an upstream. */
    while ((r->state == RELAY_OPEN || (r->state == RELAY_IDLE && r->direction == RELAY_DOWN)) &&
           relay_held(r) && r->to->writable)
        flush(r);
    if (r->state == RELAY_OPEN && r->finishing && !relay_held(r))
        finish(r);
}

bool relay_pump(struct relay *r)
{
    if (r->state != RELAY_OPEN || r->pumping)
        return false;
    uint64_t bytes_before = r->bytes;
    size_t held_before = relay_held(r);
    r->pumping = true;
    if (!relay_held(r)) /* what the destination had may have gone */
        tell_room(r);
    int steps = 0;
    while (r->state == RELAY_OPEN && step(r) == AGAIN)
        if (++steps == STEPS_PER_TURN) {
            loop_ready(r->loop, &r->task);
            break;
        }
    r->pumping = false;
    give_back(r->rate);
    if (r->pipe && (!r->pipe->held_bytes || r->state != RELAY_OPEN)) {
        pipe_pool_put(&r->loop->pipes, r->pipe);
        r->pipe = NULL;
    }
    return r->bytes != bytes_before || relay_held(r) != held_before;
}

int relay_write(struct relay *r, const void *bytes, size_t n)
{
    ssize_t put = 0;
    if (r->state == RELAY_BROKEN)
        return r->to->err ? r->to->err : -EPIPE;
    if (!relay_held(r) && r->to->writable) {
        put = stream_write(r->to, bytes, n);
        if (put < 0) {
            broken(r);
            return (int)put;
        }
    }
    if ((size_t)put == n)
        return 0;
    int err = buf_append(&r->held, (const char *)bytes + put, n - (size_t)put);
    if (err) { /* half a chunk must never pass for the whole */
        r->from->err = r->from->err ? r->from->err : err;
        r->from->eof = true;
        broken(r);
    }
    return err;
}

void relay_data_done(struct relay *r, enum relay_verdict verdict)
{
    r->waiting = false;
    if (r->state == RELAY_OPEN)
        answer(r, verdict);
}

size_t relay_held(const struct relay *r)
{
    return buf_len(&r->held) + (r->pipe ? r->pipe->held_bytes : 0);
}

size_t relay_unsent(const struct relay *r)
{
    return relay_held(r) + stream_staged(r->to);
}

const char *relay_mode_name(const struct relay *r)
{
    static const char *const names[] = {"copy", "splice", "lua", "lua", "discard"};
    return names[r->mode == RELAY_SPLICE && is_captured(r) ? RELAY_COPY : r->mode];
}
