/* Targets with options: proxies on the way, the PROXY header, a source and a time of their own. The
 * other ends are played by the test. */
#include "fake_dns.h"

#include <stdio.h>

#include "penstock/base/err.h"
#include "penstock/net/dial.h"
#include "penstock/net/resolver.h"

enum { MAX_TARGETS = 3 };

struct dialling {
    struct fixture *f;
    struct resolver *resolver;
    struct fake_dns dns; /* knows no name */
    struct stream stream;
    struct dial *dial; /* NULL once it has called back */
    struct dial_socket socket;
    struct dial_proxy proxy;
    struct target targets[MAX_TARGETS];
    size_t n_targets;
    uint64_t timeout_ms;
    bool done;
    struct dial_result result;
    char hop[400]; /* result.hop, "" without one */
    int listener;  /* of the peer, -1 when closed */
    char url[64];  /* "127.0.0.1:port" of it */
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
    f->own = d;
    stream_init(&d->stream, on_stream);
    d->listener = listen_ip("127.0.0.1", 0, 16);
    struct addr a = local_addr(d->listener);
    addr_format(&a, d->url, sizeof d->url);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct dialling *d = f->own;
    stream_close(&d->stream);
    if (d->listener >= 0)
        close(d->listener);
    resolver_free(d->resolver);
    poller_close(&d->dns.entry);
    for (size_t i = 0; i < d->n_targets; i++)
        target_deinit(&d->targets[i]);
    free(d);
    return loop_teardown(state);
}

static struct dialling *dialling(void **state)
{
    return ((struct fixture *)*state)->own;
}

/* --- what is dialled -------------------------------------------------------------------------- */

static struct target_options *add_target(struct dialling *d, const char *text)
{
    char why[256];
    struct target *t = &d->targets[d->n_targets++];
    if (endpoint_parse(text, ENDPOINT_DIAL, &t->endpoint, why, sizeof why))
        fail_msg("%s", why);
    t->options = target_options_new();
    assert_non_null(t->options);
    return t->options;
}

/* "%s" in the URL is the peer's address. */
static void add_hop(struct dialling *d, struct target_options *o, const char *url)
{
    char text[256], why[256];
    snprintf(text, sizeof text, url, d->url); // NOLINT: the formats are the tests'
    if (target_options_add_hop(o, text, why, sizeof why))
        fail_msg("%s", why);
}

static void on_dialled(void *arg, const struct dial_result *result)
{
    struct dialling *d = arg;
    d->dial = NULL;
    d->result = *result;
    snprintf(d->hop, sizeof d->hop, "%s", result->hop ? result->hop : "");
    d->done = true;
}

static void start(struct dialling *d)
{
    struct dial_options options = {.loop = &d->f->loop,
                                   .resolver = d->resolver,
                                   .targets = d->targets,
                                   .n_targets = d->n_targets,
                                   .timeout_ms = d->timeout_ms,
                                   .socket = &d->socket,
                                   .stream = &d->stream,
                                   .proxy = d->proxy};
    assert_int_equal(dial_start(&options, on_dialled, d, &d->dial), 0);
}

/* --- the peer --------------------------------------------------------------------------------- */

/* Reads exactly these bytes, while the loop runs. */
static void hear(struct dialling *d, int fd, const void *bytes, size_t n)
{
    uint8_t got[1024];
    size_t len = 0;
    assert_true(n <= sizeof got);
    for (unsigned rounds = 0; len < n; rounds++) {
        assert_true(rounds < GUARD_MS);
        run_ready(d->f);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 1) != 1)
            continue;
        ssize_t some = recv(fd, got + len, n - len, 0);
        assert_true(some > 0);
        len += (size_t)some;
    }
    assert_memory_equal(got, bytes, n);
}
#define HEAR(d, fd, text) hear(d, fd, text, sizeof(text) - 1)
#define SAY(fd, text) send_all(fd, text, sizeof(text) - 1)

/* Sends a byte at a time, each of them taken before the next one is sent. */
static void dribble(struct dialling *d, int fd, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_false(d->done);
        send_all(fd, bytes + i, 1);
        await(d->stream.entry.fd, POLLIN);
        run_ready(d->f);
    }
}
#define DRIBBLE(d, fd, text) dribble(d, fd, text, sizeof(text) - 1)

static void finish(struct dialling *d)
{
    run_until(d->f, &d->done);
    run_ready(d->f);
}

