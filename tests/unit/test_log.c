/* The log (base/log.h): what lines look like, and that it never stops whoever logs. */
#include "penstock/base/log.h"

#include "penstock/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define TIME "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { TEXT_CAP = 4 * 1024 * 1024, CLOSE_MS = 20000 };

/* A directory for the files of one test, and what standard error was before it. */
struct fixture {
    char dir[64];
    char log[96], access[96], old[96];
    int real_stderr;
    char *text; /* what read_file() read last */
};

static int set_up(void **state)
{
    static struct fixture f;
    strcpy(f.dir, "/tmp/penstock-test-log-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    snprintf(f.log, sizeof f.log, "%s/log", f.dir);
    snprintf(f.access, sizeof f.access, "%s/access", f.dir);
    snprintf(f.old, sizeof f.old, "%s/old", f.dir);
    f.real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    f.text = malloc(TEXT_CAP);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    log_close(CLOSE_MS);
    dup2(f->real_stderr, STDERR_FILENO);
    close(f->real_stderr);
    unlink(f->log);
    unlink(f->access);
    unlink(f->old);
    free(f->text);
    return rmdir(f->dir);
}

static void open_log(struct fixture *f, enum log_format format)
{
    struct log_options o = {.level = LOG_DEBUG, .format = format, .file = f->log};
    assert_int_equal(log_open(&o, NULL), 0);
}

static const char *read_file(struct fixture *f, const char *file)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, f->text, TEXT_CAP - 1);
    close(fd);
    assert_true(n >= 0);
    f->text[n] = '\0';
    return f->text;
}

/* Closes the log and returns what it wrote. */
static const char *finish(struct fixture *f)
{
    log_close(CLOSE_MS);
    return read_file(f, f->log);
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool ok = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    if (!ok)
        fail_msg("\"%s\" does not match %s", text, pattern);
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* Waits for a file to have some text: promptness is not measured, only that nothing further is
 * needed. */
static void wait_for(struct fixture *f, const char *file, const char *what)
{
    for (int i = 0; i < 2000; i++) {
        if (access(file, F_OK) == 0 && strstr(read_file(f, file), what))
            return;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    fail_msg("\"%s\" never came", what);
}

/* ---- what lines look like ---- */

static void text_lines_have_time_level_and_message(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    log_info("listening on %s", "127.0.0.1:8080");
    log_error("broken");
    log_line(LOG_WARN, 17, "careful");
    log_debug("detail");
    assert_matches(finish(f),
                   "^" TIME " info  listening on 127\\.0\\.0\\.1:8080\n" TIME " error broken\n" TIME
                   " warn  \\[conn 17\\] careful\n" TIME " debug detail\n$");
}

static void the_time_is_the_time_of_now_in_utc(void **state)
{
    struct fixture *f = *state;
    struct tm tm = {0};
    open_log(f, LOG_TEXT);
    time_t before = time(NULL);
    log_info("x");
    time_t after = time(NULL);
    assert_non_null(strptime(finish(f), "%Y-%m-%dT%H:%M:%S", &tm));
    /* time() reads a coarser clock, which is a little behind. */
    assert_in_range(timegm(&tm), before, after + 1);
}

static void json_lines_are_objects_with_the_same_parts(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_JSON);
    log_info("a \"b\" c:\\d");
    log_line(LOG_ERROR, 17, "two\nlines\t\x01");
    assert_matches(finish(f), "^\\{\"time\":\"" TIME
                              "\",\"level\":\"info\",\"msg\":\"a \\\\\"b\\\\\" c:\\\\\\\\d\"\\}\n"
                              "\\{\"time\":\"" TIME "\",\"level\":\"error\",\"conn\":17,"
                              "\"msg\":\"two\\\\nlines\\\\t\\\\u0001\"\\}\n$");
}

static void journal_lines_have_a_priority_and_no_time(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_JOURNAL);
    log_error("e");
    log_warn("w");
    log_line(LOG_INFO, 3, "i\nj");
    log_debug("d");
    assert_string_equal(finish(f), "<3>e\n<4>w\n<6>[conn 3] i\n<6>    j\n<7>d\n");
}

