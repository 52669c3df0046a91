/* Addresses and what users write for them (base/addr.h). endpoint.c is included, so that its
 * allocations can be made to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int allocations_left = -1; /* -1: no limit */

static char *faulty_strdup(const char *s)
{
    if (allocations_left == 0)
        return NULL;
    if (allocations_left > 0)
        allocations_left--;
    return strdup(s);
}

#undef strdup
#define strdup faulty_strdup
#include "../../core/base/endpoint.c"
#undef strdup

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- struct addr ---- */

static struct addr ip(const char *text)
{
    struct addr a;
    memset(&a, 0, sizeof a);
    assert_int_equal(addr_parse_ip(text, &a), 0);
    return a;
}

static void numeric_addresses_survive_parse_and_format(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0.0.0.0", "127.0.0.1",   "255.255.255.255", "::",
        "::1",     "2001:db8::5", "fe80::1%lo",      "fe80::1%4294967295"};
    char buf[ADDR_TEXT_MAX];
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct addr a = ip(texts[i]);
        assert_string_equal(addr_format_ip(&a, buf, sizeof buf), texts[i]);
    }
}

static void what_is_no_numeric_address_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "256.0.0.1",
        "1.2.3.4:80",
        "[::1]",
        ":::",
        "1::2::3",
        "fe80::1%",
        "fe80::1%no-such-interface",
        "::1%lo",
        "fe80::1%0",
        "01.2.3.4",
        " 1.2.3.4",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee:ffff"};
    struct addr a;
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(addr_parse_ip(texts[i], &a), -EINVAL);
}

static void ports_are_set_and_printed(void **state)
{
    (void)state;
    char buf[ADDR_TEXT_MAX];
    struct addr four = ip("127.0.0.1"), six = ip("::1");
    addr_set_port(&four, 80);
    addr_set_port(&six, 65535);
    assert_int_equal(addr_port(&four), 80);
    assert_int_equal(addr_port(&six), 65535);
    assert_string_equal(addr_format(&four, buf, sizeof buf), "127.0.0.1:80");
    assert_string_equal(addr_format(&six, buf, sizeof buf), "[::1]:65535");
    assert_int_equal(addr_len(&four), sizeof(struct sockaddr_in));
    assert_int_equal(addr_len(&six), sizeof(struct sockaddr_in6));
}

static void unix_and_unknown_addresses_have_a_text_and_no_port(void **state)
{
    (void)state;
    char buf[ADDR_TEXT_MAX];
    struct addr local = {.sa.sa_family = AF_UNIX}, none = {.sa.sa_family = AF_UNSPEC};
    addr_set_port(&local, 80);
    assert_int_equal(addr_port(&local), 0);
    assert_int_equal(addr_len(&local), 0);
    assert_string_equal(addr_format(&local, buf, sizeof buf), "unix");
    assert_string_equal(addr_format_ip(&local, buf, sizeof buf), "unix");
    assert_string_equal(addr_format_key(&local, buf, sizeof buf), "unix");
    assert_string_equal(addr_format(&none, buf, sizeof buf), "-");
    assert_string_equal(addr_format_key(&none, buf, sizeof buf), "-");
}

static void ip4_mapped_into_ip6_prints_and_counts_as_ip4(void **state)
{
    (void)state;
    char buf[ADDR_TEXT_MAX];
    struct addr mapped = ip("::ffff:192.0.2.1"), plain = ip("192.0.2.1");
    addr_set_port(&mapped, 80);
    assert_string_equal(addr_format(&mapped, buf, sizeof buf), "192.0.2.1:80");
    assert_string_equal(addr_format_key(&mapped, buf, sizeof buf), "192.0.2.1");
    struct addr_key a = addr_client_key(&mapped), b = addr_client_key(&plain);
    assert_memory_equal(&a, &b, sizeof a);
}

static bool same_client(const char *a, const char *b)
{
    struct addr x = ip(a), y = ip(b);
    addr_set_port(&x, 1); /* ports play no part */
    struct addr_key k = addr_client_key(&x), l = addr_client_key(&y);
    return memcmp(&k, &l, sizeof k) == 0;
}

