/* The program: from the command line to a running server, and an exit status.
 *
 * 0 after a clean stop, 1 when something failed while starting or running, 2 when the command line
 * or the policy is wrong. An upgrade is a start, too (handover.h). Knows nothing of options or
 * connections; owns the config and the log. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "penstock/admin/admin.h"
#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/cli/check.h"
#include "penstock/cli/ctl.h"
#include "penstock/cli/help.h"
#include "penstock/cli/load.h"
#include "penstock/cli/options.h"
#include "penstock/cli/origin.h"
#include "penstock/cli/pid_file.h"
#include "penstock/cli/privileges.h"
#include "penstock/cli/sandbox.h"
#include "penstock/cli/test_command.h"
#include "penstock/net/capture.h"
#include "penstock/proxy/handover.h"
#include "penstock/proxy/server.h"
#include "penstock/proxy/shared.h"

enum exit_status { EXIT_DONE, EXIT_FAILED, EXIT_WRONG };

enum {
    WHY_MAX = 8192,          /* a Lua traceback fits */
    LOG_CLOSE_WAIT_MS = 2000 /* for a slow reader of the last lines */
};

/* A start failure goes to the log, to the process that has started this one, and to whoever stands
 * at the terminal when the log is a file. */
static void report(const struct load_args *args, const struct config *config, const char *why)
{
    log_error("%s", why);
    handover_tell_failure(args->handover, why);
    if (config->log.file)
        fprintf(stderr, "penstock: %s\n", why);
}

/* A closed descriptor below 3 would be given to a socket, and a stray message to who is there. */
static void fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* A failure is no reason to refuse: server_bind() counts what there is. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_debug("ulimit -n stays as it is: %s", err_text(-errno));
}

