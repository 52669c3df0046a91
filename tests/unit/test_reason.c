/* Close reasons: their words are a contract, and errors lead to the right one. */
#include "support.h"

#include "penstock/base/err.h"
#include "penstock/proxy/reason.h"

static void test_every_reason_has_a_word_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < REASON_COUNT; i++) {
        const char *word = reason_word((enum close_reason)i);
        assert_true(*word != '\0');
        assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz_"), strlen(word));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(word, reason_word((enum close_reason)k));
    }
    assert_string_equal(reason_word(REASON_EOF), "eof");
    assert_string_equal(reason_word(REASON_SYSTEM), "system");
}

static void test_errors_lead_to_the_reason_that_fits(void **state)
{
    (void)state;
    static const struct {
        int err;
        enum close_reason reason;
    } cases[] = {
        {PS_ETIMEOUT, REASON_TIMEOUT},
        {-ETIMEDOUT, REASON_TIMEOUT},
        {PS_EREFUSED, REASON_REFUSED},
        {-ECONNREFUSED, REASON_REFUSED},
        {-ENOENT, REASON_REFUSED},
        {PS_EUNREACHABLE, REASON_UNREACHABLE},
        {-EHOSTUNREACH, REASON_UNREACHABLE},
        {-ENETUNREACH, REASON_UNREACHABLE},
        {PS_ERESET, REASON_RESET},
        {-ECONNRESET, REASON_RESET},
        {-EPIPE, REASON_RESET},
        {PS_EDNS, REASON_DNS},
        {-ENOMEM, REASON_SYSTEM},
        {-EMFILE, REASON_SYSTEM},
        {-EINVAL, REASON_SYSTEM},
        {PS_ESYSTEM, REASON_SYSTEM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(reason_from_err(cases[i].err), cases[i].reason);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reason_has_a_word_of_its_own),
        cmocka_unit_test(test_errors_lead_to_the_reason_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