static void nobody_can_forge_a_text_line(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    log_info("%s", "one\ntwo\r\x1b[31m\x7f\t\xc2\x9b"
                   "31m \xff \xc3\xa4\n\n");
    assert_matches(finish(f),
                   "^" TIME " info  one\n    two\\\\r\\\\x1b\\[31m\\\\x7f\\\\t\\\\xc2\\\\x9b"
                   "31m \\\\xff \xc3\xa4\n$");
}

static void nobody_can_turn_a_line_around(void **state)
{
    static const char marks[] = "a\xe2\x80\x8e\xe2\x80\x8f\xe2\x80\xaa\xe2\x80\xae\xe2\x81\xa6"
                                "\xe2\x81\xa9 \xe2\x80\x90\xe2\x81\xaa\xe2\x82\xac";
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    log_info("%s", marks);
    assert_matches(finish(f),
                   "info  a\\\\xe2\\\\x80\\\\x8e\\\\xe2\\\\x80\\\\x8f\\\\xe2\\\\x80\\\\xaa"
                   "\\\\xe2\\\\x80\\\\xae\\\\xe2\\\\x81\\\\xa6\\\\xe2\\\\x81\\\\xa9 "
                   "\xe2\x80\x90\xe2\x81\xaa\xe2\x82\xac\n$");
    open_log(f, LOG_JSON);
    log_info("%s", marks);
    assert_matches(finish(f), "\"a\\\\u200e\\\\u200f\\\\u202a\\\\u202e\\\\u2066\\\\u2069 "
                              "\xe2\x80\x90\xe2\x81\xaa\xe2\x82\xac\"\\}\n$");
}

static bool is_utf8_and_printable(const unsigned char *s)
{
    while (*s) {
        int more = *s < 0x80 ? 0 : *s < 0xe0 ? 1 : *s < 0xf0 ? 2 : 3;
        if (*s < ' ' || *s == 0x7f || (*s >= 0x80 && *s < 0xc2) || *s > 0xf4)
            return false;
        for (s++; more > 0; more--, s++)
            if ((*s & 0xc0) != 0x80)
                return false;
    }
    return true;
}

/* The end of the JSON string that begins at s, or NULL when it is none. */
static const char *skip_json_string(const char *s)
{
    if (*s++ != '"')
        return NULL;
    while (*s && *s != '"') {
        if (*s++ != '\\')
            continue;
        if (*s == 'u' && strspn(s + 1, "0123456789abcdef") >= 4)
            s += 5;
        else if (*s && strchr("\"\\/bfnrt", *s))
            s++;
        else
            return NULL;
    }
    return *s == '"' ? s + 1 : NULL;
}

static void any_bytes_make_valid_json(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 3;
    open_log(f, LOG_JSON);
    for (int i = 0; i < 3000; i++) {
        char bytes[12];
        for (size_t k = 0; k < sizeof bytes; k++) {
            seed = seed * 1664525 + 1013904223;
            /* Half of them such as begin and go on with UTF-8 sequences. */
            bytes[k] = (char)(seed & 0x10000 ? seed >> 24 : 0x80 + (seed >> 25));
        }
        log_bytes(LOG_INFO, 0, bytes, sizeof bytes);
    }
    char *rest = (char *)(uintptr_t)finish(f), *line;
    int lines = 0;
    for (; (line = strsep(&rest, "\n")) && *line; lines++) {
        const char *msg = strstr(line, "\"msg\":");
        assert_true(is_utf8_and_printable((unsigned char *)line));
        assert_non_null(msg);
        const char *end = skip_json_string(msg + strlen("\"msg\":"));
        assert_non_null(end);
        assert_string_equal(end, "}");
    }
    assert_int_equal(lines, 3000);
}

