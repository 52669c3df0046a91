/* Metrics: what is counted is written, in the format that Prometheus reads, and nothing grows
 * without end. Also the registry that finds them and their kin by name. */
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "penstock/base/err.h"
#include "penstock/proxy/shared.h"

static int setup(void **state)
{
    *state = shared_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    shared_free(*state);
    return 0;
}

static struct metrics *all(void **state)
{
    return shared_metrics(*state);
}

static const char *const method[] = {"method"}, *const two[] = {"a", "b"};

static struct metric_info info(enum metric_type type, const char *name)
{
    return (struct metric_info){.type = type, .name = name, .help = ""};
}

static struct metric *declare(void **state, const struct metric_info *i)
{
    struct metric *m;
    char why[256] = "";
    if (metrics_declare(all(state), i, &m, why, sizeof why))
        fail_msg("%s", why);
    return m;
}

static void refuse(void **state, const struct metric_info *i, const char *part)
{
    struct metric *m;
    char why[256] = "";
    assert_int_equal(metrics_declare(all(state), i, &m, why, sizeof why), -EINVAL);
    if (!strstr(why, part))
        fail_msg("\"%s\" is not in \"%s\"", part, why);
}

static struct metric_label label(const char *text)
{
    return (struct metric_label){text, strlen(text)};
}

static void assert_text(void **state, const char *should)
{
    char text[8192];
    size_t n = metrics_text(all(state), text, sizeof text);
    assert_true(n < sizeof text);
    text[n] = '\0';
    assert_string_equal(text, should);
}

static void test_counters_and_gauges_are_written_with_help_and_type(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "served_total");
    i.help = "What was served.";
    struct metric *served = declare(state, &i);
    i = info(METRIC_GAUGE, "level");
    i.labels = two;
    i.n_labels = 2;
    struct metric *level = declare(state, &i);
    assert_text(state, "# HELP served_total What was served.\n"
                       "# TYPE served_total counter\n"
                       "served_total 0\n"
                       "# TYPE level gauge\n");
    metric_add(served, NULL, 1);
    metric_add(served, NULL, 2.5);
    struct metric_label xy[] = {label("x"), label("y")}, yx[] = {label("y"), label("x")};
    metric_set(level, xy, 7);
    metric_add(level, xy, -10);
    metric_set(level, yx, 0.1);
    assert_text(state, "# HELP served_total What was served.\n"
                       "# TYPE served_total counter\n"
                       "served_total 3.5\n"
                       "# TYPE level gauge\n"
                       "level{a=\"x\",b=\"y\"} -3\n"
                       "level{a=\"y\",b=\"x\"} 0.1\n");
}

static void test_label_values_do_not_run_into_each_other(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "c");
    i.labels = two;
    i.n_labels = 2;
    struct metric *m = declare(state, &i);
    metric_add(m, (struct metric_label[]){label("ab"), label("")}, 1);
    metric_add(m, (struct metric_label[]){label("a"), label("b")}, 1);
    metric_add(m, (struct metric_label[]){label(""), label("ab")}, 1);
    assert_text(state, "# TYPE c counter\nc{a=\"ab\",b=\"\"} 1\nc{a=\"a\",b=\"b\"} 1\n"
                       "c{a=\"\",b=\"ab\"} 1\n");
}

static void test_a_histogram_counts_cumulatively(void **state)
{
    static const double bounds[] = {0.5, 1, 10};
    struct metric_info i = info(METRIC_HISTOGRAM, "h");
    i.labels = method;
    i.n_labels = 1;
    i.bounds = bounds;
    i.n_bounds = 3;
    struct metric *m = declare(state, &i);
    struct metric_label get[] = {label("get")};
    metric_observe(m, get, 0.5); /* a bound belongs to its bucket */
    metric_observe(m, get, 0.75);
    metric_observe(m, get, 0.75);
    metric_observe(m, get, 100);
    assert_text(state, "# TYPE h histogram\n"
                       "h_bucket{method=\"get\",le=\"0.5\"} 1\n"
                       "h_bucket{method=\"get\",le=\"1\"} 3\n"
                       "h_bucket{method=\"get\",le=\"10\"} 3\n"
                       "h_bucket{method=\"get\",le=\"+Inf\"} 4\n"
                       "h_sum{method=\"get\"} 102\n"
                       "h_count{method=\"get\"} 4\n");
}

static void test_what_would_break_the_format_is_escaped(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "c");
    i.labels = method;
    i.n_labels = 1;
    i.help = "back\\slash, \"quotes\"\nand a line";
    struct metric *m = declare(state, &i);
    metric_add(m, (struct metric_label[]){label("\"\\\n")}, 1);
    metric_add(m, (struct metric_label[]){label("caf\xc3\xa9 \xff\xc3")}, 1);
    metric_add(m, (struct metric_label[]){{"a\0b", 3}}, 1);
    assert_text(state, "# HELP c back\\\\slash, \"quotes\"\\nand a line\n# TYPE c counter\n"
                       "c{method=\"\\\"\\\\\\n\"} 1\n"
                       "c{method=\"caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd\"} 1\n"
                       "c{method=\"a\xef\xbf\xbd"
                       "b\"} 1\n");
}