static void ignore_signals(void)
{
    signal(SIGPIPE, SIG_IGN); /* a broken connection is an error code of write() */
    signal(SIGXFSZ, SIG_IGN); /* a file over `ulimit -f`, too */
    /* Until the server listens to them: whoever has read the pid file may send them. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
}

/* Sockets, keys and logs are open: nothing else needs root. */
static int drop_privileges(const struct config *config, const struct privileges *user, char *why)
{
    int err = config->user ? privileges_drop(user) : 0;
    tls_hide_memory();
    if (err)
        snprintf(why, WHY_MAX, "cannot become the user %s: %s", config->user, err_text(err));
    return err;
}

/* A kernel, or a container, that does not let us is no reason not to serve. */
static void enter_sandbox(const struct config *config)
{
    int err = config->sandbox ? sandbox_enter() : 0;
    if (err < 0)
        log_warn("no sandbox: the kernel refuses the filter of system calls: %s (--no-sandbox goes "
                 "without)",
                 err_text(err));
}

/* Not earlier: signals for whoever the file names were meant for the process before. */
static void on_main(void *arg)
{
    char why[512];
    const struct config *config = arg;
    if (config->pid_file && pid_file_write(config->pid_file, why, sizeof why))
        log_warn("%s", why);
}

static int wait_for_go(const struct config *config, const struct load_args *args, char *why)
{
    if (!config->sandbox && sandbox_is_inherited())
        log_warn("sandbox = false takes a restart: the filter of the process before holds on");
    return handover_wait(args->handover, why, WHY_MAX);
}

/* All that may fail, before the first connection. */
static int get_ready(const struct config *config, const struct load_args *args,
                     const struct privileges *user, char *why)
{
    int err = 0;
    if (config->pid_file && args->handover)
        err = pid_file_check(config->pid_file, why, WHY_MAX);
    else if (config->pid_file)
        err = pid_file_write(config->pid_file, why, WHY_MAX);
    if (!err)
        err = drop_privileges(config, user, why);
    if (err)
        return err;
    enter_sandbox(config);
    return args->handover ? wait_for_go(config, args, why) : 0;
}

static int run_server(struct config *config, struct load_args *args, struct server *server,
                      char *why)
{
    struct server_origin origin = {
        .path = args->program, .argv = args->argv, .on_main = on_main, .arg = config};
    struct version_loader loader = {load_version, args};
    server_set_origin(server, &origin);
    int err = server_run(server, &loader);
    if (err)
        snprintf(why, WHY_MAX, "cannot go on: %s", err_text(err));
    return err;
}

static enum exit_status run_bound(struct config *config, struct load_args *args,
                                  struct server *server, const struct privileges *user, char *why)
{
    int err = get_ready(config, args, user, why);
    if (!err)
        err = run_server(config, args, server, why);
    if (err)
        report(args, config, why);
    if (config->pid_file && !server_is_replaced(server))
        pid_file_remove(config->pid_file);
    return err ? EXIT_FAILED : EXIT_DONE;
}

static enum exit_status run_with_admin(struct config *config, struct load_args *args,
                                       struct server *server, const struct privileges *user,
                                       char *why)
{
    struct admin *admin = NULL;
    struct admin_options options = {.server = server,
                                    .shared = args->shared,
                                    .config = config,
                                    .handover = args->handover,
                                    .uid = config->user ? &user->uid : NULL,
                                    .gid = config->user ? &user->gid : NULL};
    if (config->admin && admin_open(&options, &admin, why, WHY_MAX)) {
        report(args, config, why);
        return EXIT_FAILED;
    }
    enum exit_status status = run_bound(config, args, server, user, why);
    admin_close(admin);
    return status;
}

static enum exit_status serve(struct version *version, struct load_args *args)
{
    char why[WHY_MAX] = "";
    struct config *config = config_hold(version->config);
    struct server *server;
    struct privileges user;
    enum exit_status status = EXIT_FAILED;
    if (config->user && privileges_find(config->user, &user, why, sizeof why)) {
        report(args, config, why);
        version_deinit(version);
        config_drop(config);
        return EXIT_WRONG;
    }
    int err = server_new(version, args->shared, &server);
    if (err) {
        snprintf(why, sizeof why, "cannot start: %s", err_text(err));
        report(args, config, why);
        config_drop(config);
        return EXIT_FAILED;
    }
    server_set_handover(server, args->handover);
    if (server_bind(server, why, sizeof why))
        report(args, config, why);
    else
        status = run_with_admin(config, args, server, &user, why);
    server_free(server);
    config_drop(config);
    return status;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static int open_log(const struct load_args *args, const struct log_options *log)
{
    char why[512];
    const char *which = NULL;
    int err = log_open(log, &which);
    if (!err)
        return 0;
    snprintf(why, sizeof why, "cannot open the log%s%s: %s", which ? " " : "", which ? which : "",
             err_text(err));
    fprintf(stderr, "penstock: %s\n", why);
    handover_tell_failure(args->handover, why);
    return err;
}

/* The file may have said where the log goes. */
static int change_log(const struct load_args *args, const struct log_options *before,
                      const struct log_options *log)
{
    if (before->format == log->format && same_text(before->file, log->file) &&
        same_text(before->access_file, log->access_file)) {
        log_set_level(log->level);
        return 0;
    }
    log_close(LOG_CLOSE_WAIT_MS);
    return open_log(args, log);
}

/* Whoever finds an open proxy uses it. */
static void warn_of_open_proxy(const struct config *config)
{
    for (size_t i = 0; config->anonymous && i < config->n_listeners; i++) {
        const struct endpoint *bind = &config->listeners[i].bind;
        if (bind->kind == ENDPOINT_IP && !addr_is_loopback(&bind->ip))
            log_warn("%s is open: who can connect can use it, and to everything that --allow "
                     "names; --auth FILE asks for a login, --tls-client-ca for a certificate",
                     bind->text);
    }
}

static enum exit_status load_and_serve(struct load_args *args, const struct config *config)
{
    char why[WHY_MAX] = "";
    struct version version;
    if (load_version(args, 0, &version, why, sizeof why)) {
        report(args, config, why);
        version_deinit(&version);
        return EXIT_WRONG;
    }
    if (change_log(args, &config->log, &version.config->log)) {
        version_deinit(&version);
        return EXIT_FAILED;
    }
    warn_of_open_proxy(version.config);
    return serve(&version, args);
}

static enum exit_status run(struct load_args *args, const struct config *config)
{
    ignore_signals();
    if (open_log(args, &config->log))
        return EXIT_FAILED;
    raise_descriptor_limit();
    args->shared = shared_new(); /* outlives all VMs */
    enum exit_status status = EXIT_FAILED;
    if (args->shared && args->handover)
        handover_give_tickets(args->handover, shared_tickets(args->shared));
    if (args->shared)
        status = load_and_serve(args, config);
    else
        report(args, config, "cannot start: out of memory");
    shared_free(args->shared);
    captures_stop(LOG_CLOSE_WAIT_MS);
    log_close(LOG_CLOSE_WAIT_MS);
    return status;
}

/* What was asked for must have been printed: `penstock --help > /dev/full` fails. */
static enum exit_status show(void (*print)(FILE *))
{
    print(stdout);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_DONE;
    fprintf(stderr, "penstock: cannot write to standard output: %s\n", err_text(-errno));
    return EXIT_FAILED;
}

static enum exit_status obey(struct load_args *args, const struct options *options)
{
    switch (options_command(options)) {
    case COMMAND_CHECK:
        return check_run(args, options) ? EXIT_FAILED : EXIT_DONE;
    default:
        return run(args, options_config(options));
    }
}

int main(int argc, char *argv[])
{
    char program[PATH_MAX];
    struct load_args args = {
        .argc = argc, .argv = argv, .program = origin_path(program, sizeof program)};
    struct options *options = NULL;
    char why[1024] = "";
    enum exit_status status = EXIT_WRONG;
    fill_standard_fds();
    if (argc > 1 && !strcmp(argv[1], "test"))
        return test_command(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "ctl"))
        return ctl_command(argc - 1, argv + 1);
    if (handover_open(&args.handover, why, sizeof why)) {
        fprintf(stderr, "penstock: %s\n", why);
        return EXIT_WRONG;
    }
    switch (options_read(argc, argv, &options, why, sizeof why)) {
    case OPTIONS_RUN:
        status = obey(&args, options);
        break;
    case OPTIONS_HELP:
        status = show(help_for(argv[1]));
        break;
    case OPTIONS_VERSION:
        status = show(help_print_version);
        break;
    case OPTIONS_NOTHING:
        help_print_short(stderr);
        break;
    case OPTIONS_WRONG:
        fprintf(stderr, "penstock: %s\n", why);
        handover_tell_failure(args.handover, why);
        break;
    }
    options_free(options);
    handover_free(args.handover);
    return (int)status;
}