static void invalid_utf8_is_replaced_in_json(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {"\xff",         "\x80",
                                        "\xc3",         "\xc0\x80",
                                        "\xed\xa0\x80", "\xf5\x80\x80\x80",
                                        "\xe2\x82",     "\xf0\x80\x80\x80"};
    open_log(f, LOG_JSON);
    for (size_t i = 0; i < COUNT(texts); i++)
        log_info("<%s>", texts[i]);
    log_info("<%s>", "\xe2\x82\xac\xf0\x9f\x98\x80");
    const char *text = finish(f);
    assert_int_equal(count(text, "<\\ufffd"), COUNT(texts));
    assert_int_equal(count(text, "<\xe2\x82\xac\xf0\x9f\x98\x80>"), 1);
    assert_true(is_utf8_and_printable((const unsigned char *)strtok(f->text, "\n")));
}

static void bytes_may_contain_nul(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    log_bytes(LOG_INFO, 0, "a\0b", 3);
    log_bytes(LOG_INFO, 0, "", 0);
    assert_matches(finish(f), " info  a\\\\x00b\n" TIME " info  \n$");
}

static void long_lines_are_whole_and_huge_ones_are_cut(void **state)
{
    struct fixture *f = *state;
    static char big[200000];
    memset(big, 'x', sizeof big - 1);
    open_log(f, LOG_TEXT);
    log_info("%.600s.", big);
    log_info("%.60000s.", big);
    log_info("%s.", big);
    const char *text = finish(f);
    assert_int_equal(count(text, "\n"), 3);
    assert_int_equal(count(text, "x.\n"), 2);
    assert_int_equal(count(text, "x...\n"), 1);
    assert_int_equal(strlen(text), 3 * strlen("2026-11-24T23:45:15.123Z info  ") + 600 + 60000 +
                                       65536 + 2 + 2 + 4);
}

/* ---- levels ---- */

static void lines_below_the_level_are_not_written(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_WARN, .file = f->log};
    assert_int_equal(log_open(&o, NULL), 0);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    log_info("not this");
    log_warn("this");
    log_set_level(LOG_INFO);
    log_info("and this");
    log_debug("nor this");
    assert_matches(finish(f), "^" TIME " warn  this\n" TIME " info  and this\n$");
}

static void level_words_parse(void **state)
{
    (void)state;
    enum log_level level = LOG_INFO;
    assert_int_equal(log_parse_level("error", &level), 0);
    assert_int_equal(level, LOG_ERROR);
    assert_int_equal(log_parse_level("debug", &level), 0);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_parse_level("loud", &level), -EINVAL);
    assert_int_equal(log_parse_level("", &level), -EINVAL);
    assert_int_equal(level, LOG_DEBUG);
}

/* ---- access lines ---- */

static const struct log_access sample = {
    .id = 7,
    .listener = "8080",
    .client = "127.0.0.1:50000",
    .upstream = "127.0.0.1:80",
    .bytes_up = 12,
    .bytes_down = 345,
    .duration_us = 6789,
    .connect_us = 204,
    .reason = "eof",
    .side = "-",
    .detail = "-",
    .tags = (const char *const[]){"k", "v", NULL},
};

/* Logs one access line in the given format and returns it. */
static const char *access_line(struct fixture *f, enum log_format format,
                               const struct log_access *a)
{
    open_log(f, format);
    log_access(a);
    return finish(f);
}

static void access_lines_have_every_field_in_order(void **state)
{
    assert_matches(access_line(*state, LOG_TEXT, &sample),
                   "^" TIME " access id=7 listener=8080 client=127\\.0\\.0\\.1:50000 "
                   "upstream=127\\.0\\.0\\.1:80 up=12 down=345 duration_ms=6 connect_ms=0\\.2 "
                   "reason=eof side=- detail=- k=\"v\"\n$");
}

