/* The watchdog: what it tells of a stay, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "penstock/base/log.h"
#include "penstock/proxy/watchdog.h"

#define S UINT64_C(1000000000)

static const char hooks[] = "data (a.lua:3, b.lua:4), filter.up (a.lua:7), close (a.lua:9)";

static void test_the_entry_of_a_hook_is_found_by_its_name(void **state)
{
    (void)state;
    char buf[100];
    assert_string_equal(watchdog_place("data hook", hooks, buf, sizeof buf),
                        "data (a.lua:3, b.lua:4)");
    assert_string_equal(watchdog_place("close hook", hooks, buf, sizeof buf), "close (a.lua:9)");
    assert_string_equal(watchdog_place("up filter", hooks, buf, sizeof buf), "filter.up (a.lua:7)");
}

static void test_what_has_no_entry_is_told_with_all(void **state)
{
    (void)state;
    char buf[100];
    assert_string_equal(watchdog_place("spawned function", hooks, buf, sizeof buf), hooks);
    assert_string_equal(watchdog_place("down filter", "", buf, sizeof buf), "");
    assert_string_equal(watchdog_place("data hook", "data (cut", buf, sizeof buf), "data (cut");
}

static void test_a_stay_is_told_after_a_second_and_again_after_ten(void **state)
{
    (void)state;
    struct stay stay;
    struct watchdog dog = {0};
    stay_init(&stay);
    stay_enter(&stay, 7, "data hook", hooks);
    uint64_t told = 0;
    unsigned times = 0;
    for (uint64_t now = 1; now <= 25; now++) {
        watchdog_look(&dog, &stay, 0, now * S);
        if (dog.told_ns != told)
            times++;
        told = dog.told_ns;
    }
    assert_int_equal(times, 3); /* at 2, 12 and 22 s */
    assert_true(told == 22 * S);
    stay_leave(&stay);
    stay_deinit(&stay);
}

static void test_short_stays_one_after_the_other_are_not_told(void **state)
{
    (void)state;
    struct stay stay;
    struct watchdog dog = {0};
    stay_init(&stay);
    for (uint64_t now = 1; now < 100; now++) {
        stay_enter(&stay, now, "data hook", hooks);
        watchdog_look(&dog, &stay, 0, now * S);
        stay_leave(&stay);
    }
    assert_true(dog.told_ns == 0);
    stay_deinit(&stay);
}

static void test_what_was_forgotten_is_not_read(void **state)
{
    (void)state;
    struct stay stay;
    struct stay_view view;
    char text[] = "data (gone.lua:1)";
    stay_init(&stay);
    assert_false(stay_look(&stay, &view));
    stay_enter(&stay, 1, "data hook", text);
    assert_true(stay_look(&stay, &view));
    assert_string_equal(view.where, text);
    stay_leave(&stay);
    stay_forget(&stay);
    assert_true(atomic_load(&stay.where) != text);
    stay_deinit(&stay);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_entry_of_a_hook_is_found_by_its_name),
        cmocka_unit_test(test_what_has_no_entry_is_told_with_all),
        cmocka_unit_test(test_a_stay_is_told_after_a_second_and_again_after_ten),
        cmocka_unit_test(test_short_stays_one_after_the_other_are_not_told),
        cmocka_unit_test(test_what_was_forgotten_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
