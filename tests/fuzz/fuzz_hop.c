/* hop_parse(): what it accepts is complete and reads back the same but for the login; what it
 * refuses leaves nothing and says why. */
#include "fuzz.h"

#include "penstock/net/target.h"

static void check_complete(const struct hop *h)
{
    struct hop again;
    char text[400], why[300];
    MUST(h->endpoint.text && h->endpoint.kind != ENDPOINT_UNIX);
    MUST(h->endpoint.port > 0 && h->endpoint.port == h->endpoint.port_last);
    MUST((h->user != NULL) == (h->password != NULL));
    MUST(!h->user || (strlen(h->user) <= 255 && strlen(h->password) <= 255));
    MUST(hop_parse(hop_format(h, text, sizeof text), &again, why, sizeof why) == 0);
    MUST(again.kind == h->kind && !again.user);
    MUST(strcmp(again.endpoint.text, h->endpoint.text) == 0);
    hop_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct hop none;
    struct hop h;
    char *text = fuzz_text(data, size), why[300] = "";
    if (hop_parse(text, &h, why, sizeof why) == 0) {
        check_complete(&h);
        hop_deinit(&h);
    } else {
        MUST(memcmp(&h, &none, sizeof h) == 0);
        MUST(why[0] && memchr(why, '\0', sizeof why));
    }
    free(text);
    return 0;
}
