/* ClientHello: what it tells, over any records, and what is no ClientHello. */
#include "proto_support.h"

#include "penstock/proto/tls_hello.h"

static struct tls_hello hello;

static ssize_t parse(const void *bytes, size_t n)
{
    return tls_hello_parse(bytes, n, &hello);
}

/* --- making them ------------------------------------------------------------------------------ */

struct text {
    uint8_t bytes[70000];
    size_t len;
};

static void add(struct text *t, const void *bytes, size_t n)
{
    memcpy(t->bytes + t->len, bytes, n);
    t->len += n;
}

static void add_number(struct text *t, size_t width, size_t number)
{
    while (width--)
        t->bytes[t->len++] = (uint8_t)(number >> 8 * width);
}

/* A length of `width` bytes, then the bytes. */
static void add_vector(struct text *t, size_t width, const void *bytes, size_t n)
{
    add_number(t, width, n);
    add(t, bytes, n);
}

static void add_extension(struct text *t, size_t type, const void *bytes, size_t n)
{
    add_number(t, 2, type);
    add_vector(t, 2, bytes, n);
}
#define EXTENSION(t, type, text) add_extension(t, type, text, sizeof(text) - 1)

static void add_name(struct text *t, const char *name)
{
    static struct text list;
    size_t n = strlen(name);
    list.len = 0;
    add_number(&list, 2, n + 3);
    add_number(&list, 1, 0);
    add_vector(&list, 2, name, n);
    add_extension(t, 0, list.bytes, list.len);
}

/* The handshake message around these extensions (NULL: without any). */
static void make_message(struct text *m, const struct text *extensions)
{
    static struct text body;
    body.len = 0;
    add_number(&body, 2, 0x0303);
    add(&body, "0123456789abcdef0123456789abcdef", 32);
    add_vector(&body, 1, "session", 7);
    add_vector(&body, 2, "\x13\x01\x0a\x0a", 4);
    add_vector(&body, 1, "\0", 1);
    if (extensions)
        add_vector(&body, 2, extensions->bytes, extensions->len);
    m->len = 0;
    add_number(m, 1, 1);
    add_vector(m, 3, body.bytes, body.len);
}

/* The message in records of `size` bytes. */
static void cut_records(struct text *wire, const struct text *m, size_t size)
{
    wire->len = 0;
    for (size_t at = 0; at < m->len; at += size) {
        size_t n = m->len - at < size ? m->len - at : size;
        add(wire, "\x16\x03\x01", 3);
        add_vector(wire, 2, m->bytes + at, n);
    }
}

static struct text extensions, message, wire;

static int reset(void **state)
{
    (void)state;
    extensions.len = 0;
    hello = (struct tls_hello){.legacy_version = 1};
    return 0;
}

static void make(size_t record)
{
    make_message(&message, &extensions);
    cut_records(&wire, &message, record);
}

static void assert_accepted(void)
{
    make(16384);
    assert_int_equal(parse_exact(parse, wire.bytes, wire.len), wire.len);
}

static void assert_refused(void)
{
    make(16384);
    assert_int_equal(parse_exact(parse, wire.bytes, wire.len), PROTO_BAD);
    reset(NULL);
}

static void assert_name_refused(const char *name)
{
    add_name(&extensions, name);
    assert_refused();
}

/* --- what they tell --------------------------------------------------------------------------- */

static void assert_alpn(const char *const *names)
{
    size_t at = 0, len;
    const char *name;
    while ((name = tls_hello_alpn(&hello, &at, &len))) {
        assert_non_null(*names);
        assert_int_equal(len, strlen(*names));
        assert_memory_equal(name, *names++, len);
    }
    assert_null(*names);
}

static void add_everything(void)
{
    EXTENSION(&extensions, 0x1a1a, "");
    add_name(&extensions, "WWW.Example.lab");
    EXTENSION(&extensions, 16, "\0\x0f\x02\x5a\x5a\x02h2\x08http/1.1");
    EXTENSION(&extensions, 43, "\x06\x7a\x7a\x03\x04\x03\x03");
    EXTENSION(&extensions, 0x2a2a, "x");
}