static void test_numbers_read_back_as_they_were(void **state)
{
    struct metric_info i = info(METRIC_GAUGE, "g");
    struct metric *m = declare(state, &i);
    const struct {
        double value;
        const char *line;
    } cases[] = {
        {1.0 / 3, "g 0.33333333333333331\n"},
        {1e15, "g 1e+15\n"},
        {123456789012, "g 123456789012\n"},
        {HUGE_VAL, "g +Inf\n"},
        {-HUGE_VAL, "g -Inf\n"},
        {NAN, "g NaN\n"},
    };
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        char text[64];
        metric_set(m, NULL, cases[n].value);
        snprintf(text, sizeof text, "# TYPE g gauge\n%s", cases[n].line);
        assert_text(state, text);
    }
}

static void test_a_short_buffer_is_filled_and_the_whole_length_told(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "c");
    declare(state, &i);
    char text[32];
    memset(text, '!', sizeof text);
    assert_int_equal(metrics_text(all(state), text, 9), strlen("# TYPE c counter\nc 0\n"));
    assert_memory_equal(text, "# TYPE c !!", 11);
    assert_int_equal(metrics_text(all(state), NULL, 0), strlen("# TYPE c counter\nc 0\n"));
}

static void test_series_beyond_the_most_and_long_values_count_as_other(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "c");
    i.labels = method;
    i.n_labels = 1;
    struct metric *m = declare(state, &i);
    char name[METRICS_VALUE_MAX + 2];
    for (unsigned n = 0; n < METRICS_SERIES_MAX + 50; n++) {
        snprintf(name, sizeof name, "%u", n);
        metric_add(m, (struct metric_label[]){label(name)}, 1);
    }
    memset(name, 'x', METRICS_VALUE_MAX + 1);
    name[METRICS_VALUE_MAX + 1] = '\0';
    metric_add(m, (struct metric_label[]){label(name)}, 1);
    metric_add(m, (struct metric_label[]){label("7")}, 1); /* those there are go on */
    size_t n = metrics_text(all(state), NULL, 0), lines = 0;
    char *text = calloc(1, n + 1);
    metrics_text(all(state), text, n);
    for (size_t at = 0; at < n; at++)
        lines += text[at] == '\n';
    assert_int_equal(lines, 1 + METRICS_SERIES_MAX + 1);
    assert_non_null(strstr(text, "c{method=\"other\"} 51\n"));
    assert_non_null(strstr(text, "c{method=\"7\"} 2\n"));
    free(text);
}

static void test_the_same_declaration_is_the_same_metric_with_the_new_help(void **state)
{
    struct metric_info i = info(METRIC_COUNTER, "c");
    struct metric *m = declare(state, &i);
    metric_add(m, NULL, 5);
    i.help = "new";
    assert_ptr_equal(declare(state, &i), m);
    assert_text(state, "# HELP c new\n# TYPE c counter\nc 5\n");
}

static void test_another_declaration_of_the_same_name_is_refused(void **state)
{
    static const double bounds[] = {1, 2}, others[] = {1, 3}, falling[] = {2, 1};
    struct metric_info i = info(METRIC_COUNTER, "c");
    i.labels = method;
    i.n_labels = 1;
    declare(state, &i);
    i.type = METRIC_GAUGE;
    refuse(state, &i, "c is a counter already");
    i.type = METRIC_COUNTER;
    i.labels = two;
    refuse(state, &i, "other labels");
    i.n_labels = 2;
    refuse(state, &i, "other labels");
    i = info(METRIC_HISTOGRAM, "h");
    i.bounds = falling;
    i.n_bounds = 2;
    refuse(state, &i, "ascending");
    i.bounds = bounds;
    declare(state, &i);
    i.bounds = others;
    refuse(state, &i, "other buckets");
    i = info(METRIC_COUNTER, "h_count");
    refuse(state, &i, "the same lines");
    i = info(METRIC_GAUGE, "x_sum");
    declare(state, &i);
    i = info(METRIC_HISTOGRAM, "x");
    refuse(state, &i, "the same lines");
}

static void test_names_that_prometheus_would_not_take_are_refused(void **state)
{
    static const char *const wrong[] = {"", "1a", "a-b", "a b", "\xc3\xa9", "penstock_x"};
    struct metric_info i = info(METRIC_COUNTER, "");
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
        i.name = wrong[n];
        refuse(state, &i, wrong[n]);
    }
    i.name = "a:b_C9";
    declare(state, &i);
    static const char *const labels[] = {"", "1a", "a:b", "__a", "a-b"};
    i.name = "c";
    i.n_labels = 1;
    for (size_t n = 0; n < sizeof labels / sizeof *labels; n++) {
        i.labels = &labels[n];
        refuse(state, &i, "label");
    }
    static const char *const le[] = {"le"}, *const twice[] = {"a", "a"};
    i.labels = twice;
    i.n_labels = 2;
    refuse(state, &i, "twice");
    i = info(METRIC_HISTOGRAM, "h");
    i.labels = le;
    i.n_labels = 1;
    refuse(state, &i, "le is");
}

