"""The systems under comparison. Each knows how to be configured for a service, started, asked whether it is ready, changed and stopped; the rest of
the comparison does not know them apart."""
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import yaml

from . import routes
from .bench import ROOT, LabError, lab, pin_all, run, until
from .template import render
from .wires import DUT, VethWire, VhostWire

PEERS = os.environ.get("MILLRACE_PEERS", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "millrace-peers"))
ENDPOINTS = [(f"10.65.0.{i}", 80) for i in range(1, 5)]
SMALL = 16_384  # connections a system is sized for where a case does not ask for more


@dataclasses.dataclass(frozen=True)
class Service:
    """What a system is to do. Equal services need no restart in between."""
    tls: bool = False
    log: bool = False
    table: routes.RouteTable | None = None  # None: one route for everything
    connections: int = SMALL                # both sides together
    kernel_load: bool = False               # kernel peers: clients and servers are the kernel's too (kernel_load.py)
    processes: int = 0                      # that share the connections; 0: as many as it takes
    probe: bool = False                     # the second wire with a kernel client, and a route table that can be changed

    @property
    def port(self):
        return 443 if self.tls else 80


class NotLoaded(LabError):
    """The system did not come up with this configuration within the time it is given."""


class System:
    """One system in one place of the wire. Life: prepare() ▸ [the generator's end of the wire] ▸ boot() ▸ … ▸ stop()."""

    name = ""
    title = ""
    polls = False  # it burns its core also when there is nothing to do: it may only run while it is measured
    kernel = True  # its TCP is the kernel's

    def __init__(self, bench, material):
        self.bench, self.material = bench, material
        self.wire = self.service = self.folder = None
        self.processes = []
        self.changes = []
        self.complaints = []  # what went wrong without ending the measurement; the runner takes them

    # --- what there is ---
    def missing(self):
        """Why this system cannot be had, or None."""
        return None

    def version(self):
        return ""

    # --- life ---
    def prepare(self, service):
        self.service = service
        self.folder = self.bench.folder(self.name)
        self.changes = []
        self.wire = self.make_wire()
        if service.probe:
            self.wire.add_probe(self.kernel)
        self.configure()

    def make_wire(self):
        return VethWire(self.bench, True, kernel_load=self.service.kernel_load)

    def configure(self):
        """Writes the files."""

    def boot(self, timeout):
        """Starts the programs and waits until they serve; NotLoaded when they do not within `timeout` seconds."""
        raise NotImplementedError

    def halt(self):
        """Ends the programs; wire and files stay for the next boot()."""
        for p in reversed(self.processes):
            self.bench.stop(p, timeout=3)
        self.processes = []

    def stop(self):
        self.halt()
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        if self.folder and not self.bench.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.service = None

    def running_programs(self):
        return bool(self.processes) and all(p.alive() for p in self.processes)

    @property
    def workers(self):
        """Processes that share the connections: one, unless this machine lets no process open as many files as the case has connections."""
        if not self.kernel:
            return 1
        return self.service.processes or max(1, math.ceil(self.service.connections * 1.06 / (self.bench.open_files - 1_000)))

    def start(self, name, argv, namespace=True, dpdk=False, env=None):
        p = self.bench.start(name, argv, None if dpdk else self.bench.dut_core, self.wire.dut if namespace else None, self.folder, env)
        self.processes.append(p)
        return p

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def variables(self, **more):
        s = self.service
        per_worker = s.connections if self.workers == 1 or s.processes else self.bench.open_files - 500
        return {"DIR": self.folder, "CORE": self.bench.dut_core, "CORE_MASK": format(1 << self.bench.dut_core, "b"),
                "OPEN_FILES": self.bench.open_files, "CONNECTIONS": per_worker, "WORKERS": self.workers,
                "PORT": s.port, "LOG": s.log, "TLS": s.tls, "PROBE": s.probe, "CERTIFICATE": self.material.certificate, "KEY": self.material.key,
                "COMBINED": self.material.combined, **more}

    def wait_listening(self, timeout):
        """Until the kernel accepts a connection for it."""
        def accepted():
            for p in self.processes:
                if not p.alive():
                    raise LabError(f"{p.name} ended with {p.popen.returncode}:\n{p.tail()}\n{self.errors()}")
            with self.wire.dut.socket() as s:
                s.settimeout(0.5)
                return s.connect_ex((DUT, self.service.port)) == 0
        try:
            until(accepted, timeout, f"{self.name} listening", step=0.03)
        except LabError as e:
            if "not within" in str(e):
                raise NotLoaded(f"did not serve within {timeout:.0f} s") from e
            raise

    def errors(self):
        path = os.path.join(self.folder, "error.log")
        return open(path, errors="replace").read()[-2000:] if os.path.exists(path) else ""

    # --- questions while it runs ---
    def pids(self):
        """All processes of the system."""
        out = []
        for p in self.processes:
            out += [p.pid, *children(p.pid)]
        return out

    def connections_open(self):
        """Client connections, by the system's own (or its kernel's) count."""
        text = self.wire.dut.run(["cat", "/proc/net/sockstat"]).stdout.decode()
        m = re.search(r"TCP: inuse (\d+)", text)
        return int(m.group(1)) if m else 0

    def prepare_change(self, k):
        """Everything about the k-th route change that may be done beforehand (files written aside)."""

    def change(self, k):
        """Sends the change on its way; how it is done is part of what is measured."""
        raise NotImplementedError