/* Connected, and these bytes are the first that the upstream has sent. */
static void assert_early(struct dialling *d, const char *bytes)
{
    char buf[64];
    assert_int_equal(d->result.err, 0);
    assert_null(d->result.hop);
    assert_true(d->stream.readable && d->stream.writable);
    assert_int_equal(stream_read(&d->stream, buf, sizeof buf), strlen(bytes));
    assert_memory_equal(buf, bytes, strlen(bytes));
}

static void assert_failed(struct dialling *d, int err, const char *hop)
{
    char text[400];
    assert_int_equal(d->result.err, err);
    snprintf(text, sizeof text, hop, d->url); // NOLINT
    assert_string_equal(d->hop, text);
    assert_false(stream_is_open(&d->stream));
}

/* --- chains ----------------------------------------------------------------------------------- */

static void test_socks5_is_asked_for_the_name_and_early_bytes_stay(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    start(d);
    int fd = accept_one(d->listener);
    HEAR(d, fd, "\x05\x01\x00");
    SAY(fd, "\x05\x00");
    HEAR(d, fd,
         "\x05\x01\x00\x03\x06"
         "db.lab\x15\x38");
    SAY(fd, "\x05\x00\x00\x01\x7f\0\0\x01\x12\x34hello");
    finish(d);
    assert_early(d, "hello");
    assert_int_equal(addr_port(&d->result.address),
                     addr_port(&d->targets[0].options->hops[0].endpoint.ip));
    close(fd);
}

static void test_http_is_asked_for_a_tunnel_and_early_bytes_stay(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "http://Aladdin:open%%20sesame@%s");
    start(d);
    int fd = accept_one(d->listener);
    HEAR(d, fd,
         "CONNECT db.lab:5432 HTTP/1.1\r\nHost: db.lab:5432\r\n"
         "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n");
    SAY(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nVia: x\r\n\r\nhello");
    finish(d);
    assert_early(d, "hello");
    close(fd);
}

