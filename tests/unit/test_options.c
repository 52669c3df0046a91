/* The command line: what each option sets, what is refused, and what the refusal says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/cli/help.h"
#include "penstock/cli/options.h"
#include "penstock/cli/pid_file.h"

enum { WORDS_MAX = 40 };

static struct config config;
static char why[1024];

/* Parses "penstock <line>", split at blanks. */
static enum options_result parse(const char *line)
{
    static char copy[1024];
    char *argv[WORDS_MAX + 2] = {"penstock"};
    int argc = 1;
    config_deinit(&config);
    why[0] = '\0';
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word && argc <= WORDS_MAX; word = strtok(NULL, " "))
        argv[argc++] = word;
    return options_parse(argc, argv, &config, why, sizeof why);
}

static const struct config_listener *accept_line(const char *line)
{
    if (parse(line) != OPTIONS_RUN)
        fail_msg("penstock %s: %s", line, why);
    return &config.listeners[0];
}

/* The options, and a pair that is right. */
static const struct config_listener *accept_options(const char *options)
{
    char line[512];
    snprintf(line, sizeof line, "%s 8080 db:5432", options);
    return accept_line(line);
}

static void assert_refused(const char *line, const char *message)
{
    assert_int_equal(parse(line), OPTIONS_WRONG);
    assert_string_equal(why, message);
    assert_int_equal(config.n_listeners, 0);
    assert_null(config.policy);
}

static void assert_refused_saying(const char *line, const char *part)
{
    assert_int_equal(parse(line), OPTIONS_WRONG);
    if (!strstr(why, part))
        fail_msg("penstock %s: \"%s\" lacks \"%s\"", line, why, part);
}

static int forget_config(void **state)
{
    (void)state;
    config_deinit(&config);
    return 0;
}

/* ---- addresses ---- */

static void test_two_words_are_enough(void **state)
{
    (void)state;
    const struct config_listener *l = accept_line("8080 db.internal:5432");
    assert_int_equal(config.n_listeners, 1);
    assert_string_equal(l->bind.text, "127.0.0.1:8080");
    assert_true(l->bind.bare_port);
    assert_int_equal(l->to->n, 1);
    assert_string_equal(l->to->items[0].endpoint.text, "db.internal:5432");
}

static void test_what_is_not_asked_for_has_its_documented_default(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    const struct config_listener *l = accept_line("8080 db:5432");
    assert_int_equal(l->limits.conns, 0);
    assert_int_equal(l->limits.per_ip, 0);
    assert_int_equal(l->limits.rate, 0);
    assert_int_equal(l->limits.up_bytes, 0);
    assert_int_equal(l->limits.down_bytes, 0);
    assert_int_equal(l->timeouts.connect_ms, 5000);
    assert_int_equal(l->timeouts.handshake_ms, 10000);
    assert_int_equal(l->timeouts.first_byte_ms, 0);
    assert_int_equal(l->timeouts.idle_ms, 3600000);
    assert_int_equal(l->timeouts.half_closed_ms, 60000);
    assert_int_equal(l->timeouts.life_ms, 0);
    assert_true(l->socket.nodelay);
    assert_int_equal(l->socket.keepalive_s, 0);
    assert_int_equal(l->socket.backlog, 4096);
    assert_int_equal(l->socket.source.sa.sa_family, AF_UNSPEC);
    assert_int_equal(l->relay, RELAY_CHOICE_AUTO);
    assert_int_equal(config.drain_ms, 30000);
    assert_int_equal(config.max_conns, 0);
    assert_int_equal(config.spin_us, 0);
    assert_int_equal(config.gather_us, 400);
    assert_int_equal(config.workers, options_auto_workers());
    assert_int_equal(config.log.level, LOG_INFO);
    assert_int_equal(config.log.format, LOG_TEXT);
    assert_null(config.log.file);
    assert_null(config.log.access_file);
    assert_null(config.policy);
    assert_false(config.jit || config.unsafe_lua);
}

static void test_help_tells_the_defaults_that_hold(void **state)
{
    (void)state;
    static const char *const told[][2] = {{"connect-timeout", "default 5s"},
                                          {"handshake-timeout", "default 10s"},
                                          {"idle-timeout", "default 1h"},
                                          {"half-close-timeout", "default 1m"},
                                          {"drain-timeout", "default 30s"},
                                          {"life-timeout", "default off"},
                                          {"first-byte-timeout", "default off"},
                                          {"backlog", "default 4096"},
                                          {"log", "default info"},
                                          {"log-format", "default text"},
                                          {"mode", "default auto"},
                                          {"workers", "default auto"},
                                          {"nodelay", "the default"},
                                          {"keepalive", "default off"},
                                          {"spin", "default 0"},
                                          {"gather", "default 400"}};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++)
        assert_non_null(strstr(options_find(told[i][0])->help, told[i][1]));
}

static void test_a_comma_list_of_targets_is_tried_in_order(void **state)
{
    (void)state;
    const struct config_listener *l = accept_line("8080 db1:5432,db2:5433");
    assert_int_equal(l->to->n, 2);
    assert_string_equal(l->to->items[1].endpoint.text, "db2:5433");
}

