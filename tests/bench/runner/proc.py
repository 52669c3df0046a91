"""Processes of a run: starting them on a core, what they used, and ending every one of them."""
import atexit
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
WANTED_FILES = 65536
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CPUCLOCK_SCHED = 2  # of a process's clock, in nanoseconds; see clock_getcpuclockid()
LIBC = ctypes.CDLL(None, use_errno=True)

# What a forwarder forked and leaves behind becomes a child of the runner, which waits for it.
LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)

_running = []


def raise_files_limit():
    """As far as is allowed, for this process and what it starts; returns the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard > WANTED_FILES:
        hard = WANTED_FILES
    for limit in (WANTED_FILES, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _prepare(cpu, idle):
    def prepare():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {cpu})
        if idle:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    return prepare


class Process:
    """A child in a session of its own, so that what it forks is found too."""

    def __init__(self, command, cpu, *, log=None, pipes=False, pass_fds=(), idle=False, cwd=None):
        self.popen = subprocess.Popen(
            command, preexec_fn=_prepare(cpu, idle), start_new_session=True, pass_fds=pass_fds, cwd=cwd,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else (log or subprocess.DEVNULL),
            stderr=log or subprocess.DEVNULL)
        self.pid = self.popen.pid
        _running.append(self)

    def alive(self):
        return self.popen.poll() is None

    def stop(self):
        """Ends it and all it forked, at once. Idempotent."""
        if self not in _running:
            return
        # What it forked is looked up first: once it is gone, only the session tells whose they were.
        others = [pid for pid in family(self.pid) if pid != self.pid]
        if self.popen.poll() is None:
            self.popen.kill()
        kill_all(others)
        self.popen.wait()
        _reap(others)
        kill_family(self.pid)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        _running.remove(self)


@atexit.register
def stop_all():
    for process in list(_running):
        process.stop()


def _stat(pid):
    """Parent, session, and waited-for children's CPU seconds; None when gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[3]), (int(fields[13]) + int(fields[14])) * TICK_SECONDS


def family(root):
    """The process, its descendants, and whoever else is in its session, zombies too: their CPU time counts."""
    stats = {int(name): stat for name in os.listdir("/proc")
             if name.isdigit() and (stat := _stat(name))}
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, (parent, session, _) in stats.items()
                if pid not in found and (session == root or parent in found)}
        found |= more
        grown = bool(more)
    return [pid for pid in found if pid in stats]


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _reap(pids):
    for pid in pids:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # its parent lives and waits


def kill_family(root):
    """Ends, by SIGKILL, what is left of a process of ours and of all it forked."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = family(root)
        if not left:
            return
        kill_all(left)
        _reap(left)


def _own_cpu_seconds(pid):
    """The run time of its threads, those that have ended too."""
    try:
        return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def cpu_seconds(root):
    """Run time of all threads of all its processes, and of the children that have ended and were waited for."""
    total = 0.0
    for pid in family(root):
        stat = _stat(pid)
        if stat:
            total += _own_cpu_seconds(pid) + stat[2]
    return total


def main_thread_cpu_seconds(pid):
    """0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9
    except OSError:
        return 0.0


def _rollup(pid, names):
    """Bytes."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.partition(":")[0] in names:
                    total += int(line.split()[1]) * 1024
    except OSError:
        pass
    return total


def pss_bytes(root):
    return sum(_rollup(pid, ("Pss",)) for pid in family(root))


def private_bytes(root):
    names = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
    return sum(_rollup(pid, names) for pid in family(root))


def is_listening(port):
    """Without connecting: that would be seen by the forwarder and its backend."""
    wanted = f"{port:04X}"
    with open("/proc/net/tcp") as file:
        next(file)
        for line in file:
            fields = line.split()
            if fields[3] == "0A" and fields[1].endswith(":" + wanted):
                return True
    return False


def free_port(rng):
    """Below the ephemeral range, where no outgoing connection takes it meanwhile."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        top = min(int(file.read().split()[0]), 32768) - 1
    for _ in range(1000):
        port = rng.randint(min(10000, top - 1000), top)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def stolen_seconds():
    """What the host took from the two cores so far, seen as steal."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8]) * TICK_SECONDS