static void access_lines_name_the_proxies_on_the_way_where_there_are_any(void **state)
{
    struct log_access a = sample;
    a.via = "socks5://a:1080,http://b:3128";
    assert_matches(access_line(*state, LOG_TEXT, &a),
                   " upstream=127\\.0\\.0\\.1:80 via=socks5://a:1080,http://b:3128 up=12 ");
    unlink(((struct fixture *)*state)->log);
    assert_matches(access_line(*state, LOG_JSON, &a),
                   "\"via\":\"socks5://a:1080,http://b:3128\",\"up\":12,");
}

static void access_lines_name_the_proxy_that_has_told_the_client(void **state)
{
    struct log_access a = sample;
    a.proxy = "10.0.0.9:4000";
    assert_matches(access_line(*state, LOG_TEXT, &a),
                   " client=127\\.0\\.0\\.1:50000 proxy=10\\.0\\.0\\.9:4000 upstream=");
    unlink(((struct fixture *)*state)->log);
    assert_matches(
        access_line(*state, LOG_JSON, &a),
        "\"client\":\"127\\.0\\.0\\.1:50000\",\"proxy\":\"10\\.0\\.0\\.9:4000\",\"upstream\"");
}

static void access_lines_in_json_are_objects_with_tags(void **state)
{
    assert_matches(
        access_line(*state, LOG_JSON, &sample),
        "^\\{\"time\":\"" TIME "\",\"level\":\"access\",\"id\":7,\"listener\":\"8080\","
        "\"client\":\"127\\.0\\.0\\.1:50000\",\"upstream\":\"127\\.0\\.0\\.1:80\",\"up\":12,"
        "\"down\":345,\"duration_ms\":6,\"connect_ms\":0\\.2,\"reason\":\"eof\",\"side\":\"-\","
        "\"detail\":\"-\",\"tags\":\\{\"k\":\"v\"\\}\\}\n$");
}

static void access_lines_for_the_journal_have_a_priority(void **state)
{
    assert_matches(access_line(*state, LOG_JOURNAL, &sample), "^<6>access id=7 ");
}

static void a_connection_without_upstream_and_tags_has_dashes(void **state)
{
    struct log_access a = sample;
    a.upstream = NULL;
    a.connect_us = -1;
    a.tags = NULL;
    assert_matches(
        access_line(*state, LOG_TEXT, &a),
        " upstream=- up=12 down=345 duration_ms=6 connect_ms=- reason=eof side=- detail=-\n$");
    unlink(((struct fixture *)*state)->log);
    assert_matches(access_line(*state, LOG_JSON, &a),
                   "\"connect_ms\":null,.*\"tags\":\\{\\}\\}\n$");
}

static void access_values_cannot_forge_fields_or_lines(void **state)
{
    struct log_access a = sample;
    a.listener = "unix:/a b";
    a.detail = "x=1\nid=9";
    a.side = "";
    a.tags = (const char *const[]){"k e=y\n", "a\"b\\c\nd \xff", "next", "", NULL};
    assert_matches(access_line(*state, LOG_TEXT, &a),
                   " listener=\"unix:/a b\" .* side=\"\" detail=\"x=1\\\\nid=9\" "
                   "k_e_y_=\"a\\\\\"b\\\\\\\\c\\\\nd \\\\xff\" next=\"\"\n$");
}

static void access_lines_go_to_their_own_file(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {
        .level = LOG_ERROR, .format = LOG_JOURNAL, .file = f->log, .access_file = f->access};
    assert_int_equal(log_open(&o, NULL), 0);
    assert_true(log_access_enabled());
    log_error("main");
    log_access(&sample);
    assert_string_equal(finish(f), "<3>main\n");
    assert_matches(read_file(f, f->access), "^" TIME " access id=7 [^\n]*\n$");
}