static void test_via_and_send_proxy_hold_for_every_target(void **state)
{
    (void)state;
    accept_line("--via socks5://u:p@h1,http://h2 --via=http://h3:8080 --send-proxy v2 "
                "8080 a:1,b:2 9000-9001 c:3-4");
    char buf[200];
    for (size_t i = 0; i < config.n_listeners; i++) {
        const struct target *t = &config.listeners[i].to->items[config.listeners[i].to->n - 1];
        assert_string_equal(target_format_via(t, buf, sizeof buf),
                            "socks5://h1:1080,http://h2:3128,http://h3:8080");
        assert_string_equal(t->options->hops[0].password, "p");
        assert_int_equal(t->options->proxy, TARGET_PROXY_V2);
    }
}

static void test_targets_have_no_options_unless_they_are_given_some(void **state)
{
    (void)state;
    assert_null(accept_line("8080 a:1")->to->items[0].options);
    assert_int_equal(accept_line("--send-proxy=v1 8080 a:1")->to->items[0].options->proxy,
                     TARGET_PROXY_V1);
}

static void test_several_pairs_make_several_listeners(void **state)
{
    (void)state;
    accept_line("8080 a:1 :8081 b:2 unix:/tmp/s c:3");
    assert_int_equal(config.n_listeners, 3);
    assert_string_equal(config.listeners[1].bind.text, "0.0.0.0:8081");
    assert_string_equal(config.listeners[1].to->items[0].endpoint.text, "b:2");
    assert_string_equal(config.listeners[2].bind.text, "unix:/tmp/s");
}

static void test_a_comma_list_of_binds_shares_one_target(void **state)
{
    (void)state;
    accept_line("8080,[::1]:8080,unix:/tmp/s a:1");
    assert_int_equal(config.n_listeners, 3);
    assert_string_equal(config.listeners[1].bind.text, "[::1]:8080");
    assert_ptr_equal(config.listeners[0].to, config.listeners[2].to);
}

static void test_a_range_of_ports_to_one_target_shares_it(void **state)
{
    (void)state;
    accept_line("9000-9010 a:80");
    assert_int_equal(config.n_listeners, 11);
    assert_string_equal(config.listeners[0].bind.text, "127.0.0.1:9000");
    assert_string_equal(config.listeners[10].bind.text, "127.0.0.1:9010");
    assert_int_equal(addr_port(&config.listeners[10].bind.ip), 9010);
    assert_ptr_equal(config.listeners[0].to, config.listeners[10].to);
}

static void test_a_range_to_a_range_is_mapped_port_by_port(void **state)
{
    (void)state;
    accept_line(":9000-9002 a:100-102,b:7");
    assert_int_equal(config.n_listeners, 3);
    assert_string_equal(config.listeners[0].to->items[0].endpoint.text, "a:100");
    assert_string_equal(config.listeners[2].to->items[0].endpoint.text, "a:102");
    assert_string_equal(config.listeners[2].to->items[1].endpoint.text, "b:7");
}

static void test_each_bind_of_a_list_is_mapped_to_the_target_range(void **state)
{
    (void)state;
    accept_line("127.0.0.1:10-12,[::1]:20-22 a:100-102");
    assert_int_equal(config.n_listeners, 6);
    assert_string_equal(config.listeners[4].bind.text, "[::1]:21");
    assert_string_equal(config.listeners[4].to->items[0].endpoint.text, "a:101");
}

static void test_ranges_of_different_length_are_refused(void **state)
{
    (void)state;
    assert_refused("9000-9010 a:9000-9005",
                   "LISTEN \"127.0.0.1:9000-9010\" has 11 ports and TARGET \"a:9000-9005\" has 6; "
                   "write ranges of the same length, or a TARGET with one port");
    assert_refused_saying("9000 a:9000-9005", "has 1 port and TARGET");
    assert_refused_saying("unix:/s a:9000-9005", "has 1 port and TARGET");
    assert_refused_saying("9000-9005 a:1-6,b:1-7", "TARGET: port ranges of one list");
}

static void test_all_ports_there_are_can_be_listened_to(void **state)
{
    (void)state;
    accept_line("1-65535 a:1-65535");
    assert_int_equal(config.n_listeners, 65535);
    assert_string_equal(config.listeners[65534].to->items[0].endpoint.text, "a:65535");
}

static void test_the_same_address_twice_is_refused(void **state)
{
    (void)state;
    assert_refused("8080 a:1 127.0.0.1:8080 b:2", "the address 127.0.0.1:8080 is given twice");
    assert_refused("9000-9010 a:1 9005 b:2", "the address 127.0.0.1:9005 is given twice");
    assert_refused("unix:/s,unix:/s a:1", "the address unix:/s is given twice");
}

static void test_port_0_may_be_asked_for_more_than_once(void **state)
{
    (void)state;
    accept_line("0 a:1 0 b:2");
    assert_int_equal(config.n_listeners, 2);
}

static void test_bad_addresses_are_refused_with_the_right_form(void **state)
{
    (void)state;
    assert_refused_saying("db:80 a:1", "LISTEN: ");
    assert_refused_saying("8080 a", "TARGET: \"a\" has no port: write a:5432");
    assert_refused_saying("70000 a:1", "LISTEN: \"70000\" is not a port");
    assert_refused("8080, a:1", "LISTEN \"8080,\" has an empty item; write 8080,[::1]:8080");
    assert_refused_saying("8080 a:1,", "TARGET: an item of the list is empty");
    assert_refused_saying("8080 a:x", "TARGET: \"x\" is not a port");
}

