/* The event loop: the order of what it runs, what wakes it, and how it ends. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "penstock/base/clock.h"

/* --- tasks ------------------------------------------------------------------------------------ */

static char trace[64];

static void note(char c)
{
    size_t n = strlen(trace);
    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
    trace[n + 1] = '\0';
}

struct noted {
    struct loop_task task;
    struct loop *loop;
    char name;
    struct noted *then_ready, *then_defer, *then_forget;
};

static void on_noted(struct loop_task *task)
{
    struct noted *n = container_of(task, struct noted, task);
    note(n->name);
    if (n->then_ready)
        loop_ready(n->loop, &n->then_ready->task);
    if (n->then_defer)
        loop_defer(n->loop, &n->then_defer->task);
    if (n->then_forget)
        loop_forget(&n->then_forget->task);
    n->then_ready = n->then_defer = n->then_forget = NULL;
}

static void init_noted(struct noted *n, struct loop *loop, char name)
{
    *n = (struct noted){.task = {.run = on_noted}, .loop = loop, .name = name};
    list_init(&n->task.node);
}

static void test_ready_tasks_run_in_their_order_before_deferred_ones(void **state)
{
    struct fixture *f = *state;
    struct noted a, b, c, d;
    init_noted(&a, &f->loop, 'a');
    init_noted(&b, &f->loop, 'b');
    init_noted(&c, &f->loop, 'c');
    init_noted(&d, &f->loop, 'd');
    trace[0] = '\0';
    loop_defer(&f->loop, &c.task);
    loop_defer(&f->loop, &d.task);
    loop_ready(&f->loop, &a.task);
    loop_ready(&f->loop, &b.task);
    run_ready(f);
    assert_string_equal(trace, "abcd");
}

static void test_a_task_queued_twice_runs_once(void **state)
{
    struct fixture *f = *state;
    struct noted a;
    init_noted(&a, &f->loop, 'a');
    trace[0] = '\0';
    loop_ready(&f->loop, &a.task);
    loop_ready(&f->loop, &a.task);
    loop_defer(&f->loop, &a.task);
    run_ready(f);
    run_ready(f);
    assert_string_equal(trace, "a");
}

static void test_a_task_queued_by_a_task_waits_for_the_next_round(void **state)
{
    struct fixture *f = *state;
    struct noted a, b;
    init_noted(&a, &f->loop, 'a');
    init_noted(&b, &f->loop, 'b');
    a.then_ready = &a; /* itself */
    trace[0] = '\0';
    loop_ready(&f->loop, &a.task);
    loop_ready(&f->loop, &b.task);
    run_ready(f);
    assert_string_equal(trace, "ab");
    run_ready(f);
    assert_string_equal(trace, "aba");
}

static void test_a_task_deferred_by_a_ready_task_runs_in_the_same_round(void **state)
{
    struct fixture *f = *state;
    struct noted a, b;
    init_noted(&a, &f->loop, 'a');
    init_noted(&b, &f->loop, 'b');
    a.then_defer = &b;
    trace[0] = '\0';
    loop_ready(&f->loop, &a.task);
    run_ready(f);
    assert_string_equal(trace, "ab");
}

static void test_a_forgotten_task_does_not_run_even_when_its_turn_has_come(void **state)
{
    struct fixture *f = *state;
    struct noted a, b, c;
    init_noted(&a, &f->loop, 'a');
    init_noted(&b, &f->loop, 'b');
    init_noted(&c, &f->loop, 'c');
    a.then_forget = &b;
    trace[0] = '\0';
    loop_ready(&f->loop, &a.task);
    loop_ready(&f->loop, &b.task);
    loop_defer(&f->loop, &c.task);
    loop_forget(&c.task);
    loop_forget(&c.task); /* harmless */
    run_ready(f);
    assert_string_equal(trace, "a");
}

static void test_a_ready_task_keeps_the_loop_from_blocking(void **state)
{
    struct fixture *f = *state;
    struct noted a;
    init_noted(&a, &f->loop, 'a');
    trace[0] = '\0';
    run_ready(f); /* libuv is settled now */
    loop_ready(&f->loop, &a.task);
    run_round(f); /* no timer, no event: would never come back */
    assert_string_equal(trace, "a");
}

/* --- timers ----------------------------------------------------------------------------------- */

