/* How a log line looks.
 *
 * Everything that is not ours in a line (what clients, upstreams and scripts send) passes an escape
 * function here, so that nobody can forge a line, move the cursor of a terminal, or break a JSON
 * parser. Knows no files. */
#include "log_format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "penstock/base/utf8.h"

enum { TEXT_MAX = 64 * 1024, VALUE_MAX = 4096 };

static const char *const level_words[] = {
#define X(name, word, priority) word,
    LOG_LEVELS(X)
#undef X
};

static const char level_priorities[] = {
#define X(name, word, priority) '0' + (priority),
    LOG_LEVELS(X)
#undef X
};

/* ---- output ---- */

void log_out_init(struct log_out *o)
{
    o->data = o->room;
    o->len = 0;
    o->cap = sizeof o->room;
    o->failed = false;
}

void log_out_deinit(struct log_out *o)
{
    if (o->data != o->room)
        free(o->data);
}

static void grow(struct log_out *o, size_t need)
{
    size_t cap = o->cap * 2 > need ? o->cap * 2 : need;
    char *data = malloc(cap);
    if (!data) {
        o->failed = true;
        return;
    }
    memcpy(data, o->data, o->len);
    log_out_deinit(o);
    o->data = data;
    o->cap = cap;
}

static void put(struct log_out *o, const char *bytes, size_t n)
{
    if (n > o->cap - o->len)
        grow(o, o->len + n);
    if (o->failed)
        return;
    memcpy(o->data + o->len, bytes, n);
    o->len += n;
}

static void put_text(struct log_out *o, const char *text)
{
    put(o, text, strlen(text));
}

