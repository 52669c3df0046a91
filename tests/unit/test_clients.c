/* Connections by client address: an IPv4 address or an IPv6 /64 counts as one client. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>

#include "penstock/proxy/clients.h"

static struct addr ip(const char *text)
{
    struct addr a;
    assert_int_equal(addr_parse_ip(text, &a), 0);
    return a;
}

static int setup(void **state)
{
    *state = clients_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    clients_free(*state);
    return 0;
}

static bool enter(struct clients *t, const char *text, uint32_t limit)
{
    struct addr a = ip(text);
    addr_set_port(&a, 50000);
    return clients_enter(t, &a, limit);
}

static void leave(struct clients *t, const char *text)
{
    struct addr a = ip(text);
    clients_leave(t, &a);
}

static void test_an_ipv4_address_has_its_own_limit_whatever_the_port(void **state)
{
    struct clients *t = *state;
    struct addr a = ip("192.0.2.1");
    for (uint16_t port = 1; port <= 3; port++) {
        addr_set_port(&a, port);
        assert_true(clients_enter(t, &a, 3));
    }
    assert_false(enter(t, "192.0.2.1", 3));
    assert_true(enter(t, "192.0.2.2", 3));
    assert_true(enter(t, "192.0.2.1", 4)); /* a limit raised meanwhile */
}

static void test_an_ipv4_address_mapped_into_ipv6_is_the_same_client(void **state)
{
    struct clients *t = *state;
    assert_true(enter(t, "192.0.2.1", 1));
    assert_false(enter(t, "::ffff:192.0.2.1", 1));
    leave(t, "::ffff:192.0.2.1");
    assert_true(enter(t, "192.0.2.1", 1));
}

static void test_a_slash_64_is_one_client(void **state)
{
    struct clients *t = *state;
    assert_true(enter(t, "2001:db8:0:1::1", 2));
    assert_true(enter(t, "2001:db8:0:1:ffff::2", 2));
    assert_false(enter(t, "2001:db8:0:1::3", 2));
    assert_true(enter(t, "2001:db8:0:2::1", 2));
    leave(t, "2001:db8:0:1:abcd::9");
    assert_true(enter(t, "2001:db8:0:1::3", 2));
}

static void test_who_leaves_makes_room(void **state)
{
    struct clients *t = *state;
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(enter(t, "192.0.2.1", 2));
        assert_true(enter(t, "192.0.2.1", 2));
        assert_false(enter(t, "192.0.2.1", 2));
        leave(t, "192.0.2.1");
        leave(t, "192.0.2.1");
    }
}

static void test_leaving_without_having_entered_is_harmless(void **state)
{
    struct clients *t = *state;
    leave(t, "192.0.2.1");
    assert_true(enter(t, "192.0.2.1", 1));
    assert_false(enter(t, "192.0.2.1", 1));
}

static void test_a_limit_of_none_refuses_and_leaves_nothing_behind(void **state)
{
    struct clients *t = *state;
    assert_false(enter(t, "192.0.2.1", 0));
    leave(t, "192.0.2.1"); /* must not count below nothing */
    assert_true(enter(t, "192.0.2.1", 1));
    assert_false(enter(t, "192.0.2.1", 1));
}

static struct addr numbered(uint32_t i)
{
    struct addr a = ip("10.0.0.0");
    a.in.sin_addr.s_addr = htonl(0x0a000000u + i);
    if (i % 2 == 0)
        return a;
    a = ip("2001:db8::");
    a.in6.sin6_addr.s6_addr[5] = (uint8_t)(i >> 16);
    a.in6.sin6_addr.s6_addr[6] = (uint8_t)(i >> 8);
    a.in6.sin6_addr.s6_addr[7] = (uint8_t)i;
    return a;
}

static void test_a_hundred_thousand_clients_are_counted_one_by_one(void **state)
{
    enum { MANY = 100000 };
    struct clients *t = *state;
    for (uint32_t i = 0; i < MANY; i++) {
        struct addr a = numbered(i);
        assert_true(clients_enter(t, &a, 2));
        if (i % 3 == 0)
            assert_true(clients_enter(t, &a, 2));
    }
    for (uint32_t i = 0; i < MANY; i++) {
        struct addr a = numbered(i);
        assert_int_equal(clients_enter(t, &a, 2), i % 3 != 0);
        clients_leave(t, &a);
        clients_leave(t, &a);
    }
    for (uint32_t i = 0; i < MANY; i++) { /* none has left a trace */
        struct addr a = numbered(i);
        assert_true(clients_enter(t, &a, 1));
        assert_false(clients_enter(t, &a, 1));
    }
}

enum { THREADS = 4, TURNS = 20000, LIMIT = 3, ADDRESSES = 50 };

struct shared {
    struct clients *clients;
    atomic_int conns[ADDRESSES];
    atomic_bool over;
};

static void *enter_and_leave(void *arg)
{
    struct shared *s = arg;
    struct random rnd = {(uint64_t)(uintptr_t)&rnd};
    for (unsigned i = 0; i < TURNS; i++) {
        uint32_t k = (uint32_t)random_in(&rnd, 0, ADDRESSES - 1);
        struct addr a = numbered(k);
        if (!clients_enter(s->clients, &a, LIMIT))
            continue;
        if (atomic_fetch_add(&s->conns[k], 1) >= LIMIT)
            atomic_store(&s->over, true);
        atomic_fetch_sub(&s->conns[k], 1);
        clients_leave(s->clients, &a);
    }
    return NULL;
}

static void test_threads_add_up_and_never_exceed_the_limit(void **state)
{
    struct shared s = {.clients = *state};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, enter_and_leave, &s), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_false(atomic_load(&s.over));
    for (uint32_t k = 0; k < ADDRESSES; k++) {
        struct addr a = numbered(k);
        for (unsigned i = 0; i < LIMIT; i++)
            assert_true(clients_enter(s.clients, &a, LIMIT));
        assert_false(clients_enter(s.clients, &a, LIMIT));
    }
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_an_ipv4_address_has_its_own_limit_whatever_the_port),
        test(test_an_ipv4_address_mapped_into_ipv6_is_the_same_client),
        test(test_a_slash_64_is_one_client),
        test(test_who_leaves_makes_room),
        test(test_leaving_without_having_entered_is_harmless),
        test(test_a_limit_of_none_refuses_and_leaves_nothing_behind),
        test(test_a_hundred_thousand_clients_are_counted_one_by_one),
        test(test_threads_add_up_and_never_exceed_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
