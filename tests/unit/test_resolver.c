/* Names to addresses: localhost, /etc/hosts, a small name server of the test's own, and none at
 * all. */
#include "fake_dns.h"

#include <arpa/inet.h>

#include "penstock/base/err.h"
#include "penstock/net/resolver.h"

/* Nobody listens there: every question is refused at once. */
static const char no_server[] = "127.0.0.1:1";

struct asked {
    struct resolver_query query;
    unsigned calls;
    bool done;
    int err;
    size_t n;
    struct addr first;
    char why[128];
    /* what the callback does */
    struct resolver *then_ask_on;
    const char *then_ask;
    struct asked *then_ask_as, *then_cancel;
    bool then_doubt;
};

static void on_done(struct resolver_query *query, int err, const struct addr *addrs, size_t n,
                    const char *why)
{
    struct asked *a = container_of(query, struct asked, query);
    a->calls++;
    a->done = true;
    a->err = err;
    a->n = n;
    if (n)
        a->first = addrs[0];
    snprintf(a->why, sizeof a->why, "%s", why ? why : "");
    if (a->then_cancel)
        resolver_cancel(&a->then_cancel->query);
    if (a->then_doubt)
        resolver_doubt(a->then_ask_on, a->then_ask);
    if (a->then_ask_as)
        resolver_lookup(a->then_ask_on, &a->then_ask_as->query, a->then_ask, AF_INET, on_done);
}

static struct resolver *new_resolver(struct fixture *f, const char *servers)
{
    struct resolver *r;
    assert_int_equal(resolver_new(&f->loop, servers, &r), 0);
    return r;
}

static void ask(struct fixture *f, struct resolver *r, struct asked *a, const char *name,
                int family)
{
    *a = (struct asked){0};
    resolver_lookup(r, &a->query, name, family, on_done);
    run_until(f, &a->done);
    assert_int_equal(a->calls, 1);
    assert_false(a->query.waiting);
}

static void assert_first_is(const struct asked *a, const char *text)
{
    char buf[ADDR_TEXT_MAX];
    assert_int_equal(a->err, 0);
    assert_true(a->n >= 1);
    assert_int_equal(addr_port(&a->first), 0);
    assert_string_equal(addr_format_ip(&a->first, buf, sizeof buf), text);
}

static void test_localhost_is_this_machine_and_asks_nobody(void **state)
{
    static const char *const names[] = {"localhost", "LocalHost", "localhost.", "a.localhost",
                                        "x.y.LOCALHOST."};
    struct resolver *r = new_resolver(*state, no_server);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct asked v4 = {0}, v6 = {0};
        resolver_lookup(r, &v4.query, names[i], AF_INET, on_done);
        resolver_lookup(r, &v6.query, names[i], AF_INET6, on_done);
        assert_true(v4.done && v6.done); /* before it returned */
        assert_first_is(&v4, "127.0.0.1");
        assert_first_is(&v6, "::1");
    }
    resolver_free(r);
}

static void test_what_only_ends_like_localhost_is_another_name(void **state)
{
    struct resolver *r = new_resolver(*state, no_server);
    struct asked a;
    ask(*state, r, &a, "notlocalhost", AF_INET);
    assert_int_equal(a.err, PS_EDNS);
    resolver_free(r);
}

/* An IPv4 line of /etc/hosts that is not localhost; false when there is none. */
static bool hosts_entry(char ip[64], char name[256])
{
    FILE *file = fopen("/etc/hosts", "re");
    char line[512];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        struct in_addr in;
        found = sscanf(line, "%63s %255[^ \t\n#]", ip, name) == 2 &&
                inet_pton(AF_INET, ip, &in) == 1 && !strstr(name, "localhost");
    }
    if (file)
        fclose(file);
    return found;
}

static void test_names_of_the_hosts_file_need_no_server(void **state)
{
    char ip[64], name[256];
    struct asked a;
    if (!hosts_entry(ip, name))
        skip();
    struct resolver *r = new_resolver(*state, no_server);
    ask(*state, r, &a, name, AF_INET);
    assert_first_is(&a, ip);
    struct asked again = {0};
    resolver_lookup(r, &again.query, name, AF_INET, on_done);
    assert_true(again.done); /* from the cache, at once */
    assert_first_is(&again, ip);
    resolver_doubt(r, name);
    ask(*state, r, &a, name, AF_INET);
    assert_first_is(&a, ip);
    resolver_free(r);
}

static void test_a_server_that_is_not_there_is_a_failure_with_a_reason(void **state)
{
    struct resolver *r = new_resolver(*state, no_server);
    struct asked a;
    ask(*state, r, &a, "db.penstock.invalid", AF_INET);
    assert_int_equal(a.err, PS_EDNS);
    assert_int_equal(a.n, 0);
    assert_true(*a.why != '\0');
    ask(*state, r, &a, "db.penstock.invalid", AF_INET6);
    assert_int_equal(a.err, PS_EDNS);
    resolver_free(r);
}