def children(pid):
    out = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for c in open(f"/proc/{pid}/task/{task}/children").read().split():
                out += [int(c), *children(int(c))]
    except FileNotFoundError:
        pass
    return out


# --- nginx ------------------------------------------------------------------------------------------------------------------------------------
class Nginx(System):
    name, title = "nginx", "nginx"

    def missing(self):
        return None if shutil.which("nginx") else "nginx is not installed (scripts/setup --peers)"

    def version(self):
        return run(["nginx", "-v"]).stderr.decode().strip().split("/")[-1]

    def text(self, changes):
        s = self.service
        listen = f"0.0.0.0:{s.port}" + (" ssl" if s.tls else "")
        servers = "\n".join(f"    server {a}:{p} max_fails=0;" for a, p in ENDPOINTS)
        return render("nginx.conf", self.variables(NGINX_SERVERS=servers, UPSTREAM_KEEPALIVE=4096, NGINX_HOSTS=routes.nginx_hosts(s.table, listen, changes)))

    def configure(self):
        self.write("nginx.conf", self.text([]))

    def boot(self, timeout):
        self.start("nginx", ["nginx", "-c", os.path.join(self.folder, "nginx.conf"), "-p", self.folder, "-e", os.path.join(self.folder, "error.log")])
        self.wait_listening(timeout)

    def prepare_change(self, k):
        self.changes.append(k)
        self.write("nginx.conf", self.text(self.changes))

    def change(self, k):
        self.processes[0].signal(signal.SIGHUP)


