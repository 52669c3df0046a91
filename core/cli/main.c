/* The program: from the command line to a running server, and an exit status.
 *
 * 0 after a clean stop, 1 when something failed while starting or running, 2 when the command line
 * or the policy is wrong. Knows nothing of options or connections; owns the config and the log. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "penstock/base/err.h"
#include "penstock/base/log.h"
#include "penstock/cli/help.h"
#include "penstock/cli/options.h"
#include "penstock/cli/pid_file.h"
#include "penstock/cli/test_command.h"
#include "penstock/proxy/server.h"
#include "penstock/proxy/shared.h"
#include "penstock/script/script.h"

enum exit_status { EXIT_DONE, EXIT_FAILED, EXIT_WRONG };

enum {
    WHY_MAX = 8192,          /* a Lua traceback fits */
    LOG_CLOSE_WAIT_MS = 2000 /* for a slow reader of the last lines */
};

/* A start failure goes to the log, and to whoever stands at the terminal when the log is a file. */
static void report(const struct config *config, const char *why)
{
    log_error("%s", why);
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
    /* Until the server listens to them: whoever has read the pid file may send them. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
}

/* What the policies of all workers are made from. */
struct policy_source {
    const struct config *config;
    struct shared *shared;
};

static int make_policy(void *arg, unsigned worker, struct loop *loop, struct policy_set **out,
                       char *why, size_t why_cap)
{
    const struct policy_source *source = arg;
    const struct config *config = source->config;
    struct script_options options = {.path = config->policy,
                                     .unsafe = config->unsafe_lua,
                                     .jit = config->jit,
                                     .seed = config->seed ? config->seed + worker : 0,
                                     .shared = source->shared};
    return script_load(&options, loop, out, why, why_cap);
}

static enum exit_status run_bound(const struct config *config, struct server *server, char *why)
{
    if (config->pid_file && pid_file_write(config->pid_file, why, WHY_MAX)) {
        report(config, why);
        return EXIT_FAILED;
    }
    int err = server_run(server);
    if (err) {
        snprintf(why, WHY_MAX, "cannot go on: %s", err_text(err));
        report(config, why);
    }
    if (config->pid_file)
        pid_file_remove(config->pid_file);
    return err ? EXIT_FAILED : EXIT_DONE;
}

static enum exit_status serve(struct config *config, struct shared *shared)
{
    char why[WHY_MAX] = "";
    struct policy_source source = {config, shared};
    struct policy_factory factory = {make_policy, &source};
    struct server *server;
    int err = server_new(config, &server);
    if (err) {
        snprintf(why, sizeof why, "cannot start: %s", err_text(err));
        report(config, why);
        return EXIT_FAILED;
    }
    enum exit_status status = EXIT_WRONG;
    if (server_load_policies(server, config->policy ? &factory : NULL, why, sizeof why)) {
        report(config, why);
    } else if (server_bind(server, why, sizeof why)) {
        report(config, why);
        status = EXIT_FAILED;
    } else {
        status = run_bound(config, server, why);
    }
    server_free(server);
    return status;
}

static enum exit_status run(struct config *config)
{
    const char *which = NULL;
    ignore_signals();
    int err = log_open(&config->log, &which);
    if (err) {
        fprintf(stderr, "penstock: cannot open the log%s%s: %s\n", which ? " " : "",
                which ? which : "", err_text(err));
        return EXIT_FAILED;
    }
    raise_descriptor_limit();
    struct shared *shared = shared_new(); /* outlives all VMs */
    enum exit_status status = EXIT_FAILED;
    if (shared)
        status = serve(config, shared);
    else
        report(config, "cannot start: out of memory");
    shared_free(shared);
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

int main(int argc, char *argv[])
{
    struct config config;
    char why[1024] = "";
    enum exit_status status = EXIT_WRONG;
    fill_standard_fds();
    if (argc > 1 && !strcmp(argv[1], "test"))
        return test_command(argc - 1, argv + 1);
    switch (options_parse(argc, argv, &config, why, sizeof why)) {
    case OPTIONS_RUN:
        status = run(&config);
        break;
    case OPTIONS_HELP:
        status = show(help_print);
        break;
    case OPTIONS_VERSION:
        status = show(help_print_version);
        break;
    case OPTIONS_NOTHING:
        help_print_short(stderr);
        break;
    case OPTIONS_WRONG:
        fprintf(stderr, "penstock: %s\n", why);
        break;
    }
    config_deinit(&config);
    return (int)status;
}