static void test_a_failure_is_believed_for_a_moment_and_not_when_in_doubt(void **state)
{
    struct resolver *r = new_resolver(*state, no_server);
    struct asked a;
    ask(*state, r, &a, "db.penstock.invalid", AF_INET);
    struct asked again = {0};
    resolver_lookup(r, &again.query, "DB.penstock.INVALID", AF_INET, on_done);
    assert_true(again.done);
    assert_int_equal(again.err, PS_EDNS);
    resolver_doubt(r, "db.penstock.invalid");
    struct asked anew = {0};
    resolver_lookup(r, &anew.query, "db.penstock.invalid", AF_INET, on_done);
    assert_false(anew.done); /* the server is asked once more */
    run_until(*state, &anew.done);
    resolver_free(r);
}

static void test_many_questions_for_one_name_are_all_answered_once(void **state)
{
    enum { MANY = 20 };
    struct fixture *f = *state;
    struct resolver *r = new_resolver(f, no_server);
    struct asked all[MANY] = {0};
    for (size_t i = 0; i < MANY; i++)
        resolver_lookup(r, &all[i].query, "db.penstock.invalid", AF_INET, on_done);
    for (size_t i = 0; i < MANY; i++)
        run_until(f, &all[i].done);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(all[i].calls, 1);
    resolver_free(r);
}

static void test_more_names_than_the_cache_holds_are_all_answered(void **state)
{
    enum { MANY = 1500 };
    struct fixture *f = *state;
    struct fake_dns dns;
    assert_int_equal(fake_dns_start(&dns, f, FAKE_NXDOMAIN), 0);
    struct resolver *r = new_resolver(f, dns.where);
    static struct asked all[MANY];
    memset(all, 0, sizeof all);
    for (size_t i = 0; i < MANY; i++) {
        char name[64];
        snprintf(name, sizeof name, "host%zu.penstock.test", i);
        resolver_lookup(r, &all[i].query, name, AF_INET, on_done);
        run_until(f, &all[i].done);
    }
    assert_int_equal(dns.n_questions, MANY);
    struct asked last = {0}, first = {0};
    resolver_lookup(r, &last.query, "host1499.penstock.test", AF_INET, on_done);
    resolver_lookup(r, &first.query, "host0.penstock.test", AF_INET, on_done);
    assert_false(first.done); /* its entry has made room */
    run_until(f, &first.done);
    run_until(f, &last.done);
    resolver_free(r);
    poller_close(&dns.entry);
}

static void
test_the_addresses_come_in_the_order_of_the_server_and_are_kept_for_their_time(void **state)
{
    struct fixture *f = *state;
    struct fake_dns dns;
    struct asked a;
    assert_int_equal(fake_dns_start(&dns, f, FAKE_ANSWER), 0);
    dns.v4[0] = "192.0.2.9";
    dns.v4[1] = "192.0.2.1";
    dns.v6[0] = "2001:db8::7";
    struct resolver *r = new_resolver(f, dns.where);
    ask(f, r, &a, "db.penstock.test", AF_INET);
    assert_first_is(&a, "192.0.2.9");
    assert_int_equal(a.n, 2);
    ask(f, r, &a, "db.penstock.test", AF_INET6);
    assert_first_is(&a, "2001:db8::7");
    assert_int_equal(dns.n_questions, 2);
    ask(f, r, &a, "DB.penstock.test", AF_INET);
    assert_int_equal(dns.n_questions, 2);
    f->loop.now_ms += 61000; /* the fixture's clock is read again at the next wake-up only */
    struct asked b = {0};
    resolver_lookup(r, &b.query, "db.penstock.test", AF_INET, on_done);
    assert_false(b.done);
    run_until(f, &b.done);
    assert_int_equal(dns.n_questions, 3);
    resolver_free(r);
    poller_close(&dns.entry);
}

static void test_the_last_good_answer_is_used_while_the_server_fails(void **state)
{
    struct fixture *f = *state;
    struct fake_dns dns;
    struct asked a;
    assert_int_equal(fake_dns_start(&dns, f, FAKE_ANSWER), 0);
    dns.v4[0] = "192.0.2.9";
    struct resolver *r = new_resolver(f, dns.where);
    ask(f, r, &a, "db.penstock.test", AF_INET);
    dns.mode = FAKE_SERVFAIL;
    resolver_doubt(r, "db.penstock.test");
    ask(f, r, &a, "db.penstock.test", AF_INET);
    assert_first_is(&a, "192.0.2.9");
    assert_true(dns.n_questions > 1);
    dns.mode = FAKE_NXDOMAIN; /* but a server that says that it is gone is believed */
    resolver_doubt(r, "db.penstock.test");
    ask(f, r, &a, "db.penstock.test", AF_INET);
    assert_int_equal(a.err, PS_EDNS);
    resolver_free(r);
    poller_close(&dns.entry);
}

