/* Readiness: edges, levels, and entries that go away in the middle of a batch. */
#include "support.h"

#include "penstock/net/poller.h"

struct watched {
    struct poller_entry entry;
    unsigned n_events;
    unsigned events;        /* all that were told */
    struct watched *victim; /* closed by the callback */
};

static struct poller poller;

static void on_event(struct poller_entry *entry, unsigned events)
{
    struct watched *w = container_of(entry, struct watched, entry);
    w->n_events++;
    w->events |= events;
    if (w->victim)
        poller_close(&w->victim->entry);
}

static int setup(void **state)
{
    (void)state;
    return poller_init(&poller);
}

static int teardown(void **state)
{
    (void)state;
    poller_deinit(&poller);
    return 0;
}

static struct watched watch(int fd)
{
    return (struct watched){.entry = {.on_event = on_event, .fd = fd}};
}

/* Serves what is ready; returns what `w` was told in it. */
static unsigned take(struct watched *w)
{
    w->n_events = w->events = 0;
    poller_wait(&poller, 0, NULL, NULL);
    return w->events;
}

static void test_an_edge_is_told_once(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    assert_int_equal(take(&w), POLLER_OUT);
    assert_int_equal(take(&w), 0);
    send_all(fds[1], "a", 1);
    assert_true(take(&w) & POLLER_IN);
    assert_int_equal(take(&w), 0); /* not read, yet not told again */
    send_all(fds[1], "b", 1);
    assert_true(take(&w) & POLLER_IN);
    poller_close(&w.entry);
    close(fds[1]);
}

static void test_a_level_is_told_until_it_is_over(void **state)
{
    (void)state;
    char c;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    assert_int_equal(poller_add_level(&poller, &w.entry, POLLER_IN), 0);
    assert_int_equal(take(&w), 0);
    send_all(fds[1], "a", 1);
    assert_int_equal(take(&w), POLLER_IN);
    assert_int_equal(take(&w), POLLER_IN);
    assert_int_equal(poller_set_level(&poller, &w.entry, 0), 0);
    assert_int_equal(take(&w), 0);
    assert_int_equal(poller_set_level(&poller, &w.entry, POLLER_IN | POLLER_OUT), 0);
    assert_int_equal(take(&w), POLLER_IN | POLLER_OUT);
    assert_int_equal(recv(fds[0], &c, 1, 0), 1);
    assert_int_equal(take(&w), POLLER_OUT);
    poller_close(&w.entry);
    close(fds[1]);
}

static void test_an_entry_closed_by_another_of_its_batch_hears_nothing(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched a = watch(fds[0]), b = watch(fds[1]);
    a.victim = &b;
    b.victim = &a;
    assert_int_equal(poller_add_edge(&poller, &a.entry), 0);
    assert_int_equal(poller_add_edge(&poller, &b.entry), 0);
    poller_wait(&poller, 0, NULL, NULL); /* both are writable */
    assert_int_equal(a.n_events + b.n_events, 1);
    assert_int_equal(a.n_events ? b.entry.fd : a.entry.fd, -1);
    poller_close(&a.entry);
    poller_close(&b.entry);
}

static void test_a_callback_may_close_its_own_entry(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    w.victim = &w;
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    assert_true(take(&w));
    assert_int_equal(w.entry.fd, -1);
    w.victim = NULL;
    assert_int_equal(take(&w), 0);
    poller_close(&w.entry); /* harmless */
    close(fds[1]);
}

static void test_a_moved_registration_tells_the_new_entry_all_that_is_ready(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched a = watch(fds[0]), b = watch(-1);
    assert_int_equal(poller_add_edge(&poller, &a.entry), 0);
    send_all(fds[1], "a", 1);
    assert_true(take(&a) & POLLER_IN); /* the edge is spent */
    assert_int_equal(poller_move_edge(&poller, &a.entry, &b.entry), 0);
    assert_int_equal(a.entry.fd, -1);
    assert_int_equal(b.entry.fd, fds[0]);
    a.n_events = 0;
    assert_int_equal(take(&b), POLLER_IN | POLLER_OUT);
    assert_int_equal(take(&b), 0); /* still edge-triggered */
    send_all(fds[1], "b", 1);
    assert_true(take(&b) & POLLER_IN);
    assert_int_equal(a.n_events, 0);
    poller_close(&b.entry);
    close(fds[1]);
}

static void test_a_removed_entry_hears_nothing_and_its_descriptor_stays_open(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    assert_int_equal(poller_add_level(&poller, &w.entry, POLLER_OUT), 0);
    poller_remove(&poller, &w.entry);
    assert_int_equal(w.entry.fd, -1);
    assert_int_equal(take(&w), 0);
    assert_true(fcntl(fds[0], F_GETFD) >= 0);
    poller_remove(&poller, &w.entry);
    close(fds[0]);
    close(fds[1]);
}