static void test_a_listener_without_target_is_refused_with_an_example(void **state)
{
    (void)state;
    assert_refused("8080", "LISTEN \"8080\" has no TARGET: write penstock 8080 db.internal:5432");
    assert_refused_saying("8080 a:1 8081", "LISTEN \"8081\" has no TARGET");
    assert_refused("--jit", "LISTEN and TARGET are missing: penstock 8080 db.internal:5432");
}

static void test_no_argument_at_all_is_its_own_case(void **state)
{
    (void)state;
    assert_int_equal(parse(""), OPTIONS_NOTHING);
}

static void test_later_subcommands_and_options_are_told_apart_from_mistakes(void **state)
{
    (void)state;
    static const char *const planned[] = {"top", "toxiproxy"};
    for (size_t i = 0; i < sizeof planned / sizeof planned[0]; i++) {
        assert_refused_saying(planned[i], "is not in this version");
        char line[64];
        snprintf(line, sizeof line, "%s x.lua", planned[i]);
        assert_refused_saying(line, "is not in this version");
    }
    assert_refused_saying("--seed 3 test x_spec.lua", "test comes first");
    assert_refused_saying("--seed 3 ctl health", "ctl comes first");
    accept_line("8080 test:1"); /* a host may be called so */
}

static void test_run_and_check_take_one_file(void **state)
{
    (void)state;
    assert_refused("run", "penstock run takes one file: penstock run penstock.lua");
    assert_refused("run a.lua 8080 h:1",
                   "penstock run takes one file: penstock run penstock.lua; its "
                   "listeners are in the file");
    assert_refused_saying("check", "penstock check takes one file");
    assert_refused_saying("-p guard.lua run a.lua",
                          "takes a configuration or -p guard.lua, not both");
    assert_refused_saying("run a.lua", "a.lua has no listener: ps.listen{");
}

/* ---- policies ---- */

static void test_a_policy_may_name_the_destination(void **state)
{
    (void)state;
    const struct config_listener *l = accept_line("-p guard.lua 8080 -");
    assert_string_equal(config.policy, "guard.lua");
    assert_null(l->to);
    accept_line("-p guard.lua 9000-9010 -");
    assert_int_equal(config.n_listeners, 11);
}

static void test_a_policy_may_have_a_target_too(void **state)
{
    (void)state;
    assert_non_null(accept_line("8080 a:1 --policy=guard.lua")->to);
}

static void test_socks_and_connect_are_a_listener_with_that_policy(void **state)
{
    (void)state;
    const struct config_listener *l = accept_line("socks --allow a:1,b:2 --allow c:3 1080");
    assert_int_equal(config.n_listeners, 1);
    assert_string_equal(config.preset, "socks");
    assert_string_equal(config.policy, "penstock socks");
    assert_string_equal(config.allow, "a:1,b:2,c:3");
    assert_null(config.auth);
    assert_string_equal(l->bind.text, "127.0.0.1:1080");
    assert_null(l->to);
    accept_line("--auth=users --max-per-ip 3 connect :3128,unix:/x --allow any");
    assert_int_equal(config.n_listeners, 2);
    assert_string_equal(config.preset, "connect");
    assert_string_equal(config.auth, "users");
    assert_int_equal(config.listeners[1].limits.per_ip, 3);
    accept_line("8080 a:1");
    assert_null(config.preset);
}

static void test_a_mistyped_command_is_refused_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("conect 3128", "unknown command \"conect\"; did you mean penstock connect?");
    assert_refused("sock", "unknown command \"sock\"; did you mean penstock socks?");
    assert_null(options_nearest_command("-"));
    assert_null(options_nearest_command(""));
    assert_null(options_nearest_command("8080"));
    assert_null(options_nearest_command("unix:/run"));
    assert_null(options_nearest_command("localhost"));
}

static void test_no_target_without_a_policy_is_refused(void **state)
{
    (void)state;
    assert_refused_saying("8080 -", "add -p POLICY.lua");
    assert_refused_saying("-p g.lua 8080 a:1,-", "TARGET: ");
}

static void test_a_policy_without_listener_is_refused_with_an_example(void **state)
{
    (void)state;
    assert_refused_saying("-p guard.lua",
                          "LISTEN and a TARGET: penstock -p guard.lua 8080 db.internal:5432");
}

static void test_a_policy_without_its_option_is_recognised(void **state)
{
    (void)state;
    assert_refused("guard.lua 8080 a:1",
                   "\"guard.lua\" is no address; if it is a policy, write -p guard.lua; if it is a "
                   "configuration, penstock run guard.lua");
}

static void test_two_policies_are_refused(void **state)
{
    (void)state;
    assert_refused_saying("-p a.lua -p b.lua 8080 x:1", "--policy is given twice (a.lua, b.lua)");
}

/* ---- every option ---- */

static void test_limits_reach_every_listener(void **state)
{
    (void)state;
    accept_line("--max-conns 100 --max-conns-listener 50 --max-per-ip 5 --max-rate 20 "
                "--rate-up 64K --rate-down 1.5M 8080,8081 a:1 8082 b:1");
    assert_int_equal(config.max_conns, 100);
    for (size_t i = 0; i < 3; i++) {
        const struct config_limits *limits = &config.listeners[i].limits;
        assert_int_equal(limits->conns, 50);
        assert_int_equal(limits->per_ip, 5);
        assert_int_equal(limits->rate, 20);
        assert_int_equal(limits->up_bytes, 64 * 1024);
        assert_int_equal(limits->down_bytes, 1536 * 1024);
    }
}