static void access_lines_can_be_turned_off(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_DEBUG, .file = f->log, .access_file = "off"};
    assert_int_equal(log_open(&o, NULL), 0);
    assert_false(log_access_enabled());
    log_access(&sample);
    assert_string_equal(finish(f), "");
}

/* ---- the life of the log ---- */

static void lines_appear_without_a_close(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    log_info("listening on 8080");
    wait_for(f, f->log, "listening on 8080\n");
    log_info("a second line");
    wait_for(f, f->log, "a second line\n");
}

static void the_log_opens_again_after_a_close(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 20; i++) {
        open_log(f, LOG_TEXT);
        log_info("round");
        log_close(CLOSE_MS);
        log_close(CLOSE_MS);
    }
    assert_int_equal(count(read_file(f, f->log), "round\n"), 20);
}

static void a_file_that_cannot_be_opened_is_named(void **state)
{
    struct fixture *f = *state;
    const char *which = NULL;
    struct log_options o = {.file = "/no/such/dir/log"};
    assert_int_equal(log_open(&o, &which), -ENOENT);
    assert_string_equal(which, "/no/such/dir/log");
    o = (struct log_options){.file = f->log, .access_file = f->dir};
    assert_int_equal(log_open(&o, &which), -EISDIR);
    assert_string_equal(which, f->dir);
}

static void a_fifo_without_a_reader_is_an_error_not_a_hang(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.file = f->log};
    assert_int_equal(mkfifo(f->log, 0600), 0);
    assert_int_equal(log_open(&o, NULL), -ENXIO);
}

static void without_an_open_log_lines_go_to_standard_error(void **state)
{
    struct fixture *f = *state;
    int fd = open(f->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
    log_set_level(LOG_INFO);
    log_line(LOG_ERROR, 0, "early");
    log_access(&sample);
    assert_matches(read_file(f, f->log), "^" TIME " error early\n$");
}

static void reopening_follows_a_rotation(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO, .file = f->log, .access_file = f->access};
    assert_int_equal(log_open(&o, NULL), 0);
    log_info("before");
    wait_for(f, f->log, "before\n");
    assert_int_equal(rename(f->log, f->old), 0);
    log_reopen();
    log_reopen();
    log_info("after");
    assert_matches(finish(f), "^" TIME " info  after\n$");
    assert_matches(read_file(f, f->old), "^" TIME " info  before\n$");
}

static void a_failed_reopen_keeps_the_old_file_and_says_so(void **state)
{
    struct fixture *f = *state;
    open_log(f, LOG_TEXT);
    assert_int_equal(rename(f->log, f->old), 0);
    assert_int_equal(mkdir(f->log, 0700), 0);
    log_reopen();
    log_info("still here");
    log_close(CLOSE_MS);
    rmdir(f->log);
    assert_matches(read_file(f, f->old),
                   " error log file .*/log cannot be reopened: Is a directory; "
                   "the old one stays in use\n" TIME " info  still here\n$");
}

/* ---- many threads ---- */

enum { THREADS = 8, LINES_PER_THREAD = 500 };

static void *log_many(void *arg)
{
    uint64_t id = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < LINES_PER_THREAD; i++)
        log_line(LOG_INFO, id, "line %d of many, with some text to make it longer", i);
    return NULL;
}

static void lines_of_many_threads_stay_whole_and_in_order(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    int next[THREADS + 1] = {0};
    uint64_t dropped = log_dropped();
    open_log(f, LOG_TEXT);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, log_many, (void *)(i + 1));
    for (int i = 0; i < 50; i++)
        log_reopen();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *rest = (char *)(uintptr_t)finish(f), *line;
    while ((line = strsep(&rest, "\n")) && *line) {
        unsigned id = 0;
        int number = -1, end = 0;
        sscanf(line + 24, " info  [conn %u] line %d of many, with some text to make it longer%n",
               &id, &number, &end);
        assert_true(end > 0 && line[24 + end] == '\0');
        assert_in_range(id, 1, THREADS);
        assert_int_equal(number, next[id]++);
    }
    for (int i = 1; i <= THREADS; i++)
        assert_int_equal(next[i], LINES_PER_THREAD);
    assert_int_equal(log_dropped(), dropped);
}

