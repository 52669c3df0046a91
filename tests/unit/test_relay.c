/* One direction, on real sockets and a real loop: every byte once and in order, whatever the mode,
 * the chunks and the speed of the other side. */
#include "relay_world.h"

static const struct {
    uint64_t total;
    size_t chunk_max, read_max;
} loads[] = {
    {20000, 20, 50},
    {700000, 5000, 20000},
    {2500000, 100000, 20000}, /* the sink is slow: the destination blocks */
    {2500000, 200000, 1000000},
};

/* --- each mode -------------------------------------------------------------------------------- */

static void relay_loads(void **state, enum relay_choice choice, bool script,
                        bool (*fn)(struct world *, const char *, size_t, enum relay_verdict *))
{
    struct fixture *f = *state;
    static const enum pair_kind kinds[] = {PAIR_UNIX, PAIR_TCP};
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++)
        for (size_t k = 0; k < 2; k++) {
            discard_world(f);
            struct world *w = open_world(state, kinds[k]);
            w->script = fn;
            relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
            relay_at_random(w, loads[i].total, loads[i].chunk_max, loads[i].read_max, i * 2 + k);
            assert_null(w->relay.pipe); /* given back */
        }
}

static void test_copy_delivers_every_byte_once_and_in_order(void **state)
{
    relay_loads(state, RELAY_CHOICE_COPY, false, NULL);
}

static void test_splice_delivers_every_byte_once_and_in_order(void **state)
{
    relay_loads(state, RELAY_CHOICE_SPLICE, false, NULL);
}

static void test_auto_delivers_every_byte_once_and_in_order(void **state)
{
    relay_loads(state, RELAY_CHOICE_AUTO, false, NULL);
}

static void test_a_script_that_passes_on_delivers_every_byte_once_and_in_order(void **state)
{
    relay_loads(state, RELAY_CHOICE_AUTO, true, pass_on);
}

/* Waits with each chunk; its answer comes a round later, in two writes. */
static struct loop_task answer_task;
static struct world *answering;

static void on_answer(struct loop_task *task)
{
    (void)task;
    struct world *w = answering;
    size_t half = w->n_kept / 2, n = w->n_kept;
    assert_int_equal(relay_write(&w->relay, w->kept, half), 0);
    assert_int_equal(relay_write(&w->relay, w->kept + half, n - half), 0);
    w->n_kept = 0;
    relay_data_done(&w->relay, RELAY_GO_ON);
    relay_pump(&w->relay);
}

static bool wait_and_pass_on(struct world *w, const char *bytes, size_t n,
                             enum relay_verdict *verdict)
{
    (void)verdict;
    assert_int_equal(w->n_kept, 0); /* one chunk at a time */
    memcpy(w->kept, bytes, n);
    w->n_kept = n;
    answering = w;
    answer_task.run = on_answer;
    list_init(&answer_task.node);
    loop_ready(&w->f->loop, &answer_task);
    return false;
}

static void test_a_script_that_waits_delivers_every_byte_once_and_in_order(void **state)
{
    relay_loads(state, RELAY_CHOICE_AUTO, true, wait_and_pass_on);
}

/* --- back-pressure ---------------------------------------------------------------------------- */

/* Feeds until nothing moves any more while the sink does not read. */
static void block(struct world *w)
{
    uint64_t before;
    unsigned quiet = 0;
    do {
        before = w->sent + w->relay.bytes;
        feed(w, 65536);
        run_ready(w->f);
        assert_bounded(w);
        quiet = w->sent + w->relay.bytes == before ? quiet + 1 : 0;
    } while (quiet < 20);
}