# --- HAProxy ----------------------------------------------------------------------------------------------------------------------------------
class HAProxy(System):
    name, title = "haproxy", "HAProxy"

    def missing(self):
        return None if shutil.which("haproxy") else "HAProxy is not installed (scripts/setup --peers)"

    def version(self):
        return run(["haproxy", "-v"]).stdout.decode().split()[2].split("-")[0]

    def configure(self):
        s = self.service
        rules, files = routes.haproxy_routes(s.table, self.folder)
        for path, text in files.items():
            with open(path, "w") as f:
                f.write(text)
        servers = "\n".join(f"  server s{i} {a}:{p}" for i, (a, p) in enumerate(ENDPOINTS))
        for i in range(self.workers):
            self.write(f"haproxy-{i}.cfg", render("haproxy.cfg", self.variables(HAPROXY_SERVERS=servers, HAPROXY_ROUTES=rules, NUMBER=i)))

    def boot(self, timeout):
        for i in range(self.workers):
            self.start("haproxy", ["haproxy", "-db", "-f", os.path.join(self.folder, f"haproxy-{i}.cfg")])
        self.wait_listening(timeout)

    def change(self, k):
        """The runtime API: one entry of the map."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(os.path.join(self.folder, "admin-0.sock"))
            s.sendall(f"add map {self.folder}/routes.map {routes.CHANGE_HOST}{routes.change_path(k)} web\n".encode())
            answer = s.recv(4096).decode().strip()
        if answer:
            raise LabError(f"HAProxy: {answer}")


# --- Envoy's vocabulary -----------------------------------------------------------------------------------------------------------------------
def mesh(variables, route_config):
    """mesh.yaml as a dict, with the route table (which may be very large, hence not through text)."""
    endpoints = json.dumps([{"endpoint": {"address": {"socket_address": {"address": a, "port_value": p}}}} for a, p in ENDPOINTS])
    config = yaml.safe_load(render("mesh.yaml", dict(variables, ENDPOINTS=endpoints, ROUTE_CONFIG="null")))
    hcm = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    hcm["route_config"] = route_config
    return config, hcm


class Envoy(System):
    name, title = "envoy", "Envoy"

    @property
    def binary(self):
        found = sorted(p for p in os.listdir(PEERS) if p.startswith("envoy-")) if os.path.isdir(PEERS) else []
        path = os.path.join(PEERS, found[-1], "bin", "envoy") if found else ""
        return path if os.access(path, os.X_OK) else shutil.which("envoy")

    def missing(self):
        return None if self.binary else "Envoy is not installed (scripts/setup --peers)"

    def version(self):
        m = re.search(r"/(\d+\.\d+\.\d+)/", run([self.binary, "--version"]).stdout.decode())
        return m.group(1) if m else "?"

    def rds(self, changes):
        return {"version_info": str(len(changes)), "resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", **routes.mesh_route_config(self.service.table, changes)}]}

    def configure(self):
        s = self.service
        config, hcm = mesh(self.variables(), routes.mesh_route_config(s.table))
        if s.probe:  # route changes arrive as a file that replaces another
            del hcm["route_config"]
            hcm["rds"] = {"route_config_name": "routes", "config_source": {
                "path_config_source": {"path": os.path.join(self.folder, "rds.json")}, "resource_api_version": "V3"}}
            self.write("rds.json", json.dumps(self.rds([])))
        config.update(yaml.safe_load(render("envoy.yaml", self.variables())))
        config["static_resources"]["listeners"][0]["tcp_backlog_size"] = 65535  # the one field Millrace has no use for
        self.write("envoy.json", json.dumps(config))

    def boot(self, timeout):
        for _ in range(self.workers):
            self.start("envoy", [self.binary, "-c", os.path.join(self.folder, "envoy.json"), "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
        self.wait_listening(timeout)

    def prepare_change(self, k):
        self.changes.append(k)
        self.write("rds.json.new", json.dumps(self.rds(self.changes)))

    def change(self, k):
        os.rename(os.path.join(self.folder, "rds.json.new"), os.path.join(self.folder, "rds.json"))


# --- Millrace ----------------------------------------------------------------------------------------------------------------------------------
class Millrace(System):
    """Over shared memory: the port that stands in for a NIC. All its threads but the worker, and millrace-control, run on the same core as the
    worker, so that no system has more than one core."""

    name, title = "millrace", "Millrace"
    MEMORY_MB = 512
    session = None  # millctl, while routes change
    polls, kernel = True, False

    def missing(self):
        try:
            for p in ("millrace-dataplane", "millrace-control", "millctl"):
                lab.program(p)
        except LabError as e:
            return str(e)
        return None

    def version(self):
        commit = run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10"], check=False).stdout.decode().strip()
        return commit or "?"

    def make_wire(self):
        return VhostWire(self.bench)

    def configure(self):
        s = self.service
        self.run_dir = os.path.join(self.folder, "run")
        port = self.wire.millrace_port()
        device = "\n    ".join(f'{k}: "{v}"' for k, v in port.items())
        # Packets are for what is under way, not for idle connections: the same pools in all cases.
        variables = self.variables(NAME=os.path.basename(self.folder) + f"-{os.getpid()}", DEVICE=device, MAIN_CORE=self.bench.generator_core,
                                   PAYLOAD_PACKETS=65_536, HEADER_PACKETS=32_768, MEMORY_MB=self.MEMORY_MB)
        config, _ = mesh(variables, routes.mesh_route_config(s.table))
        config.update(yaml.safe_load(render("millrace.yaml", variables)))
        self.config_file = self.write("millrace.json", json.dumps(config))

    def halt(self):
        """The data plane says with its exit code whether every packet came back to its pool; that must be so here too."""
        if self.session is not None:
            self.session.kill()
            self.session.communicate()
            self.session = None
        bad = None
        for p in reversed(self.processes):
            was_alive = p.alive()
            code = self.bench.stop(p, timeout=10)
            if p.name == "millrace-dataplane" and (not was_alive or code != 0):
                bad = f"the data plane ended with {code}: {p.log_tail_at_stop.splitlines()[-1] if p.log_tail_at_stop else ''}"
        self.processes = []
        if bad:
            self.complaints.append(bad)

    def boot(self, timeout):
        end = time.monotonic() + timeout
        shutil.rmtree(self.run_dir, ignore_errors=True)  # edits of an earlier run would survive
        os.makedirs(self.run_dir)
        lab.reserve_hugepages(self.MEMORY_MB + 64)
        control = self.start("millrace-control", [lab.program("millrace-control"), "--config", self.config_file, "--run-dir", self.run_dir], namespace=False)
        self.dataplane = self.start("millrace-dataplane", [lab.program("millrace-dataplane"), "--config", self.config_file, "--run-dir", self.run_dir], dpdk=True)
        try:
            self.dataplane.wait_log("waiting for tables", timeout=min(timeout, 30))
            pin_all(self.dataplane.pid, self.bench.dut_core)
            left = max(1, int(end - time.monotonic()))
            p = self.millctl("status", "--wait", str(left), check=False, timeout=left + 10)
        except subprocess.TimeoutExpired as e:  # control is still at its tables
            raise NotLoaded(f"did not serve within {timeout:.0f} s") from e
        except LabError as e:
            raise LabError(f"{e}\n{control.tail()}") from e
        if p.returncode != 0:
            if control.alive() and self.dataplane.alive():
                raise NotLoaded(f"did not serve within {timeout:.0f} s")
            raise LabError(f"Millrace did not start:\n{control.tail()}\n{self.dataplane.tail()}")

    def millctl(self, *args, check=True, timeout=60):
        return run([lab.program("millctl"), "--run-dir", self.run_dir, *args], check=check, timeout=timeout)

    def connections_open(self):
        status = json.loads(self.millctl("status", "-o", "json").stdout)
        for w in status["workers"]:
            for p in w["pools"]:
                if p["name"] == "connections":
                    return int(p["in_use"])
        return 0

    def prepare_change(self, k):
        """A session of millctl with its connection open, as HAProxy's is a socket: the start of a program is not what is measured."""
        if self.session is None:
            self.session_log = os.path.join(self.folder, "millctl.log")
            with open(self.session_log, "wb") as log:
                self.session = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(self.bench.generator_core), "chrt", "-f", "1",
                                                 lab.program("millctl"), "--run-dir", self.run_dir, "batch"], stdin=subprocess.PIPE, stdout=log, stderr=log)
            self.say_to_session("status")
            until(lambda: os.path.getsize(self.session_log) > 0, 20, "millctl's session")

    def say_to_session(self, line):
        self.session.stdin.write(line.encode() + b"\n")
        self.session.stdin.flush()

    def change(self, k):
        self.say_to_session(f"route add --route-config routes --virtual-host {routes.CHANGE_HOST} --name change-{k} --prefix {routes.change_path(k)} "
                            "--cluster web --timeout 0s --first")


