/* Reaching an upstream: over TCP and UNIX sockets, the next target when one fails, deadlines, and
 * who wins a race. */
#include "fake_dns.h"

#include <sys/resource.h>

#include "penstock/base/err.h"
#include "penstock/net/dial.h"
#include "penstock/net/resolver.h"

enum { MAX_TARGETS = 4 };

struct dialling {
    struct fixture *f;
    struct resolver *resolver;
    struct fake_dns dns; /* knows no name unless a test says so */
    struct stream stream;
    struct dial *dial; /* NULL once it has called back */
    struct dial_socket socket;
    struct target targets[MAX_TARGETS];
    size_t n_targets;
    unsigned calls;
    bool done, starting;
    struct dial_result result;
    bool again; /* the callback dials once more */
    uint64_t timeout_ms;
};

static void on_stream(struct poller_entry *entry, unsigned events)
{
    struct dialling *d = container_of(entry, struct dialling, stream.entry);
    if (d->dial)
        dial_on_stream(d->dial, events);
    else
        stream_note_events(&d->stream, events);
}

static int setup(void **state)
{
    if (loop_setup(state))
        return -1;
    struct fixture *f = *state;
    struct dialling *d = calloc(1, sizeof *d);
    if (!d || fake_dns_start(&d->dns, f, FAKE_NXDOMAIN) ||
        resolver_new(&f->loop, d->dns.where, &d->resolver))
        return -1;
    d->f = f;
    stream_init(&d->stream, on_stream);
    f->own = d;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    stream_close(&d->stream);
    resolver_free(d->resolver);
    poller_close(&d->dns.entry);
    for (size_t i = 0; i < d->n_targets; i++)
        target_deinit(&d->targets[i]);
    free(d);
    return loop_teardown(state);
}

static void add_target(struct dialling *d, const char *text)
{
    char why[256];
    if (endpoint_parse(text, ENDPOINT_DIAL, &d->targets[d->n_targets].endpoint, why, sizeof why))
        fail_msg("%s", why);
    d->n_targets++;
}

static void add_port(struct dialling *d, const char *host, uint16_t port)
{
    char text[300];
    snprintf(text, sizeof text, "%s:%u", host, port);
    add_target(d, text);
}

static void start(struct dialling *d);

static void on_dialled(void *arg, const struct dial_result *result)
{
    struct dialling *d = arg;
    assert_false(d->starting); /* never before dial_start() returns */
    d->dial = NULL;
    d->calls++;
    d->result = *result;
    if (d->again) {
        d->again = false;
        start(d);
    } else {
        d->done = true;
    }
}

static void start(struct dialling *d)
{
    struct dial_options options = {.loop = &d->f->loop,
                                   .resolver = d->resolver,
                                   .targets = d->targets,
                                   .n_targets = d->n_targets,
                                   .timeout_ms = d->timeout_ms,
                                   .socket = &d->socket,
                                   .stream = &d->stream};
    stream_init(&d->stream, on_stream);
    d->starting = true;
    assert_int_equal(dial_start(&options, on_dialled, d, &d->dial), 0);
    d->starting = false;
}

static void run_dial(struct dialling *d)
{
    start(d);
    run_until(d->f, &d->done);
    run_ready(d->f); /* what it has deferred */
}

/* The stream is connected to the other end `far`, both ways. */
static void assert_works(struct dialling *d, int far)
{
    char buf[8];
    assert_int_equal(d->result.err, 0);
    assert_null(d->result.why);
    assert_true(stream_is_open(&d->stream));
    assert_true(d->stream.writable);
    assert_int_equal(stream_write(&d->stream, "ping", 4), 4);
    await(far, POLLIN);
    assert_int_equal(recv(far, buf, sizeof buf, 0), 4);
    d->stream.readable = false;
    send_all(far, "pong!", 5);
    await(d->stream.entry.fd, POLLIN);
    run_ready(d->f);
    assert_true(d->stream.readable); /* it is registered, with our callback */
    assert_int_equal(stream_read(&d->stream, buf, sizeof buf), 5);
    close(far);
}

static void assert_failed(const struct dialling *d, int err)
{
    assert_int_equal(d->calls, 1);
    assert_int_equal(d->result.err, err);
    assert_false(stream_is_open(&d->stream));
}