static void test_times_are_read_with_their_units(void **state)
{
    (void)state;
    const struct config_timeouts *t =
        &accept_options("--connect-timeout 500ms --first-byte-timeout 2.5 --idle-timeout 2m "
                        "--half-close-timeout 1h --life-timeout 1d --drain-timeout 0 "
                        "--handshake-timeout 3s --upgrade-timeout 2m")
             ->timeouts;
    assert_int_equal(t->connect_ms, 500);
    assert_int_equal(t->handshake_ms, 3000);
    assert_int_equal(t->first_byte_ms, 2500);
    assert_int_equal(t->idle_ms, 120000);
    assert_int_equal(t->half_closed_ms, 3600000);
    assert_int_equal(t->life_ms, 86400000);
    assert_int_equal(config.drain_ms, 0);
    assert_int_equal(config.upgrade_ms, 120000);
    assert_int_equal(accept_options("--idle-timeout 0")->timeouts.idle_ms, 0);
}

static void test_socket_options_are_read(void **state)
{
    (void)state;
    const struct config_socket *s =
        &accept_options("--bind-source 192.0.2.1 --no-nodelay --keepalive 2m --rcvbuf 64K "
                        "--sndbuf 1M --backlog 16")
             ->socket;
    char ip[ADDR_TEXT_MAX];
    assert_string_equal(addr_format_ip(&s->source, ip, sizeof ip), "192.0.2.1");
    assert_int_equal(addr_port(&s->source), 0);
    assert_false(s->nodelay);
    assert_int_equal(s->keepalive_s, 120);
    assert_int_equal(s->rcvbuf_bytes, 64 * 1024);
    assert_int_equal(s->sndbuf_bytes, 1024 * 1024);
    assert_int_equal(s->backlog, 16);
    assert_int_equal(accept_options("--bind-source ::1")->socket.source.sa.sa_family, AF_INET6);
}

static void test_of_opposite_or_repeated_options_the_last_wins(void **state)
{
    (void)state;
    assert_true(accept_options("--no-nodelay --nodelay")->socket.nodelay);
    assert_false(accept_options("--nodelay --no-nodelay")->socket.nodelay);
    accept_options("--max-conns 1 --max-conns 2 --pid-file /a --pid-file /b");
    assert_int_equal(config.max_conns, 2);
    assert_string_equal(config.pid_file, "/b");
}

static void test_a_keepalive_under_a_second_is_not_turned_off(void **state)
{
    (void)state;
    assert_int_equal(accept_options("--keepalive 200ms")->socket.keepalive_s, 1);
    assert_int_equal(accept_options("--keepalive 0")->socket.keepalive_s, 0);
    assert_refused_saying("--keepalive 10h 8080 a:1", "out of range; write 0ms to 9h");
}

static void test_process_options_are_read(void **state)
{
    (void)state;
    assert_int_equal(accept_options("--workers 3 --mode splice --spin 50 --gather 7")->relay,
                     RELAY_CHOICE_SPLICE);
    assert_int_equal(config.workers, 3);
    assert_int_equal(config.spin_us, 50);
    assert_int_equal(config.gather_us, 7);
    assert_int_equal(accept_options("--mode copy")->relay, RELAY_CHOICE_COPY);
    assert_int_equal(accept_options("--mode auto")->relay, RELAY_CHOICE_AUTO);
    accept_options("--pid-file /run/p.pid --seed 18446744073709551615 --jit --unsafe-lua "
                   "--lua-modules cjson,lpeg.re");
    assert_string_equal(config.lua_modules, "cjson,lpeg.re");
    assert_string_equal(config.pid_file, "/run/p.pid");
    assert_true(config.seed == UINT64_MAX);
    assert_true(config.jit && config.unsafe_lua);
}

static void test_proxies_are_believed_by_their_networks(void **state)
{
    (void)state;
    const struct config_accept_proxy *accept = &accept_options("")->accept_proxy;
    assert_null(accept->from);
    accept = &accept_options("--accept-proxy 10/8 --accept-proxy=10.0.0.0/8,unix")->accept_proxy;
    assert_string_equal(networks_text(accept->from), "10.0.0.0/8,unix");
    assert_int_equal(accept->others, OTHERS_ACCEPT);
    accept = &accept_options("--accept-proxy ::/0 --accept-proxy-others deny")->accept_proxy;
    assert_int_equal(accept->others, OTHERS_DENY);
    accept_line("--accept-proxy unix 1 a:1 2-3 a:1");
    assert_ptr_equal(config.listeners[0].accept_proxy.from, config.listeners[2].accept_proxy.from);
    assert_refused_saying("--accept-proxy 10.1.0.0/8 1 a:1",
                          "is not a list of networks; write the "
                          "addresses that are believed: 10.0.0.0/8");
    assert_refused_saying("--accept-proxy 8080 a:1", "\"8080\" is not a list of networks");
    assert_refused_saying("--accept-proxy-others deny 1 a:1", "add --accept-proxy 10.0.0.0/8");
    assert_refused_saying("--accept-proxy-others reset 1 a:1", "write accept or deny");
}

