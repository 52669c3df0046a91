/* The sandbox: a seccomp filter that answers EPERM to what a forwarder has no use for, and lets
 * everything else pass. A list of what is allowed would be shorter, and would break with the next
 * version of libc, OpenSSL or a policy's C module. */
#include "penstock/cli/sandbox.h"

#ifdef PENSTOCK_SECCOMP

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Names that an architecture or a version of libseccomp does not know are passed over. */
static const char *const denied[] = {
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    /* LeakSanitizer traces its own process at the end; sanitizers switch off the randomization of
       addresses when they start. */
    "ptrace",
    "personality",
#endif
    /* other processes' memory and descriptors */
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "pidfd_getfd",
    "kcmp",
    "move_pages",
    "migrate_pages",
    /* file systems and namespaces */
    "mount",
    "umount",
    "umount2",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "name_to_handle_at",
    "open_by_handle_at",
    "fanotify_init",
    "quotactl",
    "quotactl_fd",
    "swapon",
    "swapoff",
    /* large surfaces of the kernel. A ring of io_uring that libuv has opened goes on. */
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_register",
    "add_key",
    "request_key",
    "keyctl",
    /* the machine itself */
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "acct",
    "syslog",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "stime",
    "adjtimex",
    "clock_settime",
    "clock_settime64",
    "clock_adjtime",
    "clock_adjtime64",
    "iopl",
    "ioperm",
    "pciconfig_read",
    "pciconfig_write",
    "pciconfig_iobase",
    "vhangup",
    /* what only old programs call */
    "modify_ldt",
    "vm86",
    "vm86old",
    "lookup_dcookie",
    "nfsservctl",
    "uselib",
    "ustat",
    "sysfs",
    "_sysctl",
};

/* The way back to root. Root itself keeps it: with a new binary it may be told to become a user. */
static const char *const denied_to_users[] = {
    "setuid",     "setuid32",    "setgid",     "setgid32",    "setreuid",
    "setreuid32", "setregid",    "setregid32", "setresuid",   "setresuid32",
    "setresgid",  "setresgid32", "setgroups",  "setgroups32", "setfsuid",
    "setfsuid32", "setfsgid",    "setfsgid32", "capset",
};

static const unsigned namespaces[] = {
    CLONE_NEWNS,  CLONE_NEWCGROUP, CLONE_NEWUTS,  CLONE_NEWIPC,
    CLONE_NEWPID, CLONE_NEWNET,    CLONE_NEWUSER,
};

enum {
    MARK_CALL = 0x70656e73, /* a prctl() that does not exist */
    MARK_MIN = 1000,        /* errors that no system call has */
    MARKS = 3000,
    OPTIMIZE_TREE = 2
};

/* A list of names as it goes into the filter. */
struct list {
    const char *const *names;
    size_t n;
};

static struct list list_for(uid_t uid, int which)
{
    if (which == 0)
        return (struct list){denied, sizeof denied / sizeof *denied};
    size_t n = sizeof denied_to_users / sizeof *denied_to_users;
    return (struct list){denied_to_users, uid == 0 ? 0 : n};
}

/* The error that tells this filter from one of another list (FNV-1a). */
static uint16_t mark_of(uid_t uid)
{
    uint32_t hash = 2166136261U;
    for (int which = 0; which < 2; which++) {
        struct list list = list_for(uid, which);
        for (size_t i = 0; i < list.n; i++)
            for (const char *c = list.names[i]; *c; c++)
                hash = (hash ^ (unsigned char)*c) * 16777619U;
    }
    return (uint16_t)(MARK_MIN + hash % MARKS);
}

/* The filters of a process add up over execve(), to a limit of the kernel's. */
static bool is_inside(uint16_t mark)
{
    return prctl(MARK_CALL, 0, 0, 0, 0) != 0 && errno == mark;
}

static int deny(scmp_filter_ctx ctx, struct list list)
{
    for (size_t i = 0; i < list.n; i++) {
        int number = seccomp_syscall_resolve_name(list.names[i]);
        if (number == __NR_SCMP_ERROR)
            continue;
        int err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 0);
        if (err)
            return err;
    }
    return 0;
}

/* clone3() has its flags in memory, where a filter cannot look: libc then takes clone(). */
static int deny_namespaces(scmp_filter_ctx ctx)
{
    int err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    for (size_t i = 0; !err && i < sizeof namespaces / sizeof *namespaces; i++) {
        scmp_datum_t flag = namespaces[i];
        err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
    }
    return err;
}

static int fill(scmp_filter_ctx ctx, uint16_t mark)
{
    const struct {
        enum scmp_filter_attr name;
        uint32_t value;
    } attributes[] = {
        {SCMP_FLTATR_API_SYSRAWRC, 1},                    /* the kernel's own errors */
        {SCMP_FLTATR_CTL_TSYNC, 1},                       /* the log's thread runs already */
        {SCMP_FLTATR_CTL_SSB, 1},                         /* no slower processor on older kernels */
        {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM)}, /* and not through 32-bit calls either */
    };
    int err = 0;
    for (size_t i = 0; !err && i < sizeof attributes / sizeof *attributes; i++)
        err = seccomp_attr_set(ctx, attributes[i].name, attributes[i].value);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE); /* from libseccomp 2.5 on */
    for (int which = 0; !err && which < 2; which++)
        err = deny(ctx, list_for(geteuid(), which));
    if (!err)
        err = deny_namespaces(ctx);
    return err ? err
               : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(mark), SCMP_SYS(prctl), 1,
                                  SCMP_A0(SCMP_CMP_EQ, MARK_CALL));
}

bool sandbox_is_inherited(void)
{
    return is_inside(mark_of(geteuid()));
}

int sandbox_enter(void)
{
    uint16_t mark = mark_of(geteuid());
    if (is_inside(mark))
        return 0;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (!ctx)
        return -ENOMEM;
    int err = fill(ctx, mark);
    if (!err)
        err = seccomp_load(ctx);
    seccomp_release(ctx);
    return err;
}

const char *sandbox_describe(char buf[SANDBOX_TEXT_MAX])
{
    const struct scmp_version *version = seccomp_version();
    snprintf(buf, SANDBOX_TEXT_MAX, "seccomp (libseccomp %u.%u.%u)", version->major, version->minor,
             version->micro);
    return buf;
}

#else

bool sandbox_is_inherited(void)
{
    return false;
}

int sandbox_enter(void)
{
    return 1;
}

const char *sandbox_describe(char buf[SANDBOX_TEXT_MAX])
{
    (void)buf;
    return "none (built without libseccomp)";
}

#endif
