"""A gateway in a laboratory: three network namespaces on one machine, real kernel clients on one side, real kernel servers on the other,
and Millrace between them on two ports.

    client namespace          gateway namespace                      upstream namespace
    10.77.1.2  fd77:1::2      ingress 10.77.1.1  fd77:1::1           10.77.2.2..   fd77:2::2..
        veth ────────────────▶ egress  10.77.2.1  fd77:2::1 ◀──────── veth

Everything a lab makes (namespaces, processes, files) lies under one name and one directory and is gone after close(), also when the test that
made it failed. Two labs side by side do not touch each other: names carry the process id. Used by tests/e2e, tests/diff, scripts/quickstart
and perf/. Needs root; needs nothing but the standard library.
"""
import atexit
import ctypes
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MILLRACE_BUILD", os.path.join(ROOT, "build"))
_serial = itertools.count()
CLONE_NEWNET = 0x40000000


class LabError(Exception):
    pass


def program(name):
    for folder in ("dataplane", "control"):
        path = os.path.join(BUILD, folder, name)
        if os.path.exists(path):
            return path
    raise LabError(f"{name} is not built; run scripts/dev build")


def run(argv, check=True, timeout=60, **kwargs):
    """A command to its end; its output in the error when it fails."""
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, **kwargs)
    if check and p.returncode != 0:
        raise LabError(f"{shlex.join(argv)}: exit {p.returncode}\n{p.stdout.decode(errors='replace')}{p.stderr.decode(errors='replace')}")
    return p


def reserve_hugepages(megabytes):
    """Makes sure that so many MB of free 2 MiB pages are there (they stay reserved: giving them back would disturb a neighbour)."""
    base = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    free = int(open(base + "free_hugepages").read())
    missing = megabytes // 2 - free
    if missing > 0:
        total = int(open(base + "nr_hugepages").read())
        open(base + "nr_hugepages", "w").write(str(total + missing))
        if int(open(base + "free_hugepages").read()) < megabytes // 2:
            raise LabError(f"cannot reserve {megabytes} MB of hugepages; free memory or set `hugepages: false`")
    if not any(" hugetlbfs " in line for line in open("/proc/mounts")):
        os.makedirs("/dev/hugepages", exist_ok=True)
        run(["mount", "-t", "hugetlbfs", "none", "/dev/hugepages"])


class Namespace:
    """One network namespace. Processes started through it live inside; `tmpfs` paths are shared with the host."""

    def __init__(self, name):
        self.name = name
        run(["ip", "netns", "add", name])
        self.ip("link", "set", "lo", "up")

    def argv(self, argv):
        return ["ip", "netns", "exec", self.name] + list(argv)

    def ip(self, *args):
        return run(["ip", "-n", self.name] + list(args))

    def run(self, argv, **kwargs):
        return run(self.argv(argv), **kwargs)

    def delete(self):
        run(["ip", "netns", "del", self.name], check=False)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        """A socket of this process that lives in the namespace (setns for the moment of its making)."""
        libc = ctypes.CDLL(None, use_errno=True)
        mine = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open("/run/netns/" + self.name, os.O_RDONLY)
        try:
            if libc.setns(there, CLONE_NEWNET) != 0:
                raise LabError(os.strerror(ctypes.get_errno()))
            try:
                return socket.socket(family, kind)
            finally:
                libc.setns(mine, CLONE_NEWNET)
        finally:
            os.close(mine)
            os.close(there)


class Process:
    """A program that runs until stop(); output goes to a file that tests can read."""

    def __init__(self, name, argv, log, cwd=None, env=None):
        self.name, self.log_path = name, log
        self.log_file = open(log, "ab")
        self.popen = subprocess.Popen(argv, stdout=self.log_file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=cwd, env=env,
                                      start_new_session=True)

    def alive(self):
        return self.popen.poll() is None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_log(self, text, timeout=30):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if text in self.log():
                return
            if not self.alive():
                raise LabError(f"{self.name} ended with {self.popen.returncode}:\n{self.log()}")
            time.sleep(0.02)
        raise LabError(f"{self.name} did not say {text!r} in {timeout} s:\n{self.log()}")

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            self.popen.send_signal(sig)

    def stop(self, timeout=20):
        """SIGTERM and wait; returns the exit code. Killed (and an error) when it does not end."""
        if self.alive():
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise LabError(f"{self.name} did not end within {timeout} s of SIGTERM:\n{self.log()[-4000:]}")
        self.log_file.close()
        return self.popen.returncode