static void test_auto_workers_are_the_cpus_this_process_may_use(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    accept_options("--workers 3 --workers auto");
    assert_int_equal(config.workers, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(options_auto_workers(), 1);
    sched_setaffinity(0, sizeof before, &before);
}

static void test_name_servers_are_addresses_with_or_without_port(void **state)
{
    (void)state;
    static const char *const good[] = {"9.9.9.9", "127.0.0.1:5353", "2620:fe::fe", "[::1]:53",
                                       "9.9.9.9,[2620:fe::fe]:53,::1"};
    static const char *const bad[] = {"dns.example", "dns.example:53", "53",
                                      ":53",         "9.9.9.9,",       "9.9.9.9:0",
                                      "9.9.9.9:1-2", "9.9.9.9;8.8.8.8"};
    char line[128];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "--resolver %s", good[i]);
        accept_options(line);
        assert_string_equal(config.resolver, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(line, sizeof line, "--resolver %s 8080 a:1", bad[i]);
        assert_refused_saying(line, "is not a list of IP addresses; write 9.9.9.9 or");
    }
}

static void test_log_options_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        enum log_level level;
    } levels[] = {
        {"error", LOG_ERROR}, {"warn", LOG_WARN}, {"info", LOG_INFO}, {"debug", LOG_DEBUG}};
    char line[64];
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        snprintf(line, sizeof line, "--log %s", levels[i].word);
        accept_options(line);
        assert_int_equal(config.log.level, levels[i].level);
    }
    accept_options("--log-format json --log-file /l --access-log off");
    assert_int_equal(config.log.format, LOG_JSON);
    assert_string_equal(config.log.file, "/l");
    assert_string_equal(config.log.access_file, "off");
    accept_options("--log-format journal --access-log -");
    assert_int_equal(config.log.format, LOG_JOURNAL);
    assert_string_equal(config.log.access_file, "-");
    accept_options("--log-format text");
    assert_int_equal(config.log.format, LOG_TEXT);
}

static void test_the_journal_format_is_chosen_when_stderr_is_the_journal(void **state)
{
    (void)state;
    struct stat st;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    assert_int_equal(options_default_log_format(stream, STDERR_FILENO), LOG_JOURNAL);
    assert_int_equal(options_default_log_format("1:2", STDERR_FILENO), LOG_TEXT);
    assert_int_equal(options_default_log_format("x", STDERR_FILENO), LOG_TEXT);
    assert_int_equal(options_default_log_format(NULL, STDERR_FILENO), LOG_TEXT);

    setenv("JOURNAL_STREAM", stream, 1);
    accept_line("8080 a:1");
    assert_int_equal(config.log.format, LOG_JOURNAL);
    accept_options("--log-format text");
    assert_int_equal(config.log.format, LOG_TEXT);
    accept_options("--log-file /l"); /* the journal would not see it */
    assert_int_equal(config.log.format, LOG_TEXT);
    unsetenv("JOURNAL_STREAM");
}

static void test_a_bad_value_of_any_option_is_refused_by_name(void **state)
{
    (void)state;
    size_t n;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++) {
        char line[128], name[64];
        bool any_text =
            strstr("policy pid-file access-log log-file tls-cert tls-client-ca tls-alpn tls-ca "
                   "tls-name tls-dial-cert tls-dial-key tls-dial-alpn tls-via-ca user allow "
                   "auth admin-token-file",
                   table[i].name) != NULL;
        if (!table[i].arg)
            snprintf(line, sizeof line, "--%s=yes 8080 a:1", table[i].name);
        else if (any_text) /* every text but an empty one is a file name */
            snprintf(line, sizeof line, "--%s= 8080 a:1", table[i].name);
        else
            snprintf(line, sizeof line, "--%s 5x 8080 a:1", table[i].name);
        snprintf(name, sizeof name, "--%s%s", table[i].name, table[i].arg ? ": \"" : " takes no");
        assert_int_equal(parse(line), OPTIONS_WRONG);
        if (strncmp(why, name, strlen(name)) != 0 || !strstr(why, "write "))
            fail_msg("%s: %s", line, why);
    }
}

static void test_a_missing_value_of_any_option_is_refused_by_name(void **state)
{
    (void)state;
    size_t n;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++) {
        char line[128], start[64];
        if (!table[i].arg)
            continue;
        snprintf(start, sizeof start, "--%s needs a value, ", table[i].name);
        snprintf(line, sizeof line, "8080 a:1 --%s", table[i].name);
        assert_refused_saying(line, start);
        snprintf(line, sizeof line, "8080 a:1 --%s --jit", table[i].name);
        assert_refused_saying(line, start);
    }
}

static void test_refusals_say_what_is_right(void **state)
{
    (void)state;
    assert_refused("--idle-timeout 5x 8080 a:1",
                   "--idle-timeout: \"5x\" is not a time; write 30, 500ms, 2m or 1h");
    assert_refused("--idle-timeout -5 8080 a:1",
                   "--idle-timeout: \"-5\" is not a time; write 30, 500ms, 2m or 1h");
    assert_refused("--idle-timeout 99999d 8080 a:1",
                   "--idle-timeout: \"99999d\" is out of range; write 0ms to 3650d");
    assert_refused("--idle-timeout",
                   "--idle-timeout needs a value, TIME; write 30, 500ms, 2m or 1h");
    assert_refused("--max-conns ten 8080 a:1",
                   "--max-conns: \"ten\" is not a whole number; write 0 to 4294967295");
    assert_refused("--backlog 0 8080 a:1",
                   "--backlog: \"0\" is out of range; write 1 to 2147483647");
    assert_refused("--workers 0 8080 a:1", "--workers: \"0\" is out of range; write 1 to 1024");
    assert_refused("--rate-up 5Q 8080 a:1",
                   "--rate-up: \"5Q\" is not a size; write 4096, 64K, 1.5M or 1G");
    assert_refused("--rcvbuf 3G 8080 a:1", "--rcvbuf: \"3G\" is out of range; write 0 to 2G");
    assert_refused("--log loud 8080 a:1",
                   "--log: \"loud\" is not known; write error, warn, info or debug");
    assert_refused("--mode fast 8080 a:1",
                   "--mode: \"fast\" is not known; write auto, copy or splice");
    assert_refused("--bind-source localhost 8080 a:1",
                   "--bind-source: \"localhost\" is not an IP address; write 192.0.2.1 or "
                   "2001:db8::1");
    assert_refused_saying("--log-file - 8080 a:1", "leave it out for standard error");
    assert_refused("--jit=1 8080 a:1", "--jit takes no value; write --jit alone");
}

