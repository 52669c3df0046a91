// The content of the loads: printable text that differs at every position of a long period, cheap
// to compare.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define TOKEN_BYTES 8u
#define CUTS (TOKEN_BYTES - 1) // one at each border within a token

static void fill_with_lines(char *block)
{
    for (size_t i = 0; i < PATTERN_BYTES; i++) {
        if (i % LINE_BYTES == LINE_BYTES - 1)
            block[i] = '\n';
        else if (block[i] == '\n')
            block[i] = ' ';
    }
}

static char *block_new(const char *token, bool lines)
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
    if (lines)
        fill_with_lines(block);
    if (token) {
        // In the middle of its 4 KiB: a border between chunks of a round size does not cut it.
        for (size_t i = TOKEN_EVERY_BYTES / 2; i < PATTERN_BYTES; i += TOKEN_EVERY_BYTES)
            memcpy(block + i, token, strlen(token));
    }
    for (size_t i = 0; i < CHUNK_BYTES; i++)
        block[PATTERN_BYTES + i] = block[i % PATTERN_BYTES];
    return block;
}

void pattern_init(struct pattern *pattern, bool tokens, bool lines)
{
    pattern->send = block_new(tokens ? TOKEN : NULL, lines);
    pattern->expect = tokens ? block_new(TOKEN_REPLACED, lines) : pattern->send;
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

// A chunk that is not as expected: tokens that were not replaced are counted (chunk by chunk, one
// cut by a border rightly is not); anything else is an error.
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

// Where the token number `n` of connection `index` begins.
static uint64_t token_start(uint32_t index, uint32_t n)
{
    uint32_t before = pattern_at(index, 0) % TOKEN_EVERY_BYTES;
    uint32_t first = (TOKEN_EVERY_BYTES + TOKEN_EVERY_BYTES / 2 - before) % TOKEN_EVERY_BYTES;
    return first + (uint64_t)n * TOKEN_EVERY_BYTES;
}

// The piece number `n` of what a connection sends at first, and how much must have arrived before
// the next one. After the last cut it is a piece that ends between two tokens, or the forwarder's
// chunks would go on as they were cut.
static void piece(uint32_t index, uint32_t n, uint64_t *end, uint64_t *awaited)
{
    *awaited = token_start(index, n);
    *end = *awaited + n + 1;
    if (n == CUTS)
        *awaited = *end = token_start(index, n) - TOKEN_EVERY_BYTES / 2;
}

static bool in_pieces(const struct load *load, const struct stream *stream)
{
    return load->options.tokens && stream->pieces <= CUTS;
}

static void release(struct load *load, struct stream *sender, uint64_t received)
{
    uint64_t end, awaited;
    if (!sender->held_back)
        return;
    piece(sender->index, sender->pieces - 1, &end, &awaited);
    if (received < awaited)
        return;
    sender->held_back = false;
    if (load->phase != PHASE_DRAIN)
        stream_watch(load, sender, EPOLLOUT);
}

ssize_t pattern_send(struct load *load, struct stream *stream)
{
    uint64_t end = stream->sent + CHUNK_BYTES, awaited;
    uint32_t at = pattern_at(stream->index, stream->sent);
    bool one_of_some = in_pieces(load, stream);
    if (one_of_some)
        piece(stream->index, stream->pieces, &end, &awaited);
    ssize_t n = stream_send(stream, load->pattern.send + at, (size_t)(end - stream->sent));
    if (n < 0)
        return n;
    stream->sent += (uint64_t)n;
    if (one_of_some && stream->sent == end) {
        stream->pieces++;
        stream->held_back = true;
        stream_watch(load, stream, EPOLLIN);
        release(load, stream, stream->other ? stream->other->received : 0);
    }
    return n;
}

void pattern_ended(struct load *load, const struct stream *stream)
{
    if (!load->options.tokens || stream->received == 0)
        return;
    uint32_t at =
        (pattern_at(stream->index, stream->received) + TOKEN_EVERY_BYTES / 2) % TOKEN_EVERY_BYTES;
    for (uint32_t i = 0; at < TOKEN_BYTES && i < at; i++)
        load->missed_bytes -= TOKEN[i] != TOKEN_REPLACED[i];
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
    if (stream->other)
        release(load, stream->other, stream->received);
}

void hello_write(char *hello, enum kind kind, uint32_t size, uint32_t index)
{
    char text[HELLO_BYTES + 1];
    snprintf(text, sizeof(text), "%c:%06x%07x\n", (char)kind, size & 0xffffffu, index & 0xfffffffu);
    memcpy(hello, text, HELLO_BYTES);
}

bool hello_parse(const char *hello, enum kind *kind, uint32_t *size, uint32_t *index)
{
    char text[HELLO_BYTES + 1];
    char letter = 0;
    memcpy(text, hello, HELLO_BYTES);
    text[HELLO_BYTES] = 0;
    if (sscanf(text, "%c:%6x%7x", &letter, size, index) != 3)
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
