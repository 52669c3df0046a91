/* Specs of policies, run without a network: what `penstock test` does. */
#ifndef PENSTOCK_SCRIPT_TEST_H
#define PENSTOCK_SCRIPT_TEST_H

#include <stddef.h>
#include <stdint.h>

struct config;
struct policy_set;
struct script_options;

/* Loads a file as script_load() does, and puts what it configures by ps.listen{} and ps.options{}
 * into *config, which has no listener yet and gets none from a file that only returns a policy.
 * Returns 0, or a negative error with a message in `why` and nothing in *out. */
typedef int script_test_load_fn(struct script_options *options, struct config *config,
                                struct policy_set **out, char *why, size_t why_cap);

struct script_test_options {
    script_test_load_fn *load;
    char *const *specs; /* files, and folders to search for *_spec.lua */
    size_t n_specs;
    uint64_t seed;      /* of ps.random() in every policy, unless its spec says otherwise */
    const char *filter; /* Lua pattern that a test's full name must match; NULL: all */
    const char *output; /* busted's output handler; NULL: plainTerminal, or utfTerminal */
};

/* Runs the specs, which print to standard output, on this thread. Takes the log over, which must
 * not be open. Returns how many tests failed, or a negative error with a message in `why` when none
 * was run (busted is not installed). */
int script_test(const struct script_test_options *options, char *why, size_t why_cap);

#endif