/* A port that is taken, but nobody listens: refused, whatever else runs on this machine. */
static int bind_refusing(uint16_t *port)
{
    int fd = bind_ip("127.0.0.1", 0);
    assert_true(fd >= 0);
    struct addr a = local_addr(fd);
    *port = addr_port(&a);
    return fd;
}

/* A listener whose queue is full: connections to it get no answer. fds[0] listens. */
static void listen_silently(const char *ip, uint16_t port, int fds[4])
{
    fds[0] = listen_ip(ip, port, 0);
    struct addr a = local_addr(fds[0]);
    for (size_t i = 1; i < 4; i++) {
        fds[i] = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(fds[i] >= 0);
        assert_true(connect(fds[i], &a.sa, addr_len(&a)) == 0 || errno == EINPROGRESS);
    }
    await(fds[1], POLLOUT);
}

static void close_all(const int *fds, size_t n)
{
    while (n)
        close(fds[--n]);
}

static uint16_t port_of(int fd)
{
    struct addr a = local_addr(fd);
    return addr_port(&a);
}

/* --- one target ------------------------------------------------------------------------------- */

static void test_an_address_is_connected_and_the_stream_works(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.1", 0, 16);
    d->timeout_ms = GUARD_MS;
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    struct addr there = local_addr(listener);
    assert_memory_equal(&d->result.address, &there, sizeof there.in);
    assert_int_equal(d->result.target, 0);
    assert_works(d, accept_one(listener));
    close(listener);
}

static void test_ipv6_is_connected_too(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = bind_ip("::1", 0);
    if (listener < 0)
        skip();
    assert_int_equal(listen(listener, 16), 0);
    add_port(d, "[::1]", port_of(listener));
    run_dial(d);
    assert_works(d, accept_one(listener));
    close(listener);
}

static void test_a_port_where_nobody_listens_is_refused(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t port;
    int fd = bind_refusing(&port);
    add_port(d, "127.0.0.1", port);
    run_dial(d);
    assert_failed(d, PS_EREFUSED);
    assert_int_equal(addr_port(&d->result.address), port);
    close(fd);
}

static void test_a_unix_socket_is_connected_by_path_and_by_abstract_name(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    char path[64], text[80];
    for (unsigned abstract = 0; abstract < 2; abstract++) {
        struct sockaddr_un un;
        snprintf(path, sizeof path, "%spenstock-test-dial-%d", abstract ? "@" : "/tmp/", getpid());
        snprintf(text, sizeof text, "unix:%s", path);
        socklen_t len = addr_unix(path, &un);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        unlink(path);
        assert_int_equal(bind(listener, (struct sockaddr *)&un, len), 0);
        assert_int_equal(listen(listener, 16), 0);
        add_target(d, text);
        d->done = false;
        run_dial(d);
        assert_int_equal(d->result.address.sa.sa_family, AF_UNIX);
        assert_works(d, accept_one(listener));
        stream_close(&d->stream);
        target_deinit(&d->targets[--d->n_targets]);
        close(listener);
        unlink(path);
    }
}

static void test_a_unix_socket_that_nobody_made_is_refused(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    add_target(d, "unix:/tmp/penstock-there-is-no-such-socket");
    run_dial(d);
    assert_failed(d, PS_EREFUSED);
    assert_int_equal(d->result.address.sa.sa_family, AF_UNIX);
}

static void test_a_unix_listener_that_is_busy_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    struct sockaddr_un un;
    char name[64], text[80];
    int first[8], n = 0;
    snprintf(name, sizeof name, "@penstock-test-busy-%d", getpid());
    snprintf(text, sizeof text, "unix:%s", name);
    socklen_t len = addr_unix(name, &un);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&un, len), 0);
    assert_int_equal(listen(listener, 0), 0);
    do {
        first[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(first[n] >= 0);
    } while (connect(first[n++], (struct sockaddr *)&un, len) == 0 && n < 8);
    assert_int_equal(errno, EAGAIN);
    add_target(d, text);
    start(d);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    int accepted = -1;
    for (int i = 0; i < n - 1; i++)
        close(accept_one(listener));
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_false(d->done);
    run_until(f, &d->done);
    accepted = accept_one(listener);
    assert_works(d, accepted);
    close_all(first, (size_t)n);
    close(listener);
}