class Lab:
    """Namespaces, wires and a directory; programs are started into it."""

    CLIENT4, CLIENT6 = "10.77.1.2", "fd77:1::2"
    INGRESS4, INGRESS6 = "10.77.1.1", "fd77:1::1"
    EGRESS4, EGRESS6 = "10.77.2.1", "fd77:2::1"

    def __init__(self, device="af_packet", hugepages=True, memory_mb=512, upstreams=4, keep=False, worker_core=None, workers=1):
        self.workers = workers  # several share the machine's cores, whatever it has
        self.device, self.hugepages, self.memory_mb = device, hugepages, memory_mb
        self.keep = keep
        self.name = f"mr{os.getpid()}n{next(_serial)}"
        self.dir = tempfile.mkdtemp(prefix=self.name + "-")
        os.chmod(self.dir, 0o755)
        self.run_dir = os.path.join(self.dir, "run")
        os.makedirs(self.run_dir)
        self.processes, self.namespaces = [], []
        self.dataplane = self.control = None
        cores = sorted(os.sched_getaffinity(0))
        self.worker_core = worker_core if worker_core is not None else cores[-1]
        self.main_core = cores[0]
        self.worker_cores = [cores[-1 - i % len(cores)] for i in range(workers)] if workers > 1 else [self.worker_core]
        atexit.register(self.close)
        try:
            if hugepages:
                reserve_hugepages(memory_mb + 64)
            self._wire(upstreams)
        except BaseException:
            self.close()
            raise

    # --- network ---------------------------------------------------------------------------------------------------
    def _wire(self, upstreams):
        self.client = self._namespace("c")
        self.gateway = self._namespace("g")
        self.upstream = self._namespace("u")
        if not os.path.ismount("/sys/fs/bpf"):
            run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=False)
        self._pair(self.client, "c0", "ingress", [self.CLIENT4 + "/24"], [self.CLIENT6 + "/64"])
        addresses4 = [self.upstream4(i) + "/24" for i in range(upstreams)]
        addresses6 = [self.upstream6(i) + "/64" for i in range(upstreams)]
        self._pair(self.upstream, "u0", "egress", addresses4, addresses6)

    def _namespace(self, suffix):
        n = Namespace(self.name + suffix)
        self.namespaces.append(n)
        return n

    def _pair(self, peer, peer_if, gateway_if, v4, v6):
        # The gateway's end has no address and no kernel IPv6, so that only Millrace answers there.
        queues = ["numtxqueues", str(self.workers), "numrxqueues", str(self.workers)] if self.workers > 1 else []
        peer.ip("link", "add", peer_if, *queues, "type", "veth", "peer", "name", gateway_if, *queues, "netns", self.gateway.name)
        self.gateway.run(["sysctl", "-qw", f"net.ipv6.conf.{gateway_if}.disable_ipv6=1"])
        # What a veth peer leaves undone in memory (checksums, segmentation) would be undone on this "wire" too.
        for ns, interface in ((peer, peer_if), (self.gateway, gateway_if)):
            ns.run(["ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off", "tso", "off", "gro", "off"], check=False)
            ns.ip("link", "set", interface, "up")
        for a in v4:
            peer.ip("addr", "add", a, "dev", peer_if)
        for a in v6:
            peer.ip("addr", "add", a, "dev", peer_if, "nodad")

    @staticmethod
    def upstream4(i):
        return f"10.77.2.{10 + i}"

    @staticmethod
    def upstream6(i):
        return f"fd77:2::{10 + i:x}"

    # --- configuration -----------------------------------------------------------------------------------------------
    def dataplane_section(self, **overrides):
        section = {
            "cores": self.worker_cores, "main_core": self.main_core, "hugepages": self.hugepages, "memory_mb": self.memory_mb,
            "file_prefix": self.name,
            # As at the kernel's ends ("nodad"): otherwise the first second of a gateway has no IPv6.
            "ports": [
                {"name": "ingress", "dad": 0, "device": f"{self.device}:ingress", "addresses": [self.INGRESS4 + "/24", self.INGRESS6 + "/64"]},
                {"name": "egress", "dad": 0, "device": f"{self.device}:egress", "addresses": [self.EGRESS4 + "/24", self.EGRESS6 + "/64"]},
            ],
        }
        if self.workers > 1:
            section["share_cores"] = True
        section.update(overrides)
        return section

    def write(self, name, content):
        """A file in the lab's directory (dict or list: as JSON, which is YAML); returns its path."""
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    # --- programs --------------------------------------------------------------------------------------------------------
    def start(self, name, argv, namespace=None, cwd=None, env=None):
        if namespace is not None:
            argv = namespace.argv(argv)
        p = Process(name, argv, os.path.join(self.dir, name + ".log"), cwd=cwd or self.dir, env=env)
        self.processes.append(p)
        return p

    def start_dataplane(self, config_file, name="dataplane", wait=True):
        self.dataplane = self.start(name, [program("millrace-dataplane"), "--config", config_file, "--run-dir", self.run_dir], self.gateway)
        if wait:
            self.dataplane.wait_log("waiting for tables")
        return self.dataplane

    def start_control(self, config_file, name="control", wait=True, extra=()):
        self.control = self.start(name, [program("millrace-control"), "--config", config_file, "--run-dir", self.run_dir, *extra])
        if wait:
            self.wait_in_force()
        return self.control

    def millctl(self, *args, check=True, timeout=60):
        p = run([program("millctl"), "--run-dir", self.run_dir, *args], check=check, timeout=timeout)
        return p.stdout.decode() if check else p

    def status(self):
        return json.loads(self.millctl("status", "-o", "json"))

    def wait_in_force(self, timeout=30):
        """Until every worker has taken the newest tables."""
        self.millctl("status", "--wait", str(timeout), timeout=timeout + 10)

    def start_gateway(self, config, name="bootstrap.json"):
        """Data plane and control with one bootstrap (a dict without `dataplane:`, which is added)."""
        if isinstance(config, dict) and "dataplane" not in config:
            config = dict(config, dataplane=self.dataplane_section())
        path = self.write(name, config)
        self.start_dataplane(path)
        self.start_control(path)
        return path

    def start_nginx(self, name, servers, namespace=None):
        """One nginx with the given `server { … }` blocks (text), one worker."""
        folder = os.path.join(self.dir, name)
        os.makedirs(os.path.join(folder, "tmp"))
        conf = f"""
daemon off; worker_processes 1; user root; error_log {folder}/error.log info; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; keepalive_requests 1000000; default_type text/plain; server_tokens off; log_not_found off;
  client_body_temp_path {folder}/tmp/b; proxy_temp_path {folder}/tmp/p; fastcgi_temp_path {folder}/tmp/f; uwsgi_temp_path {folder}/tmp/u;
  scgi_temp_path {folder}/tmp/s;
  {servers}
}}"""
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as f:
            f.write(conf)
        p = self.start(name, ["nginx", "-c", path, "-p", folder, "-e", os.path.join(folder, "error.log")], namespace or self.upstream)
        deadline = time.monotonic() + 10
        while not os.path.exists(os.path.join(folder, "pid")):
            if not p.alive() or time.monotonic() > deadline:
                raise LabError("nginx did not start:\n" + p.log() + open(os.path.join(folder, "error.log")).read())
            time.sleep(0.02)
        return p

    def curl(self, *args, check=True, timeout=60):
        """curl in the client namespace; returns the CompletedProcess (stdout is the body unless told otherwise)."""
        return self.client.run(["curl", "-sS", "--max-time", str(timeout - 1), *args], check=check, timeout=timeout)

    def curl_status(self, url, *args, timeout=60):
        p = self.curl("-o", "/dev/null", "-w", "%{http_code}", *args, url, check=False, timeout=timeout)
        return int(p.stdout or 0)

    def connect(self, port, v6=False, timeout=10):
        """A TCP connection from the client namespace to the gateway, for byte streams no client would send."""
        s = self.client.socket(socket.AF_INET6 if v6 else socket.AF_INET)
        s.settimeout(timeout)
        s.connect((self.INGRESS6 if v6 else self.INGRESS4, port))
        return s

    def access_log(self, name="access.log"):
        path = os.path.join(self.dir, name)
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return f.read().splitlines()

    def make_certificate(self, name, dns, key="ec"):
        """A self-signed certificate for the names; returns (certificate path, key path)."""
        crt, pem = os.path.join(self.dir, name + ".crt"), os.path.join(self.dir, name + ".key")
        algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if key == "ec" else ["-newkey", "rsa:2048"]
        run(["openssl", "req", "-x509", *algorithm, "-nodes", "-days", "30", "-keyout", pem, "-out", crt, "-subj", "/CN=" + dns[0],
             "-addext", "subjectAltName=" + ",".join("DNS:" + d for d in dns)])
        return crt, pem

    # --- end -----------------------------------------------------------------------------------------------------------------
    def stop_gateway(self):
        """Control, then data plane; the data plane's exit code says whether every packet came back to its pool."""
        if self.control is not None:
            self.control.stop()
        return self.dataplane.stop() if self.dataplane is not None else None

    def close(self):
        if getattr(self, "closed", False) or self.keep:
            return
        self.closed = True
        for p in reversed(self.processes):
            try:
                p.stop(timeout=10)
            except (LabError, ProcessLookupError) as e:
                print(e, file=sys.stderr)
        for n in self.namespaces:
            n.delete()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# --- pieces of configuration in Envoy's vocabulary, shared by tests ------------------------------------------------------------------
