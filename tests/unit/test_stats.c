/* penstock's own metrics: each worker counts for itself, and whoever asks gets the sum. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "penstock/proxy/shared.h"
#include "penstock/proxy/stats.h"

enum { WORKERS = 3, TURNS = 20000 };

struct world {
    struct shared *shared;
    struct stats *stats;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    w->shared = shared_new();
    w->stats = stats_new(w->shared, WORKERS);
    *state = w;
    return w->stats ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;
    stats_free(w->stats);
    shared_free(w->shared);
    free(w);
    return 0;
}

/* All metrics, in front of them "\n"; the caller frees. */
static char *text_of(const struct world *w)
{
    struct buf out;
    buf_init(&out);
    assert_int_equal(buf_append(&out, "\n", 1), 0);
    assert_int_equal(metrics_write(shared_metrics(w->shared), &out), 0);
    char *text = strndup(buf_bytes(&out), buf_len(&out));
    buf_deinit(&out);
    return text;
}

static bool has(const struct world *w, const char *lines)
{
    char *text = text_of(w);
    bool found = strstr(text, lines) != NULL;
    free(text);
    return found;
}

static struct listener_stats *listener(const struct world *w, const char *name, unsigned worker)
{
    struct listener_stats *stats = stats_listener(w->stats, name, worker);
    assert_non_null(stats);
    return stats;
}

static void the_workers_of_a_listener_add_up(void **state)
{
    const struct world *w = *state;
    for (unsigned i = 0; i < WORKERS; i++) {
        struct listener_stats *stats = listener(w, "l", i);
        count_add(&stats->opened, 10);
        count_add(&stats->closed[REASON_EOF], i);
        count_add(&stats->bytes[RELAY_DOWN], 1000);
        duration_add_short(&stats->connect, 1000000);
        duration_add_short(&stats->connect, 1000001);
        duration_add_long(&stats->life, UINT64_C(100000) * 1000000000);
    }
    assert_true(has(w, "\npenstock_connections_total{listener=\"l\",reason=\"eof\"} 3\n"));
    assert_true(has(w, "\npenstock_connections{listener=\"l\"} 27\n"));
    assert_true(has(w, "\npenstock_bytes_total{listener=\"l\",direction=\"down\"} 3000\n"));
    assert_true(has(w, "\npenstock_connect_seconds_bucket{listener=\"l\",le=\"0.001\"} 3\n"
                       "penstock_connect_seconds_bucket{listener=\"l\",le=\"0.0025\"} 6\n"));
    assert_true(has(w, "\npenstock_connect_seconds_sum{listener=\"l\"} 0.006000003\n"));
    assert_true(has(w, "\npenstock_connection_seconds_bucket{listener=\"l\",le=\"86400\"} 0\n"
                       "penstock_connection_seconds_bucket{listener=\"l\",le=\"+Inf\"} 3\n"));
}

static void a_name_that_comes_again_goes_on_counting(void **state)
{
    const struct world *w = *state;
    assert_ptr_equal(listener(w, "l", 1), listener(w, "l", 1));
    assert_ptr_not_equal(listener(w, "l", 1), listener(w, "l", 2));
    assert_ptr_not_equal(listener(w, "l", 1), listener(w, "m", 1));
}

static void names_beyond_the_most_share_one(void **state)
{
    const struct world *w = *state;
    char name[16];
    for (int i = 0; i < METRICS_SERIES_MAX; i++) {
        snprintf(name, sizeof name, "l%d", i);
        listener(w, name, 0);
    }
    assert_ptr_equal(listener(w, "late", 0), listener(w, "later", 0));
    assert_ptr_equal(listener(w, "l7", 0), stats_listener(w->stats, "l7", 0));
    count_add(&listener(w, "late", 0)->limited, 5);
    assert_true(has(w, "\npenstock_limited_total{listener=\"other\"} 5\n"));
}

static void they_are_shown_as_long_as_there_are_any(void **state)
{
    struct world *w = *state;
    assert_true(has(w, "\n# TYPE penstock_connections gauge\n"));
    stats_free(w->stats);
    w->stats = NULL;
    assert_false(has(w, "\n# TYPE penstock_connections gauge\n"));
}

static void reloads_count_by_their_result(void **state)
{
    const struct world *w = *state;
    stats_count_reload(w->stats, true);
    stats_count_reload(w->stats, true);
    stats_count_reload(w->stats, false);
    assert_true(has(w, "\npenstock_reloads_total{result=\"ok\"} 2\n"
                       "penstock_reloads_total{result=\"failed\"} 1\n"));
}

struct thread {
    const struct world *world;
    unsigned worker;
};

static void *count(void *arg)
{
    const struct thread *t = arg;
    struct listener_stats *stats = listener(t->world, "l", t->worker);
    for (int i = 0; i < TURNS; i++) {
        count_add(&stats->opened, 1);
        duration_add_short(&stats->connect, 1);
        if (i % 4000 == 0)
            metrics_text(shared_metrics(t->world->shared), NULL, 0);
    }
    return NULL;
}

static void what_threads_count_while_others_look_adds_up(void **state)
{
    const struct world *w = *state;
    pthread_t ids[WORKERS];
    struct thread threads[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        threads[i] = (struct thread){w, i};
        assert_int_equal(pthread_create(&ids[i], NULL, count, &threads[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(ids[i], NULL);
    assert_true(has(w, "\npenstock_connections{listener=\"l\"} 60000\n"));
    assert_true(has(w, "\npenstock_connect_seconds_count{listener=\"l\"} 60000\n"));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(the_workers_of_a_listener_add_up), test(a_name_that_comes_again_goes_on_counting),
        test(names_beyond_the_most_share_one),  test(they_are_shown_as_long_as_there_are_any),
        test(reloads_count_by_their_result),    test(what_threads_count_while_others_look_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
