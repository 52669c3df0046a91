/* The sandbox, each time in a child that enters it: it lasts. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "penstock/cli/sandbox.h"

enum { UNPRIVILEGED = 65534 };

/* Ends the child with the line that does not hold; a status is all that the parent sees. */
#define DEMAND(what)                                                                               \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #what, strerror(errno));               \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define DENIED(call) DEMAND((call) == -1 && errno == EPERM)

/* A field of /proc/self/status. */
static long status_field(const char *name)
{
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    DEMAND(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name), NULL, 10);
    fclose(file);
    return value;
}

static void *nothing(void *arg)
{
    return arg;
}

static void *wait_and_ask(void *pipe_end)
{
    char byte;
    DEMAND(read(*(int *)pipe_end, &byte, 1) == 1);
    DENIED(unshare(CLONE_NEWUSER));
    return NULL;
}

static void denies(void)
{
    DEMAND(sandbox_enter() == 0);
    DEMAND(status_field("Seccomp:") == SECCOMP_MODE_FILTER);
    DEMAND(status_field("NoNewPrivs:") == 1);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    DENIED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    DENIED(syscall(SYS_personality, 0xffffffffUL));
#endif
    DENIED(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
    DENIED(unshare(CLONE_NEWUSER));
    DENIED(unshare(0));
    DENIED(setns(0, 0));
    DENIED(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
    DENIED(syscall(SYS_clone, CLONE_NEWNET | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL));
    DENIED(mount("none", "/", NULL, MS_REMOUNT, NULL));
    DENIED(chroot("/"));
    DENIED(syscall(SYS_bpf, 0, NULL, 0));
    DENIED(syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0));
    DENIED(syscall(SYS_userfaultfd, 0));
    DENIED(syscall(SYS_io_uring_setup, 1, NULL));
    DENIED(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    DENIED(syscall(SYS_finit_module, -1, "", 0));
    DENIED(syscall(SYS_settimeofday, NULL, NULL));
    DEMAND(syscall(SYS_clone3, NULL, 0) == -1 && errno == ENOSYS);
}

static void lets_pass(void)
{
    char *const argv[] = {"true", NULL};
    pthread_t thread;
    int status;
    DEMAND(sandbox_enter() == 0);
    DEMAND(pthread_create(&thread, NULL, nothing, NULL) == 0);
    DEMAND(pthread_join(thread, NULL) == 0);
    DEMAND(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0);
    DEMAND(prctl(PR_GET_DUMPABLE) >= 0);
    pid_t child = fork();
    DEMAND(child >= 0);
    if (child == 0) {
        execv("/bin/true", argv);
        _exit(127);
    }
    DEMAND(waitpid(child, &status, 0) == child && status == 0);
}

static void holds_in_threads_that_run(void)
{
    pthread_t thread;
    int ends[2];
    DEMAND(pipe2(ends, O_CLOEXEC) == 0);
    DEMAND(pthread_create(&thread, NULL, wait_and_ask, &ends[0]) == 0);
    DEMAND(sandbox_enter() == 0);
    DEMAND(write(ends[1], "x", 1) == 1);
    DEMAND(pthread_join(thread, NULL) == 0);
}

static void is_one_filter(void)
{
    for (int i = 0; i < 3; i++)
        DEMAND(sandbox_enter() == 0);
    DEMAND(status_field("Seccomp_filters:") == 1);
}

static void leaves_users_no_way(void)
{
    DEMAND(geteuid() != 0 || setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0);
    DEMAND(sandbox_enter() == 0);
    DENIED(syscall(SYS_setuid, UNPRIVILEGED));
    DENIED(syscall(SYS_setresgid, -1, -1, -1));
}

/* As a new binary does that is told of a --user. */
static void lets_root_become_a_user(void)
{
    if (geteuid() != 0)
        return;
    DEMAND(sandbox_enter() == 0);
    DEMAND(setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0);
    DEMAND(sandbox_enter() == 0);
    DENIED(syscall(SYS_setuid, UNPRIVILEGED));
    DEMAND(status_field("Seccomp_filters:") == 2);
}

/* A filter that was there before, such as a container's, denies to install another. */
static void tells_when_the_kernel_refuses(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    DEMAND(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    DEMAND(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    DEMAND(sandbox_enter() == -EOPNOTSUPP);
    DEMAND(unshare(0) == 0);
}

/* The child that a test is. */
struct child {
    void (*body)(void);
};

static void run_in_child(void **state)
{
    const struct child *what = *state;
    int status;
    pid_t child = fork();
    if (child == 0) {
        what->body();
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void is_described(void **state)
{
    (void)state;
    char buf[SANDBOX_TEXT_MAX];
    assert_non_null(strstr(sandbox_describe(buf), "libseccomp"));
}

/* clang-format off */
#define IN_CHILD(name) {#name, run_in_child, NULL, NULL, &(struct child){name}}
/* clang-format on */

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_CHILD(denies),
        IN_CHILD(lets_pass),
        IN_CHILD(holds_in_threads_that_run),
        IN_CHILD(is_one_filter),
        IN_CHILD(leaves_users_no_way),
        IN_CHILD(lets_root_become_a_user),
        IN_CHILD(tells_when_the_kernel_refuses),
        cmocka_unit_test(is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
