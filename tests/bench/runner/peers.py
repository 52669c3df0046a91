"""The forwarders: how each is found, configured and started. Every one runs in the foreground, one thread of
work, without logging, from a directory of its own."""
import os
import re
import shutil
import subprocess
import sys

from . import tls
from .peer import PEERS_DIR, PLAIN, POLICIES_DIR, Peer, admin_path, first_line


class Direct(Peer):
    title = "direct, no forwarder"
    groups = {"bulk", "rr", "churn"}
    tls = {tls.ACCEPT}  # the backend decrypts
    idle_most = 0

    def version(self):
        return None


class Penstock(Peer):
    title = "penstock"

    def __init__(self, name, context, mode=None, with_policy=False, with_admin=False):
        super().__init__(name, context)
        self.mode = mode
        self.has_policy = with_policy
        self.has_admin = with_admin
        if mode:
            self.title = f"penstock --mode {mode}"
            self.groups = {"bulk", "rr", "churn", "idle"}
        elif with_policy:
            self.title = "penstock with policy"
            self.groups = {"script"}
        elif with_admin:
            self.title = "penstock, admin scraped"
            self.groups = {"admin"}
        else:
            self.groups = PLAIN | {"script", "admin"}
            self.tls = {tls.ACCEPT, tls.DIAL}

    def binary(self):
        return self.context.penstock

    def missing(self):
        if not self.context.penstock or not os.access(self.context.penstock, os.X_OK):
            return "not built"
        return None

    def command(self, job):
        command = [self.context.penstock, "--access-log", "off", "--workers", "1"]
        if self.mode:
            command += ["--mode", self.mode]
        if self.has_admin:
            command += ["--admin", "unix:" + admin_path(job.directory)]
        if self.has_policy and job.script:
            command += ["-p", os.path.join(POLICIES_DIR, job.script + ".lua")]
            command = ["env", f"PENSTOCK_BENCH_BACKEND=127.0.0.1:{job.backend}", *command]
        if job.tls == tls.ACCEPT:
            command += ["--tls-cert", job.credentials.certificate, "--tls-key", job.credentials.key]
        elif job.tls == tls.DIAL:
            command += ["--tls", "--tls-ca", job.credentials.certificate, "--tls-name", tls.NAME]
        for port, backend in [(job.port, job.backend), *([job.aside] if job.aside else [])]:
            command += [f"127.0.0.1:{port}", f"127.0.0.1:{backend}"]
        return command

    def version(self):
        return first_line([self.context.penstock, "--version"], r"(\d+\.\d+\.\d+\S*)")


