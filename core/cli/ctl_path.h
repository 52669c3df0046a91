/* The path of a request to an admin, as it is built. */
#ifndef PENSTOCK_CORE_CLI_CTL_PATH_H
#define PENSTOCK_CORE_CLI_CTL_PATH_H

#include <stdbool.h>
#include <stddef.h>

enum { CTL_PATH_MAX = 8192 };

/* {0} at first. */
struct ctl_path {
    char text[CTL_PATH_MAX];
    size_t n;
    bool arguments; /* there are some already */
    bool full;      /* it was too long; what is in `text` is not whole */
};

void ctl_path_put(struct ctl_path *p, const char *text);
/* With everything encoded but what never needs it, so that it is one piece of the path. */
void ctl_path_put_encoded(struct ctl_path *p, const char *text);
/* "&key=value", the value encoded; nothing when it is NULL. */
void ctl_path_put_argument(struct ctl_path *p, const char *key, const char *value);

#endif