static void test_there_are_at_most_so_many_names_of_each_kind(void **state)
{
    char name[16], why[64];
    struct store *store;
    struct buckets *buckets;
    struct metric *m;
    struct store_limits small = {10, 4 << 20};
    struct buckets_limits slow = {{1, 1}, 10};
    for (unsigned n = 0; n < SHARED_NAMES_MAX; n++) {
        snprintf(name, sizeof name, "n%u", n);
        struct metric_info i = info(METRIC_COUNTER, name);
        assert_int_equal(shared_store(*state, name, &small, &store), 0);
        assert_int_equal(shared_buckets(*state, name, &slow, 1, &buckets), 0);
        assert_int_equal(metrics_declare(all(state), &i, &m, why, sizeof why), 0);
    }
    struct metric_info i = info(METRIC_COUNTER, "more");
    assert_int_equal(shared_store(*state, "more", NULL, &store), PS_ELIMIT);
    assert_int_equal(shared_buckets(*state, "more", &slow, 1, &buckets), PS_ELIMIT);
    assert_int_equal(metrics_declare(all(state), &i, &m, why, sizeof why), PS_ELIMIT);
    assert_int_equal(shared_store(*state, "n5", NULL, &store), 0);
}

static void test_a_name_is_the_same_thing_again_with_its_new_limits(void **state)
{
    struct store *store, *again;
    struct buckets *buckets, *same;
    struct store_value v = {.type = STORE_NUMBER};
    assert_int_equal(shared_store(*state, "s", NULL, &store), 0);
    for (int n = 0; n < 20; n++)
        store_set(store, (struct store_key){(const char *)&n, sizeof n}, &v, 0, 1);
    assert_int_equal(shared_store(*state, "s", NULL, &again), 0);
    assert_ptr_equal(store, again);
    assert_int_equal(store_len(store), 20);
    assert_int_equal(shared_store(*state, "s", &(struct store_limits){5, 4 << 20}, &again), 0);
    assert_ptr_equal(store, again);
    assert_int_equal(store_len(store), 5);

    struct buckets_limits limits = {{1, 5}, 10};
    assert_int_equal(shared_buckets(*state, "s", &limits, 1, &buckets), 0);
    limits.rate.burst = 50;
    assert_int_equal(shared_buckets(*state, "s", &limits, 1, &same), 0);
    assert_ptr_equal(buckets, same);
    assert_true(buckets_take(buckets, (struct buckets_key){"k", 1}, 50, 1) == 0);
}

enum { THREADS = 4, TURNS = 20000 };

static void *count(void *arg)
{
    void *state = arg;
    static const double bounds[] = {10, 20};
    struct metric_info c = info(METRIC_COUNTER, "c"), h = info(METRIC_HISTOGRAM, "h");
    c.labels = method;
    c.n_labels = 1;
    h.bounds = bounds;
    h.n_bounds = 2;
    struct metric *counter = declare(&state, &c), *histogram = declare(&state, &h);
    char name[16];
    for (int i = 0; i < TURNS; i++) {
        snprintf(name, sizeof name, "%d", i % 2);
        metric_add(counter, (struct metric_label[]){label(name)}, 1);
        metric_observe(histogram, NULL, i % 30 + 1);
        if (i % 1000 == 0)
            metrics_text(shared_metrics(state), NULL, 0);
    }
    return NULL;
}

static void test_what_threads_count_adds_up(void **state)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, *state), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char text[1024];
    text[metrics_text(all(state), text, sizeof text - 1)] = '\0';
    assert_non_null(strstr(text, "c{method=\"0\"} 40000\n"));
    assert_non_null(strstr(text, "c{method=\"1\"} 40000\n"));
    assert_non_null(strstr(text, "h_count 80000\n"));
    assert_non_null(strstr(text, "h_bucket{le=\"10\"} 26680\n"));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_counters_and_gauges_are_written_with_help_and_type),
        test(test_label_values_do_not_run_into_each_other),
        test(test_a_histogram_counts_cumulatively),
        test(test_what_would_break_the_format_is_escaped),
        test(test_numbers_read_back_as_they_were),
        test(test_a_short_buffer_is_filled_and_the_whole_length_told),
        test(test_series_beyond_the_most_and_long_values_count_as_other),
        test(test_the_same_declaration_is_the_same_metric_with_the_new_help),
        test(test_another_declaration_of_the_same_name_is_refused),
        test(test_names_that_prometheus_would_not_take_are_refused),
        test(test_there_are_at_most_so_many_names_of_each_kind),
        test(test_a_name_is_the_same_thing_again_with_its_new_limits),
        test(test_what_threads_count_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
