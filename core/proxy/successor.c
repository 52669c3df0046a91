/* fork and exec while other threads run: the child makes system calls and nothing else. */
#include "successor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "handover_wire.h"

/* The environment with the name of the channel; one allocation, for free(). NULL: no memory. */
static char **make_environment(int channel)
{
    enum { TEXT_MAX = sizeof HANDOVER_VARIABLE + 16 };
    size_t n = 0;
    while (environ[n])
        n++;
    char **list = malloc((n + 2) * sizeof *list + TEXT_MAX);
    if (!list)
        return NULL;
    char *text = (char *)(list + n + 2);
    snprintf(text, TEXT_MAX, HANDOVER_VARIABLE "=%d", channel);
    memcpy(list, environ, n * sizeof *list);
    list[n] = text;
    list[n + 1] = NULL;
    return list;
}

/* ---- in the child ---- */

/* As at a fresh start, but that HUP and its kin find nobody listening yet, and must not end it. */
static void reset_signals(void)
{
    static const int ignored[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int i = 1; i < NSIG; i++)
        sigaction(i, &action, NULL); /* fails for some, which need nothing */
    action.sa_handler = SIG_IGN;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        sigaction(ignored[i], &action, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Policies with all Lua libraries may have opened files that know nothing of close-on-exec. */
static void close_others(const struct successor_options *o)
{
#if defined SYS_close_range
    enum { ON_EXEC = 1 << 2 }; /* CLOSE_RANGE_CLOEXEC; an old kernel refuses, which does no harm */
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, ON_EXEC);
#endif
    fcntl(o->channel, F_SETFD, 0);
    for (size_t i = 0; i < o->n_keep; i++)
        fcntl(o->keep[i], F_SETFD, 0);
}

/* Does not return. */
static void become(const struct successor_options *o, char **environment)
{
    char failure[sizeof "exec " + sizeof(int)] = "exec ";
    reset_signals();
    close_others(o);
    execve(o->path, o->argv, environment);
    int err = errno;
    memcpy(failure + strlen(failure), &err, sizeof err);
    send(o->channel, failure, sizeof failure - 1, MSG_NOSIGNAL);
    _exit(EXIT_FAILURE);
}

int successor_start(const struct successor_options *o, pid_t *pid)
{
    char **environment = make_environment(o->channel);
    sigset_t all, before;
    if (!environment)
        return -ENOMEM;
    /* A handler of libuv in the child would write to our pipe. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    *pid = fork();
    if (*pid == 0)
        become(o, environment);
    int err = *pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(environment);
    return err;
}
