"""The loads: what the load generator is told, and which figures come of it."""
from . import tls

GIB = 1 << 30
MIB = 1 << 20
LINE_BYTES = 100


class Figure:
    """One column: a value of a run's record, lower or higher being better."""

    def __init__(self, key, title):
        self.key = key
        self.title = title


CPU_GIB = Figure("cpu_s_per_gib", "CPU s/GiB")
GBIT = Figure("gbit_per_s", "Gbit/s")
LINES = Figure("lines_per_cpu_s", "lines/s per core")
CPU_TRANSACTION = Figure("cpu_us_per_transaction", "CPU µs/transaction")
CPU_CONNECTION = Figure("cpu_us_per_connection", "CPU µs/connection")
PER_SECOND = Figure("per_s", "per second")
P50 = Figure("p50_us", "p50 µs")
P99 = Figure("p99_us", "p99 µs")
PSS = Figure("pss_bytes_per_connection", "PSS bytes/connection")
IDLE_CPU = Figure("cpu_ms_per_s", "CPU ms/s")
CONNECTIONS = Figure("connections", "connections")
START = Figure("start_ms", "ms to the first echo")
PRIVATE = Figure("private_mib", "private MiB")
BINARY = Figure("binary_mib", "binary MiB")
STRIPPED = Figure("stripped_mib", "stripped MiB")


# What the load generator is told. "unanswered": idle connections whose one message waits for no echo.
PAYLOADS = {"lines": "-l", "unanswered": "-u"}


class Load:
    def __init__(self, name, group, title, figures, mode=None, connections=1, size=64, script=None, counterpart=None,
                 payload=None, peers=None, side=None, resumes=False, aside=0, least_seconds=0):
        self.name = name
        self.group = group
        self.title = title
        self.figures = figures     # the first one is the one compared
        self.mode = mode           # of the load generator
        self.connections = connections
        self.size = size
        self.script = script       # of penstock: a name in policies/
        self.counterpart = counterpart or script  # the others': "pass" or "replace"
        self.payload = payload     # None, "tokens", or one of PAYLOADS
        self.peers = peers         # None: every peer that has the group, or the side of TLS
        self.tls = side            # where it is encrypted: None, or a side, of tls.py
        self.resumes = resumes     # TLS sessions
        self.aside = aside         # connections that stay open beside it, without a byte
        self.least_seconds = least_seconds  # of the measured time, whatever --seconds says; not with --quick

    def takes(self, peer):
        if self.peers is not None:
            return peer.name in self.peers
        if self.mode == "idle" and not peer.idle_most:
            return False
        return self.tls in peer.tls if self.tls else self.group in peer.groups

    def seconds(self, options):
        return options.seconds if options.quick else max(options.seconds, self.least_seconds)

    def arguments(self, options, peer):
        """The load generator's, without ports."""
        connections = self.connections
        if self.mode == "idle":
            connections = min(connections if not options.quick else 500, peer.idle_most)
        arguments = [self.mode, "-c", str(connections), "-s", str(self.size),
                     "-w", str(int(options.warm * 1000)), "-d", str(int(self.seconds(options) * 1000))]
        if self.mode == "churn" and not self.least_seconds:
            arguments += ["-n", "30000"]
        if self.payload in PAYLOADS:
            arguments.append(PAYLOADS[self.payload])
        elif self.payload == "tokens":
            arguments.append("-K" if peer.name.startswith("penstock") and self.script != self.counterpart else "-k")
        return arguments, connections


# Policy, what stands beside it, payload. `tokens` replaces across the borders of chunks, `replace` does not.
SCRIPTED_BULK = [("pass", "pass", None), ("replace", "replace", "tokens"), ("filter", "pass", None),
                 ("tokens", "replace", "tokens")]


