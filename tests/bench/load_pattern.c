// The content of the loads: printable text that differs at every position of a long period, cheap
// to compare.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *block_new(const char *token)
{
    // No '_': a token is never there by chance.
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 \n";
    char *block = malloc(PATTERN_BYTES + CHUNK_BYTES);
    if (!block)
        abort();
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < PATTERN_BYTES; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block[i] = alphabet[(state >> 32) % 64];
    }
    if (token) {
        // In the middle of its 4 KiB: a border between chunks of a round size does not cut it.
        for (size_t i = TOKEN_EVERY_BYTES / 2; i < PATTERN_BYTES; i += TOKEN_EVERY_BYTES)
            memcpy(block + i, token, strlen(token));
    }
    for (size_t i = 0; i < CHUNK_BYTES; i++)
        block[PATTERN_BYTES + i] = block[i % PATTERN_BYTES];
    return block;
}

void pattern_init(struct pattern *pattern, bool tokens)
{
    pattern->send = block_new(tokens ? TOKEN : NULL);
    pattern->expect = tokens ? block_new(TOKEN_REPLACED) : pattern->send;
}

void pattern_deinit(struct pattern *pattern)
{
    if (pattern->expect != pattern->send)
        free(pattern->expect);
    free(pattern->send);
}

uint32_t pattern_at(uint32_t index, uint64_t position)
{
    // Steps of 8 KiB and a bit: neighbours in number are far apart in content.
    return (uint32_t)((index * 8219ull + position) % PATTERN_BYTES);
}

// A chunk that is not as expected: a token cut by the border of two chunks is rightly not replaced;
// anything else is an error.
static void explain(struct load *load, struct stream *stream, const char *bytes, size_t length)
{
    uint32_t at = pattern_at(stream->index, stream->received);
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == load->pattern.expect[at + i])
            continue;
        if (bytes[i] != load->pattern.send[at + i]) {
            load_error(load, "connection %u: wrong byte at %llu", stream->index,
                       (unsigned long long)(stream->received + i));
            return;
        }
        load->missed_bytes++;
    }
}

void pattern_verify(struct load *load, struct stream *stream, const char *bytes, size_t length)
{
    uint32_t at = pattern_at(stream->index, stream->received);
    if (memcmp(bytes, load->pattern.expect + at, length) != 0)
        explain(load, stream, bytes, length);
    stream->received += length;
    load->payload_bytes += length;
    if (load->phase == PHASE_MEASURE)
        load->bytes += length;
}

void hello_write(char *hello, enum kind kind, uint32_t size, uint32_t index)
{
    char text[HELLO_BYTES + 1];
    snprintf(text, sizeof(text), "%c:%06x%08x", (char)kind, size & 0xffffffu, index);
    memcpy(hello, text, HELLO_BYTES);
}

bool hello_parse(const char *hello, enum kind *kind, uint32_t *size, uint32_t *index)
{
    char text[HELLO_BYTES + 1];
    char letter = 0;
    memcpy(text, hello, HELLO_BYTES);
    text[HELLO_BYTES] = 0;
    if (sscanf(text, "%c:%6x%8x", &letter, size, index) != 3)
        return false;
    *kind = (enum kind)letter;
    switch (*kind) {
    case KIND_ECHO:
    case KIND_ONCE:
        return *size >= HELLO_BYTES && *size <= MESSAGE_MAX_BYTES;
    case KIND_UP:
    case KIND_DOWN:
        return true;
    }
    return false;
}
