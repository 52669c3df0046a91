/* Every option: its names, what --help says of it, and how its value is read and where it goes. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options_priv.h"
#include "penstock/base/units.h"

static const char *format_count(uint64_t bound, char *buf, size_t cap)
{
    snprintf(buf, cap, "%" PRIu64, bound);
    return buf;
}

static int check_range(const struct option_spec *spec, uint64_t value)
{
    return value < spec->min || value > spec->max ? -ERANGE : 0;
}

static int store_flag(const struct option_spec *spec, void *field, const char *value)
{
    (void)value;
    *(bool *)field = spec->max != 0;
    return 0;
}

static int store_u64(const struct option_spec *spec, void *field, const char *value)
{
    return units_parse_uint(value, spec->min, spec->max, field);
}

static int store_u32(const struct option_spec *spec, void *field, const char *value)
{
    uint64_t number;
    int err = units_parse_uint(value, spec->min, spec->max, &number);
    if (!err)
        *(uint32_t *)field = (uint32_t)number;
    return err;
}

static int store_workers(const struct option_spec *spec, void *field, const char *value)
{
    if (strcmp(value, "auto") != 0)
        return store_u32(spec, field, value);
    *(uint32_t *)field = 0;
    return 0;
}

static int store_size64(const struct option_spec *spec, void *field, const char *value)
{
    uint64_t bytes;
    int err = units_parse_size(value, &bytes);
    if (!err)
        err = check_range(spec, bytes);
    if (!err)
        *(uint64_t *)field = bytes;
    return err;
}

static int store_size32(const struct option_spec *spec, void *field, const char *value)
{
    uint64_t bytes;
    int err = store_size64(spec, &bytes, value);
    if (!err)
        *(uint32_t *)field = (uint32_t)bytes;
    return err;
}

static int store_time_ms(const struct option_spec *spec, void *field, const char *value)
{
    uint64_t ms;
    int err = units_parse_time_ms(value, &ms);
    if (!err)
        err = check_range(spec, ms);
    if (!err)
        *(uint64_t *)field = ms;
    return err;
}

/* For the kernel's times in whole seconds. Rounded up: 0 would mean off. */
static int store_time_s(const struct option_spec *spec, void *field, const char *value)
{
    uint64_t ms;
    int err = store_time_ms(spec, &ms, value);
    if (!err)
        *(uint32_t *)field = (uint32_t)((ms + 999) / 1000);
    return err;
}

static int store_word(const struct option_spec *spec, void *field, const char *value)
{
    for (int i = 0; spec->words[i]; i++) {
        if (strcmp(spec->words[i], value) == 0) {
            *(int *)field = i;
            return 0;
        }
    }
    return -EINVAL;
}

/* memcpy, because the field may be a `char *` or a `const char *`. */
static int store_text(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    char *old, *copy;
    if (*value == '\0')
        return -EINVAL;
    copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    memcpy(&old, field, sizeof old);
    memcpy(field, &copy, sizeof copy);
    free(old);
    return 0;
}

static int store_log_file(const struct option_spec *spec, void *field, const char *value)
{
    return strcmp(value, "-") == 0 ? -EINVAL : store_text(spec, field, value);
}

/* "cjson,lpeg": names as require() takes them. */
static int store_modules(const struct option_spec *spec, void *field, const char *value)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_.";
    for (const char *at = value;; at++) {
        size_t len = strspn(at, letters);
        if (len == 0 || *at == '.' || isdigit((unsigned char)*at) || at[len - 1] == '.')
            return -EINVAL;
        at += len;
        if (*at == '\0')
            return store_text(spec, field, value);
        if (*at != ',')
            return -EINVAL;
    }
}

static int store_ip(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    struct addr a;
    int err = addr_parse_ip(value, &a);
    if (!err)
        *(struct addr *)field = a;
    return err;
}