static void logging_while_the_log_closes_is_safe(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(fd, STDERR_FILENO);
    close(fd);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, log_many, (void *)(i + 1));
    for (int i = 0; i < 10; i++) {
        open_log(f, LOG_JSON);
        log_close(CLOSE_MS);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* ---- descriptors that fail or block ---- */

/* A pipe becomes standard error; returns its reading end. */
static int pipe_as_stderr(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return ends[0];
}

static void a_file_as_stderr(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

/* Logs `n` lines of about 1 KiB; the number of the line is its first word. */
static void log_kibibytes(int n)
{
    static char filler[1000];
    memset(filler, 'x', sizeof filler - 1);
    for (int i = 0; i < n; i++)
        log_info("line%d %s", i, filler);
}

/* Fills the pipe up to the middle of a line, where the writer then waits in its write(). */
static void stall_writer(int reader)
{
    log_info("%060000d", 1);
    log_info("%060000d", 2);
    for (int full = 0; full < 61000;) {
        assert_int_equal(ioctl(reader, FIONREAD, &full), 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* The sum of all notices that lines were lost because the queue was full. */
static uint64_t told_lost(const char *text)
{
    uint64_t sum = 0;
    for (const char *s = text; (s = strstr(s, " warn  ")); s++) {
        uint64_t n = 0;
        int end = 0;
        sscanf(s, " warn  %" SCNu64 " lines of the log were lost: the queue was full%n", &n, &end);
        sum += end > 0 && s[end] == '\n' ? n : 0;
    }
    return sum;
}

static void a_stalled_reader_does_not_stop_producers_and_dropped_lines_are_counted(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO};
    uint64_t before = log_dropped();
    int reader = pipe_as_stderr();
    assert_int_equal(log_open(&o, NULL), 0);
    log_kibibytes(4000); /* 2 MiB of queues and 64 KiB of pipe: not all fit, and nobody reads */
    uint64_t dropped = log_dropped() - before;
    assert_in_range(dropped, 1000, 4000);

    size_t len = 0;
    for (uint64_t told = 0; told < dropped; told = told_lost(f->text)) {
        ssize_t n = read(reader, f->text + len, TEXT_CAP - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
        f->text[len] = '\0';
    }
    assert_int_equal(told_lost(f->text), dropped);
    assert_int_equal(count(f->text, " info  line"), 4000 - dropped);

    log_info("all is well again");
    char small[200] = "";
    assert_true(read(reader, small, sizeof small - 1) > 0);
    assert_matches(small, "^" TIME " info  all is well again\n$");
    close(reader);
}

static void errors_find_room_when_other_lines_do_not(void **state)
{
    (void)state;
    struct log_options o = {.level = LOG_INFO};
    int reader = pipe_as_stderr();
    assert_int_equal(log_open(&o, NULL), 0);
    stall_writer(reader);
    log_kibibytes(1100);
    uint64_t before = log_dropped();
    log_info("no room for this, but %01000d", 0);
    assert_int_equal(log_dropped(), before + 1);
    log_error("for this");
    assert_int_equal(log_dropped(), before + 1);
    close(reader); /* the writer's write() fails now, so the close is quick */
}

static void a_close_waits_no_longer_than_told_and_later_lines_do_not_block(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO};
    int reader = pipe_as_stderr();
    assert_int_equal(log_open(&o, NULL), 0);
    stall_writer(reader);
    log_close(30);
    uint64_t before = log_dropped();
    log_error("nobody can take this");
    assert_int_equal(log_dropped(), before + 1);

    /* A log opened next is a new start, whatever became of the old writer. */
    open_log(f, LOG_TEXT);
    log_info("new");
    assert_matches(finish(f), "^" TIME " info  new\n$");

    /* Let the old writer return from its write(), give up and free itself. */
    char sink[4096];
    dup2(f->real_stderr, STDERR_FILENO);
    while (read(reader, sink, sizeof sink) > 0) {
    }
    close(reader);
}

static void a_closed_pipe_kills_nobody_and_costs_only_its_lines(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO};
    uint64_t before = log_dropped();
    signal(SIGPIPE, SIG_DFL);
    close(pipe_as_stderr());
    assert_int_equal(log_open(&o, NULL), 0);
    log_error("lost 1");
    log_info("lost 2");
    while (log_dropped() < before + 2)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);

    a_file_as_stderr(f->log);
    log_info("found");
    wait_for(f, f->log, "found\n");
    assert_matches(finish(f), "^" TIME " warn  2 lines of the log were lost: Broken pipe\n" TIME
                              " info  found\n$");
    assert_int_equal(log_dropped(), before + 2);
}

static void a_full_disk_costs_lines_and_no_processor_time(void **state)
{
    (void)state;
    struct log_options o = {.level = LOG_INFO, .file = "/dev/full"};
    uint64_t before = log_dropped();
    assert_int_equal(log_open(&o, NULL), 0);
    for (int i = 0; i < 100; i++)
        log_error("line %d", i);
    while (log_dropped() < before + 100)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    clock_t used = clock();
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    assert_true(clock() - used < CLOCKS_PER_SEC / 10);
    log_close(CLOSE_MS);
    assert_int_equal(log_dropped(), before + 100);
}

static void an_access_file_that_fails_is_told_in_the_main_log(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO, .file = f->log, .access_file = "/dev/full"};
    assert_int_equal(log_open(&o, NULL), 0);
    log_access(&sample);
    wait_for(f, f->log, "1 lines of the access log were lost: No space left on device\n");
    for (int i = 0; i < 1000; i++)
        log_access(&sample);
    assert_in_range(count(finish(f), "\n"), 1, 5); /* told again now and then, not each time */
}

static void half_a_line_is_not_continued_by_the_next(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO};
    int reader = pipe_as_stderr();
    assert_int_equal(log_open(&o, NULL), 0);
    stall_writer(reader);
    uint64_t before = log_dropped();
    close(reader);
    while (log_dropped() == before)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    a_file_as_stderr(f->log);
    log_info("whole");
    wait_for(f, f->log, "whole\n");
    assert_matches(finish(f), "^\n" TIME " warn  [0-9]+ lines of the log were lost: Broken pipe\n");
}

