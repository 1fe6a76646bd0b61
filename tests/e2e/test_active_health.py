"""Active health checks against real servers that answer badly, hang, die and come back, seen and acted on by two workers."""
import collections
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

HTTP = {"timeout": "0.3s", "interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 2, "healthy_threshold": 2,
        "http_health_check": {"path": "/healthz"}}
TCP = {**{k: v for k, v in HTTP.items() if k != "http_health_check"},
       "tcp_health_check": {"send": {"text": b"PING\n".hex()}, "receive": [{"text": b"PONG".hex()}]}}
PORT_WEB, PORT_RAW = 8001, 8002


class Backend:
    """A server in the upstream namespace that does as it is told: `mode` is a status, "hang" or "close"; raw: PING and PONG."""

    def __init__(self, lab, index, port, raw=False):
        self.lab, self.address, self.raw = lab, (lab.upstream4(index), port), raw
        self.name = str(index)
        self.mode = 200
        self.checks, self.requests, self.heads = 0, 0, []
        self.connections, self.listening = set(), None
        self.lock = threading.Lock()

    def start(self):
        s = self.lab.upstream.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(self.address)
        s.listen(64)
        self.listening = s
        threading.Thread(target=self._accept, args=(s,), daemon=True).start()
        return self

    def stop(self):
        listening, self.listening = self.listening, None
        if listening is None:
            return
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        with self.lock:
            connections = list(self.connections)
        for c in connections:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listening):
        while True:
            try:
                c, _ = listening.accept()
            except OSError:
                return
            with self.lock:
                self.connections.add(c)
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        end = b"\n" if self.raw else b"\r\n\r\n"
        seen = b""
        try:
            while True:
                while end not in seen:
                    more = c.recv(4096)
                    if not more:
                        return
                    seen += more
                head, seen = seen.split(end, 1)
                if not self._answer(c, head):
                    return
        except OSError:
            pass
        finally:
            with self.lock:
                self.connections.discard(c)
            c.close()

    def _answer(self, c, head):
        check = self.raw or head.startswith(b"GET /healthz ")
        with self.lock:
            self.checks += check
            self.requests += not check
            if check and head not in self.heads:
                self.heads.append(head)
        if not check:
            c.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.name)}\r\n\r\n{self.name}".encode())
            return True
        if self.mode == "close":
            return False
        if self.mode != "hang":
            answer = b"PONG\n" if self.mode == 200 else b"BUSY\n"
            c.sendall(answer if self.raw else f"HTTP/1.1 {self.mode} X\r\ncontent-length: 0\r\n\r\n".encode())
        return True


def configuration(lab, **edits):
    a, b = lab.upstream4(0), lab.upstream4(1)
    http = {**HTTP, **edits}
    panic = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
    clusters = [{**L.cluster("web", [(a, PORT_WEB), (b, PORT_WEB)]), "health_checks": [http], **panic},
                {**L.cluster("raw", [(a, PORT_RAW)]), "health_checks": [TCP], **panic}]
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]
    listeners = [L.listener("http", 8080, L.hcm([{"name": "all", "domains": ["*"], "routes": routes}])),
                 L.listener("raw", 8081, [{"filters": [{"name": "tcp", "typed_config": {
                     "@type": L.TYPES["tcp_proxy"], "stat_prefix": "raw", "cluster": "raw"}}]}])]
    return L.bootstrap(listeners, clusters)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with L.Lab(memory_mb=512, workers=2) as lab:
        lab.web = [Backend(lab, i, PORT_WEB).start() for i in range(2)]
        lab.raw = Backend(lab, 0, PORT_RAW, raw=True).start()
        lab.config = lab.start_gateway(configuration(lab))
        yield lab
        assert [lab.control.stop(), lab.stop_gateway()] == [0, 0]
        for s in lab.web + [lab.raw]:
            s.stop()


def get(lab, path="/"):
    # A connection each, so that both workers see requests.
    p = lab.client.run(["curl", "-s", "-m", "10", "-w", " %{http_code}", f"http://{lab.INGRESS4}:8080{path}"])
    return p.stdout.decode()


def who(lab, n=12):
    return set(collections.Counter(get(lab) for _ in range(n)))


def endpoints(lab):
    """State by cluster and number of the endpoint."""
    out = {}
    for line in lab.millctl("list", "endpoints").splitlines()[1:]:
        words = line.split(maxsplit=3)
        out[words[0], words[1].split(":")[0].split(".")[-1]] = words[3].strip()
    return out


def state(lab, index, cluster="web"):
    return endpoints(lab)[cluster, str(10 + index)]


def until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def healthy(lab, *indices):
    until(lambda: all(state(lab, i) == "in rotation" for i in indices), "an endpoint does not become healthy")