static void blocks_and_recovers(void **state, enum pair_kind kind, enum relay_choice choice,
                                bool script)
{
    struct world *w = open_world(state, kind);
    w->script = pass_on;
    relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
    block(w);
    assert_int_equal(w->relay.state, RELAY_OPEN);
    assert_false(w->to.writable);
    assert_true(relay_held(&w->relay) > 0);
    uint64_t taken = w->relay.bytes;
    run_ready(w->f);
    relay_pump(&w->relay);
    assert_int_equal(w->relay.bytes, taken); /* the source is left alone */
    end_source(w);
    run_ready(w->f);
    assert_int_equal(w->relay.state, RELAY_OPEN); /* the end waits for the bytes before it */
    settle_until_end(w);
    assert_int_equal(w->received, w->sent);
    assert_int_equal(w->sink_err, 0);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static void test_copy_holds_a_bounded_number_of_bytes_for_a_blocked_destination(void **state)
{
    blocks_and_recovers(state, PAIR_TCP, RELAY_CHOICE_COPY, false);
}

static void test_splice_holds_one_pipe_for_a_blocked_destination(void **state)
{
    blocks_and_recovers(state, PAIR_TCP, RELAY_CHOICE_SPLICE, false);
}

static void test_a_script_holds_a_bounded_number_of_bytes_for_a_blocked_destination(void **state)
{
    blocks_and_recovers(state, PAIR_TCP, RELAY_CHOICE_AUTO, true);
}

static void test_a_blocked_unix_destination_recovers_too(void **state)
{
    blocks_and_recovers(state, PAIR_UNIX, RELAY_CHOICE_COPY, false);
}

static void test_an_idle_relay_owns_neither_buffer_nor_pipe(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_SPLICE, RELAY_COPY);
    feed(w, 1000);
    settle(w);
    assert_null(w->relay.pipe);
    assert_null(w->relay.held.data);
    assert_int_equal(w->f->loop.pipes.n_spare, 1);
}

/* A large backlog is moved in turns, so that other connections have theirs. */
static void test_a_pump_ends_its_turn_and_asks_for_another(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    int huge = 8 << 20;
    if (setsockopt(w->from.entry.fd, SOL_SOCKET, SO_RCVBUFFORCE, &huge, sizeof huge) ||
        setsockopt(w->to.entry.fd, SOL_SOCKET, SO_SNDBUFFORCE, &huge, sizeof huge))
        skip(); /* only root may */
    uint64_t before;
    unsigned quiet = 0;
    do { /* not started yet: all stays with the kernel */
        before = w->sent;
        feed(w, 65536);
        run_ready(w->f);
        quiet = w->sent == before ? quiet + 1 : 0;
    } while (quiet < 20);
    assert_true(w->sent > 17 * BUF_POOL_SMALL + 16 * BUF_POOL_LARGE || w->sent > (2 << 20));
    relay_start(&w->relay, RELAY_CHOICE_COPY, RELAY_COPY);
    relay_pump(&w->relay);
    assert_true(w->relay.bytes <= 16 * BUF_POOL_LARGE);
    settle(w);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void test_an_end_after_no_byte_at_all_passes(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY);
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->relay.state, RELAY_ENDED);
    assert_true(w->to.shut);
    assert_int_equal(w->sink_err, 0);
}

static void test_the_last_direction_leaves_the_shutdown_to_its_owner(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY);
    w->relay.last = true;
    feed(w, 100);
    end_source(w);
    settle(w);
    uint64_t started = w->f->loop.now_ms;
    while (w->relay.state == RELAY_OPEN && !is_late(w, started))
        run_ready(w->f);
    assert_int_equal(w->relay.state, RELAY_ENDED);
    assert_false(w->to.shut);
    assert_false(drain(w, 1));
    assert_false(w->sink_ended);
}

static void test_a_started_relay_takes_what_came_before_it(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    feed(w, 5000);
    end_source(w);
    await(w->from.entry.fd, POLLRDHUP);
    run_ready(w->f); /* the edges come while it is not started */
    assert_int_equal(w->relay.bytes, 0);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY);
    assert_true(relay_pump(&w->relay));
    settle_until_end(w);
    assert_int_equal(w->received, 5000);
}

static void abort_breaks(void **state, enum relay_choice choice, bool script)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = pass_on;
    relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
    feed(w, 3000);
    await(w->from.entry.fd, POLLIN);
    abort_socket(w->source);
    w->source = -1;
    settle(w); /* what was received is delivered … */
    uint64_t started = w->f->loop.now_ms;
    while (w->relay.state == RELAY_OPEN && !is_late(w, started))
        run_ready(w->f);
    assert_int_equal(w->relay.state, RELAY_BROKEN); /* … and the abort stays one */
    assert_int_equal(w->from.err, -ECONNRESET);
    assert_false(w->to.shut);
    assert_false(drain(w, 1));
    assert_false(w->sink_ended);
}

