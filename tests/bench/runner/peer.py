"""What all forwarders have in common."""
import os
import re
import subprocess

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS_DIR = os.path.join(HERE, "peers")
POLICIES_DIR = os.path.join(HERE, "policies")

PLAIN = {"bulk", "rr", "churn", "idle", "start"}


def first_line(command, pattern):
    """The first match in what a command prints; "?" when there is none."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    match = re.search(pattern, done.stdout)
    return match.group(1) if match else "?"


def admin_path(directory):
    """Where penstock's admin listens in a run's directory."""
    return os.path.join(directory, "admin.sock")


class Job:
    """What a peer needs to know to be started once."""

    def __init__(self, directory, port, backend, script=None, tls=None, credentials=None, aside=None):
        self.directory = directory
        self.port = port
        self.backend = backend
        self.script = script  # None, or a name in policies/ or peers/
        self.tls = tls        # None, or a side, of tls.py
        self.credentials = credentials
        self.aside = aside    # None, or port and backend of a second pair, for connections that only stay open

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path


class Peer:
    title = ""
    groups = PLAIN
    tls = frozenset()     # the sides, of tls.py, on which it speaks TLS
    idle_most = 1 << 30   # connections of the idle load: fewer where each is a process or thread
    has_policy = False
    has_admin = False     # penstock's, which is scraped meanwhile

    def __init__(self, name, context):
        self.name = name
        self.context = context

    def missing(self):
        """Why it cannot run here; None when it can."""
        return None

    def command(self, job):
        raise NotImplementedError

    def version(self):
        return "?"

    def binary(self):
        """The file whose size is shown, if it is one."""
        return None


class Context:
    """What the peers know of the machine."""

    def __init__(self, penstock, go_forwarder, files):
        self.penstock = penstock
        self.go_forwarder = go_forwarder
        self.files = files
        # Daemons are often outside of a user's path.
        self.path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
