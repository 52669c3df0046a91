/* What the tests of core/net and core/proxy share: a loop whose teardown demands that all is
 * closed, and sockets. Every round of the loop is bounded by a guard, so that a lost event fails a
 * test instead of hanging it. */
#ifndef PENSTOCK_TESTS_SUPPORT_H
#define PENSTOCK_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "penstock/base/addr.h"
#include "penstock/net/loop.h"
#include "penstock/net/stream.h"

enum { GUARD_MS = 10000, MAX_PIPES = 32 };

/* --- the loop --------------------------------------------------------------------------------- */

struct fixture {
    struct loop loop;
    uv_async_t wake; /* a worker has one too: libuv alone would never let the loop block */
    struct timer guard;
    struct loop_task round_end; /* stops loop_run() after one round */
    struct loop_task busy;      /* keeps a round from blocking */
    unsigned wakes;
    bool stuck;
    void *own; /* the test's */
};

static inline void on_fixture_wake(uv_async_t *handle)
{
    ((struct fixture *)handle->data)->wakes++;
}

static inline void on_guard(struct timer *timer)
{
    container_of(timer, struct fixture, guard)->stuck = true;
}

static inline void on_round_end(struct loop_task *task)
{
    loop_stop(&container_of(task, struct fixture, round_end)->loop);
}

static inline void on_busy(struct loop_task *task)
{
    (void)task;
}

static inline int loop_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    if (!f || loop_init(&f->loop, &(struct loop_options){.max_pipes = MAX_PIPES}) ||
        uv_async_init(&f->loop.uv, &f->wake, on_fixture_wake))
        return -1;
    f->wake.data = f;
    timer_init(&f->guard, on_guard);
    f->round_end.run = on_round_end;
    f->busy.run = on_busy;
    list_init(&f->round_end.node);
    list_init(&f->busy.node);
    *state = f;
    return 0;
}

static inline int loop_teardown(void **state)
{
    struct fixture *f = *state;
    timers_stop(&f->loop.timers, &f->guard);
    loop_forget(&f->round_end);
    loop_forget(&f->busy);
    uv_close((uv_handle_t *)&f->wake, NULL);
    int err = loop_deinit(&f->loop);
    bool clean = err == 0 && !f->loop.timers.root && list_is_empty(&f->loop.ready) &&
                 list_is_empty(&f->loop.deferred);
    free(f);
    return clean ? 0 : -1;
}

static inline void run_round(struct fixture *f)
{
    f->loop.stopping = false;
    f->loop.uv_dirty = true; /* a test may have touched libuv */
    loop_defer(&f->loop, &f->round_end);
    loop_run(&f->loop);
}

/* One round that serves what is ready and does not block. */
static inline void run_ready(struct fixture *f)
{
    loop_ready(&f->loop, &f->busy);
    run_round(f);
}

/* Rounds, blocking in between, until *done. */
static inline void run_until(struct fixture *f, const bool *done)
{
    f->stuck = false;
    loop_timer(&f->loop, &f->guard, GUARD_MS);
    while (!*done && !f->stuck) {
        f->loop.stopping = false;
        loop_defer(&f->loop, &f->round_end);
        loop_run(&f->loop);
    }
    timers_stop(&f->loop.timers, &f->guard);
    assert_true(*done);
}

/* --- bytes ------------------------------------------------------------------------------------ */

struct random {
    uint64_t x;
};

/* splitmix64 */
static inline uint64_t random_next(struct random *r)
{
    uint64_t z = (r->x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* From low to high, both included. */
static inline size_t random_in(struct random *r, size_t low, size_t high)
{
    return low + (size_t)(random_next(r) % (high - low + 1));
}

/* What byte number `at` of a stream is: a byte lost, doubled or swapped shows. */
static inline unsigned char byte_at(uint64_t at)
{
    return (unsigned char)((at * 0x9e3779b97f4a7c15u) >> 56);
}

static inline void fill_bytes(unsigned char *out, size_t n, uint64_t from)
{
    for (size_t i = 0; i < n; i++)
        out[i] = byte_at(from + i);
}

static inline void assert_bytes(const unsigned char *bytes, size_t n, uint64_t from)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != byte_at(from + i))
            fail_msg("byte %llu is wrong", (unsigned long long)(from + i));
}

/* --- sockets ---------------------------------------------------------------------------------- */

enum pair_kind { PAIR_UNIX, PAIR_TCP };

static inline void set_socket_int(int fd, int level, int name, int value)
{
    assert_int_equal(setsockopt(fd, level, name, &value, sizeof value), 0);
}

static inline struct addr local_addr(int fd)
{
    struct addr a = {0};
    socklen_t len = sizeof a;
    assert_int_equal(getsockname(fd, &a.sa, &len), 0);
    return a;
}

/* A socket bound to `ip`, on `port` (0: any free one); -1 when that cannot be. */
static inline int bind_ip(const char *ip, uint16_t port)
{
    struct addr a;
    assert_int_equal(addr_parse_ip(ip, &a), 0);
    addr_set_port(&a, port);
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, &a.sa, addr_len(&a))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static inline int listen_ip(const char *ip, uint16_t port, int backlog)
{
    int fd = bind_ip(ip, port);
    assert_true(fd >= 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

/* Waits for a connection of the non-blocking listener. */
static inline int accept_one(int listener)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, GUARD_MS), 1);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Two connected, non-blocking sockets. */
static inline void make_pair(enum pair_kind kind, int fds[2])
{
    if (kind == PAIR_UNIX) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
                         0);
        return;
    }
    int listener = listen_ip("127.0.0.1", 0, 16);
    struct addr a = local_addr(listener);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fds[0] >= 0);
    assert_int_equal(connect(fds[0], &a.sa, addr_len(&a)), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    fds[1] = accept_one(listener);
    set_socket_int(fds[0], IPPROTO_TCP, TCP_NODELAY, 1);
    set_socket_int(fds[1], IPPROTO_TCP, TCP_NODELAY, 1);
    close(listener);
}

static inline void send_all(int fd, const void *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
}

/* Sends until the socket takes no more; returns how much it took. */
static inline size_t send_until_blocked(int fd, uint64_t from)
{
    unsigned char bytes[16384];
    size_t sum = 0;
    for (;;) {
        fill_bytes(bytes, sizeof bytes, from + sum);
        ssize_t n = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            return sum;
        }
        sum += (size_t)n;
    }
}

/* Waits until `fd` has one of `events` (a bound, not a pause). */
static inline void await(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, GUARD_MS), 1);
}

/* Closes with a reset. */
static inline void abort_socket(int fd)
{
    struct linger at_once = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(fd);
}

/* Descriptors this process has open. */
static inline unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

#endif
