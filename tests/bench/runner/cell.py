"""One run of one load through one forwarder."""
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from . import proc, tls
from .loads import GIB, LINE_BYTES, MIB
from .peer import HERE, Job, admin_path

LISTEN_SECONDS = 10
SPARE_SECONDS = 60       # for set-up, drain and slow forwarders, above what is measured
IDLE_SETTLE_SECONDS = 0.3
IDLE_SETTLE_TIMES = 10
SCRAPER = os.path.join(HERE, "runner", "scrape.py")
QUIESCE_SECONDS = 0.01   # what was under way when the load stood still
STARTS = 3
SCRAPE_LATE_SECONDS = 0.1  # it shares the load's core


class Failed(Exception):
    """The run gives no figures; the text tells why."""


class Machine:
    """Where things run."""

    def __init__(self, load_binary, proxy_cpu, load_cpu, rng):
        self.load_binary = load_binary
        self.proxy_cpu = proxy_cpu
        self.load_cpu = load_cpu
        self.rng = rng


def _readline(process, deadline):
    """A line of the load generator's stdout."""
    line = b""
    pipe = process.popen.stdout.fileno()
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise Failed("the load generator took too long")
        byte = os.read(pipe, 1) if line else os.read(pipe, 65536)
        if not byte:
            raise Failed(f"the load generator ended with status {process.popen.wait(5)}")
        line += byte
    return line.decode().strip()


def _go_on(process):
    process.popen.stdin.write(b"\n")
    process.popen.stdin.flush()


def _finish(process):
    """Lets the load generator end by itself; `start` then ends its forwarder and waits for it."""
    try:
        _go_on(process)
        process.popen.wait(2)
    except (OSError, subprocess.TimeoutExpired):
        pass


