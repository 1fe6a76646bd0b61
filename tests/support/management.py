"""Management servers for the end-to-end tests: tests/support/ads_server.py as a process, and the resources it serves."""
import glob
import json
import os
import subprocess
import time

import lab as laboratory
from lab import cluster, hcm, listener

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, which has python3-grpcio
SUPPORT = os.path.join(laboratory.ROOT, "tests", "support")
HTTP2 = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}}


def available():
    return subprocess.run([SYSTEM_PYTHON, "-c", "import grpc"], capture_output=True).returncode == 0


def descriptors(folder):
    out = os.path.join(folder, "api.set")
    if not os.path.exists(out):
        files = sorted(glob.glob(os.path.join(laboratory.ROOT, "lib", "api", "*.proto")))
        subprocess.run(["protoc", "--include_imports", f"--descriptor_set_out={out}", "-I", laboratory.ROOT, "-I", "/usr/include", *files],
                       check=True)
    return out


def eds_cluster(name, **extra):
    return {"name": name, "type": "EDS", "connect_timeout": "2s",
            "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}, **extra}


def assignment(name, endpoints):
    return cluster(name, endpoints)["load_assignment"]


def rds_listener(name, port, route, **extra):
    chain = hcm([], **extra)
    del chain["typed_config"]["route_config"]
    chain["typed_config"]["rds"] = {"config_source": {"ads": {}, "resource_api_version": "V3"}, "route_config_name": route}
    return listener(name, port, chain)


def routes(name, cluster_name):
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"],
                                             "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster_name}}]}]}


class ManagementServer:
    """One server; `resources` by short type is what it serves, from set() on."""

    def __init__(self, lab, name, port, tls=()):
        self.lab, self.name, self.port, self.tls, self.runs, self.version = lab, name, port, list(tls), 0, 0
        self.state, self.log = (os.path.join(lab.dir, f"{name}.{end}") for end in ("state", "requests"))
        self.process = None

    def set(self, **resources):
        self.version += 1
        with open(self.state + ".new", "w") as f:
            json.dump({"version": str(self.version), "resources": resources}, f)
        os.rename(self.state + ".new", self.state)

    def start(self):
        self.runs += 1
        self.process = self.lab.start(f"{self.name}-{self.runs}", [
            SYSTEM_PYTHON, os.path.join(SUPPORT, "ads_server.py"), "--port", str(self.port), "--state", self.state, "--log", self.log,
            "--descriptors", descriptors(self.lab.dir), "--name", self.name, *self.tls])
        self.process.wait_log("serving")

    def kill(self):
        self.process.kill()

    def said(self, event="request"):
        """What the server was told so far: dictionaries."""
        if not os.path.exists(self.log):
            return []
        with open(self.log) as f:
            return [e for e in (json.loads(line) for line in f if line.endswith("\n")) if e["event"] == event]

    def requests(self, short):
        return [r for r in self.said() if r["type"] == short]

    def wait(self, what, condition, timeout=60):
        end = time.monotonic() + timeout
        while not condition(self):
            assert time.monotonic() < end, f"{self.name}: {what} did not happen; it was told {self.said()[-8:]}"
            time.sleep(0.05)