/* Three hops on one socket: each is told of the next, the last of the target; then the header. */
static void test_a_chain_is_walked_hop_by_hop_whatever_the_answers_are_split_into(void **state)
{
    struct dialling *d = dialling(state);
    struct target_options *o = add_target(d, "10.0.0.9:25");
    add_hop(d, o, "socks5://u:p@%s");
    add_hop(d, o, "http://10.0.0.2");
    add_hop(d, o, "socks5://[2001:db8::3]");
    o->proxy = TARGET_PROXY_V2;
    assert_int_equal(target_options_add_tlv(o, 0xe0, "tlv", 3), 0);
    addr_parse_ip("203.0.113.7", &d->proxy.client);
    addr_parse_ip("10.0.0.1", &d->proxy.local);
    start(d);
    int fd = accept_one(d->listener);
    HEAR(d, fd, "\x05\x02\x00\x02");
    DRIBBLE(d, fd, "\x05\x02");
    HEAR(d, fd, "\x01\x01u\x01p");
    DRIBBLE(d, fd, "\x01\x00");
    HEAR(d, fd, "\x05\x01\x00\x01\x0a\0\0\x02\x0c\x38");
    DRIBBLE(d, fd, "\x05\x00\x00\x03\x04name\x12\x34");
    HEAR(d, fd, "CONNECT [2001:db8::3]:1080 HTTP/1.1\r\nHost: [2001:db8::3]:1080\r\n\r\n");
    DRIBBLE(d, fd, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    HEAR(d, fd, "\x05\x01\x00");
    DRIBBLE(d, fd, "\x05\x00");
    HEAR(d, fd, "\x05\x01\x00\x01\x0a\0\0\x09\0\x19");
    DRIBBLE(d, fd, "\x05\x00\x00\x01\0\0\0\0\0"); /* all but the last byte */
    SAY(fd, "\0early");
    finish(d);
    HEAR(d, fd,
         "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\xcb\0\x71\x07\x0a\0\0\x01\0\0\0\0\xe0\0\x03tlv");
    assert_early(d, "early");
    close(fd);
}

/* --- what goes wrong -------------------------------------------------------------------------- */

static void fails(struct dialling *d, const char *url, const char *answer, size_t n, int err,
                  const char *hop)
{
    add_hop(d, add_target(d, "db.lab:5432"), url);
    d->done = false;
    start(d);
    int fd = accept_one(d->listener);
    send_all(fd, answer, n);
    finish(d);
    assert_failed(d, err, hop);
    close(fd);
    target_deinit(&d->targets[--d->n_targets]);
}
#define FAILS(d, url, answer, err, hop) fails(d, url, answer, sizeof(answer) - 1, err, hop)

static void test_a_hop_that_refuses_is_named_with_its_reason(void **state)
{
    struct dialling *d = dialling(state);
    FAILS(d, "socks5://%s", "\x05\xff", PS_EDENIED,
          "socks5 %s: it asks for a login: write socks5://user:password@…");
    FAILS(d, "socks5://u:p@%s", "\x05\xff", PS_EDENIED,
          "socks5 %s: it takes no login by user and password");
    FAILS(d, "socks5://u:p@%s", "\x05\x02\x01\x01", PS_EDENIED,
          "socks5 %s: wrong user or password");
    FAILS(d, "socks5://%s", "\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0", PS_EDENIED,
          "socks5 %s: not allowed by its rules");
    FAILS(d, "socks5://%s", "\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", PS_EREFUSED,
          "socks5 %s: connection refused");
    FAILS(d, "http://%s", "HTTP/1.1 407 Authorize\r\n\r\n", PS_EDENIED,
          "http %s: 407, it asks for another user or password");
    FAILS(d, "http://%s", "HTTP/1.1 504 No\r\n\r\n", PS_ETIMEOUT,
          "http %s: 504, the host does not answer it");
}

static void test_a_hop_that_speaks_something_else_is_named(void **state)
{
    struct dialling *d = dialling(state);
    FAILS(d, "socks5://%s", "HTTP/1.1 400 Bad\r\n\r\n", PS_EREFUSED,
          "socks5 %s: its answer is not SOCKS5");
    FAILS(d, "socks5://%s", "\x05\x02", PS_EREFUSED, "socks5 %s: its answer is not SOCKS5");
    FAILS(d, "http://%s", "\x05\x00", PS_EREFUSED, "http %s: its answer is not HTTP");
    static char head[10000] = "HTTP/1.1 200 OK\r\nA: ";
    memset(head + 20, 'x', sizeof head - 20);
    fails(d, "http://%s", head, sizeof head, PS_EREFUSED, "http %s: its answer is not HTTP");
}

static void test_a_hop_that_closes_in_the_middle_is_named(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    start(d);
    int fd = accept_one(d->listener);
    HEAR(d, fd, "\x05\x01\x00");
    DRIBBLE(d, fd, "\x05");
    close(fd);
    finish(d);
    assert_failed(d, PS_ERESET, "socks5 %s: it closes the connection instead of answering");
}

static void test_a_hop_that_cannot_be_reached_is_named(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "http://%s");
    close(d->listener);
    d->listener = -1;
    start(d);
    finish(d);
    assert_failed(d, PS_EREFUSED, "http %s: connection refused");
}

static void test_a_hop_whose_name_is_unknown_is_named(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "127.0.0.1:9"), "socks5://proxy.test");
    start(d);
    finish(d);
    assert_int_equal(d->result.err, PS_EDNS);
    assert_non_null(
        strstr(d->hop, "socks5 proxy.test:1080: name could not be resolved: ")); /* and why */
}

static void test_a_hop_that_hangs_ends_with_the_deadline_and_is_named(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    d->timeout_ms = 60;
    start(d);
    int fd = accept_one(d->listener);
    SAY(fd, "\x05\x00\x05\x00"); /* it stops in the middle of its answer */
    finish(d);
    assert_failed(d, PS_ETIMEOUT, "socks5 %s: timed out");
    close(fd);
}

/* --- fail over -------------------------------------------------------------------------------- */

/* After a failed hop the stream is as good as new for the next target. */
static void test_the_next_target_is_tried_after_a_hop_has_failed(void **state)
{
    struct dialling *d = dialling(state);
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    add_target(d, d->url);
    start(d);
    int hop = accept_one(d->listener);
    HEAR(d, hop, "\x05\x01\x00");
    abort_socket(hop);
    finish(d);
    assert_int_equal(d->result.err, 0);
    assert_int_equal(d->result.target, 1);
    assert_null(d->result.hop);
    assert_int_equal(d->stream.err, 0);
    assert_false(d->stream.eof || d->stream.read_on);
    int fd = accept_one(d->listener);
    assert_int_equal(stream_write(&d->stream, "ping", 4), 4);
    HEAR(d, fd, "ping");
    close(fd);
}