struct ticking {
    struct timer timer;
    struct fixture *f;
    uint64_t started_ms, told_ms;
    bool done;
};

static void on_tick(struct timer *timer)
{
    struct ticking *t = container_of(timer, struct ticking, timer);
    t->told_ms = t->f->loop.now_ms;
    t->done = true;
}

static void start_ticking(struct ticking *t, struct fixture *f, uint64_t in_ms)
{
    *t = (struct ticking){.f = f, .started_ms = f->loop.now_ms};
    timer_init(&t->timer, on_tick);
    loop_timer(&f->loop, &t->timer, in_ms);
}

static void test_a_timer_wakes_the_loop_and_is_never_early(void **state)
{
    struct fixture *f = *state;
    struct ticking t;
    run_ready(f);
    start_ticking(&t, f, 20);
    run_until(f, &t.done);
    assert_true(t.told_ms >= t.started_ms + 20);
    assert_true(clock_now_ns() / 1000000 >= t.started_ms + 20);
}

static void test_timers_come_in_their_order(void **state)
{
    struct fixture *f = *state;
    struct ticking late, soon;
    run_ready(f);
    start_ticking(&late, f, 15);
    start_ticking(&soon, f, 5);
    run_until(f, &soon.done);
    assert_true(!late.done || late.told_ms >= late.started_ms + 15);
    run_until(f, &late.done);
    assert_true(late.told_ms >= soon.told_ms);
}

static void test_a_timer_of_no_time_runs_in_a_later_millisecond(void **state)
{
    struct fixture *f = *state;
    struct ticking t;
    run_ready(f);
    start_ticking(&t, f, 0);
    assert_int_equal(t.timer.due_ms, f->loop.now_ms + 1);
    run_until(f, &t.done);
    assert_true(t.told_ms > t.started_ms);
}

static void test_spinning_loses_neither_timers_nor_events(void **state)
{
    struct fixture *f = *state;
    struct ticking t;
    f->loop.options.spin_us = 200;
    run_ready(f);
    start_ticking(&t, f, 5);
    run_until(f, &t.done);
    assert_true(t.told_ms >= t.started_ms + 5);
    assert_int_equal(uv_async_send(&f->wake), 0);
    run_round(f);
    assert_int_equal(f->wakes, 1);
}

/* --- libuv inside ----------------------------------------------------------------------------- */

struct other_thread {
    pthread_t thread;
    uv_async_t async;
    unsigned sent, seen;
    atomic_uint value;
    bool done;
};

enum { SENDS = 2000 };

static void *send_many(void *arg)
{
    struct other_thread *o = arg;
    for (unsigned i = 1; i <= SENDS; i++) {
        atomic_store(&o->value, i);
        if (uv_async_send(&o->async))
            return o;
    }
    return NULL;
}

static void on_async(uv_async_t *handle)
{
    struct other_thread *o = handle->data;
    o->seen++;
    o->done = atomic_load(&o->value) == SENDS;
}

static void test_an_async_from_another_thread_wakes_a_loop_that_blocks(void **state)
{
    struct fixture *f = *state;
    struct other_thread o = {0};
    void *failed;
    assert_int_equal(uv_async_init(&f->loop.uv, &o.async, on_async), 0);
    o.async.data = &o;
    run_ready(f);
    assert_int_equal(pthread_create(&o.thread, NULL, send_many, &o), 0);
    run_until(f, &o.done);
    pthread_join(o.thread, &failed);
    assert_null(failed);
    assert_true(o.seen >= 1 && o.seen <= SENDS);
    uv_close((uv_handle_t *)&o.async, NULL);
    run_ready(f);
}

static void on_uv_timer(uv_timer_t *handle)
{
    *(bool *)handle->data = true;
}

static void on_uv_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

static void test_a_timer_and_a_close_of_libuv_are_served(void **state)
{
    struct fixture *f = *state;
    uv_timer_t timer;
    bool fired = false, closed = false;
    run_ready(f);
    assert_int_equal(uv_timer_init(&f->loop.uv, &timer), 0);
    timer.data = &fired;
    assert_int_equal(uv_timer_start(&timer, on_uv_timer, 5, 0), 0);
    loop_touch_uv(&f->loop);
    run_until(f, &fired);
    timer.data = &closed;
    uv_close((uv_handle_t *)&timer, on_uv_closed);
    loop_touch_uv(&f->loop);
    run_until(f, &closed);
}