class Haproxy(Peer):
    def __init__(self, name, context, splice=False, pipe_bytes=0, lua=False, buffer_bytes=0):
        super().__init__(name, context)
        self.splice = splice
        self.pipe_bytes = pipe_bytes
        self.has_policy = lua
        self.buffer_bytes = buffer_bytes
        self.tls = frozenset() if splice or lua else {tls.ACCEPT, tls.DIAL}
        self.title = "haproxy, no splice"
        if splice:
            self.title = "haproxy, splice"
            self.groups = {"bulk"}
        if pipe_bytes:
            self.title = "haproxy, splice, tune.pipesize " + str(pipe_bytes)
        if lua:
            self.title = "haproxy, Lua filter" + ("" if buffer_bytes else ", default buffers")
            self.groups = {"script"}
        elif buffer_bytes:
            self.title = f"haproxy, no splice, tune.bufsize {buffer_bytes}"
            self.groups = set()

    def binary(self):
        return shutil.which("haproxy", path=self.context.path)

    def missing(self):
        if not self.binary():
            return "not installed"
        if self.has_policy and "Built with Lua version" not in self._build():
            return "built without Lua"
        return None

    def _build(self):
        return subprocess.run([self.binary(), "-vv"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=10, text=True).stdout

    @staticmethod
    def _tls(job):
        """What the lines `bind` and `server` say of it."""
        version = f"ssl-min-ver TLSv1.3 ciphersuites {tls.CIPHERSUITE}"
        if job.tls == tls.ACCEPT:
            return f"ssl crt {job.credentials.both} {version}", ""
        if job.tls == tls.DIAL:
            return "", (f"ssl verify required ca-file {job.credentials.certificate} verifyhost {tls.NAME} "
                        f"sni str({tls.NAME}) {version}")
        return "", ""

    def command(self, job):
        tune = []
        options = []
        if self.has_policy:
            tune = ["tune.lua.session-timeout 0", f"lua-load {PEERS_DIR}/filter.lua"]
            options = [f"filter lua.{job.script}"]
        if self.splice:
            # Always, not only when haproxy takes the stream for a bulk one: the load is nothing else.
            options = ["option splice-request", "option splice-response"]
            tune.append("maxpipes 100")
        else:
            tune.append("nosplice")
        if self.pipe_bytes:
            tune.append(f"tune.pipesize {self.pipe_bytes}")
        if self.buffer_bytes:
            tune.append(f"tune.bufsize {self.buffer_bytes}")
        bind, server = self._tls(job)
        glue = "\n    "
        connections = min((self.context.files - 600) // 2, 16000)
        path = job.write("haproxy.cfg", f"""\
global
    nbthread 1
    maxconn {connections}
    {glue.join(tune)}
defaults
    mode tcp
    no log
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{job.port} backlog 4096 {bind}
    maxconn {connections}
    {glue.join(options)}
    server backend 127.0.0.1:{job.backend} {server}
""")
        return [self.binary(), "-db", "-f", path]

    def version(self):
        return first_line([self.binary(), "-v"], r"version (\S+)")


class Nginx(Peer):
    def __init__(self, name, context, js=False, large_buffers=True):
        super().__init__(name, context)
        self.has_policy = js
        self.buffer_size = "proxy_buffer_size 64k;" if large_buffers else ""
        self.title = "nginx stream, proxy_buffer_size 64k"
        self.tls = frozenset() if js else {tls.ACCEPT, tls.DIAL}
        if js:
            self.title = "nginx stream, njs js_filter" + ("" if large_buffers else ", default buffers")
            self.groups = {"script"}

    def binary(self):
        return shutil.which("nginx", path=self.context.path)

    def _modules(self):
        built = subprocess.run([self.binary(), "-V"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               timeout=10, text=True).stdout
        match = re.search(r"--modules-path=(\S+)", built)
        directory = match.group(1) if match else "/usr/lib/nginx/modules"
        names = ["ngx_stream_module.so"] if re.search(r"--with-stream=dynamic", built) else []
        if self.has_policy:
            names.append("ngx_stream_js_module.so")
        elif "--with-stream" not in built:
            return None
        return [os.path.join(directory, name) for name in names]

    def missing(self):
        if not self.binary():
            return "not installed"
        modules = self._modules()
        if modules is None or not all(os.path.exists(module) for module in modules):
            return "its stream module is not installed"
        return None

    @staticmethod
    def _tls(job):
        """What `listen` and the rest of its server say of it."""
        files = job.credentials
        if job.tls == tls.ACCEPT:
            return "ssl", (f"ssl_certificate {files.certificate}; ssl_certificate_key {files.key}; "
                           f"ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {tls.CIPHERSUITE}; "
                           "ssl_session_tickets on;")
        if job.tls == tls.DIAL:
            return "", (f"proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; "
                        f"proxy_ssl_conf_command Ciphersuites {tls.CIPHERSUITE}; "
                        f"proxy_ssl_trusted_certificate {files.certificate}; "
                        f"proxy_ssl_name {tls.NAME}; proxy_ssl_server_name on;")
        return "", ""

    def command(self, job):
        listen, server = self._tls(job)
        load = "".join(f"load_module {module};\n" for module in self._modules())
        script = ("", "")
        if self.has_policy:
            script = (f"js_path {PEERS_DIR}; js_import filter.js;", f"js_filter filter.{job.script};")
        path = job.write("nginx.conf", f"""\
{load}daemon off;
worker_processes 1;
worker_rlimit_nofile {self.context.files};
pid {job.directory}/nginx.pid;
error_log stderr crit;
events {{
    worker_connections {min(self.context.files, 12288)};
}}
stream {{
    access_log off;
    {script[0]}
    server {{
        listen 127.0.0.1:{job.port} {listen} backlog=4096;
        proxy_pass 127.0.0.1:{job.backend};
        {self.buffer_size}
        proxy_connect_timeout 10s;
        proxy_timeout 1h;
        {script[1]}
        {server}
    }}
}}
""")
        return [self.binary(), "-p", job.directory, "-c", path, "-e", "stderr"]

    def version(self):
        return first_line([self.binary(), "-v"], r"nginx/(\S+)")


class Socat(Peer):
    title = "socat, fork, 64 KiB blocks"
    idle_most = 200

    def binary(self):
        return shutil.which("socat", path=self.context.path)

    def missing(self):
        return None if self.binary() else "not installed"

    def command(self, job):
        return [self.binary(), "-b", "65536", "-t", "10",
                f"TCP4-LISTEN:{job.port},bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay",
                f"TCP4:127.0.0.1:{job.backend},nodelay"]

    def version(self):
        return first_line([self.binary(), "-V"], r"socat version (\S+)")


class Simpleproxy(Peer):
    title = "simpleproxy"
    idle_most = 200

    def binary(self):
        return shutil.which("simpleproxy", path=self.context.path)

    def missing(self):
        return None if self.binary() else "not installed"

    def command(self, job):
        return [self.binary(), "-L", f"127.0.0.1:{job.port}", "-R", f"127.0.0.1:{job.backend}"]

    def version(self):
        return first_line([self.binary(), "-V"], r"simpleproxy v(\d\S*)")


class Go(Peer):
    title = "Go io.Copy"

    def __init__(self, name, context):
        super().__init__(name, context)
        # Beside two sockets a connection keeps two pipes open, for splice.
        self.idle_most = (context.files - 100) // 6

    def binary(self):
        return self.context.go_forwarder

    def missing(self):
        return None if self.context.go_forwarder else "no Go"

    def command(self, job):
        return [self.binary(), f"127.0.0.1:{job.port}", f"127.0.0.1:{job.backend}"]

    def version(self):
        return first_line(["go", "version"], r"go(\d\S*)")


class Python(Peer):
    title = "Python asyncio streams"

    def command(self, job):
        return [os.path.realpath(sys.executable), os.path.join(PEERS_DIR, "forward.py"), f"127.0.0.1:{job.port}",
                f"127.0.0.1:{job.backend}"]

    def version(self):
        return sys.version.split()[0]


def all_peers(context):
    return [
        Penstock("penstock", context),
        Haproxy("haproxy", context),
        Haproxy("haproxy-64k", context, buffer_bytes=65536),
        Haproxy("haproxy-splice", context, splice=True),
        Haproxy("haproxy-splice-1m", context, splice=True, pipe_bytes=1048576),
        Nginx("nginx", context),
        Socat("socat", context),
        Simpleproxy("simpleproxy", context),
        tls.Hitch("hitch", context),
        tls.Stunnel("stunnel", context),
        Go("go", context),
        Python("python", context),
        Penstock("penstock-policy", context, with_policy=True),
        Penstock("penstock-admin", context, with_admin=True),
        # As nginx's 64k: the cost of a chunk's hook is spread over as much data.
        Haproxy("haproxy-lua", context, lua=True, buffer_bytes=65536),
        Nginx("nginx-njs", context, js=True),
        Haproxy("haproxy-lua-default", context, lua=True),
        Nginx("nginx-njs-default", context, js=True, large_buffers=False),
        Penstock("penstock-copy", context, mode="copy"),
        Penstock("penstock-splice", context, mode="splice"),
        Direct("direct", context),
    ]


# Run only when they are asked for.
EXTRA = {"penstock-copy", "penstock-splice", "haproxy-lua-default", "nginx-njs-default"}