/* "9.9.9.9", "9.9.9.9:53", "2620:fe::fe", "[2620:fe::fe]:53" */
static bool is_server(const char *text)
{
    struct addr ip;
    struct endpoint e;
    if (addr_parse_ip(text, &ip) == 0)
        return true;
    if (!strchr(text, '.') && *text != '[') /* an endpoint may be a bare port, a server may not */
        return false;
    if (endpoint_parse(text, ENDPOINT_DIAL, &e, NULL, 0))
        return false;
    bool good = e.kind == ENDPOINT_IP && e.port == e.port_last;
    endpoint_deinit(&e);
    return good;
}

static int store_servers(const struct option_spec *spec, void *field, const char *value)
{
    char *copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    bool good = true;
    char *rest = copy;
    for (char *item = strsep(&rest, ","); item && good; item = strsep(&rest, ","))
        good = is_server(item);
    free(copy);
    return good ? store_text(spec, field, value) : -EINVAL;
}

/* One proxy or a comma list; those of a second --via come behind the first. */
static int store_via(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    char why[300], *copy = strdup(value), *rest = copy;
    int err = copy ? 0 : -ENOMEM;
    for (char *item = copy ? strsep(&rest, ",") : NULL; item && !err; item = strsep(&rest, ","))
        err = target_options_add_hop(*(struct target_options **)field, item, why, sizeof why);
    free(copy);
    return err;
}

static int store_cert(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    return options_tls_add_cert(field, value);
}

static int store_key(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    return options_tls_add_key(field, value);
}

static int store_sni(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    return options_tls_add_sni(field, value);
}

static int store_alpn(const struct option_spec *spec, void *field, const char *value)
{
    char why[200];
    int err = tls_check_alpn(value, why, sizeof why);
    return err ? err : store_text(spec, field, value);
}

static int store_pin(const struct option_spec *spec, void *field, const char *value)
{
    char why[400];
    int err = tls_check_pin(value, why, sizeof why);
    return err ? err : store_text(spec, field, value);
}

static int store_networks(const struct option_spec *spec, void *field, const char *value)
{
    (void)spec;
    struct networks **to = field, *networks;
    int err = networks_parse(value, &networks);
    if (err)
        return err;
    networks_drop(*to);
    *to = networks;
    return 0;
}

/* "a:1,b:2"; those of a second --allow come behind the first. What is wrong with one, lua/penstock/
 * destination_rules.lua tells. */
static int store_allow(const struct option_spec *spec, void *field, const char *value)
{
    char *old = *(char **)field, *both = NULL;
    if (*value == '\0' || !old)
        return store_text(spec, field, value);
    if (asprintf(&both, "%s,%s", old, value) < 0)
        return -ENOMEM;
    *(char **)field = both;
    free(old);
    return 0;
}

static const struct option_type type_flag = {.store = store_flag, .show = options_show_flag};
static const struct option_type type_u32 = {"a whole number", NULL, store_u32, format_count,
                                            options_show_u32};
static const struct option_type type_u64 = {"a whole number", NULL, store_u64, format_count,
                                            options_show_u64};
static const struct option_type type_workers = {"a number of threads",
                                                "auto or a number up to 1024", store_workers,
                                                format_count, options_show_u32};
static const struct option_type type_size32 = {"a size", "4096, 64K or 1M", store_size32,
                                               units_format_size, options_show_size32};
static const struct option_type type_size64 = {"a size", "4096, 64K, 1.5M or 1G", store_size64,
                                               units_format_size, options_show_size64};
static const struct option_type type_time_ms = {"a time", "30, 500ms, 2m or 1h", store_time_ms,
                                                units_format_time, options_show_time_ms};
static const struct option_type type_time_s = {"a time", "30, 2m or 1h", store_time_s,
                                               units_format_time, options_show_time_s};
static const struct option_type type_word = {"known", NULL, store_word, NULL, options_show_word};
static const struct option_type type_policy = {"a file", "guard.lua", store_text, NULL,
                                               options_show_text};
static const struct option_type type_pid_file = {"a file", "/run/penstock.pid", store_text, NULL,
                                                 options_show_text};
static const struct option_type type_admin = {"an address",
                                              "unix:/run/penstock/admin.sock or 127.0.0.1:9180",
                                              store_text, NULL, options_show_text};
static const struct option_type type_token_file = {"a file", "/etc/penstock/admin.token",
                                                   store_text, NULL, options_show_text};
