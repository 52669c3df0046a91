/* Which word somebody meant who typed another. */
#ifndef PENSTOCK_CORE_CLI_SUGGEST_H
#define PENSTOCK_CORE_CLI_SUGGEST_H

#include <stddef.h>

/* The one of `n` words, of 40 bytes at most, that begins with `typed` or is most like it; NULL when
 * none is near. */
const char *suggest_word(const char *typed, const char *const words[], size_t n);

#endif