def _penstock_loads():
    """Policies that are compared with penstock itself, or with nothing."""
    both = ["penstock", "penstock-policy"]
    loads = [Load("route-churn", "script", "connect hook, churn, 64 at once", [CPU_CONNECTION, PER_SECOND, P50, P99],
                  "churn", 64, script="route", peers=both)]
    for n in (1, 4):
        loads.append(Load(f"lines-{n}", "script", f"lines of 100 B, bulk up × {n}", [CPU_GIB, LINES, GBIT], "up", n,
                          script="lines", payload="lines", peers=["penstock-policy"]))
    idle = [PSS, IDLE_CPU, CONNECTIONS]
    for script, title in (("wait-one", "a filter waits"), ("wait-two", "two filters wait")):
        loads.append(Load(script, "script", title, idle, "idle", 5000, script=script, peers=both))
    loads.append(Load("wait-connect", "script", "the connect hook waits", idle, "idle", 5000, script="wait-connect",
                      payload="unanswered", peers=["penstock-policy"]))
    return loads


def _tls_loads(bulk, rr):
    loads = []
    for side, name, title in ((tls.ACCEPT, "tls", "accepted"), (tls.DIAL, "tls-dial", "dialled")):
        for direction in ("up", "down"):
            loads.append(Load(f"{name}-{direction}", "tls", f"TLS {title}, bulk {direction} × 4", bulk, direction, 4,
                              side=side))
    churn = [CPU_CONNECTION, PER_SECOND, P50, P99]
    for name, title, resumes in (("tls-full", "full", False), ("tls-resumed", "resumed", True)):
        loads.append(Load(name, "tls", f"TLS handshakes, {title}, 64 at once", churn, "churn", 64, side=tls.ACCEPT,
                          resumes=resumes))
    loads.append(Load("tls-rr", "tls", "TLS accepted, 64 B × 64", rr, "rr", 64, side=tls.ACCEPT))
    loads.append(Load("tls-idle", "tls", "TLS accepted, idle", [PSS, IDLE_CPU, CONNECTIONS], "idle", 5000,
                      side=tls.ACCEPT))
    return loads


def _admin_loads(bulk, rr, churn):
    """The same without and with an admin that is scraped each second."""
    beside = {"aside": 1000, "least_seconds": 5}
    return [
        Load("admin-up", "admin", "bulk up × 4", bulk, "up", 4, **beside),
        Load("admin-down", "admin", "bulk down × 4", bulk, "down", 4, **beside),
        Load("admin-rr", "admin", "64 B × 64", rr, "rr", 64, **beside),
        Load("admin-churn", "admin", "churn, 64 at once", churn, "churn", 64, **beside),
        Load("admin-idle", "admin", "no load", [IDLE_CPU], "idle", 1, **beside),
    ]


def all_loads():
    loads = []
    bulk = [CPU_GIB, GBIT]
    rr = [CPU_TRANSACTION, P50, P99, PER_SECOND]
    for direction in ("up", "down"):
        for n in (1, 4, 8):
            loads.append(Load(f"{direction}-{n}", "bulk", f"bulk {direction} × {n}", bulk, direction, n))
    for size, label in ((64, "64 B"), (16384, "16 KiB")):
        for n in ((1, 64, 1000) if size == 64 else (64,)):
            loads.append(Load(f"rr-{size}-{n}", "rr", f"{label} × {n}", rr, "rr", n, size))
    churn = [CPU_CONNECTION, PER_SECOND, P50, P99]
    for n in (32, 64):
        loads.append(Load(f"churn-{n}", "churn", f"churn, {n} at once", churn, "churn", n))
    loads.append(Load("idle", "idle", "idle", [PSS, IDLE_CPU, CONNECTIONS], "idle", 5000))
    loads += _tls_loads(bulk, rr)
    loads += _admin_loads(bulk, rr, churn)
    scripted = ["penstock-policy", "haproxy-lua", "nginx-njs", "haproxy-lua-default", "nginx-njs-default"]
    loads.append(Load("pass-rr", "script", "pass, 64 B × 64", rr, "rr", 64, script="pass",
                      peers=scripted + ["penstock"]))
    loads.append(Load("filter-rr", "script", "filter, 64 B × 64", rr, "rr", 64, script="filter", counterpart="pass",
                      peers=scripted))
    for script, counterpart, payload in SCRIPTED_BULK:
        for direction in ("up", "down"):
            loads.append(Load(f"{script}-{direction}", "script", f"{script}, bulk {direction} × 4", bulk, direction,
                              4, script=script, counterpart=counterpart, payload=payload, peers=scripted))
    loads += _penstock_loads()
    loads.append(Load("start", "start", "start", [START, PRIVATE, BINARY, STRIPPED], "start"))
    return loads