TYPES = {
    "hcm": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "router": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    "tcp_proxy": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "tls": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "tls_inspector": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "file_log": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
}


def cluster(name, endpoints, **extra):
    """`endpoints`: [(address, port)] or [(address, port, weight)]."""
    lb = []
    for e in endpoints:
        item = {"endpoint": {"address": {"socket_address": {"address": e[0], "port_value": e[1]}}}}
        if len(e) > 2:
            item["load_balancing_weight"] = e[2]
        lb.append(item)
    return {"name": name, "connect_timeout": "2s", "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": lb}]}, **extra}


def hcm(virtual_hosts, access_log=None, route_name="routes", stat_prefix="ingress", route_extra=None, **extra):
    config = {"@type": TYPES["hcm"], "stat_prefix": stat_prefix,
              "route_config": {"name": route_name, "virtual_hosts": virtual_hosts, **(route_extra or {})},
              "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": TYPES["router"]}}], **extra}
    if access_log:
        config["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": {"@type": TYPES["file_log"], "path": access_log}}]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def tls_socket(certificate, key, alpn=("http/1.1",), **common):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": TYPES["tls"], "common_tls_context": {
            "alpn_protocols": list(alpn),
            "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}], **common}}}


def listener(name, port, chains, address="0.0.0.0", inspector=False, **extra):
    """`chains`: filter chain dicts, or a single filter for one chain that matches everything."""
    if isinstance(chains, dict) and "typed_config" in chains:
        chains = [{"filters": [chains]}]
    out = {"name": name, "address": {"socket_address": {"address": address, "port_value": port}}, "filter_chains": chains, **extra}
    if inspector:
        out["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": TYPES["tls_inspector"]}}]
    return out


def bootstrap(listeners, clusters):
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}