static void a_non_blocking_descriptor_loses_nothing(void **state)
{
    struct fixture *f = *state;
    struct log_options o = {.level = LOG_INFO};
    int reader = pipe_as_stderr();
    fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
    assert_int_equal(log_open(&o, NULL), 0);
    log_kibibytes(400);
    log_info("the last");
    size_t len = 0;
    while (!memmem(f->text, len, "the last\n", 9)) {
        ssize_t n = read(reader, f->text + len, TEXT_CAP - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
    f->text[len] = '\0';
    assert_int_equal(count(f->text, " info  line"), 400);
    close(reader);
}

static void a_busy_log_is_written_in_batches(void **state)
{
    (void)state;
    struct log_options o = {.level = LOG_INFO};
    int ends[2], reads = 0;
    /* Each write() to a packet pipe is one packet: so writes can be counted. */
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_DIRECT | O_NONBLOCK), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 1024 * 1024);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    assert_int_equal(log_open(&o, NULL), 0);
    uint64_t start = clock_now_ns();
    for (int i = 0; i < 1000; i++)
        log_info("short");
    uint64_t took_ms = (clock_now_ns() - start) / 1000000;
    log_close(CLOSE_MS);
    char packet[4096];
    while (read(ends[0], packet, sizeof packet) > 0)
        reads++;
    close(ends[0]);
    /* 37 bytes a line, 4096 a packet: 10 packets of content, and one more a batch. */
    assert_true((uint64_t)reads <= 10 + 4 + took_ms / 5);
}