static void test_a_name_without_an_address_of_the_family_is_a_failure(void **state)
{
    struct fixture *f = *state;
    struct fake_dns dns;
    struct asked a;
    assert_int_equal(fake_dns_start(&dns, f, FAKE_ANSWER), 0);
    dns.v4[0] = "192.0.2.9";
    struct resolver *r = new_resolver(f, dns.where);
    ask(f, r, &a, "db.penstock.test", AF_INET6);
    assert_int_equal(a.err, PS_EDNS);
    ask(f, r, &a, "db.penstock.test", AF_INET);
    assert_first_is(&a, "192.0.2.9");
    resolver_free(r);
    poller_close(&dns.entry);
}

static void test_a_cancelled_question_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct resolver *r = new_resolver(f, no_server);
    struct asked a = {0}, b = {0}, never = {0};
    resolver_cancel(&never.query); /* harmless */
    resolver_lookup(r, &a.query, "db.penstock.invalid", AF_INET, on_done);
    resolver_lookup(r, &b.query, "db.penstock.invalid", AF_INET, on_done);
    resolver_cancel(&a.query);
    resolver_cancel(&a.query);
    run_until(f, &b.done);
    assert_int_equal(a.calls, 0);
    resolver_free(r);
}

static void test_an_answer_may_cancel_the_others_of_its_name(void **state)
{
    struct fixture *f = *state;
    struct resolver *r = new_resolver(f, no_server);
    struct asked a = {0}, b = {0};
    a.then_cancel = &b;
    b.then_cancel = &a;
    resolver_lookup(r, &a.query, "db.penstock.invalid", AF_INET, on_done);
    resolver_lookup(r, &b.query, "db.penstock.invalid", AF_INET, on_done);
    while (!a.done && !b.done)
        run_round(f);
    run_ready(f);
    assert_int_equal(a.calls + b.calls, 1);
    resolver_free(r);
}

static void asks_from_an_answer(void **state, bool doubt)
{
    struct fixture *f = *state;
    struct resolver *r = new_resolver(f, no_server);
    struct asked a = {0}, b = {0};
    a.then_ask_on = r;
    a.then_ask = "db.penstock.invalid";
    a.then_ask_as = &b;
    a.then_doubt = doubt;
    resolver_lookup(r, &a.query, "db.penstock.invalid", AF_INET, on_done);
    run_until(f, &a.done);
    run_until(f, &b.done);
    assert_int_equal(b.calls, 1);
    assert_int_equal(b.err, PS_EDNS);
    resolver_free(r);
}

static void test_a_question_asked_from_an_answer_to_the_same_name_is_answered(void **state)
{
    asks_from_an_answer(state, false);
}

static void test_a_question_asked_from_an_answer_that_is_in_doubt_is_answered(void **state)
{
    asks_from_an_answer(state, true);
}

static void test_the_end_of_a_resolver_answers_nobody_and_a_late_cancel_is_harmless(void **state)
{
    struct fixture *f = *state;
    struct resolver *r = new_resolver(f, no_server);
    struct asked a = {0}, b = {0};
    resolver_lookup(r, &a.query, "db.penstock.invalid", AF_INET, on_done);
    resolver_lookup(r, &b.query, "db.penstock.invalid", AF_INET6, on_done);
    resolver_free(r);
    assert_int_equal(a.calls + b.calls, 0);
    assert_false(a.query.waiting || b.query.waiting);
    resolver_cancel(&a.query);
    resolver_cancel(&b.query);
    run_ready(f);
}

static void test_servers_that_cannot_be_parsed_are_refused(void **state)
{
    struct fixture *f = *state;
    struct resolver *r = NULL;
    assert_int_equal(resolver_new(&f->loop, "not a server", &r), -EINVAL);
    assert_null(r);
    assert_int_equal(resolver_new(&f->loop, "127.0.0.1,[::1]:5353", &r), 0);
    resolver_free(r);
}

#define test(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_localhost_is_this_machine_and_asks_nobody),
        test(test_what_only_ends_like_localhost_is_another_name),
        test(test_names_of_the_hosts_file_need_no_server),
        test(test_a_server_that_is_not_there_is_a_failure_with_a_reason),
        test(test_a_failure_is_believed_for_a_moment_and_not_when_in_doubt),
        test(test_many_questions_for_one_name_are_all_answered_once),
        test(test_more_names_than_the_cache_holds_are_all_answered),
        test(test_the_addresses_come_in_the_order_of_the_server_and_are_kept_for_their_time),
        test(test_the_last_good_answer_is_used_while_the_server_fails),
        test(test_a_name_without_an_address_of_the_family_is_a_failure),
        test(test_a_cancelled_question_is_not_answered),
        test(test_an_answer_may_cancel_the_others_of_its_name),
        test(test_a_question_asked_from_an_answer_to_the_same_name_is_answered),
        test(test_a_question_asked_from_an_answer_that_is_in_doubt_is_answered),
        test(test_the_end_of_a_resolver_answers_nobody_and_a_late_cancel_is_harmless),
        test(test_servers_that_cannot_be_parsed_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