GROUPS = {
    "bulk": "Bulk",
    "rr": "Request and response",
    "churn": "Churn",
    "idle": "Idle connections",
    "tls": "TLS",
    "admin": "Admin, scraped each second",
    "script": "Policies in Lua and JavaScript",
    "start": "Start",
}


class Goal:
    """`subject` may use at most `most` times what the best of `against` uses, in each of the loads; with `more`, at
    most `most` above it; or, with no `against`, at most `most` of `key`."""

    def __init__(self, title, loads, against, most, subject="penstock", key=None, unit="", more=False):
        self.title = title
        self.loads = loads
        self.against = against
        self.most = most
        self.subject = subject
        self.key = key
        self.unit = unit
        self.more = more


def _script_goals():
    policy = "penstock-policy"
    scripted = ["nginx-njs", "haproxy-lua"]
    return [
        Goal("data hook that returns nil, 64 B × 64", ["pass-rr"], ["penstock"], 1.15, policy),
        Goal("replace, bulk up, down × 4: CPU/GiB", ["replace-up", "replace-down"], scripted, 0.5, policy),
        Goal("filter, bulk up, down × 4: CPU/GiB", ["filter-up", "filter-down"], scripted, 0.4, policy),
        Goal("filter, 64 B × 64: CPU/transaction", ["filter-rr"], ["nginx-njs"], 0.8, policy),
        Goal("tokens, bulk up, down × 4: CPU/GiB", ["tokens-up", "tokens-down"], scripted, 0.4, policy),
        Goal("connect hook, churn 64: CPU/connection", ["route-churn"], ["penstock"], 1.10, policy),
        Goal("a filter waits: PSS/connection more", ["wait-one"], ["penstock"], 2048, policy, unit=" B", more=True),
    ]


def _tls_goals():
    haproxy = ["haproxy", "haproxy-64k"]
    return [
        Goal("TLS accepted, bulk up, down × 4: CPU/GiB", ["tls-up", "tls-down"],
             ["nginx", "hitch", *haproxy, "stunnel"], 0.85),
        Goal("TLS dialled, bulk up, down × 4: CPU/GiB", ["tls-dial-up", "tls-dial-down"], [*haproxy, "nginx"], 0.9),
        Goal("TLS handshakes, full, resumed: CPU/connection", ["tls-full", "tls-resumed"], ["hitch", "nginx"], 1.0),
        Goal("TLS accepted, idle: PSS/connection", ["tls-idle"], ["haproxy"], 0.7),
    ]


def all_goals():
    goals = []
    for direction in ("up", "down"):
        names = [f"{direction}-{n}" for n in (1, 4, 8)]
        for against, most in (("haproxy-splice", 0.60), ("go", 0.95), ("haproxy", 0.35), ("nginx", 0.35)):
            goals.append(Goal(f"bulk {direction} × 1, 4, 8: CPU/GiB", names, [against], most))
    plain = ["haproxy", "nginx"]
    goals += [
        Goal("64 B × 64: CPU/transaction", ["rr-64-64"], plain, 0.95),
        Goal("64 B × 1: CPU/transaction", ["rr-64-1"], plain, 1.0),
        Goal("churn 32, 64: CPU/connection", ["churn-32", "churn-64"], plain, 0.95),
        Goal("idle: PSS/connection", ["idle"], ["haproxy"], 0.25),
        *_tls_goals(),
        Goal("admin scraped: CPU of bulk up, down, 64 B, churn",
             ["admin-up", "admin-down", "admin-rr", "admin-churn"], ["penstock"], 1.02, "penstock-admin"),
        Goal("admin scraped, no load: CPU more", ["admin-idle"], ["penstock"], 20, "penstock-admin", unit=" ms/s",
             more=True),
        *_script_goals(),
        Goal("start until the first echo", ["start"], [], 10, key="start_ms", unit=" ms"),
        Goal("private memory after it", ["start"], [], 3, key="private_mib", unit=" MiB"),
        Goal("binary as built", ["start"], [], 3, key="binary_mib", unit=" MiB"),
    ]
    return goals