/* ---- names ---- */

static void test_a_wrong_option_is_refused_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("--max-con 8080 a:1", "unknown option --max-con; did you mean --max-conns?");
    assert_refused("--max-con=5 8080 a:1", "unknown option --max-con; did you mean --max-conns?");
    static const char *const typed[][2] = {{"max-connections", "max-conns"},
                                           {"max-conns-listner", "max-conns-listener"},
                                           {"idel-timeout", "idle-timeout"},
                                           {"idle_timeout", "idle-timeout"},
                                           {"pidfile", "pid-file"},
                                           {"lgo", "log"},
                                           {"loglevel", "log"},
                                           {"nodelya", "nodelay"},
                                           {"half-closed-timeout", "half-close-timeout"},
                                           {"worker", "workers"},
                                           {"hlep", "help"},
                                           {"timeout", "idle-timeout"}};
    for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++)
        assert_string_equal(options_nearest(typed[i][0]), typed[i][1]);
}

static void test_a_word_like_no_option_gets_no_suggestion(void **state)
{
    (void)state;
    assert_refused("--xyzzy 8080 a:1", "unknown option --xyzzy; penstock --help lists them");
    assert_refused("-x 8080 a:1", "unknown option -x; penstock --help lists them");
    assert_null(options_nearest(""));
    assert_null(options_nearest("q"));
    char longer[200];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_null(options_nearest(longer));
}

static void test_abbreviations_are_refused(void **state)
{
    (void)state;
    assert_refused("--work 2 8080 a:1", "unknown option --work; did you mean --workers?");
}

static void test_a_long_name_with_one_dash_is_recognised(void **state)
{
    (void)state;
    assert_refused("-policy x.lua 8080 a:1", "unknown option -policy; did you mean --policy?");
}

static void test_options_stand_before_between_and_after_operands(void **state)
{
    (void)state;
    const struct config_listener *l =
        accept_line("--max-conns 7 8080 --idle-timeout=3 db:5432 --no-nodelay 8081 -pg.lua x:1");
    assert_int_equal(config.max_conns, 7);
    assert_int_equal(config.n_listeners, 2);
    assert_int_equal(l->timeouts.idle_ms, 3000);
    assert_false(l->socket.nodelay);
    assert_string_equal(config.policy, "g.lua");
}

static void test_two_dashes_end_the_options(void **state)
{
    (void)state;
    accept_line("--jit -- 8080 a:1");
    assert_true(config.jit);
    assert_refused_saying("-- 8080 --jit", "TARGET: ");
}

static void test_help_and_version_win_over_what_follows(void **state)
{
    (void)state;
    assert_int_equal(parse("--help --nonsense"), OPTIONS_HELP);
    assert_int_equal(parse("-h"), OPTIONS_HELP);
    assert_int_equal(parse("8080 -V"), OPTIONS_VERSION);
    assert_int_equal(parse("--version"), OPTIONS_VERSION);
    assert_int_equal(parse("-hV"), OPTIONS_HELP);
    assert_int_equal(parse("--nonsense --help"), OPTIONS_WRONG);
}

/* ---- help ---- */

static char *printed(void (*print)(FILE *))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    print(out);
    fclose(out);
    return text;
}

static size_t columns(const char *line)
{
    size_t n = 0;
    for (; *line; line++)
        n += ((unsigned char)*line & 0xC0) != 0x80;
    return n;
}

static void test_help_names_every_option_within_100_columns(void **state)
{
    (void)state;
    size_t n;
    const struct option_spec *table = options_table(&n);
    char *help = printed(help_print);
    for (size_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "--%s%s%s", table[i].name, table[i].arg ? " " : "",
                 table[i].arg ? table[i].arg : " ");
        if (!strstr(help, name))
            fail_msg("--help lacks %s", name);
    }
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n")) {
        if (columns(line) > HELP_COLUMNS)
            fail_msg("too long: %s", line);
    }
    free(help);
}

static void test_the_proxies_have_a_help_of_their_own(void **state)
{
    (void)state;
    static const char *const words[][2] = {{"socks", "penstock socks --allow any 1080\n"},
                                           {"connect", "penstock connect --allow any 3128\n"}};
    for (size_t i = 0; i < 2; i++) {
        char *help = printed(help_for(words[i][0]));
        assert_non_null(strstr(help, words[i][1]));
        assert_non_null(strstr(help, "--allow HOST:PORT,…"));
        assert_non_null(strstr(help, "--auth FILE"));
        for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
            assert_true(columns(line) <= HELP_COLUMNS);
        free(help);
    }
    assert_ptr_equal(help_for("--help"), help_print);
}