static void assert_everything(void)
{
    assert_string_equal(hello.sni, "WWW.Example.lab");
    assert_alpn((const char *const[]){"\x5a\x5a", "h2", "http/1.1", NULL});
    assert_int_equal(hello.legacy_version, 0x0303);
    assert_int_equal(hello.n_versions, 3);
    assert_int_equal(hello.versions[0], 0x7a7a);
    assert_int_equal(hello.versions[1], 0x0304);
    assert_int_equal(hello.versions[2], 0x0303);
    assert_int_equal(hello.n_ciphers, 2);
    assert_int_equal(hello.ciphers[0], 0x1301);
    assert_int_equal(hello.ciphers[1], 0x0a0a);
    assert_int_equal(hello.n_extensions, 5);
    assert_int_equal(hello.extensions[0], 0x1a1a);
    assert_int_equal(hello.extensions[3], 43);
}

static void test_name_protocols_and_versions_are_told_with_grease_in_between(void **state)
{
    (void)state;
    add_everything();
    make(16384);
    assert_whole(parse, wire.bytes, wire.len);
    assert_everything();
}

static void test_a_hello_is_the_same_whatever_records_it_comes_in(void **state)
{
    (void)state;
    add_everything();
    for (size_t size = 1; size <= 64; size++) {
        make(size);
        hello = (struct tls_hello){.legacy_version = 1};
        assert_whole(parse, wire.bytes, wire.len);
        assert_everything();
    }
}

static void test_a_hello_without_extensions_tells_its_version_only(void **state)
{
    (void)state;
    make_message(&message, NULL);
    cut_records(&wire, &message, 16384);
    assert_whole(parse, wire.bytes, wire.len);
    assert_string_equal(hello.sni, "");
    assert_int_equal(hello.alpn_len, 0);
    assert_int_equal(hello.n_versions, 0);
    assert_int_equal(hello.legacy_version, 0x0303);
}

static void test_names_of_other_types_are_passed_over(void **state)
{
    (void)state;
    EXTENSION(&extensions, 0,
              "\0\x0a\x07\0\x01x\0\0\x03"
              "a.b");
    assert_accepted();
    assert_string_equal(hello.sni, "a.b");
}

static void test_a_name_has_at_most_253_characters(void **state)
{
    (void)state;
    char name[TLS_HELLO_NAME_MAX + 2];
    memset(name, 'a', sizeof name);
    name[TLS_HELLO_NAME_MAX + 1] = '\0';
    assert_name_refused(name);
    name[TLS_HELLO_NAME_MAX] = '\0';
    add_name(&extensions, name);
    assert_accepted();
    assert_string_equal(hello.sni, name);
}

static void test_all_127_versions_that_fit_are_told(void **state)
{
    (void)state;
    uint8_t list[255] = {254};
    for (size_t i = 0; i < 127; i++)
        list[2 + 2 * i] = (uint8_t)i;
    add_extension(&extensions, 43, list, sizeof list);
    assert_accepted();
    assert_int_equal(hello.n_versions, 127);
    assert_int_equal(hello.versions[126], 126);
}

static void test_64_kib_are_read_and_no_more(void **state)
{
    (void)state;
    static uint8_t filling[65600];
    /* 4 head, 2 + 32 + 8 + 6 + 2 before, 2 + 4 of lengths */
    size_t most = 65535 - 4;
    add_extension(&extensions, 21, filling, most);
    make_message(&message, &extensions);
    cut_records(&wire, &message, 16384);
    assert_true(message.len > TLS_HELLO_MAX);
    assert_int_equal(parse_exact(parse, wire.bytes, 9), PROTO_LONG); /* its length says so */
    extensions.len = 0;
    add_extension(&extensions, 21, filling, most - (message.len - TLS_HELLO_MAX));
    make_message(&message, &extensions);
    cut_records(&wire, &message, 16384);
    assert_int_equal(message.len, TLS_HELLO_MAX);
    assert_int_equal(parse_exact(parse, wire.bytes, wire.len - 1), PROTO_MORE);
    assert_int_equal(parse_exact(parse, wire.bytes, wire.len), wire.len);
}

