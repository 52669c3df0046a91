/* A version's end. */
#include "penstock/proxy/version.h"

#include <stdlib.h>

void version_deinit(struct version *v)
{
    for (unsigned i = 0; i < v->n_policies; i++)
        if (v->policies[i])
            v->policies[i]->ops->free(v->policies[i]);
    free(v->policies);
    for (size_t i = 0; i < v->n_files; i++)
        free(v->files[i]);
    free(v->files);
    config_drop(v->config);
    *v = (struct version){0};
}
