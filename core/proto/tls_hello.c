/* ClientHello. The message is read in place, through a reader that steps over the heads of the
 * records it is cut into, so nothing has to be put together first. */
#include "penstock/proto/tls_hello.h"

#include <arpa/inet.h>
#include <string.h>

enum {
    RECORD_HEAD = 5,
    RECORD_MAX = 16384, /* RFC 8446 section 5.1 */
    HANDSHAKE_HEAD = 4,
    TYPE_HANDSHAKE = 22,
    TYPE_CLIENT_HELLO = 1,
    MAJOR_VERSION = 3,
    RANDOM_LEN = 32,
    SESSION_ID_MAX = 32,
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    EXTENSION_SUPPORTED_VERSIONS = 43,
    NAME_TYPE_HOST = 0,
    COMPRESSION_NONE = 0,
};

/* A part of the message, to be read once. What lies below it in the records is known to be there.
 */
struct reader {
    const uint8_t *next;
    size_t in_record; /* bytes left in the record of `next` */
    size_t left;      /* bytes left in this part */
};

/* Copies n bytes to `out` (NULL: drops them). False when the part has fewer. */
static bool take(struct reader *r, void *out, size_t n)
{
    if (n > r->left)
        return false;
    r->left -= n;
    for (uint8_t *to = out; n;) {
        if (r->in_record == 0) {
            r->in_record = (size_t)(r->next[3] << 8 | r->next[4]);
            r->next += RECORD_HEAD;
        }
        size_t some = n < r->in_record ? n : r->in_record;
        if (to) {
            memcpy(to, r->next, some);
            to += some;
        }
        r->next += some;
        r->in_record -= some;
        n -= some;
    }
    return true;
}

/* A number of `width` bytes. */
static bool take_number(struct reader *r, size_t width, size_t *out)
{
    uint8_t bytes[3];
    if (!take(r, bytes, width))
        return false;
    *out = 0;
    for (size_t i = 0; i < width; i++)
        *out = *out << 8 | bytes[i];
    return true;
}

static void keep(uint16_t *list, size_t *n, size_t value)
{
    if (*n < TLS_HELLO_LIST_MAX)
        list[(*n)++] = (uint16_t)value;
}

/* A vector: a length of `width` bytes, then the part that *out shall read. */
static bool take_vector(struct reader *r, size_t width, struct reader *out)
{
    size_t len;
    if (!take_number(r, width, &len) || len > r->left)
        return false;
    *out = *r;
    out->left = len;
    return take(r, NULL, len);
}

/* ---- extensions ---- */

static bool is_ip4(const char *name)
{
    struct in_addr ip;
    return inet_pton(AF_INET, name, &ip) == 1;
}

/* RFC 6066: ASCII, no dot at the end, no address. */
static bool is_host_name(const char *name, size_t len)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return len && strspn(name, chars) == len && name[0] != '.' && name[len - 1] != '.' &&
           !strstr(name, "..") && !is_ip4(name);
}

static bool read_host_name(struct reader *name, struct tls_hello *out)
{
    size_t len = name->left;
    if (out->sni[0] || len > TLS_HELLO_NAME_MAX || !take(name, out->sni, len))
        return false;
    out->sni[len] = '\0';
    return is_host_name(out->sni, len);
}

static bool read_server_name(struct reader *r, struct tls_hello *out)
{
    struct reader list, name;
    size_t type;
    if (!take_vector(r, 2, &list) || !list.left)
        return false;
    while (list.left) {
        if (!take_number(&list, 1, &type) || !take_vector(&list, 2, &name))
            return false;
        if (type == NAME_TYPE_HOST && !read_host_name(&name, out))
            return false;
    }
    return true;
}

static bool read_alpn(struct reader *r, struct tls_hello *out)
{
    struct reader list;
    if (!take_vector(r, 2, &list) || !list.left || list.left > sizeof out->alpn)
        return false;
    out->alpn_len = list.left;
    take(&list, out->alpn, list.left);
    for (size_t at = 0; at < out->alpn_len; at += 1u + out->alpn[at])
        if (out->alpn[at] == 0 || at + 1 + out->alpn[at] > out->alpn_len)
            return false;
    return true;
}

static bool read_versions(struct reader *r, struct tls_hello *out)
{
    struct reader list;
    size_t version;
    if (!take_vector(r, 1, &list) || !list.left || list.left % 2)
        return false;
    while (list.left) {
        take_number(&list, 2, &version);
        out->versions[out->n_versions++] = (uint16_t)version;
    }
    return true;
}

static bool read_extension(size_t type, struct reader *r, struct tls_hello *out)
{
    bool ok = true;
    switch (type) {
    case EXTENSION_SERVER_NAME:
        ok = read_server_name(r, out);
        break;
    case EXTENSION_ALPN:
        ok = read_alpn(r, out);
        break;
    case EXTENSION_SUPPORTED_VERSIONS:
        ok = read_versions(r, out);
        break;
    default:
        return true;
    }
    return ok && r->left == 0;
}