class MillraceVeth(Millrace):
    """The same over the kernel's own wire: what the port costs, and what does not come from it."""

    name, title = "millrace-veth", "Millrace (veth)"

    def make_wire(self):
        return VethWire(self.bench, False)


# --- the limit of a wire -----------------------------------------------------------------------------------------------------------------------
class Limit(System):
    """The generator's second self in the device under test's place: it sends every frame back to the router, as fast as the port goes, with no TCP. Clients
    ask the servers directly through it. The upper limit of every figure on this wire, and the latency that is not the gateway's."""

    name, title = "limit", "raw limit"
    polls, kernel = True, False

    def missing(self):
        from . import load
        return load.program_missing()

    def make_wire(self):
        return VhostWire(self.bench)

    def boot(self, timeout):
        from . import load
        lab.reserve_hugepages(256 + 64)
        device = self.wire.stand_in_argv()[:2]
        p = self.start("forward", [load.PROGRAM, "--core", str(self.bench.dut_core), "--main-core", str(self.bench.generator_core), "--memory-mb", "256",
                                   "--file-prefix", os.path.basename(self.folder) + f"-{os.getpid()}", *device, "--role", "forward", "--duration", "3600",
                                   "--warmup", "0", "--quiet", "--interval", "0"], dpdk=True)
        time.sleep(0.5)
        if not p.alive():
            raise LabError(f"the forwarder ended with {p.popen.returncode}:\n{p.tail()}")
        pin_all(p.pid, self.bench.dut_core)


class LimitVeth(Limit):
    name, title = "limit-veth", "raw limit (veth)"

    def make_wire(self):
        return VethWire(self.bench, False)


ALL = [Millrace, MillraceVeth, Nginx, HAProxy, Envoy, Limit, LimitVeth]
BY_NAME = {c.name: c for c in ALL}