static void test_the_end_of_the_other_side_is_told_as_an_end(void **state)
{
    (void)state;
    static const enum pair_kind kinds[] = {PAIR_UNIX, PAIR_TCP};
    for (size_t i = 0; i < 2; i++) {
        int fds[2];
        make_pair(kinds[i], fds);
        struct watched w = watch(fds[0]);
        assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
        take(&w);
        assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
        await(fds[0], POLLRDHUP);
        assert_int_equal(take(&w) & (POLLER_END | POLLER_ERROR), POLLER_END);
        poller_close(&w.entry);
        close(fds[1]);
    }
}

static void test_a_reset_is_told_as_an_error(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_TCP, fds);
    struct watched w = watch(fds[0]);
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    take(&w);
    abort_socket(fds[1]);
    await(fds[0], POLLIN);
    unsigned want = POLLER_END | POLLER_ERROR | POLLER_IN;
    assert_int_equal(take(&w) & want, want);
    poller_close(&w.entry);
}

static void test_urgent_data_is_told(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_TCP, fds);
    struct watched w = watch(fds[0]);
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    take(&w);
    assert_int_equal(send(fds[1], "!", 1, MSG_OOB), 1);
    await(fds[0], POLLPRI);
    assert_true(take(&w) & POLLER_URGENT);
    poller_close(&w.entry);
    close(fds[1]);
}

static unsigned n_wakes, events_at_wake;

static void on_wake(void *arg)
{
    n_wakes++;
    events_at_wake = ((struct watched *)arg)->n_events;
}

static void test_the_waker_is_called_before_the_callbacks_and_without_events_too(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    n_wakes = 0;
    assert_int_equal(poller_wait(&poller, 0, on_wake, &w), 0);
    assert_int_equal(n_wakes, 1);
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    assert_int_equal(poller_wait(&poller, -1, on_wake, &w), 1);
    assert_int_equal(n_wakes, 2);
    assert_int_equal(events_at_wake, 0);
    assert_int_equal(w.n_events, 1);
    poller_close(&w.entry);
    close(fds[1]);
}

static void test_a_poller_is_readable_itself_when_an_entry_is_ready(void **state)
{
    (void)state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    struct pollfd p = {.fd = poller.fd, .events = POLLIN};
    assert_int_equal(poller_add_level(&poller, &w.entry, POLLER_IN), 0);
    assert_int_equal(poll(&p, 1, 0), 0);
    send_all(fds[1], "a", 1);
    assert_int_equal(poll(&p, 1, 0), 1);
    poller_close(&w.entry);
    close(fds[1]);
}

static void test_more_entries_than_fit_one_batch_are_all_served(void **state)
{
    (void)state;
    enum { PAIRS = 300 };
    static struct watched all[2 * PAIRS];
    for (size_t i = 0; i < PAIRS; i++) {
        int fds[2];
        make_pair(PAIR_UNIX, fds);
        all[2 * i] = watch(fds[0]);
        all[2 * i + 1] = watch(fds[1]);
        assert_int_equal(poller_add_edge(&poller, &all[2 * i].entry), 0);
        assert_int_equal(poller_add_edge(&poller, &all[2 * i + 1].entry), 0);
    }
    int sum = 0, n;
    while ((n = poller_wait(&poller, 0, NULL, NULL)))
        sum += n;
    assert_int_equal(sum, 2 * PAIRS);
    for (size_t i = 0; i < 2 * PAIRS; i++) {
        assert_int_equal(all[i].n_events, 1);
        poller_close(&all[i].entry);
    }
}

static void test_a_closed_entry_hears_nothing_while_another_process_has_its_descriptor(void **state)
{
    (void)state;
    static atomic_bool copied = true;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = watch(fds[0]);
    int copy = dup(fds[0]); /* as after fork() */
    poller.copied = &copied;
    assert_int_equal(poller_add_edge(&poller, &w.entry), 0);
    poller_close(&w.entry);
    send_all(fds[1], "a", 1);
    assert_int_equal(poller_wait(&poller, 0, NULL, NULL), 0);
    assert_int_equal(w.n_events, 0);
    close(copy);
    close(fds[1]);
}

static void test_what_cannot_be_watched_is_an_error(void **state)
{
    (void)state;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct watched w = watch(file), gone = watch(-1);
    assert_int_equal(poller_add_edge(&poller, &w.entry), -EPERM);
    assert_int_equal(poller_add_edge(&poller, &gone.entry), -EBADF);
    close(file);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_an_edge_is_told_once),
        test(test_a_level_is_told_until_it_is_over),
        test(test_an_entry_closed_by_another_of_its_batch_hears_nothing),
        test(test_a_callback_may_close_its_own_entry),
        test(test_a_moved_registration_tells_the_new_entry_all_that_is_ready),
        test(test_a_removed_entry_hears_nothing_and_its_descriptor_stays_open),
        test(test_the_end_of_the_other_side_is_told_as_an_end),
        test(test_a_reset_is_told_as_an_error),
        test(test_urgent_data_is_told),
        test(test_the_waker_is_called_before_the_callbacks_and_without_events_too),
        test(test_a_poller_is_readable_itself_when_an_entry_is_ready),
        test(test_more_entries_than_fit_one_batch_are_all_served),
        test(test_a_closed_entry_hears_nothing_while_another_process_has_its_descriptor),
        test(test_what_cannot_be_watched_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