@pytest.mark.parametrize("mode, says", [(500, "status 500"), (503, "status 503"), ("hang", "timeout"), ("close", "connection closed")])
def test_bad_answers_take_an_endpoint_out_and_good_ones_bring_it_back(lab, mode, says):
    healthy(lab, 0, 1)
    assert who(lab) == {"0 200", "1 200"}
    lab.web[1].mode = mode
    until(lambda: state(lab, 1) == "failed active health check: " + says, f"endpoint 1 is not found bad: {endpoints(lab)}")
    assert who(lab) == {"0 200"}
    lab.web[1].mode = 200
    healthy(lab, 1)
    assert who(lab) == {"0 200", "1 200"}


def test_a_server_that_dies_and_comes_back(lab):
    healthy(lab, 0, 1)
    lab.web[0].stop()
    until(lambda: state(lab, 0) == "failed active health check: connection refused", "its death is not found")
    assert who(lab) == {"1 200"}
    lab.web[1].mode = 503
    until(lambda: state(lab, 1).startswith("failed"), "neither are the 503s of the other")
    assert get(lab) == "no healthy upstream 503"
    lab.web[0].start()
    lab.web[1].mode = 200
    healthy(lab, 0, 1)
    assert who(lab) == {"0 200", "1 200"}


def test_what_is_sent(lab):
    assert lab.web[0].heads == [b"GET /healthz HTTP/1.1\r\nhost: web\r\nuser-agent: Envoy/HC"]


def test_one_check_for_the_whole_machine(lab):
    healthy(lab, 0, 1)
    before, began = lab.web[0].checks, time.monotonic()
    time.sleep(3)
    checks, seconds = lab.web[0].checks - before, time.monotonic() - began
    # Every 0.2 s and the time an answer takes: a second worker that checks too would double it.
    assert 3 <= checks <= seconds / 0.2 + 1


def test_raw_tcp(lab):
    until(lambda: state(lab, 0, "raw") == "in rotation", "PONG does not make it healthy")
    lab.raw.mode = 1
    until(lambda: state(lab, 0, "raw") == "failed active health check: timeout", "BUSY does not make it unhealthy")
    with lab.connect(8081) as s:
        assert s.recv(1) == b""  # nobody to connect to
    lab.raw.mode = 200
    until(lambda: state(lab, 0, "raw") == "in rotation", "it does not come back")
    with lab.connect(8081) as s:
        s.sendall(b"PING\n")
        assert s.recv(5) == b"PONG\n"


def test_edits_keep_what_was_found(lab):
    healthy(lab, 0, 1)
    lab.web[1].mode = 503
    until(lambda: state(lab, 1).startswith("failed"), "the 503s are not found")
    for timeout in (3, 4):
        clusters = configuration(lab)["static_resources"]["clusters"]
        edited = lab.write("edit.json", {"static_resources": {"clusters": [dict(clusters[0], connect_timeout=f"{timeout}s")]}})
        lab.millctl("apply", "-f", edited)
        lab.wait_in_force()
        assert state(lab, 1) == "failed active health check: status 503"
        assert who(lab, 6) == {"0 200"}
    lab.web[1].mode = 200
    healthy(lab, 0, 1)


def test_admin_and_counters(lab):
    healthy(lab, 0, 1)
    lab.web[1].mode = "hang"
    until(lambda: state(lab, 1) == "failed active health check: timeout", "the silence is not found")

    def admin(path):
        return subprocess.run(["curl", "-s", "--unix-socket", os.path.join(lab.run_dir, "admin.sock"), "http://admin" + path],
                              stdout=subprocess.PIPE, check=True, timeout=20).stdout.decode()
    flags = [line for line in admin("/clusters").splitlines() if line.startswith("web::") and "::health_flags::" in line]
    assert [f.split("::")[-1] for f in flags] == ["healthy", "/failed_active_hc/active_hc_timeout"]
    hosts = [c for c in json.loads(admin("/clusters?format=json"))["cluster_statuses"] if c["name"] == "web"][0]["host_statuses"]
    assert hosts[1]["health_status"]["failed_active_health_check"] is True and "failed_active_health_check" not in hosts[0]["health_status"]
    stats = dict(line.split(": ") for line in admin("/stats?filter=cluster.web.health_check").splitlines())
    n = {k.removeprefix("cluster.web.health_check."): int(v) for k, v in stats.items()}
    assert n["healthy"] == 1 and n["unchecked"] == 0 and n["degraded"] == 0
    assert n["failure"] >= 2 and n["network_failure"] >= 2 and n["success"] >= 10
    assert n["attempt"] - 2 <= n["success"] + n["failure"] <= n["attempt"] + 2
    lab.web[1].mode = 200
    healthy(lab, 0, 1)


def test_a_killed_control_changes_nothing_and_a_new_data_plane_checks_anew(lab):
    healthy(lab, 0, 1)
    lab.control.kill()
    before = lab.web[0].checks
    lab.web[1].mode = 500
    until(lambda: who(lab, 6) == {"0 200"}, "without control nobody acts on checks")
    assert lab.web[0].checks > before
    lab.start_control(lab.config, name="control2")
    assert state(lab, 1) == "failed active health check: status 500"
    lab.web[1].mode = 200
    healthy(lab, 0, 1)
