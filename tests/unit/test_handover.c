/* The messages of an upgrade, and keys of session tickets that go with them. */
#include "support.h"

#include "../../core/proxy/handover_wire.h"
#include "penstock/net/tls_ctx.h"

static int pair[2];

static int open_pair(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

static int close_pair(void **state)
{
    (void)state;
    close(pair[0]);
    return pair[1] >= 0 ? close(pair[1]) : 0;
}

static void test_a_socket_arrives_with_its_address(void **state)
{
    (void)state;
    struct handover_socket sent = {HANDOVER_LISTENER, 7, 21, UINT64_MAX, "unix:/run/a b"}, came;
    struct handover_message m;
    size_t n;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), type = 0;
    socklen_t len = sizeof type;
    assert_int_equal(handover_send_socket(pair[0], &sent, fd), 0);
    close(fd);
    assert_int_equal(handover_receive(pair[1], &m), 1);
    assert_true(handover_read_socket(handover_is(&m, "socket", &n), &came));
    assert_int_equal(came.role, HANDOVER_LISTENER);
    assert_int_equal(came.index, 7);
    assert_int_equal(came.dev, 21);
    assert_true(came.ino == UINT64_MAX);
    assert_string_equal(came.bind, "unix:/run/a b");
    assert_int_equal(getsockopt(m.fd, SOL_SOCKET, SO_TYPE, &type, &len), 0);
    assert_int_equal(type, SOCK_STREAM);
    assert_int_equal(fcntl(m.fd, F_GETFD), FD_CLOEXEC);
    close(m.fd);
}

static void test_what_is_no_socket_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "l", "l 1 2", "l 1 2 x unix:/a", "l -"};
    struct handover_socket s;
    char text[HANDOVER_BIND_MAX + 32] = "l 1 2 3 ";
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(handover_read_socket(wrong[i], &s));
    memset(text + 8, 'x', HANDOVER_BIND_MAX);
    text[8 + HANDOVER_BIND_MAX] = '\0';
    assert_false(handover_read_socket(text, &s));
    text[8 + HANDOVER_BIND_MAX - 1] = '\0';
    assert_true(handover_read_socket(text, &s));
}

static void test_words_are_whole_words(void **state)
{
    (void)state;
    struct handover_message m;
    size_t n;
    assert_int_equal(handover_send_text(pair[0], "failed", "to do it"), 0);
    assert_int_equal(handover_send_word(pair[0], "ready"), 0);
    assert_int_equal(handover_receive(pair[1], &m), 1);
    assert_int_equal(m.fd, -1);
    assert_null(handover_is(&m, "fail", &n));
    assert_null(handover_is(&m, "ready", &n));
    assert_string_equal(handover_is(&m, "failed", &n), "to do it");
    assert_int_equal(n, 8);
    assert_int_equal(handover_receive(pair[1], &m), 1);
    assert_string_equal(handover_is(&m, "ready", &n), "");
    assert_int_equal(n, 0);
}

static void test_a_long_text_is_cut(void **state)
{
    (void)state;
    static char text[2 * HANDOVER_MESSAGE_MAX];
    struct handover_message m;
    size_t n;
    memset(text, 'x', sizeof text - 1);
    assert_int_equal(handover_send_text(pair[0], "failed", text), 0);
    assert_int_equal(handover_receive(pair[1], &m), 1);
    assert_non_null(handover_is(&m, "failed", &n));
    assert_true(n > 8000 && n < HANDOVER_MESSAGE_MAX);
}

static void test_last_words_arrive_from_one_that_has_read_nothing(void **state)
{
    (void)state;
    struct handover_message m;
    size_t n;
    assert_int_equal(handover_send_word(pair[0], "begin"), 0);
    assert_int_equal(handover_send_text(pair[1], "failed", "at once"), 0);
    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(handover_receive(pair[0], &m), 1);
    assert_string_equal(handover_is(&m, "failed", &n), "at once");
    assert_int_equal(handover_receive(pair[0], &m), 0);
    assert_int_equal(handover_send_word(pair[0], "go"), -EPIPE);
}

static void test_ticket_keys_are_taken_over_whole_or_not_at_all(void **state)
{
    (void)state;
    unsigned char a[TLS_TICKETS_BYTES], b[TLS_TICKETS_BYTES], before[TLS_TICKETS_BYTES];
    const size_t age = sizeof(uint64_t);
    struct tls_tickets *from = tls_tickets_new(), *to = tls_tickets_new();
    tls_tickets_write(from, a);
    tls_tickets_write(to, before);
    assert_memory_not_equal(a + age, before + age, sizeof a - age);
    tls_tickets_read(to, a, sizeof a - 1);
    tls_tickets_write(to, b);
    assert_memory_equal(b + age, before + age, sizeof b - age);
    memset(a, 0xFF, age); /* older than any that is still good */
    tls_tickets_read(to, a, sizeof a);
    tls_tickets_write(to, b);
    assert_memory_equal(b + age, before + age, sizeof b - age);
    tls_tickets_write(from, a);
    tls_tickets_read(to, a, sizeof a);
    tls_tickets_write(to, b);
    assert_memory_equal(b + age, a + age, sizeof b - age);
    tls_tickets_free(from);
    tls_tickets_free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_socket_arrives_with_its_address, open_pair,
                                        close_pair),
        cmocka_unit_test(test_what_is_no_socket_is_refused),
        cmocka_unit_test_setup_teardown(test_words_are_whole_words, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(test_a_long_text_is_cut, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(test_last_words_arrive_from_one_that_has_read_nothing,
                                        open_pair, close_pair),
        cmocka_unit_test(test_ticket_keys_are_taken_over_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