/* For short things of our own: numbers and escapes. */
__attribute__((format(printf, 2, 3))) static void put_short(struct log_out *o, const char *fmt, ...)
{
    char text[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    put_text(o, text);
}

/* ---- escaping ---- */

/* The letter of a control character's short escape, or 0. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

static void put_escaped(struct log_out *o, const unsigned char *s, size_t n)
{
    char letter = short_escape(s[0]);
    if (letter)
        put(o, (char[]){'\\', letter}, 2);
    else
        for (size_t i = 0; i < n; i++)
            put_short(o, "\\x%02x", s[i]);
}

/* Of a control. */
static unsigned code_point(const unsigned char *s, size_t n)
{
    if (n == 3)
        return (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    return n == 2 ? s[1] : s[0]; /* U+0080 to U+009f are c2 80 to c2 9f */
}

static void put_escaped_json(struct log_out *o, const unsigned char *s, size_t n)
{
    char letter = short_escape(s[0]);
    if (n == 0)
        put_text(o, "\\ufffd");
    else if (letter)
        put(o, (char[]){'\\', letter}, 2);
    else
        put_short(o, "\\u%04x", code_point(s, n));
}

/* How one kind of field is written. */
struct style {
    bool json;
    bool quoted;         /* '"' and '\' are special */
    const char *newline; /* what a newline becomes; NULL: escaped like other controls */
};

static void put_special(struct log_out *o, const struct style *style, const unsigned char *s,
                        size_t n)
{
    if (n > 0 && (*s == '"' || *s == '\\'))
        put(o, (char[]){'\\', (char)*s}, 2);
    else if (n > 0 && *s == '\n' && style->newline)
        put_text(o, style->newline);
    else if (style->json)
        put_escaped_json(o, s, n);
    else
        put_escaped(o, s, n > 0 ? n : 1);
}

/* Copies runs of ordinary bytes whole: almost every line is one run. */
static void put_field(struct log_out *o, const struct style *style, const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t run = 0, at = 0;
    while (at < len) {
        size_t n = utf8_len(s + at, len - at);
        bool quote = style->quoted && (s[at] == '"' || s[at] == '\\');
        if (n > 0 && !quote && !utf8_is_control(s + at, n)) {
            at += n;
            continue;
        }
        put(o, text + run, at - run);
        put_special(o, style, s + at, n);
        at += n > 0 ? n : 1;
        run = at;
    }
    put(o, text + run, len - run);
}

/* `len` cut to at most `max`, never inside a UTF-8 sequence. */
static size_t clip(const char *text, size_t len, size_t max)
{
    if (len <= max)
        return len;
    for (int i = 0; i < 3 && utf8_is_continuation((unsigned char)text[max]); i++)
        max--;
    return max;
}

static const struct style json_style = {.json = true, .quoted = true};

static void put_json_string(struct log_out *o, const char *text, size_t len, size_t max)
{
    size_t kept = clip(text, len, max);
    put_text(o, "\"");
    put_field(o, &json_style, text, kept);
    put_text(o, kept < len ? "...\"" : "\"");
}

/* ---- lines ---- */

static void put_time(struct log_out *o)
{
    /* Lines of the same second share the formatted part; gmtime and strftime cost more than the
     * rest of a line. */
    static _Thread_local struct {
        time_t second;
        char text[24];
    } cache;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (cache.second != now.tv_sec || cache.text[0] == '\0') {
        struct tm tm;
        gmtime_r(&now.tv_sec, &tm);
        strftime(cache.text, sizeof cache.text, "%Y-%m-%dT%H:%M:%S", &tm);
        cache.second = now.tv_sec;
    }
    put_text(o, cache.text);
    put_short(o, ".%03uZ", (unsigned)(now.tv_nsec / 1000000));
}

static void put_json_head(struct log_out *o, const char *level)
{
    put_text(o, "{\"time\":\"");
    put_time(o);
    put_text(o, "\",\"level\":\"");
    put_text(o, level);
    put_text(o, "\"");
}

static void put_json_line(struct log_out *o, enum log_level level, uint64_t conn_id,
                          const char *text, size_t len)
{
    put_json_head(o, level_words[level]);
    if (conn_id)
        put_short(o, ",\"conn\":%" PRIu64, conn_id);
    put_text(o, ",\"msg\":");
    put_json_string(o, text, len, TEXT_MAX);
    put_text(o, "}\n");
}

static void put_text_line(struct log_out *o, bool journal, enum log_level level, uint64_t conn_id,
                          const char *text, size_t len)
{
    /* The journal takes every physical line for a message, so each needs its priority. */
    const char journal_newline[] = {'\n', '<', level_priorities[level], '>', ' ', ' ', ' ', ' ', 0};
    struct style style = {.newline = journal ? journal_newline : "\n    "};
    size_t kept = clip(text, len, TEXT_MAX);
    if (journal) {
        put(o, journal_newline + 1, 3);
    } else {
        put_time(o);
        put_short(o, " %-5s ", level_words[level]);
    }
    if (conn_id)
        put_short(o, "[conn %" PRIu64 "] ", conn_id);
    put_field(o, &style, text, kept);
    put_text(o, kept < len ? "...\n" : "\n");
}

void log_put_line(struct log_out *o, enum log_format format, enum log_level level, uint64_t conn_id,
                  const char *text, size_t len)
{
    while (len > 0 && text[len - 1] == '\n')
        len--;
    if (format == LOG_JSON)
        put_json_line(o, level, conn_id, text, len);
    else
        put_text_line(o, format == LOG_JOURNAL, level, conn_id, text, len);
}

/* ---- access lines ---- */

/* Bare where it can be read back as one word, else quoted. */
static void put_value(struct log_out *o, const char *text, bool always_quoted)
{
    static const struct style style = {.quoted = true};
    size_t len = strlen(text), kept = clip(text, len, VALUE_MAX);
    bool quoted = always_quoted || len == 0;
    for (size_t i = 0; i < kept && !quoted; i++)
        quoted = text[i] <= ' ' || text[i] > '~' || strchr("\"\\=", text[i]);
    if (quoted)
        put_text(o, "\"");
    put_field(o, &style, text, kept);
    if (kept < len)
        put_text(o, "...");
    if (quoted)
        put_text(o, "\"");
}

/* A tag's name must stay one word, or a script could make a value look like further fields. */
static void put_key(struct log_out *o, const char *key)
{
    size_t kept = clip(key, strlen(key), VALUE_MAX);
    for (size_t i = 0; i < kept; i++) {
        bool plain = key[i] > ' ' && key[i] <= '~' && !strchr("\"\\=", key[i]);
        put(o, plain ? &key[i] : "_", 1);
    }
}

static const char *or_dash(const char *text)
{
    return text ? text : "-";
}

/* In integers: printf's %f would follow the locale. */
static void put_connect_ms(struct log_out *o, int64_t us, const char *none)
{
    int64_t tenths = (us + 50) / 100;
    if (us < 0)
        put_text(o, none);
    else
        put_short(o, "%" PRId64 ".%d", tenths / 10, (int)(tenths % 10));
}

/* The named strings of an access line, in the order in which they stand. */
#define FIELDS_BEFORE(X) X(listener) X(client)
#define FIELDS_UPSTREAM(X) X(upstream)
#define FIELDS_AFTER(X) X(reason) X(side) X(detail)

static void put_access_text(struct log_out *o, const struct log_access *a)
{
#define X(name)                                                                                    \
    put_text(o, " " #name "=");                                                                    \
    put_value(o, or_dash(a->name), false);
    put_short(o, "access id=%" PRIu64, a->id);
    FIELDS_BEFORE(X)
    if (a->proxy) {
        put_text(o, " proxy=");
        put_value(o, a->proxy, false);
    }
    FIELDS_UPSTREAM(X)
    if (a->via) {
        put_text(o, " via=");
        put_value(o, a->via, false);
    }
    put_short(o, " up=%" PRIu64 " down=%" PRIu64, a->bytes_up, a->bytes_down);
    put_short(o, " duration_ms=%" PRIu64, a->duration_us / 1000);
    put_text(o, " connect_ms=");
    put_connect_ms(o, a->connect_us, "-");
    FIELDS_AFTER(X)
#undef X
    for (const char *const *tag = a->tags; tag && tag[0]; tag += 2) {
        put_text(o, " ");
        put_key(o, tag[0]);
        put_text(o, "=");
        put_value(o, or_dash(tag[1]), true);
    }
    put_text(o, "\n");
}

static void put_json_pair(struct log_out *o, const char *key, const char *value)
{
    put_json_string(o, key, strlen(key), VALUE_MAX);
    put_text(o, ":");
    put_json_string(o, value, strlen(value), VALUE_MAX);
}

static void put_access_json(struct log_out *o, const struct log_access *a)
{
#define X(name)                                                                                    \
    put_text(o, ",");                                                                              \
    put_json_pair(o, #name, or_dash(a->name));
    put_json_head(o, "access");
    put_short(o, ",\"id\":%" PRIu64, a->id);
    FIELDS_BEFORE(X)
    if (a->proxy) {
        put_text(o, ",");
        put_json_pair(o, "proxy", a->proxy);
    }
    FIELDS_UPSTREAM(X)
    if (a->via) {
        put_text(o, ",");
        put_json_pair(o, "via", a->via);
    }
    put_short(o, ",\"up\":%" PRIu64 ",\"down\":%" PRIu64, a->bytes_up, a->bytes_down);
    put_short(o, ",\"duration_ms\":%" PRIu64, a->duration_us / 1000);
    put_text(o, ",\"connect_ms\":");
    put_connect_ms(o, a->connect_us, "null");
    FIELDS_AFTER(X)
#undef X
    put_text(o, ",\"tags\":{");
    for (const char *const *tag = a->tags; tag && tag[0]; tag += 2) {
        put_text(o, tag == a->tags ? "" : ",");
        put_json_pair(o, tag[0], or_dash(tag[1]));
    }
    put_text(o, "}}\n");
}

void log_put_access(struct log_out *o, enum log_format format, const struct log_access *a)
{
    if (format == LOG_JSON) {
        put_access_json(o, a);
        return;
    }
    if (format == LOG_JOURNAL) {
        put_text(o, "<6>");
    } else {
        put_time(o);
        put_text(o, " ");
    }
    put_access_text(o, a);
}
