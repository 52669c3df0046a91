/* Hashing of byte strings that a stranger may choose: SipHash-1-3, keyed. */
#ifndef PENSTOCK_BASE_HASH_H
#define PENSTOCK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A secret drawn at random once for each table, or for all. */
struct hash_key {
    uint64_t k0, k1;
};

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t n);

#endif
