/* Paths of requests: what a shell hands over may be any bytes but a zero. */
#include "ctl_path.h"

#include <stdio.h>
#include <string.h>

void ctl_path_put(struct ctl_path *p, const char *text)
{
    size_t n = strlen(text);
    p->full |= n >= sizeof p->text - p->n;
    if (p->full)
        return;
    memcpy(p->text + p->n, text, n + 1);
    p->n += n;
}

void ctl_path_put_encoded(struct ctl_path *p, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++) {
        char byte[4] = {*text, '\0'};
        if (!strchr(plain, *text))
            snprintf(byte, sizeof byte, "%%%02X", (unsigned char)*text);
        ctl_path_put(p, byte);
    }
}

void ctl_path_put_argument(struct ctl_path *p, const char *key, const char *value)
{
    if (!value)
        return;
    ctl_path_put(p, p->arguments ? "&" : "?");
    ctl_path_put(p, key);
    ctl_path_put(p, "=");
    p->arguments = true;
    ctl_path_put_encoded(p, value);
}