/* --- streams of events ------------------------------------------------------------------------ */

struct watched {
    struct poller_entry entry;
    struct loop_task free_task;
    bool told;
};

static void on_event(struct poller_entry *entry, unsigned events)
{
    (void)events;
    container_of(entry, struct watched, entry)->told = true;
}

static void test_an_event_of_the_poller_wakes_the_loop(void **state)
{
    struct fixture *f = *state;
    int fds[2];
    make_pair(PAIR_UNIX, fds);
    struct watched w = {.entry = {.on_event = on_event, .fd = fds[0]}};
    assert_int_equal(poller_add_level(&f->loop.poller, &w.entry, POLLER_IN), 0);
    run_ready(f);
    assert_false(w.told);
    send_all(fds[1], "a", 1);
    run_until(f, &w.told);
    poller_close(&w.entry);
    close(fds[1]);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_free(struct loop_task *task)
{
    free(container_of(task, struct watched, free_task));
}

static void test_the_end_of_a_loop_runs_deferred_tasks_and_close_callbacks(void **state)
{
    (void)state;
    struct loop loop;
    uv_async_t async;
    bool closed = false;
    unsigned fds = count_fds();
    assert_int_equal(loop_init(&loop, &(struct loop_options){.max_pipes = 4}), 0);
    assert_int_equal(uv_async_init(&loop.uv, &async, NULL), 0);
    async.data = &closed;
    uv_close((uv_handle_t *)&async, on_uv_closed);
    struct watched *w = calloc(1, sizeof *w); /* the leak checker tells if it stays */
    w->free_task.run = on_free;
    list_init(&w->free_task.node);
    loop_defer(&loop, &w->free_task);
    assert_int_equal(loop_deinit(&loop), 0);
    assert_true(closed);
    assert_int_equal(count_fds(), fds);
}

/* Runs with standard error in a file; returns what was written to it. */
static size_t capture_stderr(void (*run)(void *arg), void *arg, char *text, size_t cap)
{
    int saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    run(arg);
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = pread(fileno(file), text, cap - 1, 0);
    fclose(file);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

struct deinit {
    struct loop loop;
    int err;
};

static void run_deinit(void *arg)
{
    struct deinit *d = arg;
    d->err = loop_deinit(&d->loop);
}

static void test_a_handle_left_open_is_an_error_and_is_logged(void **state)
{
    (void)state;
    struct deinit d = {.err = 0};
    uv_async_t async;
    uv_timer_t timer;
    char text[2048];
    assert_int_equal(loop_init(&d.loop, &(struct loop_options){.max_pipes = 4}), 0);
    assert_int_equal(uv_async_init(&d.loop.uv, &async, NULL), 0);
    assert_int_equal(uv_timer_init(&d.loop.uv, &timer), 0);
    capture_stderr(run_deinit, &d, text, sizeof text);
    assert_int_equal(d.err, -EBUSY);
    assert_non_null(strstr(text, "handle left open at the end of a loop: async"));
    assert_non_null(strstr(text, "handle left open at the end of a loop: timer"));
    /* Clean up by hand. */
    uv_close((uv_handle_t *)&async, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&d.loop.uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&d.loop.uv), 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_ready_tasks_run_in_their_order_before_deferred_ones),
        test(test_a_task_queued_twice_runs_once),
        test(test_a_task_queued_by_a_task_waits_for_the_next_round),
        test(test_a_task_deferred_by_a_ready_task_runs_in_the_same_round),
        test(test_a_forgotten_task_does_not_run_even_when_its_turn_has_come),
        test(test_a_ready_task_keeps_the_loop_from_blocking),
        test(test_a_timer_wakes_the_loop_and_is_never_early),
        test(test_timers_come_in_their_order),
        test(test_a_timer_of_no_time_runs_in_a_later_millisecond),
        test(test_spinning_loses_neither_timers_nor_events),
        test(test_an_async_from_another_thread_wakes_a_loop_that_blocks),
        test(test_a_timer_and_a_close_of_libuv_are_served),
        test(test_an_event_of_the_poller_wakes_the_loop),
        cmocka_unit_test(test_the_end_of_a_loop_runs_deferred_tasks_and_close_callbacks),
        cmocka_unit_test(test_a_handle_left_open_is_an_error_and_is_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
