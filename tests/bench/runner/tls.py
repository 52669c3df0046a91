"""TLS: the certificate of a run, what the forwarders' settings have in common, and those that do nothing else."""
import os
import shutil
import subprocess

from .peer import Peer, first_line

CIPHERSUITE = "TLS_AES_128_GCM_SHA256"
NAME = "localhost"
DAYS = "365"

ACCEPT = "accept"  # the clients speak TLS, the forwarder terminates it
DIAL = "dial"      # the forwarder speaks TLS to the backend


class Credentials:
    """Files of a certificate that is its own CA, made for one run."""

    def __init__(self, directory):
        self.certificate = os.path.join(directory, "certificate.pem")
        self.key = os.path.join(directory, "key.pem")
        self.both = os.path.join(directory, "both.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-days", DAYS, "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
                        "-keyout", self.key, "-out", self.certificate],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(self.both, "w") as both:
            for part in (self.certificate, self.key):
                with open(part) as file:
                    both.write(file.read())


def missing():
    """Why there can be no TLS; None when there can."""
    return None if shutil.which("openssl") else "no openssl to make a certificate"


class Hitch(Peer):
    title = "hitch"
    groups = set()
    tls = {ACCEPT}

    def binary(self):
        return shutil.which("hitch", path=self.context.path)

    def missing(self):
        return None if self.binary() else "not installed"

    def command(self, job):
        # It refuses to work as root.
        user = 'user = "nobody"' if os.geteuid() == 0 else ""
        path = job.write("hitch.conf", f"""\
frontend = "[127.0.0.1]:{job.port}"
backend = "[127.0.0.1]:{job.backend}"
pem-file = "{job.credentials.both}"
tls-protos = TLSv1.3
ciphersuites = "{CIPHERSUITE}"
workers = 1
backlog = 4096
daemon = off
log-level = 1
ocsp-dir = ""
{user}
""")
        return [self.binary(), f"--config={path}"]

    def version(self):
        return first_line([self.binary(), "--version"], r"hitch (\S+)")


class Stunnel(Peer):
    title = "stunnel"
    groups = set()
    tls = {ACCEPT, DIAL}
    idle_most = 1000  # each is a thread

    def binary(self):
        return shutil.which("stunnel4", path=self.context.path) or shutil.which("stunnel", path=self.context.path)

    def missing(self):
        return None if self.binary() else "not installed"

    def command(self, job):
        files = job.credentials
        side = f"cert = {files.certificate}\nkey = {files.key}"
        if job.tls == DIAL:
            side = f"client = yes\nsni = {NAME}\nverifyChain = yes\nCAfile = {files.certificate}\ncheckHost = {NAME}"
        path = job.write("stunnel.conf", f"""\
foreground = yes
pid =
debug = err
syslog = no
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[bench]
accept = 127.0.0.1:{job.port}
connect = 127.0.0.1:{job.backend}
sslVersion = TLSv1.3
ciphersuites = {CIPHERSUITE}
TIMEOUTidle = 3600
{side}
""")
        return [self.binary(), path]

    def version(self):
        return first_line([self.binary(), "-version"], r"stunnel (\S+) on")