static void test_of_many_ciphers_and_extensions_the_first_are_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < TLS_HELLO_LIST_MAX + 2; i++)
        add_extension(&extensions, 0x4000 + i, "", 0);
    assert_accepted();
    assert_int_equal(hello.n_extensions, TLS_HELLO_LIST_MAX);
    assert_int_equal(hello.extensions[TLS_HELLO_LIST_MAX - 1], 0x4000 + TLS_HELLO_LIST_MAX - 1);
}

/* RFC 9849: the true name is encrypted, and beside it stands the one that everybody may see. */
static void test_beside_an_encrypted_hello_the_outer_name_is_told(void **state)
{
    (void)state;
    static uint8_t ech[200] = {0, 0, 1, 0, 1, 7};
    add_extension(&extensions, 0xfe0d, ech, sizeof ech);
    add_name(&extensions, "public.example");
    assert_accepted();
    assert_string_equal(hello.sni, "public.example");
    assert_int_equal(hello.extensions[0], 0xfe0d);
}

static void test_grease_is_known_by_its_value(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++)
        assert_true(tls_is_grease(0x0a0a + i * 0x1010));
    assert_false(tls_is_grease(0x1301));
    assert_false(tls_is_grease(0x0a1a));
    assert_true(tls_hello_alpn_is_grease("\xfa\xfa", 2));
    assert_false(tls_hello_alpn_is_grease("h2", 2));
    assert_false(tls_hello_alpn_is_grease("\xfa\xfa\xfa", 3));
}

static void test_a_hello_in_crumbs_is_not_followed_for_ever(void **state)
{
    (void)state;
    static uint8_t crumbs[TLS_HELLO_WIRE_MAX];
    static const uint8_t head[] = {1, 0, 0xff, 0};
    for (size_t i = 0; i < sizeof crumbs / 6; i++)
        memcpy(crumbs + 6 * i, (uint8_t[]){22, 3, 1, 0, 1, i < 4 ? head[i] : 0}, 6);
    assert_int_equal(parse_exact(parse, crumbs, sizeof crumbs / 2), PROTO_MORE);
    assert_int_equal(parse_exact(parse, crumbs, sizeof crumbs), PROTO_LONG);
}

/* --- what is none ----------------------------------------------------------------------------- */

static void test_what_is_no_tls_is_refused_at_its_first_wrong_byte(void **state)
{
    (void)state;
    ASSERT_BAD_AT(parse, "GET / HTTP/1.1\r\n", 1);
    ASSERT_BAD_AT(parse, "\x16\x02\x00", 2);
    ASSERT_BAD_AT(parse, "\x16\x03\x01\x00\x00", 5);
    ASSERT_BAD_AT(parse, "\x16\x03\x01\x40\x01", 5);
    ASSERT_BAD_AT(parse, "\x16\x03\x01\x02\x00\x02", 6);
    ASSERT_BAD_AT(parse, "\x16\x03\x01\x00\x01\x01\x17", 7);
    ASSERT_BAD_AT(parse, "\x80\x2e\x01\x03\x01", 1); /* SSL 2 */
}

static void test_something_behind_the_hello_in_its_record_is_refused(void **state)
{
    (void)state;
    add_everything();
    make_message(&message, &extensions);
    message.bytes[message.len++] = 0;
    cut_records(&wire, &message, 16384);
    assert_int_equal(parse_exact(parse, wire.bytes, wire.len), PROTO_BAD);
}

static void test_names_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",         ".",   "a.",    ".a",        "a..b", "a b",
                                        "10.0.0.1", "::1", "[::1]", "a\xc3\xa9", "a/b",  "a:443"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_name_refused(wrong[i]);
    EXTENSION(&extensions, 0,
              "\0\x06\0\0\x03"
              "a\0b");
    assert_refused();
}