static void clients_are_one_ip4_address_or_one_ip6_network(void **state)
{
    (void)state;
    char buf[ADDR_TEXT_MAX];
    assert_true(same_client("192.0.2.1", "192.0.2.1"));
    assert_false(same_client("192.0.2.1", "192.0.2.2"));
    assert_true(same_client("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
    assert_false(same_client("2001:db8:0:1::1", "2001:db8:0:2::1"));
    assert_false(same_client("0.0.0.0", "::"));
    struct addr a = ip("2001:db8:0:1::77");
    assert_string_equal(addr_format_key(&a, buf, sizeof buf), "2001:db8:0:1::/64");
}

static void loopback_is_known_in_both_families(void **state)
{
    (void)state;
    static const char *const yes[] = {"127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"};
    static const char *const no[] = {"128.0.0.1", "0.0.0.0", "::", "::2", "::ffff:10.0.0.1"};
    for (size_t i = 0; i < COUNT(yes); i++) {
        struct addr a = ip(yes[i]);
        assert_true(addr_is_loopback(&a));
    }
    for (size_t i = 0; i < COUNT(no); i++) {
        struct addr a = ip(no[i]);
        assert_false(addr_is_loopback(&a));
    }
    assert_false(addr_is_loopback(&(struct addr){.sa.sa_family = AF_UNIX}));
}

static void a_short_buffer_is_not_overrun(void **state)
{
    (void)state;
    char buf[6] = "zzzzz";
    struct addr a = ip("192.0.2.1");
    assert_string_equal(addr_format(&a, buf, 5), "192.");
    assert_int_equal(buf[5], 0);
}

static void unix_paths_and_abstract_names_have_their_lengths(void **state)
{
    (void)state;
    struct sockaddr_un un;
    char path[200];
    size_t head = offsetof(struct sockaddr_un, sun_path);
    assert_int_equal(addr_unix("/run/x", &un), head + 7);
    assert_string_equal(un.sun_path, "/run/x");
    assert_int_equal(addr_unix("@name", &un), head + 5);
    assert_memory_equal(un.sun_path, "\0name", 5);
    assert_int_equal(addr_unix("", &un), 0);
    assert_int_equal(addr_unix("@", &un), 0);

    memset(path, 'x', sizeof path);
    path[sizeof un.sun_path] = '\0';
    assert_int_equal(addr_unix(path, &un), 0);
    path[sizeof un.sun_path - 1] = '\0';
    assert_int_equal(addr_unix(path, &un), sizeof un);
}

/* ---- endpoint_parse ---- */

struct good {
    const char *text;
    const char *canonical;
    enum endpoint_kind kind;
    const char *host;
    unsigned port, port_last;
};

static void assert_parses(enum endpoint_use use, const struct good *row)
{
    struct endpoint e;
    char why[200] = "";
    int err = endpoint_parse(row->text, use, &e, why, sizeof why);
    if (err)
        fail_msg("%s: %s", row->text, why);
    assert_string_equal(e.text, row->canonical);
    assert_int_equal(e.kind, row->kind);
    assert_int_equal(e.port, row->port);
    assert_int_equal(e.port_last, row->port_last);
    if (row->host)
        assert_string_equal(e.host, row->host);
    else
        assert_null(e.host);
    if (e.kind == ENDPOINT_IP)
        assert_int_equal(addr_port(&e.ip), row->port);
    endpoint_deinit(&e);
    assert_null(e.text);
}

static void every_form_to_listen_on_parses(void **state)
{
    (void)state;
    static const struct good rows[] = {
        {"8080", "127.0.0.1:8080", ENDPOINT_IP, NULL, 8080, 8080},
        {":8080", "0.0.0.0:8080", ENDPOINT_IP, NULL, 8080, 8080},
        {"*:8080", "0.0.0.0:8080", ENDPOINT_IP, NULL, 8080, 8080},
        {"0", "127.0.0.1:0", ENDPOINT_IP, NULL, 0, 0},
        {":0", "0.0.0.0:0", ENDPOINT_IP, NULL, 0, 0},
        {"127.0.0.1:65535", "127.0.0.1:65535", ENDPOINT_IP, NULL, 65535, 65535},
        {"localhost:80", "127.0.0.1:80", ENDPOINT_IP, NULL, 80, 80},
        {"LocalHost:80", "127.0.0.1:80", ENDPOINT_IP, NULL, 80, 80},
        {"[::]:5432", "[::]:5432", ENDPOINT_IP, NULL, 5432, 5432},
        {"[2001:DB8:0::1]:1", "[2001:db8::1]:1", ENDPOINT_IP, NULL, 1, 1},
        {"[fe80::1%lo]:80", "[fe80::1%lo]:80", ENDPOINT_IP, NULL, 80, 80},
        {"9000-9010", "127.0.0.1:9000-9010", ENDPOINT_IP, NULL, 9000, 9010},
        {":9000-9010", "0.0.0.0:9000-9010", ENDPOINT_IP, NULL, 9000, 9010},
        {":9000-9000", "0.0.0.0:9000", ENDPOINT_IP, NULL, 9000, 9000},
        {"[::1]:1-65535", "[::1]:1-65535", ENDPOINT_IP, NULL, 1, 65535},
        {"tcp://127.0.0.1:80", "127.0.0.1:80", ENDPOINT_IP, NULL, 80, 80},
        {"unix:/run/x", "unix:/run/x", ENDPOINT_UNIX, "/run/x", 0, 0},
        {"unix:./a b", "unix:./a b", ENDPOINT_UNIX, "./a b", 0, 0},
        {"unix:@name", "unix:@name", ENDPOINT_UNIX, "@name", 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_parses(ENDPOINT_LISTEN, &rows[i]);
}

static void every_form_to_dial_parses(void **state)
{
    (void)state;
    static const struct good rows[] = {
        {"8080", "127.0.0.1:8080", ENDPOINT_IP, NULL, 8080, 8080},
        {":8080", "127.0.0.1:8080", ENDPOINT_IP, NULL, 8080, 8080},
        {"10.0.0.1:80", "10.0.0.1:80", ENDPOINT_IP, NULL, 80, 80},
        {"[::1]:80", "[::1]:80", ENDPOINT_IP, NULL, 80, 80},
        {"db:5432", "db:5432", ENDPOINT_NAME, "db", 5432, 5432},
        {"tcp://db:5432", "db:5432", ENDPOINT_NAME, "db", 5432, 5432},
        {"tcp://fd:8", "tcp://fd:8", ENDPOINT_NAME, "fd", 8, 8},
        {"tcp://unix:8", "tcp://unix:8", ENDPOINT_NAME, "unix", 8, 8},
        {"localhost:80", "localhost:80", ENDPOINT_NAME, "localhost", 80, 80},
        {"my-db_1.Example.COM.:1", "my-db_1.Example.COM.:1", ENDPOINT_NAME, "my-db_1.Example.COM.",
         1, 1},
        {"1and1.com:80", "1and1.com:80", ENDPOINT_NAME, "1and1.com", 80, 80},
        {"db:9000-9010", "db:9000-9010", ENDPOINT_NAME, "db", 9000, 9010},
        {"unix:/run/x", "unix:/run/x", ENDPOINT_UNIX, "/run/x", 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_parses(ENDPOINT_DIAL, &rows[i]);
}

static void only_a_lone_port_is_a_bare_port(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum endpoint_use use;
        bool bare;
    } rows[] = {{"8080", ENDPOINT_LISTEN, true},
                {"9000-9010", ENDPOINT_LISTEN, true},
                {":8080", ENDPOINT_LISTEN, false},
                {"127.0.0.1:8080", ENDPOINT_LISTEN, false},
                {"8080", ENDPOINT_DIAL, false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct endpoint e;
        assert_int_equal(endpoint_parse(rows[i].text, rows[i].use, &e, NULL, 0), 0);
        assert_int_equal(e.bare_port, rows[i].bare);
        endpoint_deinit(&e);
    }
}

struct bad {
    char use; /* 'L' or 'D' */
    const char *text;
    const char *why;
};

static void every_refusal_says_what_is_wrong_and_what_is_right(void **state)
{
    (void)state;
    static const struct bad rows[] = {
        {'D', "db", "\"db\" has no port: write db:5432"},
        {'D', "db:", "\"db\" has no port: write db:5432"},
        {'D', "10.0.0.1", "\"10.0.0.1\" has no port: write 10.0.0.1:5432"},
        {'L', "10.0.0.1", "\"10.0.0.1\" has no port: write 10.0.0.1:8080"},
        {'L', "[::1]", "\"[::1]\" has no port: write [::1]:8080"},
        {'L', ":", "a port is missing: write :8080"},
        {'L', "", "the address is empty: write 8080 or 127.0.0.1:8080"},
        {'D', "tcp://", "the address is empty: write host:port"},
        {'L', "70000", "\"70000\" is not a port: use 0 to 65535"},
        {'D', "db:70000", "\"70000\" is not a port: use 1 to 65535"},
        {'D', "db:0", "\"0\" is not a port: use 1 to 65535"},
        {'D', "db:http", "\"http\" is not a port: use 1 to 65535"},
        {'D', "db:80/x", "\"80/x\" is not a port: use 1 to 65535"},
        {'D', "db:99999999999999999999", "\"99999999999999999999\" is not a port: use 1 to 65535"},
        {'D', "db:00000080", "\"00000080\" is not a port: use 1 to 65535"},
        {'D', "db:12345678", "\"12345678\" is not a port: use 1 to 65535"},
        {'L', ":80-", "\"\" is not a port: use 0 to 65535"},
        {'L', ":1-2-3", "\"2-3\" is not a port: use 0 to 65535"},
        {'L', ":9010-9000", "\"9010-9000\" runs backwards: write 9000-9010"},
        {'L', ":0-5", "\"0-5\" starts at 0: a range starts at 1 or more"},
        {'L', "db:80", "\"db\" is a name: listen on an address, as in 127.0.0.1:80"},
        {'L', "db", "\"db\" is no place to listen: write a port, as in 8080 or 127.0.0.1:8080"},
        {'D', "*:80", "\"*\" is no place to connect to: write 127.0.0.1:5432, or a name"},
        {'L', "::1:8080", "\"::1:8080\" is an IPv6 address without brackets: write [::1]:8080"},
        {'D', "2001:db8::5",
         "\"2001:db8::5\" is an IPv6 address without brackets: write [2001:db8::5]:5432"},
        {'D', "::1", "\"::1\" is an IPv6 address without brackets: write [::1]:5432"},
        {'D', "a:b:1",
         "\"a:b:1\" has too many colons: write host:port, or [address]:port for IPv6"},
        {'D', "[::1", "\"[::1\" lacks a closing bracket: write [::1]:5432"},
        {'D', "[::1]80",
         "\"[::1]80\" has something between the bracket and the port: write [::1]:5432"},
        {'D', "[]:80", "\"\" is not an IPv6 address: write [::1]:5432"},
        {'D', "[db]:80", "\"db\" is not an IPv6 address: write [::1]:5432"},
        {'D', "[10.0.0.1]:80", "\"[10.0.0.1]\" needs no brackets: write 10.0.0.1:80"},
        {'D', "[fe80::1%nope]:80",
         "\"fe80::1%nope\" is not a link-local IPv6 address with an interface of this host"},
        {'D', "256.1.1.1:80",
         "\"256.1.1.1\" is not an IP address: write four numbers from 0 to 255"},
        {'D', "a b:80", "\"a b\" is not a host name: use letters, digits, '-', '_' and '.'"},
        {'D', "a..b:80", "\"a..b\" is not a host name: use letters, digits, '-', '_' and '.'"},
        {'D', ".:80", "\".\" is not a host name: use letters, digits, '-', '_' and '.'"},
        {'D', "x\x01\xff\"\\:80",
         "\"x\\x01\\xff\\\"\\\\\" is not a host name: use letters, digits, '-', '_' and '.'"},
        {'D', "tls://db:443", "\"tls://db:443\": tls:// is for destinations; write db:443 here"},
        {'D', "http://db:80", "\"http://\" is not understood: write host:port or tcp://host:port"},
        {'L', "/run/x", "\"/run/x\" looks like a path: write unix:/run/x"},
        {'L', "unix:", "the UNIX socket has no path: write unix:/run/penstock.sock"},
        {'L', "unix:@", "the UNIX socket has no name: write unix:@penstock"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct endpoint e, empty = {0};
        enum endpoint_use use = rows[i].use == 'L' ? ENDPOINT_LISTEN : ENDPOINT_DIAL;
        char why[200] = "";
        assert_int_equal(endpoint_parse(rows[i].text, use, &e, why, sizeof why), -EINVAL);
        assert_string_equal(why, rows[i].why);
        assert_memory_equal(&e, &empty, sizeof e);
    }
}

/* `n` times 'x', as a host with a port or as a UNIX path; returns what endpoint_parse() does. */
static int parse_long(const char *before, size_t n, const char *after, char why[200])
{
    struct endpoint e;
    char *text = malloc(n + 100);
    sprintf(text, "%s%*s%s", before, (int)n, "", after);
    memset(text + strlen(before), 'x', n);
    int err = endpoint_parse(text, ENDPOINT_DIAL, &e, why, 200);
    free(text);
    endpoint_deinit(&e);
    return err;
}

static void names_and_paths_have_their_longest(void **state)
{
    (void)state;
    char why[200];
    assert_int_equal(parse_long("", 63, ":80", why), 0);
    assert_int_equal(parse_long("", 64, ":80", why), -EINVAL);
    assert_int_equal(parse_long("", 1000000, ":80", why), -EINVAL);
    assert_string_equal(why,
                        "a host name of 1000000 characters is too long: at most 253 are allowed");
    assert_int_equal(parse_long("unix:/", 106, "", why), 0);
    assert_int_equal(parse_long("unix:/", 107, "", why), -ENAMETOOLONG);
    assert_string_equal(why, "a UNIX socket path of 108 bytes is too long: at most 107 fit");
    assert_int_equal(parse_long("db:", 1000000, "", why), -EINVAL);
    assert_non_null(strstr(why, "xxx...\" is not a port"));
}

static void a_name_of_253_characters_and_a_dot_is_allowed(void **state)
{
    (void)state;
    struct endpoint e;
    char text[300] = "";
    for (int i = 0; i < 63; i++)
        strcat(text, "abc.");
    strcat(text, "d.:80"); /* 63 * 4 + 1 characters and the root's dot */
    assert_int_equal(endpoint_parse(text, ENDPOINT_DIAL, &e, NULL, 0), 0);
    endpoint_deinit(&e);
    text[strlen(text) - 4] = '\0';
    strcat(text, "de:80");
    assert_int_equal(endpoint_parse(text, ENDPOINT_DIAL, &e, NULL, 0), -EINVAL);
}

static void a_short_message_buffer_is_not_overrun(void **state)
{
    (void)state;
    struct endpoint e;
    char why[6] = "zzzzz";
    assert_int_equal(endpoint_parse("db", ENDPOINT_DIAL, &e, why, 5), -EINVAL);
    assert_string_equal(why, "\"db\"");
    assert_int_equal(why[5], 0);
    assert_int_equal(endpoint_parse("db", ENDPOINT_DIAL, &e, NULL, 0), -EINVAL);
}

/* Strings built from the pieces that mean something, mutated: nothing may crash, and a refusal has
 * a message. */
static void no_input_crashes_and_every_refusal_has_a_printable_message(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "[",     "]",         ":",      "::",   "-",  "%",     ".",     "@",        "*",
        "unix:", "tcp://",    "tls://", "1",    "0",  "65535", "70000", "db",       "fe80",
        "lo",    "127.0.0.1", "\xff",   "\x1b", "\n", "\"",    "/",     "localhost"};
    uint32_t seed = 7;
    for (int i = 0; i < 200000; i++) {
        char text[256] = "", why[300] = "";
        for (unsigned k = 0; k < 1 + (seed >> 28); k++) {
            seed = seed * 1664525 + 1013904223;
            strcat(text, pieces[(seed >> 12) % COUNT(pieces)]);
        }
        struct endpoint e;
        enum endpoint_use use = seed >> 9 & 1 ? ENDPOINT_LISTEN : ENDPOINT_DIAL;
        int err = endpoint_parse(text, use, &e, why, sizeof why);
        assert_true(err ? e.text == NULL && why[0] : e.text != NULL && e.port <= e.port_last);
        for (const char *c = why; *c; c++)
            assert_true(*c >= ' ' && *c <= '~');
        endpoint_deinit(&e);
    }
}

/* ---- endpoint_copy ---- */

static void a_copy_has_one_port_of_the_range_and_its_own_memory(void **state)
{
    (void)state;
    struct endpoint range, one;
    assert_int_equal(endpoint_parse(":9000-9010", ENDPOINT_LISTEN, &range, NULL, 0), 0);
    assert_int_equal(endpoint_copy(&one, &range, 9003), 0);
    endpoint_deinit(&range);
    assert_string_equal(one.text, "0.0.0.0:9003");
    assert_int_equal(one.port, 9003);
    assert_int_equal(one.port_last, 9003);
    assert_int_equal(addr_port(&one.ip), 9003);
    endpoint_deinit(&one);
}

static void copies_of_names_and_unix_sockets_keep_their_host(void **state)
{
    (void)state;
    struct endpoint from, copy;
    assert_int_equal(endpoint_parse("db:1-9", ENDPOINT_DIAL, &from, NULL, 0), 0);
    assert_int_equal(endpoint_copy(&copy, &from, 5), 0);
    assert_string_equal(copy.text, "db:5");
    assert_string_equal(copy.host, "db");
    endpoint_deinit(&from);
    endpoint_deinit(&copy);
    assert_int_equal(endpoint_parse("unix:/x", ENDPOINT_DIAL, &from, NULL, 0), 0);
    assert_int_equal(endpoint_copy(&copy, &from, 5), 0);
    assert_string_equal(copy.text, "unix:/x");
    assert_int_equal(copy.port, 0);
    endpoint_deinit(&from);
    endpoint_deinit(&copy);
}

static void out_of_memory_leaves_an_empty_endpoint(void **state)
{
    (void)state;
    struct endpoint from, e, empty = {0};
    char why[100] = "";
    assert_int_equal(endpoint_parse("db:80", ENDPOINT_DIAL, &from, NULL, 0), 0);
    for (int left = 0; left < 2; left++) {
        allocations_left = left;
        assert_int_equal(endpoint_parse("db:80", ENDPOINT_DIAL, &e, why, sizeof why), -ENOMEM);
        assert_string_equal(why, "out of memory");
        assert_memory_equal(&e, &empty, sizeof e);
        allocations_left = left;
        assert_int_equal(endpoint_copy(&e, &from, 80), -ENOMEM);
        assert_memory_equal(&e, &empty, sizeof e);
    }
    allocations_left = -1;
    endpoint_deinit(&from);
}

static void an_inherited_descriptor_is_a_place_to_listen_only(void **state)
{
    (void)state;
    struct endpoint e, copy;
    char why[200];
    assert_int_equal(endpoint_parse("fd:3", ENDPOINT_LISTEN, &e, why, sizeof why), 0);
    assert_int_equal(e.kind, ENDPOINT_FD);
    assert_int_equal(e.fd, 3);
    assert_int_equal(endpoint_copy(&copy, &e, 0), 0);
    assert_string_equal(copy.text, "fd:3");
    assert_int_equal(copy.fd, 3);
    endpoint_deinit(&copy);
    endpoint_deinit(&e);
    assert_int_equal(endpoint_parse("fd:my-web.socket", ENDPOINT_LISTEN, &e, why, sizeof why), 0);
    assert_int_equal(e.fd, -1);
    assert_string_equal(e.host, "my-web.socket");
    assert_int_equal(endpoint_copy(&copy, &e, 0), 0);
    assert_string_equal(copy.text, "fd:my-web.socket");
    assert_string_equal(copy.host, "my-web.socket");
    endpoint_deinit(&copy);
    endpoint_deinit(&e);
    assert_int_equal(endpoint_parse("fd:3", ENDPOINT_DIAL, &e, why, sizeof why), -EINVAL);
    assert_non_null(strstr(why, "not one to connect to"));
    static const char *const wrong[] = {"fd:", "fd:2", "fd:3x", "fd:a:b", "fd:-x", "fd:3-4"};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(endpoint_parse(wrong[i], ENDPOINT_LISTEN, &e, why, sizeof why), -EINVAL);
        assert_non_null(strstr(why, "write fd:3"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_addresses_survive_parse_and_format),
        cmocka_unit_test(what_is_no_numeric_address_is_refused),
        cmocka_unit_test(ports_are_set_and_printed),
        cmocka_unit_test(unix_and_unknown_addresses_have_a_text_and_no_port),
        cmocka_unit_test(ip4_mapped_into_ip6_prints_and_counts_as_ip4),
        cmocka_unit_test(clients_are_one_ip4_address_or_one_ip6_network),
        cmocka_unit_test(loopback_is_known_in_both_families),
        cmocka_unit_test(a_short_buffer_is_not_overrun),
        cmocka_unit_test(unix_paths_and_abstract_names_have_their_lengths),
        cmocka_unit_test(every_form_to_listen_on_parses),
        cmocka_unit_test(every_form_to_dial_parses),
        cmocka_unit_test(only_a_lone_port_is_a_bare_port),
        cmocka_unit_test(every_refusal_says_what_is_wrong_and_what_is_right),
        cmocka_unit_test(names_and_paths_have_their_longest),
        cmocka_unit_test(a_name_of_253_characters_and_a_dot_is_allowed),
        cmocka_unit_test(a_short_message_buffer_is_not_overrun),
        cmocka_unit_test(no_input_crashes_and_every_refusal_has_a_printable_message),
        cmocka_unit_test(a_copy_has_one_port_of_the_range_and_its_own_memory),
        cmocka_unit_test(copies_of_names_and_unix_sockets_keep_their_host),
        cmocka_unit_test(out_of_memory_leaves_an_empty_endpoint),
        cmocka_unit_test(an_inherited_descriptor_is_a_place_to_listen_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
