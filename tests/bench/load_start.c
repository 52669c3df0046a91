// Starts a forwarder and measures the time until the first echo has come through it, from before
// the fork. Then waits for the runner, which reads the forwarder's memory meanwhile, and ends it.
#include "load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MAX_NS 10000000000ull
#define STEP_MAX_MS 5000
#define ECHO_BYTES 64

static pid_t launch(char **command, int cpu)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    // stdout is the runner's line protocol.
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execvp(command[0], command);
    _exit(127);
}

static int connect_to(uint16_t port, uint64_t deadline_ns)
{
    struct sockaddr_in target = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    while (now_ns() < deadline_ns) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return -1;
        if (connect(fd, (struct sockaddr *)&target, sizeof(target)) == 0)
            return fd;
        close(fd);
        usleep(100);
    }
    return -1;
}

static bool wait_readable(int fd)
{
    struct pollfd waited = {.fd = fd, .events = POLLIN};
    return poll(&waited, 1, STEP_MAX_MS) == 1;
}

static bool read_all(int fd, char *bytes, size_t length)
{
    for (size_t have = 0; have < length;) {
        ssize_t n = wait_readable(fd) ? recv(fd, bytes + have, length - have, 0) : -1;
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    return true;
}

static bool echo_through(int client_fd, int listen_fd)
{
    char out[ECHO_BYTES];
    char in[ECHO_BYTES];
    memset(out, 'e', sizeof(out));
    if (send(client_fd, out, sizeof(out), MSG_NOSIGNAL) != ECHO_BYTES || !wait_readable(listen_fd))
        return false;
    int backend_fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    bool good = backend_fd >= 0 && read_all(backend_fd, in, sizeof(in)) &&
                send(backend_fd, in, sizeof(in), MSG_NOSIGNAL) == ECHO_BYTES &&
                read_all(client_fd, in, sizeof(in)) && memcmp(in, out, sizeof(in)) == 0;
    if (backend_fd >= 0)
        close(backend_fd);
    return good;
}

int start_main(int argc, char **argv)
{
    int port = 0;
    int cpu = 0;
    int listen_fd = 3;
    int option;
    char answer[64];
    while ((option = getopt(argc, argv, "+t:f:p:")) != -1) {
        if (option == 't')
            port = atoi(optarg);
        else if (option == 'f')
            listen_fd = atoi(optarg);
        else if (option == 'p')
            cpu = atoi(optarg);
    }
    if (port == 0 || optind >= argc)
        return 64;
    fcntl(listen_fd, F_SETFD, FD_CLOEXEC);
    uint64_t started_ns = now_ns();
    pid_t pid = launch(argv + optind, cpu);
    int client_fd = pid > 0 ? connect_to((uint16_t)port, started_ns + START_MAX_NS) : -1;
    bool good = client_fd >= 0 && echo_through(client_fd, listen_fd);
    double ms = (double)(now_ns() - started_ns) / 1e6;
    if (client_fd >= 0)
        close(client_fd);
    printf("{\"pid\": %d, \"start_ms\": %.3f, \"errors\": %d, \"error\": \"%s\"}\n", (int)pid, ms,
           good ? 0 : 1, good ? "" : "no echo came through");
    fflush(stdout);
    if (read(STDIN_FILENO, answer, sizeof(answer)) < 0)
        good = false;
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return good ? 0 : 1;
}