static void test_extensions_that_do_not_add_up_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t type, len;
        const char *bytes;
    } wrong[] = {
        {0, 0, ""},
        {0, 2, "\0\0"},
        {0, 5, "\0\x04\0\0\x01"},
        {0, 7,
         "\0\x04\0\0\x01"
         "ax"},
        {0, 10,
         "\0\x08\0\0\x01"
         "a\0\0\x01"
         "b"}, /* two names */
        {16, 0, ""},
        {16, 2, "\0\0"},
        {16, 3, "\0\x01\0"},
        {16, 5, "\0\x03\x03h2"},
        {16, 6, "\0\x03\x02h2x"},
        {43, 0, ""},
        {43, 1, "\0"},
        {43, 2, "\x01\x03"},
        {43, 4, "\x03\x03\x04\x03"},
        {43, 4, "\x02\x03\x04\x03"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        add_extension(&extensions, wrong[i].type, wrong[i].bytes, wrong[i].len);
        assert_refused();
    }
}

static void test_a_doubled_extension_is_refused(void **state)
{
    (void)state;
    EXTENSION(&extensions, 0xff01, "");
    EXTENSION(&extensions, 0x7f01, "");
    assert_accepted();
    EXTENSION(&extensions, 0xff01, "");
    assert_refused();
}

static void test_too_many_protocols_are_refused(void **state)
{
    (void)state;
    uint8_t list[2 + TLS_HELLO_ALPN_MAX + 2] = {TLS_HELLO_ALPN_MAX >> 8, TLS_HELLO_ALPN_MAX & 255};
    for (size_t i = 2; i < sizeof list; i += 2)
        list[i] = 1;
    add_extension(&extensions, 16, list, 2 + TLS_HELLO_ALPN_MAX);
    assert_accepted();
    reset(NULL);
    list[1] += 2;
    add_extension(&extensions, 16, list, sizeof list);
    assert_refused();
}

/* Any byte of its fixed part changed to any value: refused, or read to its end; a sanitizer sees
 * the rest. */
static void test_a_changed_byte_never_leads_beyond_the_hello(void **state)
{
    (void)state;
    add_everything();
    make(20);
    for (size_t at = 0; at < wire.len; at++) {
        uint8_t kept = wire.bytes[at];
        for (unsigned value = 0; value < 256; value++) {
            wire.bytes[at] = (uint8_t)value;
            ssize_t n = parse_exact(parse, wire.bytes, wire.len);
            assert_true(n == PROTO_BAD || n == PROTO_LONG || n == PROTO_MORE ||
                        (n > 0 && (size_t)n <= wire.len));
        }
        wire.bytes[at] = kept;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    static const struct CMUnitTest tests[] = {
        TEST(test_name_protocols_and_versions_are_told_with_grease_in_between),
        TEST(test_a_hello_is_the_same_whatever_records_it_comes_in),
        TEST(test_a_hello_without_extensions_tells_its_version_only),
        TEST(test_names_of_other_types_are_passed_over),
        TEST(test_a_name_has_at_most_253_characters),
        TEST(test_all_127_versions_that_fit_are_told),
        TEST(test_64_kib_are_read_and_no_more),
        TEST(test_of_many_ciphers_and_extensions_the_first_are_told),
        TEST(test_beside_an_encrypted_hello_the_outer_name_is_told),
        TEST(test_grease_is_known_by_its_value),
        TEST(test_a_hello_in_crumbs_is_not_followed_for_ever),
        TEST(test_what_is_no_tls_is_refused_at_its_first_wrong_byte),
        TEST(test_something_behind_the_hello_in_its_record_is_refused),
        TEST(test_names_that_are_none_are_refused),
        TEST(test_extensions_that_do_not_add_up_are_refused),
        TEST(test_a_doubled_extension_is_refused),
        TEST(test_too_many_protocols_are_refused),
        TEST(test_a_changed_byte_never_leads_beyond_the_hello),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