static bool read_extensions(struct reader *r, struct tls_hello *out)
{
    struct reader list, extension;
    uint8_t seen[65536 / 8] = {0};
    size_t type;
    if (!take_vector(r, 2, &list))
        return false;
    while (list.left) {
        if (!take_number(&list, 2, &type) || !take_vector(&list, 2, &extension))
            return false;
        uint8_t bit = (uint8_t)(1u << type % 8);
        if (seen[type / 8] & bit)
            return false;
        keep(out->extensions, &out->n_extensions, type);
        seen[type / 8] |= bit;
        if (!read_extension(type, &extension, out))
            return false;
    }
    return true;
}

/* ---- the message ---- */

static bool read_compressions(struct reader *r)
{
    struct reader list;
    size_t method;
    bool without = false;
    if (!take_vector(r, 1, &list))
        return false;
    while (take_number(&list, 1, &method))
        without |= method == COMPRESSION_NONE;
    return without;
}

static bool read_ciphers(struct reader *r, struct tls_hello *out)
{
    struct reader list;
    size_t suite;
    if (!take_vector(r, 2, &list) || list.left < 2 || list.left % 2)
        return false;
    while (take_number(&list, 2, &suite))
        keep(out->ciphers, &out->n_ciphers, suite);
    return true;
}

static bool read_hello(struct reader *r, struct tls_hello *out)
{
    struct reader session;
    size_t version;
    if (!take_number(r, 2, &version) || version >> 8 != MAJOR_VERSION || !take(r, NULL, RANDOM_LEN))
        return false;
    out->legacy_version = (uint16_t)version;
    if (!take_vector(r, 1, &session) || session.left > SESSION_ID_MAX)
        return false;
    if (!read_ciphers(r, out) || !read_compressions(r))
        return false;
    return !r->left || (read_extensions(r, out) && !r->left);
}

/* The head of a record, as far as it is there: bytes of its body, PROTO_MORE or PROTO_BAD. */
static ssize_t record_body(const uint8_t *head, size_t n)
{
    if ((n > 0 && head[0] != TYPE_HANDSHAKE) || (n > 1 && head[1] != MAJOR_VERSION))
        return PROTO_BAD;
    if (n < RECORD_HEAD)
        return PROTO_MORE;
    ssize_t len = (ssize_t)(head[3] << 8 | head[4]);
    return len == 0 || len > RECORD_MAX ? PROTO_BAD : len;
}

/* The head of the message, whose bytes are gathered in `head` until there are four: its length with
 * the head, PROTO_MORE, PROTO_BAD or PROTO_LONG. */
static ssize_t message_length(const uint8_t head[HANDSHAKE_HEAD], size_t n)
{
    if (n > 0 && head[0] != TYPE_CLIENT_HELLO)
        return PROTO_BAD;
    if (n < HANDSHAKE_HEAD)
        return PROTO_MORE;
    ssize_t len = HANDSHAKE_HEAD + (head[1] << 16 | head[2] << 8 | head[3]);
    return len > TLS_HELLO_MAX ? PROTO_LONG : len;
}

/* Walks the records up to the end of the message: the bytes they take, and the message's in *len.
 */
static ssize_t measure(const uint8_t *bytes, size_t n, size_t *len)
{
    uint8_t head[HANDSHAKE_HEAD];
    size_t got = 0; /* bytes of the message passed */
    for (size_t at = 0; at + RECORD_HEAD < TLS_HELLO_WIRE_MAX;) {
        ssize_t body = record_body(bytes + at, n - at);
        if (body <= 0)
            return body;
        at += RECORD_HEAD;
        if (at + (size_t)body > TLS_HELLO_WIRE_MAX) /* in crumbs of a byte a record */
            return PROTO_LONG;
        for (size_t i = 0; i < (size_t)body && got + i < HANDSHAKE_HEAD && at + i < n; i++)
            head[got + i] = bytes[at + i];
        size_t known = got + (n - at < (size_t)body ? n - at : (size_t)body);
        ssize_t whole = message_length(head, known < HANDSHAKE_HEAD ? known : HANDSHAKE_HEAD);
        got += (size_t)body;
        if (whole < 0)
            return whole;
        if (whole && got > (size_t)whole)
            return PROTO_BAD;
        if (n - at < (size_t)body)
            return PROTO_MORE;
        at += (size_t)body;
        *len = (size_t)whole;
        if (whole && got == *len)
            return (ssize_t)at;
    }
    return PROTO_LONG;
}

ssize_t tls_hello_parse(const void *bytes, size_t n, struct tls_hello *out)
{
    size_t len;
    ssize_t whole = measure(bytes, n, &len);
    if (whole <= 0)
        return whole;
    struct reader r = {.next = bytes, .left = len};
    *out = (struct tls_hello){0};
    take(&r, NULL, HANDSHAKE_HEAD);
    return read_hello(&r, out) ? whole : PROTO_BAD;
}

const char *tls_hello_alpn(const struct tls_hello *hello, size_t *at, size_t *len)
{
    if (*at >= hello->alpn_len)
        return NULL;
    const uint8_t *name = hello->alpn + *at + 1;
    *len = hello->alpn[*at];
    *at += 1 + *len;
    return (const char *)name;
}

bool tls_hello_alpn_is_grease(const char *name, size_t len)
{
    return len == 2 && tls_is_grease((unsigned)(uint8_t)name[0] << 8 | (uint8_t)name[1]);
}