static const struct option_type type_log_file = {
    "a file", "/var/log/penstock.log, or leave it out for standard error", store_log_file, NULL,
    options_show_text};
static const struct option_type type_access = {
    "a file", "/var/log/penstock-access.log, - for standard output, or off", store_text, NULL,
    options_show_text};
static const struct option_type type_modules = {"a list of modules", "cjson or cjson,lpeg",
                                                store_modules, NULL, options_show_text};
static const struct option_type type_ip = {"an IP address", "192.0.2.1 or 2001:db8::1", store_ip,
                                           NULL, options_show_ip};
static const struct option_type type_servers = {"a list of IP addresses",
                                                "9.9.9.9 or 127.0.0.1:5353,[2620:fe::fe]:53",
                                                store_servers, NULL, options_show_text};

static const struct option_type type_via = {
    "a proxy, or a comma list of proxies",
    "socks5://host:1080, socks5://user:password@host:1080 or http://host:3128", store_via, NULL,
    options_show_via};

static const struct option_type type_cert = {"a file", "cert.pem: the certificate, then its chain",
                                             store_cert, NULL, options_show_certs};
static const struct option_type type_key = {"the key of the --tls-cert before it",
                                            "--tls-cert cert.pem --tls-key key.pem", store_key,
                                            NULL, options_show_keys};
static const struct option_type type_sni = {"a certificate for a server name",
                                            "a.example=cert.pem,key.pem", store_sni, NULL,
                                            options_show_sni};
static const struct option_type type_alpn = {"a list of protocols", "h2,http/1.1", store_alpn, NULL,
                                             options_show_text};
static const struct option_type type_pin = {"a SHA-256 fingerprint in hexadecimal",
                                            "what openssl x509 -fingerprint -sha256 -noout shows",
                                            store_pin, NULL, options_show_text};
static const struct option_type type_pem = {"a file in PEM", "ca.pem", store_text, NULL,
                                            options_show_text};
static const struct option_type type_user = {"a user", "penstock or penstock:ssl-cert", store_text,
                                             NULL, options_show_text};
static const struct option_type type_host = {"a host name", "db.example", store_text, NULL,
                                             options_show_text};

static const char *const client_cert_words[] = {[TLS_CLIENT_CERT_NONE] = "none",
                                                [TLS_CLIENT_CERT_REQUEST] = "request",
                                                [TLS_CLIENT_CERT_REQUIRE] = "require",
                                                [TLS_CLIENT_CERT_REQUIRE + 1] = NULL};
static const char *const tls_version_words[] = {
    [TLS_1_2] = "1.2", [TLS_1_3] = "1.3", [TLS_1_3 + 1] = NULL};

static const struct option_type type_networks = {
    "a list of networks",
    "the addresses that are believed: 10.0.0.0/8,2001:db8::/32,192.0.2.1, or unix for UNIX sockets",
    store_networks, NULL, options_show_networks};

static const char *const others_words[] = {
    [OTHERS_ACCEPT] = "accept", [OTHERS_DENY] = "deny", [OTHERS_DENY + 1] = NULL};

static const struct option_type type_allow = {"a list of destinations",
                                              "'*.example.com:443,10.0.0.0/8:22', or any",
                                              store_allow, NULL, options_show_text};
static const struct option_type type_auth = {"a file", "/etc/penstock/users", store_text, NULL,
                                             options_show_text};

static const char *const send_proxy_words[] = {"v1", "v2", NULL};
static const char *const log_level_words[] = {
#define X(name, word, priority) word,
    LOG_LEVELS(X)
#undef X
        NULL};
static const char *const log_format_words[] = {
    [LOG_TEXT] = "text", [LOG_JSON] = "json", [LOG_JOURNAL] = "journal", [LOG_JOURNAL + 1] = NULL};
static const char *const mode_words[] = {[RELAY_CHOICE_AUTO] = "auto",
                                         [RELAY_CHOICE_COPY] = "copy",
                                         [RELAY_CHOICE_SPLICE] = "splice",
                                         [RELAY_CHOICE_SPLICE + 1] = NULL};

