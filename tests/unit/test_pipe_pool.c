/* Pipes for splice: bounded in number, reused when empty, and no descriptor is lost. */
#include "support.h"

#include <sys/resource.h>

#include "penstock/net/pipe_pool.h"

static unsigned fds_before;

static int setup(void **state)
{
    (void)state;
    fds_before = count_fds();
    return 0;
}

/* Every test ends with the descriptors it began with. */
static int teardown(void **state)
{
    (void)state;
    return count_fds() == fds_before ? 0 : -1;
}

static void test_a_pipe_is_empty_large_and_does_not_block(void **state)
{
    (void)state;
    struct pipe_pool p;
    char c;
    pipe_pool_init(&p, 4);
    struct pipe_pool_pipe *pipe = pipe_pool_get(&p);
    assert_non_null(pipe);
    assert_int_equal(pipe->held_bytes, 0);
    assert_true(pipe->size_bytes >= 64 * 1024);
    assert_int_equal(fcntl(pipe->wr, F_GETPIPE_SZ), pipe->size_bytes);
    assert_int_equal(read(pipe->rd, &c, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_true(fcntl(pipe->rd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(write(pipe->wr, "x", 1), 1);
    assert_int_equal(read(pipe->rd, &c, 1), 1);
    pipe_pool_put(&p, pipe);
    pipe_pool_deinit(&p);
}

static void test_an_empty_pipe_comes_back_to_the_next_user(void **state)
{
    (void)state;
    struct pipe_pool p;
    pipe_pool_init(&p, 4);
    struct pipe_pool_pipe *pipe = pipe_pool_get(&p);
    pipe_pool_put(&p, pipe);
    assert_int_equal(p.n_spare, 1);
    assert_ptr_equal(pipe_pool_get(&p), pipe);
    assert_int_equal(p.n_spare, 0);
    pipe_pool_put(&p, pipe);
    pipe_pool_deinit(&p);
}

static void test_a_pipe_that_still_holds_bytes_is_closed(void **state)
{
    (void)state;
    struct pipe_pool p;
    pipe_pool_init(&p, 1);
    struct pipe_pool_pipe *pipe = pipe_pool_get(&p);
    assert_int_equal(write(pipe->wr, "secret", 6), 6);
    pipe->held_bytes = 6;
    pipe_pool_put(&p, pipe);
    assert_int_equal(p.n_spare, 0);
    assert_int_equal(count_fds(), fds_before);
    pipe = pipe_pool_get(&p); /* its place is free again */
    assert_non_null(pipe);
    assert_int_equal(pipe->held_bytes, 0);
    pipe_pool_put(&p, pipe);
    pipe_pool_deinit(&p);
}

static void test_there_are_never_more_pipes_than_allowed(void **state)
{
    (void)state;
    struct pipe_pool p;
    struct pipe_pool_pipe *pipes[3];
    pipe_pool_init(&p, 3);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < 3; i++) {
            pipes[i] = pipe_pool_get(&p);
            assert_non_null(pipes[i]);
        }
        assert_null(pipe_pool_get(&p));
        assert_null(pipe_pool_get(&p));
        assert_int_equal(count_fds(), fds_before + 6);
        for (size_t i = 0; i < 3; i++) {
            pipes[i]->held_bytes = i == round; /* one is closed, two are kept */
            pipe_pool_put(&p, pipes[i]);
        }
    }
    pipe_pool_deinit(&p);
    assert_int_equal(p.n_may, 3);
}

static void test_a_pool_of_none_gives_none(void **state)
{
    (void)state;
    struct pipe_pool p;
    pipe_pool_init(&p, 0);
    assert_null(pipe_pool_get(&p));
    pipe_pool_deinit(&p);
}

static void test_only_so_many_spare_pipes_keep_their_descriptors(void **state)
{
    (void)state;
    enum { MANY = 24 };
    struct pipe_pool p;
    struct pipe_pool_pipe *pipes[MANY];
    pipe_pool_init(&p, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_non_null(pipes[i] = pipe_pool_get(&p));
    for (size_t i = 0; i < MANY; i++)
        pipe_pool_put(&p, pipes[i]);
    assert_int_equal(p.n_spare, 16);
    assert_int_equal(count_fds(), fds_before + 2 * p.n_spare);
    pipe_pool_deinit(&p);
    assert_int_equal(p.n_may, MANY);
}

static void test_out_of_descriptors_gives_none_and_it_recovers(void **state)
{
    (void)state;
    struct pipe_pool p;
    struct rlimit limit, none;
    pipe_pool_init(&p, 4);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    int lowest = dup(STDERR_FILENO);
    close(lowest);
    none.rlim_cur = (rlim_t)lowest + 1; /* one is left, a pipe takes two */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct pipe_pool_pipe *pipe = pipe_pool_get(&p);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_null(pipe);
    assert_int_equal(p.n_may, 4);
    pipe = pipe_pool_get(&p);
    assert_non_null(pipe);
    pipe_pool_put(&p, pipe);
    pipe_pool_deinit(&p);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_a_pipe_is_empty_large_and_does_not_block),
        test(test_an_empty_pipe_comes_back_to_the_next_user),
        test(test_a_pipe_that_still_holds_bytes_is_closed),
        test(test_there_are_never_more_pipes_than_allowed),
        test(test_a_pool_of_none_gives_none),
        test(test_only_so_many_spare_pipes_keep_their_descriptors),
        test(test_out_of_descriptors_gives_none_and_it_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
