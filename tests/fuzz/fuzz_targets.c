/* Lists of destinations: every port of a range gives a list, one beyond gives none, and the list
 * prints into any room. The first byte chooses the room. */
#include "fuzz.h"

#include "penstock/proxy/targets.h"

static void check_format(const struct targets *t, size_t cap)
{
    char *buf = malloc(cap + 1);
    MUST(buf);
    buf[cap] = '#';
    MUST(targets_format(t, buf, cap) == buf);
    MUST(buf[cap] == '#');
    MUST(cap == 0 || strlen(buf) < cap);
    free(buf);
}

static void check_list(const char *text, unsigned offset, size_t cap)
{
    char why[256];
    struct targets *t = targets_parse(text, offset, why, sizeof why);
    MUST(t && t->n >= 1);
    for (size_t i = 0; i < t->n; i++)
        MUST(t->items[i].endpoint.text &&
             (t->items[i].endpoint.kind == ENDPOINT_UNIX || t->items[i].endpoint.port > 0) &&
             t->items[i].endpoint.port == t->items[i].endpoint.port_last);
    check_format(t, cap);
    MUST(targets_hold(t) == t);
    targets_drop(t);
    targets_drop(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = fuzz_text(data + 1, size - 1), why[256] = "";
    unsigned range = targets_range(text, why, sizeof why);
    MUST((range == 0) == (why[0] != '\0'));
    if (range) {
        check_list(text, 0, data[0]);
        check_list(text, range - 1, data[0]);
    }
    struct targets *beyond = targets_parse(text, range ? range : 1, why, sizeof why);
    MUST(!beyond ||
         range <=
             1); /* without a range an offset means nothing; two lengths are targets_range()'s */
    targets_drop(beyond);
    free(text);
    return 0;
}