static void test_a_target_that_does_not_answer_ends_with_the_deadline(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    int silent[4];
    listen_silently("127.0.0.1", 0, silent);
    add_port(d, "127.0.0.1", port_of(silent[0]));
    d->timeout_ms = 60;
    run_ready(f);
    uint64_t started = f->loop.now_ms;
    run_dial(d);
    assert_failed(d, PS_ETIMEOUT);
    assert_true(f->loop.now_ms >= started + 60);
    close_all(silent, 4);
}

static void test_out_of_descriptors_keeps_its_own_error(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    struct rlimit limit, none;
    uint16_t port;
    int fd = bind_refusing(&port);
    add_port(d, "127.0.0.1", port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    int lowest = dup(STDERR_FILENO);
    close(lowest);
    none.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    start(d);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_false(d->done);
    run_until(d->f, &d->done);
    assert_failed(d, -EMFILE);
    close(fd);
}

static void test_the_source_address_and_options_are_set(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.1", 0, 16), value = 0;
    struct addr from = {0};
    socklen_t len = sizeof from;
    char buf[ADDR_TEXT_MAX];
    d->socket.nodelay = true;
    d->socket.keepalive_s = 77;
    assert_int_equal(addr_parse_ip("127.0.0.7", &d->socket.source), 0);
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    int far = accept_one(listener);
    assert_int_equal(getpeername(far, &from.sa, &len), 0);
    assert_string_equal(addr_format_ip(&from, buf, sizeof buf), "127.0.0.7");
    len = sizeof value;
    assert_int_equal(getsockopt(d->stream.entry.fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    assert_true(value);
    assert_int_equal(getsockopt(d->stream.entry.fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len), 0);
    assert_int_equal(value, 77);
    assert_int_equal(getsockopt(d->stream.entry.fd, SOL_SOCKET, SO_OOBINLINE, &value, &len), 0);
    assert_true(value);
    assert_works(d, far);
    close(listener);
}

static void test_a_source_of_the_other_family_is_unreachable(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t port;
    int fd = bind_refusing(&port);
    assert_int_equal(addr_parse_ip("::1", &d->socket.source), 0);
    add_port(d, "127.0.0.1", port);
    run_dial(d);
    assert_failed(d, PS_EUNREACHABLE);
    close(fd);
}

/* --- several targets -------------------------------------------------------------------------- */

static void test_the_second_target_is_tried_when_the_first_refuses(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t port;
    int fd = bind_refusing(&port), listener = listen_ip("127.0.0.1", 0, 16);
    d->timeout_ms = GUARD_MS;
    add_port(d, "127.0.0.1", port);
    add_target(d, "unix:/tmp/penstock-there-is-no-such-socket");
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    assert_int_equal(d->result.target, 2);
    assert_works(d, accept_one(listener));
    close(fd);
    close(listener);
}

static void test_the_last_target_tried_is_the_one_reported(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t ports[2];
    int a = bind_refusing(&ports[0]), b = bind_refusing(&ports[1]);
    add_port(d, "127.0.0.1", ports[0]);
    add_port(d, "127.0.0.1", ports[1]);
    run_dial(d);
    assert_failed(d, PS_EREFUSED);
    assert_int_equal(d->result.target, 1);
    assert_int_equal(addr_port(&d->result.address), ports[1]);
    close(a);
    close(b);
}

static void test_a_target_that_does_not_answer_leaves_time_for_the_next(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int silent[4], listener = listen_ip("127.0.0.1", 0, 16);
    listen_silently("127.0.0.1", 0, silent);
    d->timeout_ms = 2400;
    add_port(d, "127.0.0.1", port_of(silent[0]));
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    assert_int_equal(d->result.target, 1);
    assert_works(d, accept_one(listener));
    close_all(silent, 4);
    close(listener);
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_a_name_whose_first_address_refuses_is_reached_by_its_other(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.1", 0, 16); /* and not on ::1 */
    char buf[ADDR_TEXT_MAX];
    add_port(d, "localhost", port_of(listener));
    run_dial(d);
    assert_string_equal(addr_format_ip(&d->result.address, buf, sizeof buf), "127.0.0.1");
    assert_works(d, accept_one(listener));
    close(listener);
}

/* Listens on 127.0.0.1, and silently on ::1 with the same port; false when that cannot be had. */
static bool listen_on_both(int *v4, int silent[4])
{
    for (unsigned tries = 0; tries < 20; tries++) {
        *v4 = listen_ip("127.0.0.1", 0, 16);
        int free_one = bind_ip("::1", port_of(*v4));
        if (free_one >= 0) {
            close(free_one);
            listen_silently("::1", port_of(*v4), silent);
            return true;
        }
        close(*v4);
    }
    return false;
}

static void test_an_address_that_does_not_answer_loses_the_race(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener, silent[4];
    char buf[ADDR_TEXT_MAX];
    if (!listen_on_both(&listener, silent))
        skip(); /* no IPv6 here */
    add_port(d, "localhost", port_of(listener));
    unsigned fds = count_fds();
    run_dial(d);
    assert_string_equal(addr_format_ip(&d->result.address, buf, sizeof buf), "127.0.0.1");
    assert_int_equal(count_fds(), fds + 1); /* the loser is closed */
    assert_works(d, accept_one(listener));
    close_all(silent, 4);
    close(listener);
}

static void test_a_server_that_speaks_first_is_heard_after_a_race(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    int listener, silent[4];
    char buf[8];
    if (!listen_on_both(&listener, silent))
        skip();
    add_port(d, "localhost", port_of(listener));
    start(d);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    while (poll(&p, 1, 0) == 0) /* the second attempt has connected, and we have not seen it yet */
        run_round(f);
    int far = accept_one(listener);
    send_all(far, "hello", 5);
    run_until(f, &d->done);
    await(d->stream.entry.fd, POLLIN);
    run_ready(f);
    assert_true(d->stream.readable);
    assert_int_equal(stream_read(&d->stream, buf, sizeof buf), 5);
    close(far);
    close_all(silent, 4);
    close(listener);
}

static void test_a_name_that_cannot_be_resolved_says_why(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    add_target(d, "db.penstock.test:5432");
    run_dial(d);
    assert_failed(d, PS_EDNS);
    assert_non_null(d->result.why);
    assert_int_equal(d->result.address.sa.sa_family, AF_UNSPEC);
}

static void test_two_ports_of_a_name_that_cannot_be_resolved_fail_both(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    add_target(d, "db.penstock.test:5432");
    add_target(d, "db.penstock.test:5433");
    run_dial(d);
    assert_failed(d, PS_EDNS);
    assert_int_equal(d->result.target, 1);
}

static void test_a_name_that_fails_gives_way_to_the_next_target(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.1", 0, 16);
    add_target(d, "db.penstock.test:5432");
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    assert_int_equal(d->result.target, 1);
    assert_works(d, accept_one(listener));
    close(listener);
}

static void test_all_addresses_of_a_name_are_tried(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.9", 0, 16);
    char buf[ADDR_TEXT_MAX];
    d->dns.mode = FAKE_ANSWER; /* nobody listens on the first three */
    d->dns.v4[0] = "127.0.0.6";
    d->dns.v4[1] = "127.0.0.7";
    d->dns.v4[2] = "127.0.0.8";
    d->dns.v4[3] = "127.0.0.9";
    add_port(d, "db.penstock.test", port_of(listener));
    run_dial(d);
    assert_string_equal(addr_format_ip(&d->result.address, buf, sizeof buf), "127.0.0.9");
    assert_int_equal(d->result.target, 0);
    assert_works(d, accept_one(listener));
    close(listener);
}

static void test_a_family_whose_answer_does_not_come_does_not_hold_up_the_other(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    int listener = listen_ip("127.0.0.1", 0, 16);
    d->dns.mode = FAKE_ANSWER;
    d->dns.v4[0] = "127.0.0.1";
    d->dns.silent_v6 = true;
    add_port(d, "db.penstock.test", port_of(listener));
    run_dial(d);
    assert_works(d, accept_one(listener));
    close(listener);
}

static void test_a_name_server_that_does_not_answer_leaves_time_for_the_next_target(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int listener = listen_ip("127.0.0.1", 0, 16);
    d->dns.mode = FAKE_SILENT;
    d->timeout_ms = 2000;
    add_target(d, "db.penstock.test:5432");
    add_port(d, "127.0.0.1", port_of(listener));
    run_dial(d);
    assert_int_equal(d->result.target, 1);
    assert_works(d, accept_one(listener));
    close(listener);
}

/* --- lives ------------------------------------------------------------------------------------ */

static void test_the_callback_may_dial_again(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t port;
    int fd = bind_refusing(&port);
    add_port(d, "127.0.0.1", port);
    d->again = true;
    run_dial(d);
    assert_int_equal(d->calls, 2);
    assert_int_equal(d->result.err, PS_EREFUSED);
    close(fd);
}

static void test_the_callback_may_dial_the_name_again_that_was_not_resolved(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    add_target(d, "db.penstock.test:5432");
    d->again = true;
    run_dial(d);
    assert_int_equal(d->calls, 2);
    assert_int_equal(d->result.err, PS_EDNS);
}

static void cancelled(struct dialling *d, unsigned rounds)
{
    unsigned fds = count_fds();
    d->timeout_ms = GUARD_MS;
    start(d);
    for (unsigned i = 0; i < rounds; i++)
        run_ready(d->f);
    assert_int_equal(d->calls, 0);
    struct dial *dial = d->dial;
    d->dial = NULL;
    dial_cancel(dial);
    assert_false(stream_is_open(&d->stream));
    for (unsigned i = 0; i < 5; i++)
        run_ready(d->f);
    assert_int_equal(d->calls, 0);
    assert_null(d->f->loop.timers.root);
    assert_true(count_fds() <= fds);
}

static void test_a_cancelled_dial_of_an_address_never_calls_back(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    int silent[4];
    listen_silently("127.0.0.1", 0, silent);
    add_port(d, "127.0.0.1", port_of(silent[0]));
    cancelled(d, 0);
    cancelled(d, 3);
    close_all(silent, 4);
}

static void test_a_dial_cancelled_after_its_first_failure_never_calls_back(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    uint16_t port;
    int fd = bind_refusing(&port);
    add_port(d, "127.0.0.1", port);
    cancelled(d, 0);
    close(fd);
}

static void test_a_dial_that_has_failed_at_once_can_be_cancelled(void **state)
{
    struct dialling *d = ((struct fixture *)*state)->own;
    add_target(d, "unix:/tmp/penstock-there-is-no-such-socket");
    cancelled(d, 0);
}

static void test_a_cancelled_dial_of_a_name_never_calls_back(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    add_target(d, "db.penstock.test:5432");
    start(d);
    struct dial *dial = d->dial;
    d->dial = NULL;
    dial_cancel(dial);
    for (unsigned i = 0; i < 20; i++)
        run_ready(f);
    assert_int_equal(d->calls, 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_an_address_is_connected_and_the_stream_works),
        test(test_ipv6_is_connected_too),
        test(test_a_port_where_nobody_listens_is_refused),
        test(test_a_unix_socket_is_connected_by_path_and_by_abstract_name),
        test(test_a_unix_socket_that_nobody_made_is_refused),
        test(test_a_unix_listener_that_is_busy_is_waited_for),
        test(test_a_target_that_does_not_answer_ends_with_the_deadline),
        test(test_out_of_descriptors_keeps_its_own_error),
        test(test_the_source_address_and_options_are_set),
        test(test_a_source_of_the_other_family_is_unreachable),
        test(test_the_second_target_is_tried_when_the_first_refuses),
        test(test_the_last_target_tried_is_the_one_reported),
        test(test_a_target_that_does_not_answer_leaves_time_for_the_next),
        test(test_a_name_whose_first_address_refuses_is_reached_by_its_other),
        test(test_an_address_that_does_not_answer_loses_the_race),
        test(test_a_server_that_speaks_first_is_heard_after_a_race),
        test(test_a_name_that_cannot_be_resolved_says_why),
        test(test_two_ports_of_a_name_that_cannot_be_resolved_fail_both),
        test(test_a_name_that_fails_gives_way_to_the_next_target),
        test(test_all_addresses_of_a_name_are_tried),
        test(test_a_family_whose_answer_does_not_come_does_not_hold_up_the_other),
        test(test_a_name_server_that_does_not_answer_leaves_time_for_the_next_target),
        test(test_the_callback_may_dial_again),
        test(test_the_callback_may_dial_the_name_again_that_was_not_resolved),
        test(test_a_cancelled_dial_of_an_address_never_calls_back),
        test(test_a_dial_cancelled_after_its_first_failure_never_calls_back),
        test(test_a_dial_that_has_failed_at_once_can_be_cancelled),
        test(test_a_cancelled_dial_of_a_name_never_calls_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