static void test_a_failure_of_the_last_target_is_not_blamed_on_an_earlier_hop(void **state)
{
    struct dialling *d = dialling(state);
    int refusing = bind_ip("127.0.0.1", 0);
    struct addr a = local_addr(refusing);
    char text[64];
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    add_target(d, addr_format(&a, text, sizeof text));
    start(d);
    close(accept_one(d->listener));
    finish(d);
    assert_failed(d, PS_EREFUSED, "");
    close(refusing);
}

static void test_a_target_has_its_own_time_when_it_was_given_one(void **state)
{
    struct dialling *d = dialling(state);
    struct target_options *o = add_target(d, "db.lab:5432");
    add_hop(d, o, "socks5://%s");
    o->timeout_ms = 50;
    add_target(d, d->url);
    start(d); /* without a deadline: nothing else would end the first one */
    int hop = accept_one(d->listener);
    finish(d);
    assert_int_equal(d->result.err, 0);
    assert_int_equal(d->result.target, 1);
    close(hop);
}

/* --- the other options ------------------------------------------------------------------------ */

static void test_a_proxy_header_comes_first_without_hops_too(void **state)
{
    struct dialling *d = dialling(state);
    struct target_options *o = add_target(d, d->url);
    o->proxy = TARGET_PROXY_V1;
    addr_parse_ip("203.0.113.7", &d->proxy.client);
    addr_set_port(&d->proxy.client, 50000);
    addr_parse_ip("10.0.0.1", &d->proxy.local);
    addr_set_port(&d->proxy.local, 443);
    start(d);
    int fd = accept_one(d->listener);
    finish(d);
    assert_int_equal(d->result.err, 0);
    HEAR(d, fd, "PROXY TCP4 203.0.113.7 10.0.0.1 50000 443\r\n");
    close(fd);
}

static void test_a_dial_for_nobody_says_so_in_its_header(void **state)
{
    struct dialling *d = dialling(state);
    add_target(d, d->url)->proxy = TARGET_PROXY_V2;
    start(d);
    int fd = accept_one(d->listener);
    finish(d);
    HEAR(d, fd, "\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    close(fd);
}

static void test_a_source_of_its_own_goes_before_the_listeners(void **state)
{
    struct dialling *d = dialling(state);
    addr_parse_ip("127.0.0.2", &d->socket.source);
    addr_parse_ip("127.0.0.3", &add_target(d, d->url)->source);
    start(d);
    finish(d);
    struct addr own = local_addr(d->stream.entry.fd);
    char text[ADDR_TEXT_MAX];
    assert_string_equal(addr_format_ip(&own, text, sizeof text), "127.0.0.3");
}

static void test_a_dial_that_is_cancelled_while_it_speaks_leaves_nothing(void **state)
{
    struct dialling *d = dialling(state);
    unsigned before = count_fds();
    add_hop(d, add_target(d, "db.lab:5432"), "socks5://%s");
    start(d);
    int fd = accept_one(d->listener);
    HEAR(d, fd, "\x05\x01\x00");
    DRIBBLE(d, fd, "\x05");
    dial_cancel(d->dial);
    run_ready(d->f);
    assert_false(d->done);
    close(fd);
    assert_int_equal(count_fds(), before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(test_socks5_is_asked_for_the_name_and_early_bytes_stay),
        TEST(test_http_is_asked_for_a_tunnel_and_early_bytes_stay),
        TEST(test_a_chain_is_walked_hop_by_hop_whatever_the_answers_are_split_into),
        TEST(test_a_hop_that_refuses_is_named_with_its_reason),
        TEST(test_a_hop_that_speaks_something_else_is_named),
        TEST(test_a_hop_that_closes_in_the_middle_is_named),
        TEST(test_a_hop_that_cannot_be_reached_is_named),
        TEST(test_a_hop_whose_name_is_unknown_is_named),
        TEST(test_a_hop_that_hangs_ends_with_the_deadline_and_is_named),
        TEST(test_the_next_target_is_tried_after_a_hop_has_failed),
        TEST(test_a_failure_of_the_last_target_is_not_blamed_on_an_earlier_hop),
        TEST(test_a_target_has_its_own_time_when_it_was_given_one),
        TEST(test_a_proxy_header_comes_first_without_hops_too),
        TEST(test_a_dial_for_nobody_says_so_in_its_header),
        TEST(test_a_source_of_its_own_goes_before_the_listeners),
        TEST(test_a_dial_that_is_cancelled_while_it_speaks_leaves_nothing),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