#define AT(field) offsetof(struct draft, field)
#define YEARS_10_MS (UINT64_C(10) * 365 * 24 * 3600 * 1000)
#define HOURS_9_MS (UINT64_C(9) * 3600 * 1000) /* the kernel takes up to 32767 s */

/* clang-format off */
static const struct option_spec table[] = {
    {GROUP_POLICY, 'p', "policy", "FILE", &type_policy, AT(config.policy), 0, 0, NULL,
     "hooks that see every connection; where TARGET is -, its connect hook names the destination"},
    {GROUP_POLICY, 0, "watch", NULL, &type_flag, AT(config.watch), 0, 1, NULL,
     "load the policy or configuration again when one of its files changes, as HUP does"},
    {GROUP_POLICY, 0, "jit", NULL, &type_flag, AT(config.jit), 0, 1, NULL,
     "compile policy code: loops over bytes run faster, but an endless one cannot be interrupted"},
    {GROUP_POLICY, 0, "unsafe-lua", NULL, &type_flag, AT(config.unsafe_lua), 0, 1, NULL,
     "open all Lua libraries to the policy: os.execute, io.popen, ffi, …"},
    {GROUP_POLICY, 0, "lua-modules", "NAME,…", &type_modules, AT(config.lua_modules), 0, 0, NULL,
     "modules written in C that the policy may require, such as cjson,lpeg; no other"},
    {GROUP_POLICY, 0, "seed", "N", &type_u64, AT(config.seed), 0, UINT64_MAX, NULL,
     "seed of ps.random(), to repeat a run (default 0: the system's)"},

    {GROUP_PROXY, 0, "allow", "HOST:PORT,…", &type_allow, AT(config.allow), 0, 0, NULL,
     "the destinations that clients may reach: www.example.com:443, *.example.com:443, 10.0.0.0/8:22, [2001:db8::/32]:80-90, "
     "*:443, or any for all of the open internet; may be repeated"},
    {GROUP_PROXY, 0, "auth", "FILE", &type_auth, AT(config.auth), 0, 0, NULL,
     "lines user:password of those who may use it, not readable for everybody (default: who can connect may)"},

    {GROUP_LIMITS, 0, "max-conns", "N", &type_u32, AT(config.max_conns), 0, UINT32_MAX, NULL,
     "connections at once in the whole process; more wait in the backlog (default: as many as "
     "ulimit -n has room for)"},
    {GROUP_LIMITS, 0, "max-versions", "N", &type_u32, AT(config.max_versions), 1, 1000, NULL,
     "versions of a policy that reloads keep at once, for their connections; those of an older one are ended (default 4)"},
    {GROUP_LIMITS, 0, "max-conns-listener", "N", &type_u32, AT(each.limits.conns), 0, UINT32_MAX, NULL,
     "connections at once of each listener; more wait in the backlog"},
    {GROUP_LIMITS, 0, "max-per-ip", "N", &type_u32, AT(each.limits.per_ip), 0, UINT32_MAX, NULL,
     "connections at once of one client address (IPv6: of one /64); more are reset"},
    {GROUP_LIMITS, 0, "max-rate", "N", &type_u32, AT(each.limits.rate), 0, UINT32_MAX, NULL,
     "new connections a second of each listener; more wait in the backlog"},
    {GROUP_LIMITS, 0, "rate-up", "SIZE", &type_size64, AT(each.limits.up_bytes), 0, INT64_MAX, NULL,
     "bytes a second from client to upstream, of each connection (4096, 64K, 1.5M, 1G)"},
    {GROUP_LIMITS, 0, "rate-down", "SIZE", &type_size64, AT(each.limits.down_bytes), 0, INT64_MAX, NULL,
     "bytes a second from upstream to client, of each connection"},

    {GROUP_TIMES, 0, "connect-timeout", "TIME", &type_time_ms, AT(each.timeouts.connect_ms), 0, YEARS_10_MS, NULL,
     "to resolve and connect, all targets together (default 5s)"},
    {GROUP_TIMES, 0, "handshake-timeout", "TIME", &type_time_ms, AT(each.timeouts.handshake_ms), 0, YEARS_10_MS, NULL,
     "of the PROXY header, of a client's TLS handshake, of what hooks read before they connect (a proxy's request, say), "
     "and of the handshake hook, each by itself (default 10s)"},
    {GROUP_TIMES, 0, "first-byte-timeout", "TIME", &type_time_ms, AT(each.timeouts.first_byte_ms), 0, YEARS_10_MS, NULL,
     "until the client sends its first byte (default off)"},
    {GROUP_TIMES, 0, "idle-timeout", "TIME", &type_time_ms, AT(each.timeouts.idle_ms), 0, YEARS_10_MS, NULL,
     "without a byte in either direction (default 1h)"},
    {GROUP_TIMES, 0, "half-close-timeout", "TIME", &type_time_ms, AT(each.timeouts.half_closed_ms), 0, YEARS_10_MS, NULL,
     "after one side has ended while the other moves next to nothing (default 1m)"},
    {GROUP_TIMES, 0, "life-timeout", "TIME", &type_time_ms, AT(each.timeouts.life_ms), 0, YEARS_10_MS, NULL,
     "of a whole connection, however busy it is (default off)"},
    {GROUP_TIMES, 0, "drain-timeout", "TIME", &type_time_ms, AT(config.drain_ms), 0, YEARS_10_MS, NULL,
     "how long connections may live on after TERM or INT (default 30s; 0 cuts them at once)"},
    {GROUP_TIMES, 0, "upgrade-timeout", "TIME", &type_time_ms, AT(config.upgrade_ms), 1, YEARS_10_MS, NULL,
     "for the new process of an upgrade (USR2) to come up (default 30s)"},

    {GROUP_TLS, 0, "tls-cert", "FILE", &type_cert, AT(tls), 0, 0, NULL,
     "accept TLS (1.2, 1.3) with this certificate and its chain; more of them are chosen by their names"},
    {GROUP_TLS, 0, "tls-key", "FILE", &type_key, AT(tls), 0, 0, NULL,
     "key of the --tls-cert before it (default: in the same file)"},
    {GROUP_TLS, 0, "tls-sni", "NAME=CERT[,KEY]", &type_sni, AT(tls), 0, 0, NULL,
     "a certificate for clients that ask for this server name, or *.NAME; may be repeated"},
    {GROUP_TLS, 0, "tls-client-ca", "FILE", &type_pem, AT(tls.client_ca), 0, 0, NULL,
     "clients show a certificate issued by one of these"},
    {GROUP_TLS, 0, "tls-client-cert", "none|request|require", &type_word, AT(tls.client_cert), 0, 0, client_cert_words,
     "whether clients need one (default require with --tls-client-ca)"},
    {GROUP_TLS, 0, "tls-alpn", "NAME,…", &type_alpn, AT(tls.alpn), 0, 0, NULL,
     "protocols that clients may choose from, the best first: h2,http/1.1"},
    {GROUP_TLS, 0, "tls-min", "1.2|1.3", &type_word, AT(tls.min), 0, 0, tls_version_words,
     "oldest version with clients (default 1.2)"},
    {GROUP_TLS, 0, "max-handshakes", "N", &type_u32, AT(each.limits.handshakes), 0, UINT32_MAX, NULL,
     "TLS handshakes at once of each listener; more clients are reset (default 0: no limit of their own)"},
    {GROUP_TLS, 0, "tls", NULL, &type_flag, AT(tls.dial), 0, 1, NULL,
     "reach every TARGET by TLS, its certificate and name checked; tls://host:port means it for one"},
    {GROUP_TLS, 0, "tls-ca", "FILE", &type_pem, AT(tls.ca), 0, 0, NULL,
     "file or folder of the authorities that upstreams' certificates come from (default: the system's)"},
    {GROUP_TLS, 0, "tls-name", "HOST", &type_host, AT(tls.name), 0, 0, NULL,
     "name that upstreams' certificates are for, and that is asked for (default: TARGET's host)"},
    {GROUP_TLS, 0, "tls-pin", "HEX,…", &type_pin, AT(tls.pin), 0, 0, NULL,
     "take an upstream's certificate by its SHA-256 fingerprint; without --tls-ca by that alone"},
    {GROUP_TLS, 0, "tls-insecure", NULL, &type_flag, AT(tls.insecure), 0, 1, NULL,
     "do NOT check upstreams' certificates: whoever sits between can read and change everything"},
    {GROUP_TLS, 0, "tls-dial-cert", "FILE", &type_pem, AT(tls.dial_cert), 0, 0, NULL,
     "certificate to show to upstreams that ask for one"},
    {GROUP_TLS, 0, "tls-dial-key", "FILE", &type_pem, AT(tls.dial_key), 0, 0, NULL,
     "its key (default: in the same file)"},
    {GROUP_TLS, 0, "tls-dial-alpn", "NAME,…", &type_alpn, AT(tls.dial_alpn), 0, 0, NULL,
     "protocols to offer to upstreams, the best first"},
    {GROUP_TLS, 0, "tls-dial-min", "1.2|1.3", &type_word, AT(tls.dial_min), 0, 0, tls_version_words,
     "oldest version with upstreams (default 1.2)"},
    {GROUP_TLS, 0, "tls-via-ca", "FILE", &type_pem, AT(tls.via_ca), 0, 0, NULL,
     "authorities of the proxies of --via that are spoken with over TLS (default: those of upstreams)"},

    {GROUP_SOCKETS, 0, "bind-source", "IP", &type_ip, AT(each.socket.source), 0, 0, NULL,
     "source address of connections to the upstream"},
    {GROUP_SOCKETS, 0, "via", "URL,…", &type_via, AT(to), 0, 0, NULL,
     "proxies on the way to every TARGET: socks5://user:password@host:1080, http://host:3128, over TLS "
     "socks5+tls://… and https://…; may be repeated"},
    {GROUP_SOCKETS, 0, "accept-proxy", "CIDR,…", &type_networks, AT(each.accept_proxy.from), 0, 0, NULL,
     "clients from these networks (or unix) are proxies, whose PROXY header tells who the client is"},
    {GROUP_SOCKETS, 0, "accept-proxy-others", "accept|deny", &type_word, AT(each.accept_proxy.others), 0, 0, others_words,
     "what becomes of clients from elsewhere: taken as they are, without a header, or reset (default accept)"},
    {GROUP_SOCKETS, 0, "send-proxy", "v1|v2", &type_word, AT(send_proxy), 0, 0, send_proxy_words,
     "tell every TARGET of the client by a header of the PROXY protocol"},
    {GROUP_SOCKETS, 0, "resolver", "IP[:PORT],…", &type_servers, AT(config.resolver), 0, 0, NULL,
     "DNS servers to ask instead of those in /etc/resolv.conf"},
    {GROUP_SOCKETS, 0, "nodelay", NULL, &type_flag, AT(each.socket.nodelay), 0, 1, NULL,
     "send small writes at once on both sides (the default)"},
    {GROUP_SOCKETS, 0, "no-nodelay", NULL, &type_flag, AT(each.socket.nodelay), 0, 0, NULL,
     "let the kernel gather small writes into full packets (Nagle)"},
    {GROUP_SOCKETS, 0, "keepalive", "TIME", &type_time_s, AT(each.socket.keepalive_s), 0, HOURS_9_MS, NULL,
     "probe connections that were silent so many seconds (default off)"},
    {GROUP_SOCKETS, 0, "rcvbuf", "SIZE", &type_size32, AT(each.socket.rcvbuf_bytes), 0, INT_MAX, NULL,
     "receive buffer of each socket (default 0: the kernel tunes it)"},
    {GROUP_SOCKETS, 0, "sndbuf", "SIZE", &type_size32, AT(each.socket.sndbuf_bytes), 0, INT_MAX, NULL,
     "send buffer of each socket (default 0: the kernel tunes it)"},
    {GROUP_SOCKETS, 0, "backlog", "N", &type_u32, AT(each.socket.backlog), 1, INT_MAX, NULL,
     "connections that may wait to be accepted (default 4096, cut to net.core.somaxconn)"},

    {GROUP_PROCESS, 0, "workers", "N|auto", &type_workers, AT(workers), 1, 1024, NULL,
     "threads that serve (default auto: one for each usable CPU)"},
    {GROUP_PROCESS, 0, "mode", "auto|copy|splice", &type_word, AT(mode), 0, 0, mode_words,
     "how bytes are moved: auto copies what is small and splices what is bulk (default auto)"},
    {GROUP_PROCESS, 0, "spin", "USEC", &type_u32, AT(config.spin_us), 0, 1000000, NULL,
     "poll for so many microseconds before sleeping: latency for CPU time (default 0)"},
    {GROUP_PROCESS, 0, "gather", "USEC", &type_u32, AT(config.gather_us), 0, 10000, NULL,
     "pause so many microseconds between rounds while a thread serves nothing but bulk transfers: "
     "halves their CPU time (default 400; 0 never)"},
    {GROUP_PROCESS, 0, "pid-file", "PATH", &type_pid_file, AT(config.pid_file), 0, 0, NULL,
     "holds the process id from when all is bound to the end"},

    {GROUP_PROCESS, 0, "admin", "ADDR", &type_admin, AT(config.admin), 0, 0, NULL,
     "answer penstock ctl, HTTP and Prometheus there: unix:/run/penstock/admin.sock (where ctl looks; its owner's alone) or "
     "127.0.0.1:9180"},
    {GROUP_PROCESS, 0, "admin-token-file", "FILE", &type_token_file, AT(config.admin_token_file), 0, 0, NULL,
     "whoever uses --admin shows the token on its first line: Authorization: Bearer TOKEN"},
    {GROUP_PROCESS, 0, "admin-no-token", NULL, &type_flag, AT(config.admin_no_token), 0, 1, NULL,
     "--admin on a loopback address is open to all users of this host"},
    {GROUP_PROCESS, 0, "admin-lua", NULL, &type_flag, AT(config.admin_lua), 0, 1, NULL,
     "whoever may use --admin may run Lua in the workers (penstock ctl lua)"},
    {GROUP_PROCESS, 0, "user", "USER[:GROUP]", &type_user, AT(config.user), 0, 0, NULL,
     "become this user once sockets, keys and logs are open"},
    {GROUP_PROCESS, 0, "no-sandbox", NULL, &type_flag, AT(config.sandbox), 0, 0, NULL,
     "keep system calls that a forwarder has no use for; without it they are denied once all is open (seccomp)"},
    {GROUP_PROCESS, 0, "core-dumps", NULL, &type_flag, AT(config.core_dumps), 0, 1, NULL,
     "allow core dumps and debuggers although private keys are in memory"},

    {GROUP_LOGS, 0, "log", "LEVEL", &type_word, AT(log_level), 0, 0, log_level_words,
     "error, warn, info or debug (default info)"},
    {GROUP_LOGS, 0, "log-format", "text|json|journal", &type_word, AT(log_format), 0, 0, log_format_words,
     "default text; journal when standard error goes to systemd's journal"},
    {GROUP_LOGS, 0, "log-file", "PATH", &type_log_file, AT(config.log.file), 0, 0, NULL,
     "instead of standard error; opened anew on USR1"},
    {GROUP_LOGS, 0, "access-log", "PATH|-|off", &type_access, AT(config.log.access_file), 0, 0, NULL,
     "one line for each connection, at its end (default: with the other lines; -: standard output)"},

    {GROUP_MEET, 'V', "version", NULL, NULL, 0, 0, 0, NULL,
     "show the version, how it was built, and its libraries"},
    {GROUP_MEET, 'h', "help", NULL, NULL, 0, 0, 0, NULL, "show this"},
};
/* clang-format on */

const struct option_spec *options_table(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}

const char *options_join_words(const char *const *words, char *buf, size_t cap)
{
    size_t len = 0;
    buf[0] = '\0';
    for (size_t i = 0; words[i] && len < cap; i++) {
        const char *between = i == 0 ? "" : words[i + 1] ? ", " : " or ";
        int n = snprintf(buf + len, cap - len, "%s%s", between, words[i]);
        len += n > 0 ? (size_t)n : 0;
    }
    return buf;
}