def _last_words(log, directory):
    """What a forwarder that failed said last, without paths of this machine."""
    log.flush()
    with open(log.name, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    root = os.path.dirname(os.path.dirname(HERE))
    text = lines[-1] if lines else ""
    for path in (directory, HERE, root, os.path.expanduser("~")):
        text = text.replace(path, "…")
    return f" (it says: {text[:200]})" if text else ""


def _listen():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def _start_forwarder(peer, job, machine, log):
    process = proc.Process(peer.command(job), machine.proxy_cpu, log=log, cwd=job.directory)
    deadline = time.monotonic() + LISTEN_SECONDS
    while not proc.is_listening(job.port):
        if not process.alive() or time.monotonic() > deadline:
            process.stop()
            raise Failed("it did not listen" + _last_words(log, job.directory))
        time.sleep(0.005)
    return process


def _figures(result, cpu, load, connections):
    """From the load generator's counts and the forwarder's CPU seconds (None: there is no forwarder)."""
    seconds = result["seconds"]
    record = {"seconds": seconds}
    if load.mode in ("up", "down"):
        record["gbit_per_s"] = result["bytes"] * 8 / 1e9 / seconds
        if cpu is not None and result["bytes"]:
            record["cpu_s_per_gib"] = cpu / (result["bytes"] / GIB)
        if cpu and load.payload == "lines":
            record["lines_per_cpu_s"] = result["bytes"] / LINE_BYTES / cpu
    elif load.mode == "idle":
        record["cpu_ms_per_s"] = cpu * 1e3 / seconds
        record["connections"] = connections
    else:
        for key in ("p50_us", "p90_us", "p99_us", "p999_us"):
            record[key] = result[key]
        record["per_s"] = result["transactions"] / seconds
        if cpu is not None and result["transactions"]:
            name = "cpu_us_per_connection" if load.mode == "churn" else "cpu_us_per_transaction"
            record[name] = cpu * 1e6 / result["transactions"]
    if result["tokens"]:
        record["tokens_missed_percent"] = 100 * result["tokens_missed"] / result["tokens"]
    return record


def _settled_pss(forwarder):
    """Once it works no more."""
    used = proc.cpu_seconds(forwarder.pid)
    for _ in range(IDLE_SETTLE_TIMES):
        time.sleep(IDLE_SETTLE_SECONDS)
        before, used = used, proc.cpu_seconds(forwarder.pid)
        if used - before < 0.01:
            break
    return proc.pss_bytes(forwarder.pid)


class _Scraper:
    """Of an admin, while the load runs; without one it does nothing."""

    def __init__(self, peer, directory, load, options, machine):
        self.process = None
        self.connections = load.aside
        self.first_seconds = min(0.5, load.seconds(options) / 2)
        if peer.has_admin:
            self.process = proc.Process([sys.executable, SCRAPER, admin_path(directory), str(self.first_seconds)],
                                        machine.load_cpu, pipes=True)

    def begin(self):
        if self.process:
            _go_on(self.process)

    def end(self, seconds, deadline):
        """What it adds to the figures of so many seconds."""
        if not self.process:
            return {}
        _go_on(self.process)
        told = json.loads(_readline(self.process, deadline))
        if "error" in told:
            raise Failed("the scraper: " + told["error"])
        due = int(seconds - self.first_seconds - SCRAPE_LATE_SECONDS) + 1
        if told["times"] < due or not told["metrics"] or told["connections"] < self.connections:
            raise Failed(f"scraped {told['times']} times in {seconds:.1f} s, with {told['metrics']} metrics and "
                         f"{told['connections']} connections")
        return {"scrapes": told["times"]}

    def stop(self):
        if self.process:
            self.process.stop()


def _drive(generator, forwarder, load, connections, pss_before, scraper, deadline):
    """The measured part: the forwarder's figures are read while the load stands still."""
    def sample():
        time.sleep(QUIESCE_SECONDS)
        return proc.cpu_seconds(forwarder.pid) if forwarder else 0.0

    extra = {}
    line = _readline(generator, deadline)
    if line == "ready":
        if load.mode == "idle":
            extra["pss_bytes_per_connection"] = (_settled_pss(forwarder) - pss_before) / connections
        before = sample()
        main_before = proc.main_thread_cpu_seconds(forwarder.pid) if load.aside else 0
        scraper.begin()
        began = time.monotonic()
        _go_on(generator)
        line = _readline(generator, deadline)
    if line == "done":
        seconds = time.monotonic() - began
        extra.update(scraper.end(seconds, deadline))
        cpu = sample() - before
        if load.aside:
            used = proc.main_thread_cpu_seconds(forwarder.pid) - main_before
            extra["main_thread_ms_per_s"] = used * 1e3 / seconds
        _go_on(generator)
        line = _readline(generator, deadline)
    result = json.loads(line)
    if result["errors"]:
        raise Failed(f"{result['errors']} errors, the first: {result['error']}")
    counted = {"idle": 1, "up": result["bytes"], "down": result["bytes"]}.get(load.mode, result["transactions"])
    if not counted:
        raise Failed("nothing came through in the measured time")
    return {**_figures(result, cpu if forwarder else None, load, connections), **extra}


def _tls_arguments(load, peer, credentials):
    """The load generator's."""
    if not load.tls:
        return []
    direct = peer.name == "direct"
    arguments = ["-r"] if load.resumes else []
    if load.tls == tls.ACCEPT or direct:
        arguments += ["-T", credentials.certificate]
    if load.tls == tls.DIAL or direct:
        arguments += ["-S", credentials.both]
    return arguments


def _hold_aside(load, port, listener, machine, deadline):
    """Opens connections that stay open until it is stopped."""
    process = proc.Process([machine.load_binary, "idle", "-c", str(load.aside), "-w", "0", "-t", str(port),
                            "-f", str(listener.fileno())],
                           machine.load_cpu, pipes=True, pass_fds=[listener.fileno()])
    try:
        line = _readline(process, deadline)
        if line != "ready":
            raise Failed("connections aside: " + json.loads(line)["error"])
    except Failed:
        process.stop()
        raise
    return process


def _run_load(load, peer, machine, options, directory, log):
    forwarder = generator = aside = scraper = None
    listener = _listen()
    aside_listener = _listen() if load.aside else None
    credentials = tls.Credentials(directory) if load.tls else None
    try:
        backend = port = listener.getsockname()[1]
        pss_before = 0
        if peer.name != "direct":
            port = proc.free_port(machine.rng)
            script = load.script if peer.name.startswith("penstock") else load.counterpart
            job = Job(directory, port, backend, script, load.tls, credentials)
            if load.aside:
                job.aside = proc.free_port(machine.rng), aside_listener.getsockname()[1]
            forwarder = _start_forwarder(peer, job, machine, log)
            if load.mode == "idle":
                pss_before = _settled_pss(forwarder)
        deadline = time.monotonic() + load.seconds(options) + options.warm + SPARE_SECONDS
        if load.aside:
            aside = _hold_aside(load, job.aside[0], aside_listener, machine, deadline)
        scraper = _Scraper(peer, directory, load, options, machine)
        arguments, connections = load.arguments(options, peer)
        arguments += _tls_arguments(load, peer, credentials)
        generator = proc.Process([machine.load_binary, *arguments, "-t", str(port), "-f", str(listener.fileno())],
                                 machine.load_cpu, pipes=True, pass_fds=[listener.fileno()])
        listener.close()
        try:
            return _drive(generator, forwarder, load, connections, pss_before, scraper, deadline)
        except Failed as failure:
            dead = " and the forwarder has ended" if forwarder and not forwarder.alive() else ""
            raise Failed(f"{failure}{dead}{_last_words(log, directory)}") from None
    finally:
        listener.close()
        if aside_listener:
            aside_listener.close()
        if scraper:
            scraper.stop()
        # The generator resets what is left and goes first, so that no end of the forwarder waits in TIME_WAIT.
        if generator:
            _finish(generator)
            generator.stop()
        if aside:
            aside.stop()
        if forwarder:
            forwarder.stop()


def _start_once(peer, machine, directory, log):
    listener = _listen()
    generator = None
    child = 0
    try:
        job = Job(directory, proc.free_port(machine.rng), listener.getsockname()[1])
        command = [machine.load_binary, "start", "-t", str(job.port), "-f", str(listener.fileno()),
                   "-p", str(machine.proxy_cpu), "--", *peer.command(job)]
        generator = proc.Process(command, machine.load_cpu, pipes=True, pass_fds=[listener.fileno()], log=log,
                                 cwd=directory)
        result = json.loads(_readline(generator, time.monotonic() + SPARE_SECONDS))
        child = result["pid"]
        if result["errors"]:
            raise Failed(result["error"] + _last_words(log, directory))
        time.sleep(IDLE_SETTLE_SECONDS)
        return {"start_ms": result["start_ms"], "private_mib": proc.private_bytes(child) / MIB}
    finally:
        listener.close()
        if generator:
            _finish(generator)
            generator.stop()
        if child > 0:
            proc.kill_family(child)


def _sizes(peer, directory):
    binary = peer.binary()
    if not binary:
        return {}
    sizes = {"binary_mib": os.path.getsize(os.path.realpath(binary)) / MIB}
    strip = shutil.which("strip")
    stripped = os.path.join(directory, "stripped")
    if strip and subprocess.run([strip, "-o", stripped, binary], stderr=subprocess.DEVNULL).returncode == 0:
        sizes["stripped_mib"] = os.path.getsize(stripped) / MIB
    return sizes


def _run_start(peer, machine, directory, log):
    runs = [_start_once(peer, machine, directory, log) for _ in range(STARTS)]
    middle = sorted(runs, key=lambda run: run["start_ms"])[STARTS // 2]
    return {**middle, **_sizes(peer, directory)}


def run(load, peer, machine, options):
    """The figures; raises Failed. Whatever it started has ended when it returns."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        os.chmod(directory, 0o755)  # nginx's worker may be another user
        with open(os.path.join(directory, "log"), "w") as log:
            if load.mode == "start":
                return _run_start(peer, machine, directory, log)
            stolen = proc.stolen_seconds()
            record = _run_load(load, peer, machine, options, directory, log)
            record["stolen_s"] = proc.stolen_seconds() - stolen
            return record
