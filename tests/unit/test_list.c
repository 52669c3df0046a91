/* The intrusive list (base/list.h). */
#include "penstock/base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct item {
    int number;
    struct list node;
};

static struct item items[4];

static int fill(void **state)
{
    static struct list head;
    list_init(&head);
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        list_push(&head, &items[i].node);
    }
    *state = &head;
    return 0;
}

/* The numbers on the list, as decimal digits: 0, 1, 2, 3 is 1234 after each is raised by one. */
static int digits(const struct list *head)
{
    int sum = 0;
    for (const struct list *l = head->next; l != head; l = l->next) {
        assert_ptr_equal(l->next->prev, l);
        sum = sum * 10 + container_of(l, struct item, node)->number + 1;
    }
    return sum;
}

static void a_new_list_is_empty(void **state)
{
    (void)state;
    struct list head;
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_int_equal(digits(&head), 0);
}

static void nodes_come_back_in_the_order_they_were_pushed(void **state)
{
    assert_false(list_is_empty(*state));
    assert_int_equal(digits(*state), 1234);
}

static void a_removed_node_leaves_the_others_linked(void **state)
{
    list_remove(&items[1].node);
    assert_int_equal(digits(*state), 134);
    list_remove(&items[0].node);
    assert_int_equal(digits(*state), 34);
    list_remove(&items[3].node);
    list_remove(&items[2].node);
    assert_true(list_is_empty(*state));
}

static void a_removed_node_can_be_removed_again_and_pushed_again(void **state)
{
    list_remove(&items[1].node);
    assert_true(list_is_empty(&items[1].node));
    list_remove(&items[1].node);
    assert_int_equal(digits(*state), 134);
    list_push(*state, &items[1].node);
    assert_int_equal(digits(*state), 1342);
}

static void a_visitor_may_remove_the_node_it_visits(void **state)
{
    struct list *head = *state;
    int visits = 0;
    list_for_each (pos, tmp, head) {
        visits++;
        if (container_of(pos, struct item, node)->number != 2)
            list_remove(pos);
    }
    assert_int_equal(visits, 4);
    assert_int_equal(digits(head), 3);
}

static void take_moves_all_nodes_and_leaves_the_old_head_empty(void **state)
{
    struct list to;
    list_take(&to, *state);
    assert_true(list_is_empty(*state));
    assert_int_equal(digits(&to), 1234);
    list_push(*state, &(struct item){.number = 8}.node);
    assert_int_equal(digits(*state), 9);
    assert_int_equal(digits(&to), 1234);
}

static void take_of_an_empty_list_gives_an_empty_list(void **state)
{
    (void)state;
    struct list from, to;
    list_init(&from);
    list_take(&to, &from);
    assert_true(list_is_empty(&to));
    assert_true(list_is_empty(&from));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_list_is_empty),
        cmocka_unit_test_setup(nodes_come_back_in_the_order_they_were_pushed, fill),
        cmocka_unit_test_setup(a_removed_node_leaves_the_others_linked, fill),
        cmocka_unit_test_setup(a_removed_node_can_be_removed_again_and_pushed_again, fill),
        cmocka_unit_test_setup(a_visitor_may_remove_the_node_it_visits, fill),
        cmocka_unit_test_setup(take_moves_all_nodes_and_leaves_the_old_head_empty, fill),
        cmocka_unit_test(take_of_an_empty_list_gives_an_empty_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
