/* Error words and texts (base/err.h). */
#include "penstock/base/err.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void every_own_error_has_its_word_and_text(void **state)
{
    (void)state;
#define X(name, code, word, text)                                                                  \
    assert_string_equal(err_word(PS_E##name), word);                                               \
    assert_string_equal(err_text(PS_E##name), text);                                               \
    assert_int_equal(err_from_errno(PS_E##name), PS_E##name);
    PENSTOCK_ERRORS(X)
#undef X
}

static void system_errors_map_to_the_word_that_fits(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(-ECONNREFUSED), PS_EREFUSED);
    assert_int_equal(err_from_errno(-ETIMEDOUT), PS_ETIMEOUT);
    assert_int_equal(err_from_errno(-EHOSTUNREACH), PS_EUNREACHABLE);
    assert_int_equal(err_from_errno(-ENETUNREACH), PS_EUNREACHABLE);
    assert_int_equal(err_from_errno(-ECONNRESET), PS_ERESET);
    assert_int_equal(err_from_errno(-EPIPE), PS_ERESET);
    assert_int_equal(err_from_errno(-EMFILE), PS_ELIMIT);
    assert_int_equal(err_from_errno(-EACCES), PS_EDENIED);
    assert_int_equal(err_from_errno(-EINVAL), PS_ESYSTEM);
    assert_string_equal(err_word(-ECONNREFUSED), "refused");
    assert_string_equal(err_word(-EINVAL), "system");
}

static void codes_of_libuv_that_are_no_errno_have_words(void **state)
{
    (void)state;
    assert_string_equal(err_word(-4095), "eof"); /* UV_EOF */
    assert_string_equal(err_word(-3008), "dns"); /* UV_EAI_NONAME */
    assert_string_equal(err_text(-3008), "name could not be resolved");
}

static void system_errors_read_like_strerror(void **state)
{
    (void)state;
    assert_string_equal(err_text(-ENOENT), "No such file or directory");
    assert_string_equal(err_text(-EADDRINUSE), "Address already in use");
}

static void any_number_has_a_word_and_a_text(void **state)
{
    (void)state;
    static const int numbers[] = {INT_MIN, -1000000, -20014, -20000, -4000, -999, 1, 42, INT_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_string_equal(err_word(numbers[i]), "system");
        assert_true(strlen(err_text(numbers[i])) > 0);
    }
}

static void no_error_is_not_called_one(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(0), 0);
    assert_string_equal(err_word(0), "ok");
}

static void require_lets_what_holds_pass(void **state)
{
    (void)state;
    PENSTOCK_REQUIRE(1 + 1 == 2);
}

static void require_aborts_and_names_the_place(void **state)
{
    (void)state;
    int out[2], status;
    char text[512] = "";
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        PENSTOCK_REQUIRE(1 + 1 == 3);
        _exit(0);
    }
    close(out[1]);
    ssize_t n = read(out[0], text, sizeof text - 1);
    close(out[0]);
    assert_true(n > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "test_err.c"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_own_error_has_its_word_and_text),
        cmocka_unit_test(system_errors_map_to_the_word_that_fits),
        cmocka_unit_test(codes_of_libuv_that_are_no_errno_have_words),
        cmocka_unit_test(system_errors_read_like_strerror),
        cmocka_unit_test(any_number_has_a_word_and_a_text),
        cmocka_unit_test(no_error_is_not_called_one),
        cmocka_unit_test(require_lets_what_holds_pass),
        cmocka_unit_test(require_aborts_and_names_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
