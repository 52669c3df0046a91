/* Whether what a configuration says of the admin can be done, and is safe. */
#include <errno.h>
#include <stdio.h>

#include "penstock/admin/admin.h"
#include "penstock/base/addr.h"

static int refuse(char *why, size_t why_cap, const char *text)
{
    snprintf(why, why_cap, "%s", text);
    return -EINVAL;
}

static int check_tcp(const struct config *c, const struct endpoint *e, char *why, size_t why_cap)
{
    if (e->port != e->port_last)
        return refuse(why, why_cap, "--admin takes one port: --admin 127.0.0.1:9180");
    if (c->admin_token_file)
        return 0;
    if (!addr_is_loopback(&e->ip))
        return refuse(why, why_cap,
                      "--admin on an address that others can reach needs --admin-token-file FILE");
    if (!c->admin_no_token)
        return refuse(why, why_cap,
                      "--admin on TCP needs --admin-token-file FILE, or --admin-no-token: then "
                      "every user of this host may control penstock; a UNIX socket is its owner's "
                      "alone: --admin unix:/run/penstock/admin.sock");
    return 0;
}

static int check_endpoint(const struct config *c, const struct endpoint *e, char *why,
                          size_t why_cap)
{
    switch (e->kind) {
    case ENDPOINT_UNIX:
        if (e->host[0] == '@')
            return refuse(why, why_cap,
                          "--admin: an abstract socket has no mode that keeps others out; write "
                          "unix:/run/penstock/admin.sock");
        return 0;
    case ENDPOINT_IP:
        return check_tcp(c, e, why, why_cap);
    default:
        return refuse(why, why_cap,
                      "--admin takes unix:/run/penstock/admin.sock or 127.0.0.1:9180");
    }
}

int admin_check(const struct config *c, char *why, size_t why_cap)
{
    struct endpoint e;
    char text[400];
    if (c->admin_token_file && c->admin_no_token)
        return refuse(why, why_cap,
                      "--admin-token-file and --admin-no-token contradict each other");
    if (!c->admin && (c->admin_token_file || c->admin_no_token))
        return refuse(why, why_cap,
                      "--admin-token-file and --admin-no-token belong to --admin HOST:PORT");
    if (!c->admin && c->admin_lua)
        return refuse(why, why_cap,
                      "--admin-lua belongs to --admin: --admin unix:/run/penstock/admin.sock");
    if (c->admin_lua && c->admin_no_token)
        return refuse(why, why_cap,
                      "--admin-lua lets whoever may use --admin run Lua in penstock: every user of "
                      "this host, with --admin-no-token; write --admin-token-file FILE, or --admin "
                      "unix:/run/penstock/admin.sock");
    if (!c->admin)
        return 0;
    if (endpoint_parse(c->admin, ENDPOINT_LISTEN, &e, text, sizeof text)) {
        snprintf(why, why_cap, "--admin: %s", text);
        return -EINVAL;
    }
    int err = check_endpoint(c, &e, why, why_cap);
    endpoint_deinit(&e);
    return err;
}