static void test_an_abort_of_the_source_is_no_end_in_copy(void **state)
{
    abort_breaks(state, RELAY_CHOICE_COPY, false);
}

static void test_an_abort_of_the_source_is_no_end_in_splice(void **state)
{
    abort_breaks(state, RELAY_CHOICE_SPLICE, false);
}

static void test_an_abort_of_the_source_is_no_end_for_a_script(void **state)
{
    abort_breaks(state, RELAY_CHOICE_AUTO, true);
}

static void destination_breaks(void **state, enum relay_choice choice, bool script, bool blocked)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = pass_on;
    relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
    if (blocked)
        block(w);
    abort_socket(w->sink);
    w->sink = -1;
    if (!blocked)
        feed(w, 1000);
    uint64_t started = w->f->loop.now_ms;
    while (w->relay.state == RELAY_OPEN && !is_late(w, started)) {
        run_ready(w->f);
        feed(w, 10);
    }
    assert_int_equal(w->relay.state, RELAY_BROKEN);
    assert_true(w->to.err == -ECONNRESET || w->to.err == -EPIPE);
    assert_int_equal(w->from.err, 0);
    assert_null(w->relay.pipe);
    assert_false(relay_pump(&w->relay)); /* it stays so */
    assert_true(relay_write(&w->relay, "x", 1) < 0);
}

static bool try_to_pass_on(struct world *w, const char *bytes, size_t n,
                           enum relay_verdict *verdict)
{
    (void)verdict;
    relay_write(&w->relay, bytes, n);
    return true;
}

static void test_a_broken_destination_breaks_copy(void **state)
{
    destination_breaks(state, RELAY_CHOICE_COPY, false, false);
}

static void test_a_broken_destination_breaks_splice(void **state)
{
    destination_breaks(state, RELAY_CHOICE_SPLICE, false, false);
}

static void test_a_destination_that_breaks_while_it_blocks_breaks_copy(void **state)
{
    destination_breaks(state, RELAY_CHOICE_COPY, false, true);
}

static void test_a_destination_that_breaks_while_it_blocks_breaks_splice(void **state)
{
    destination_breaks(state, RELAY_CHOICE_SPLICE, false, true);
}

static void test_a_script_is_told_that_the_destination_takes_no_more(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = try_to_pass_on;
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_SCRIPT);
    abort_socket(w->sink);
    w->sink = -1;
    await(w->to.entry.fd, POLLRDHUP);
    feed(w, 100);
    await(w->from.entry.fd, POLLIN);
    run_ready(w->f);
    assert_int_equal(w->relay.state, RELAY_BROKEN);
    assert_true(w->to.err != 0);
}

/* --- urgent data ------------------------------------------------------------------------------ */

static void urgent_stays_in_place(void **state, enum relay_choice choice, bool script)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->script = pass_on;
    set_socket_int(w->from.entry.fd, SOL_SOCKET, SO_OOBINLINE, 1); /* as dial and listener do */
    relay_start(&w->relay, choice, script ? RELAY_SCRIPT : RELAY_COPY);
    for (unsigned i = 0; i < 20; i++) {
        feed(w, i * 777);
        unsigned char c = byte_at(w->sent);
        assert_int_equal(send(w->source, &c, 1, MSG_OOB), 1);
        w->sent++;
        if (i % 3 == 0)
            settle(w);
        feed(w, i % 2 ? 1 : 5000);
    }
    settle(w);
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->received, w->sent);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static void test_urgent_data_stays_in_its_place_in_copy(void **state)
{
    urgent_stays_in_place(state, RELAY_CHOICE_COPY, false);
}

static void test_urgent_data_stays_in_its_place_in_splice(void **state)
{
    urgent_stays_in_place(state, RELAY_CHOICE_SPLICE, false);
}

static void test_urgent_data_stays_in_its_place_for_a_script(void **state)
{
    urgent_stays_in_place(state, RELAY_CHOICE_AUTO, true);
}

/* --- choosing the mode ------------------------------------------------------------------------ */

