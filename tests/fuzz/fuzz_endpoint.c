/* endpoint_parse(): what it accepts is complete and reads back the same; what it refuses leaves
 * nothing and says why, in printable characters. The first byte chooses the use and the size of the
 * message. */
#include "fuzz.h"

#include "penstock/base/addr.h"

static void check_refusal(const struct endpoint *e, const char *why, size_t cap)
{
    static const struct endpoint none;
    MUST(memcmp(e, &none, sizeof none) == 0);
    MUST(memchr(why, '\0', cap) != NULL);
    MUST(cap == 1 || why[0] != '\0');
    for (; *why; why++)
        MUST(*why >= ' ' && *why <= '~');
}

static void check_complete(const struct endpoint *e, enum endpoint_use use)
{
    struct sockaddr_un un;
    MUST(e->text && e->text[0]);
    MUST((e->host != NULL) == (e->kind == ENDPOINT_NAME || e->kind == ENDPOINT_UNIX ||
                               (e->kind == ENDPOINT_FD && e->fd == -1)));
    if (e->kind == ENDPOINT_FD) {
        MUST(use == ENDPOINT_LISTEN && e->fd >= -1);
        return;
    }
    if (e->kind == ENDPOINT_UNIX) {
        MUST(addr_unix(e->host, &un) > 0);
        return;
    }
    MUST(e->port <= e->port_last);
    MUST(use == ENDPOINT_LISTEN || e->port > 0);
    MUST(use == ENDPOINT_DIAL || e->kind == ENDPOINT_IP);
    if (e->kind == ENDPOINT_IP) {
        MUST(addr_len(&e->ip) > 0);
        MUST(addr_port(&e->ip) == e->port);
    }
}

/* The canonical text means the same endpoint, and is its own canonical text. */
static void check_again(const struct endpoint *e, enum endpoint_use use)
{
    struct endpoint again;
    char why[256];
    MUST(endpoint_parse(e->text, use, &again, why, sizeof why) == 0);
    MUST(strcmp(again.text, e->text) == 0);
    MUST(again.kind == e->kind);
    MUST(again.port == e->port && again.port_last == e->port_last && again.fd == e->fd);
    endpoint_deinit(&again);
}

static void check_copy(const struct endpoint *e)
{
    struct endpoint copy;
    MUST(endpoint_copy(&copy, e, e->port_last) == 0);
    MUST(copy.kind == e->kind);
    if (e->kind == ENDPOINT_FD)
        MUST(copy.fd == e->fd);
    else if (e->kind != ENDPOINT_UNIX)
        MUST(copy.port == e->port_last && copy.port_last == e->port_last);
    if (e->port == e->port_last)
        MUST(strcmp(copy.text, e->text) == 0);
    endpoint_deinit(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum endpoint_use use = data[0] & 1 ? ENDPOINT_LISTEN : ENDPOINT_DIAL;
    size_t cap = data[0] & 2 ? 1 + data[0] / 4 : 256;
    char *text = fuzz_text(data + 1, size - 1), *why = malloc(cap);
    MUST(why);
    why[0] = '\0';
    struct endpoint e;
    if (endpoint_parse(text, use, &e, why, cap) == 0) {
        check_complete(&e, use);
        check_again(&e, use);
        check_copy(&e);
        endpoint_deinit(&e);
    } else {
        check_refusal(&e, why, cap);
    }
    free(why);
    free(text);
    return 0;
}