static void test_names_and_letters_are_unique_and_grouped(void **state)
{
    (void)state;
    size_t n;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(options_find(table[i].name), &table[i]);
        assert_true(i == 0 || table[i].group >= table[i - 1].group);
        for (size_t j = 0; j < i; j++)
            assert_true(!table[i].letter || table[i].letter != table[j].letter);
    }
}

static void test_short_usage_has_two_examples(void **state)
{
    (void)state;
    char *text = printed(help_print_short);
    assert_non_null(strstr(text, "\n  penstock 8080 db.internal:5432"));
    assert_non_null(strstr(text, "\n  penstock -p guard.lua"));
    free(text);
}

static void test_version_names_the_libraries(void **state)
{
    (void)state;
    static const char *const parts[] = {"penstock ", "libuv ", "LuaJIT", "c-ares ", "build: "};
    char *text = printed(help_print_version);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(strstr(text, parts[i]));
    free(text);
}

/* ---- pid file ---- */

struct scratch {
    char dir[64];
    char path[128];
};

static struct scratch make_scratch(void)
{
    struct scratch s = {.dir = "/tmp/penstock-test-XXXXXX"};
    assert_non_null(mkdtemp(s.dir));
    snprintf(s.path, sizeof s.path, "%s/pid", s.dir);
    return s;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_the_pid_file_holds_our_id_and_goes_at_the_end(void **state)
{
    (void)state;
    struct scratch s = make_scratch();
    write_text(s.path, "an older and longer content\n");
    assert_int_equal(pid_file_write(s.path, why, sizeof why), 0);
    char expected[32], text[64] = "";
    snprintf(expected, sizeof expected, "%ld\n", (long)getpid());
    FILE *f = fopen(s.path, "r");
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    assert_string_equal(text, expected);
    pid_file_remove(s.path);
    assert_int_equal(access(s.path, F_OK), -1);
    rmdir(s.dir);
}

static void test_a_successors_pid_file_is_left_alone(void **state)
{
    (void)state;
    struct scratch s = make_scratch();
    write_text(s.path, "1\n");
    pid_file_remove(s.path);
    assert_int_equal(access(s.path, F_OK), 0);
    unlink(s.path);
    rmdir(s.dir);
}

static void test_a_pid_file_that_cannot_be_written_is_an_error_with_its_name(void **state)
{
    (void)state;
    struct scratch s = make_scratch();
    char missing[160];
    snprintf(missing, sizeof missing, "%s/none/pid", s.dir);
    assert_true(pid_file_write(missing, why, sizeof why) < 0);
    assert_non_null(strstr(why, missing));
    assert_int_equal(symlink("/tmp/elsewhere", s.path), 0);
    assert_true(pid_file_write(s.path, why, sizeof why) < 0);
    assert_non_null(strstr(why, "symbolic link"));
    unlink(s.path);
    rmdir(s.dir);
}

static const char *shown(const struct config_settings *s, const char *name)
{
    for (size_t i = 0; s && i < s->n; i++)
        if (strcmp(s->items[i].name, name) == 0)
            return s->items[i].json;
    return NULL;
}

static void test_every_option_is_shown_once(void **state)
{
    size_t n;
    const struct option_spec *table = options_table(&n);
    const struct config_listener *l = accept_line("8080 localhost:1");
    (void)state;
    for (size_t i = 0; i < n; i++) {
        const char *process = shown(config.settings, table[i].name);
        const char *listener = shown(l->settings, table[i].name);
        if (table[i].type && !process == !listener)
            fail_msg("--%s is shown %s", table[i].name, process ? "twice" : "nowhere");
        if (!table[i].type)
            assert_true(!process && !listener);
    }
}

static void assert_shown(const struct config_settings *s, const char *name, const char *want)
{
    const char *got = shown(s, name);
    if (!got || strcmp(got, want) != 0)
        fail_msg("--%s is shown as %s, not %s", name, got ? got : "nothing", want);
}

static void test_options_are_shown_as_they_are_in_force(void **state)
{
    static const char *const process[][2] = {
        {"workers", "3"},    {"max-conns", "7"},         {"drain-timeout", "\"90s\""},
        {"log", "\"warn\""}, {"log-format", "\"json\""}, {"seed", "5"},
        {"policy", "null"},  {"jit", "false"},           {"resolver", "\"9.9.9.9\""},
        {"admin", "null"}};
    static const char *const listener[][2] = {{"idle-timeout", "\"1500ms\""},
                                              {"connect-timeout", "\"5s\""},
                                              {"life-timeout", "\"0\""},
                                              {"rate-up", "\"64K\""},
                                              {"rate-down", "\"1536\""},
                                              {"max-per-ip", "9"},
                                              {"accept-proxy", "\"10.0.0.0/8,unix\""},
                                              {"accept-proxy-others", "\"deny\""},
                                              {"send-proxy", "\"v2\""},
                                              {"mode", "\"copy\""},
                                              {"nodelay", "false"},
                                              {"no-nodelay", "true"},
                                              {"keepalive", "\"2m\""},
                                              {"bind-source", "\"127.0.0.1\""},
                                              {"tls-cert", "[]"},
                                              {"tls-min", "null"},
                                              {"via", "[\"socks5://h:1080\",\"http://b:1\"]"}};
    const struct config_listener *l = accept_line(
        "--workers 3 --max-conns 7 --drain-timeout 90 --log warn --log-format json --seed 5 "
        "--resolver 9.9.9.9 --idle-timeout 1500ms --rate-up 64K --rate-down 1.5K --max-per-ip 9 "
        "--accept-proxy 10.0.0.0/8,unix --accept-proxy-others deny --send-proxy v2 --mode copy "
        "--no-nodelay --keepalive 2m --bind-source 127.0.0.1 --via "
        "socks5://user:secret@h:1080,http://b:1 8080 localhost:1");
    (void)state;
    for (size_t i = 0; i < sizeof process / sizeof *process; i++)
        assert_shown(config.settings, process[i][0], process[i][1]);
    for (size_t i = 0; i < sizeof listener / sizeof *listener; i++)
        assert_shown(l->settings, listener[i][0], listener[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_words_are_enough),
        cmocka_unit_test(test_what_is_not_asked_for_has_its_documented_default),
        cmocka_unit_test(test_help_tells_the_defaults_that_hold),
        cmocka_unit_test(test_a_comma_list_of_targets_is_tried_in_order),
        cmocka_unit_test(test_via_and_send_proxy_hold_for_every_target),
        cmocka_unit_test(test_targets_have_no_options_unless_they_are_given_some),
        cmocka_unit_test(test_several_pairs_make_several_listeners),
        cmocka_unit_test(test_a_comma_list_of_binds_shares_one_target),
        cmocka_unit_test(test_a_range_of_ports_to_one_target_shares_it),
        cmocka_unit_test(test_a_range_to_a_range_is_mapped_port_by_port),
        cmocka_unit_test(test_each_bind_of_a_list_is_mapped_to_the_target_range),
        cmocka_unit_test(test_ranges_of_different_length_are_refused),
        cmocka_unit_test(test_all_ports_there_are_can_be_listened_to),
        cmocka_unit_test(test_the_same_address_twice_is_refused),
        cmocka_unit_test(test_port_0_may_be_asked_for_more_than_once),
        cmocka_unit_test(test_bad_addresses_are_refused_with_the_right_form),
        cmocka_unit_test(test_a_listener_without_target_is_refused_with_an_example),
        cmocka_unit_test(test_no_argument_at_all_is_its_own_case),
        cmocka_unit_test(test_later_subcommands_and_options_are_told_apart_from_mistakes),
        cmocka_unit_test(test_run_and_check_take_one_file),
        cmocka_unit_test(test_a_policy_may_name_the_destination),
        cmocka_unit_test(test_a_policy_may_have_a_target_too),
        cmocka_unit_test(test_socks_and_connect_are_a_listener_with_that_policy),
        cmocka_unit_test(test_a_mistyped_command_is_refused_with_the_nearest),
        cmocka_unit_test(test_no_target_without_a_policy_is_refused),
        cmocka_unit_test(test_a_policy_without_listener_is_refused_with_an_example),
        cmocka_unit_test(test_a_policy_without_its_option_is_recognised),
        cmocka_unit_test(test_two_policies_are_refused),
        cmocka_unit_test(test_limits_reach_every_listener),
        cmocka_unit_test(test_times_are_read_with_their_units),
        cmocka_unit_test(test_socket_options_are_read),
        cmocka_unit_test(test_of_opposite_or_repeated_options_the_last_wins),
        cmocka_unit_test(test_a_keepalive_under_a_second_is_not_turned_off),
        cmocka_unit_test(test_process_options_are_read),
        cmocka_unit_test(test_proxies_are_believed_by_their_networks),
        cmocka_unit_test(test_auto_workers_are_the_cpus_this_process_may_use),
        cmocka_unit_test(test_name_servers_are_addresses_with_or_without_port),
        cmocka_unit_test(test_log_options_are_read),
        cmocka_unit_test(test_the_journal_format_is_chosen_when_stderr_is_the_journal),
        cmocka_unit_test(test_a_bad_value_of_any_option_is_refused_by_name),
        cmocka_unit_test(test_a_missing_value_of_any_option_is_refused_by_name),
        cmocka_unit_test(test_refusals_say_what_is_right),
        cmocka_unit_test(test_a_wrong_option_is_refused_with_the_nearest),
        cmocka_unit_test(test_a_word_like_no_option_gets_no_suggestion),
        cmocka_unit_test(test_abbreviations_are_refused),
        cmocka_unit_test(test_a_long_name_with_one_dash_is_recognised),
        cmocka_unit_test(test_options_stand_before_between_and_after_operands),
        cmocka_unit_test(test_two_dashes_end_the_options),
        cmocka_unit_test(test_help_and_version_win_over_what_follows),
        cmocka_unit_test(test_help_names_every_option_within_100_columns),
        cmocka_unit_test(test_the_proxies_have_a_help_of_their_own),
        cmocka_unit_test(test_names_and_letters_are_unique_and_grouped),
        cmocka_unit_test(test_short_usage_has_two_examples),
        cmocka_unit_test(test_version_names_the_libraries),
        cmocka_unit_test(test_the_pid_file_holds_our_id_and_goes_at_the_end),
        cmocka_unit_test(test_a_successors_pid_file_is_left_alone),
        cmocka_unit_test(test_every_option_is_shown_once),
        cmocka_unit_test(test_options_are_shown_as_they_are_in_force),
        cmocka_unit_test(test_a_pid_file_that_cannot_be_written_is_an_error_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, forget_config);
}