/* Larger than three full reads. */
static void enlarge(struct world *w)
{
    set_socket_int(w->source, SOL_SOCKET, SO_SNDBUF, 212992);
    set_socket_int(w->to.entry.fd, SOL_SOCKET, SO_SNDBUF, 212992);
}

static void make_bulk(struct world *w)
{
    uint64_t started = w->f->loop.now_ms;
    while (w->relay.mode != RELAY_SPLICE && !is_late(w, started)) {
        while (feed(w, 65536))
            ;
        settle(w);
    }
    assert_int_equal(w->relay.mode, RELAY_SPLICE);
}

static void test_bulk_goes_over_to_splice_and_small_chunks_back_to_copy(void **state)
{
    struct world *w = open_world(state, PAIR_UNIX);
    enlarge(w);
    relay_start(&w->relay, RELAY_CHOICE_AUTO, RELAY_COPY);
    assert_string_equal(relay_mode_name(&w->relay), "copy");
    for (unsigned round = 0; round < 3; round++) {
        make_bulk(w);
        assert_string_equal(relay_mode_name(&w->relay), "splice");
        for (unsigned i = 0; i < 8; i++) {
            feed(w, 100);
            settle(w);
        }
        assert_string_equal(relay_mode_name(&w->relay), "copy");
        assert_null(w->relay.pipe);
    }
    end_source(w);
    settle_until_end(w);
    assert_int_equal(w->relay.state, RELAY_ENDED);
}

static void test_copy_stays_copy_when_the_user_says_so(void **state)
{
    struct world *w = open_world(state, PAIR_UNIX);
    enlarge(w);
    relay_start(&w->relay, RELAY_CHOICE_COPY, RELAY_COPY);
    for (unsigned i = 0; i < 10; i++) {
        while (feed(w, 65536))
            ;
        settle(w);
        assert_int_equal(w->relay.mode, RELAY_COPY);
    }
}

static void test_without_a_pipe_to_be_had_splice_is_copy(void **state)
{
    struct world *w = open_world(state, PAIR_TCP);
    w->f->loop.pipes.n_may = 0;
    relay_start(&w->relay, RELAY_CHOICE_SPLICE, RELAY_COPY);
    relay_at_random(w, 500000, 100000, 100000, 1);
    assert_int_equal(w->relay.mode, RELAY_COPY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_copy_delivers_every_byte_once_and_in_order),
        test(test_splice_delivers_every_byte_once_and_in_order),
        test(test_auto_delivers_every_byte_once_and_in_order),
        test(test_a_script_that_passes_on_delivers_every_byte_once_and_in_order),
        test(test_a_script_that_waits_delivers_every_byte_once_and_in_order),
        test(test_copy_holds_a_bounded_number_of_bytes_for_a_blocked_destination),
        test(test_splice_holds_one_pipe_for_a_blocked_destination),
        test(test_a_script_holds_a_bounded_number_of_bytes_for_a_blocked_destination),
        test(test_a_blocked_unix_destination_recovers_too),
        test(test_an_idle_relay_owns_neither_buffer_nor_pipe),
        test(test_a_pump_ends_its_turn_and_asks_for_another),
        test(test_an_end_after_no_byte_at_all_passes),
        test(test_the_last_direction_leaves_the_shutdown_to_its_owner),
        test(test_a_started_relay_takes_what_came_before_it),
        test(test_an_abort_of_the_source_is_no_end_in_copy),
        test(test_an_abort_of_the_source_is_no_end_in_splice),
        test(test_an_abort_of_the_source_is_no_end_for_a_script),
        test(test_a_broken_destination_breaks_copy),
        test(test_a_broken_destination_breaks_splice),
        test(test_a_destination_that_breaks_while_it_blocks_breaks_copy),
        test(test_a_destination_that_breaks_while_it_blocks_breaks_splice),
        test(test_a_script_is_told_that_the_destination_takes_no_more),
        test(test_urgent_data_stays_in_its_place_in_copy),
        test(test_urgent_data_stays_in_its_place_in_splice),
        test(test_urgent_data_stays_in_its_place_for_a_script),
        test(test_bulk_goes_over_to_splice_and_small_chunks_back_to_copy),
        test(test_copy_stays_copy_when_the_user_says_so),
        test(test_without_a_pipe_to_be_had_splice_is_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