/* The `SigBlk:` mask of every thread but this one, as one line each. */
static void read_masks(char *masks, size_t cap)
{
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    *masks = '\0';
    for (struct dirent *d; (d = readdir(tasks));) {
        char path[300], line[200];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", d->d_name);
        FILE *status = atoi(d->d_name) == getpid() ? NULL : fopen(path, "re");
        while (status && fgets(line, sizeof line, status))
            if (strncmp(line, "SigBlk:", 7) == 0)
                strncat(masks, line, cap - strlen(masks) - 1);
        if (status)
            fclose(status);
    }
    closedir(tasks);
}

static void signals_are_not_for_the_writer(void **state)
{
    struct fixture *f = *state;
    char masks[1000];
    open_log(f, LOG_TEXT);
    log_info("x");
    wait_for(f, f->log, "x\n");
    read_masks(masks, sizeof masks);
    /* All but SIGKILL, SIGSTOP and what the C library keeps for itself: SIGTERM and SIGPIPE among
     * them. */
    assert_matches(masks, "SigBlk:\tf{7}[ef]7ffbf[ef]ff");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_an_open_log_lines_go_to_standard_error),
        TEST(text_lines_have_time_level_and_message),
        TEST(the_time_is_the_time_of_now_in_utc),
        TEST(json_lines_are_objects_with_the_same_parts),
        TEST(journal_lines_have_a_priority_and_no_time),
        TEST(nobody_can_forge_a_text_line),
        TEST(nobody_can_turn_a_line_around),
        TEST(any_bytes_make_valid_json),
        TEST(invalid_utf8_is_replaced_in_json),
        TEST(bytes_may_contain_nul),
        TEST(long_lines_are_whole_and_huge_ones_are_cut),
        TEST(lines_below_the_level_are_not_written),
        TEST(level_words_parse),
        TEST(access_lines_have_every_field_in_order),
        TEST(access_lines_name_the_proxies_on_the_way_where_there_are_any),
        TEST(access_lines_name_the_proxy_that_has_told_the_client),
        TEST(access_lines_in_json_are_objects_with_tags),
        TEST(access_lines_for_the_journal_have_a_priority),
        TEST(a_connection_without_upstream_and_tags_has_dashes),
        TEST(access_values_cannot_forge_fields_or_lines),
        TEST(access_lines_go_to_their_own_file),
        TEST(access_lines_can_be_turned_off),
        TEST(lines_appear_without_a_close),
        TEST(the_log_opens_again_after_a_close),
        TEST(a_file_that_cannot_be_opened_is_named),
        TEST(a_fifo_without_a_reader_is_an_error_not_a_hang),
        TEST(reopening_follows_a_rotation),
        TEST(a_failed_reopen_keeps_the_old_file_and_says_so),
        TEST(lines_of_many_threads_stay_whole_and_in_order),
        TEST(logging_while_the_log_closes_is_safe),
        TEST(a_stalled_reader_does_not_stop_producers_and_dropped_lines_are_counted),
        TEST(errors_find_room_when_other_lines_do_not),
        TEST(a_close_waits_no_longer_than_told_and_later_lines_do_not_block),
        TEST(a_closed_pipe_kills_nobody_and_costs_only_its_lines),
        TEST(a_full_disk_costs_lines_and_no_processor_time),
        TEST(an_access_file_that_fails_is_told_in_the_main_log),
        TEST(half_a_line_is_not_continued_by_the_next),
        TEST(a_non_blocking_descriptor_loses_nothing),
        TEST(a_busy_log_is_written_in_batches),
        TEST(signals_are_not_for_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
