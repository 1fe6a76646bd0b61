"""Statistics sent to a StatsD server over TCP and to a DogStatsD agent over UDP, while real requests go through."""
import os
import re
import socket
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

TYPE = "type.googleapis.com/envoy.config.metrics.v3."


class Collector:
    """A StatsD server on loopback that adds counters up and keeps the last value of gauges."""

    def __init__(self, kind):
        self.kind, self.sums, self.gauges, self.bad, self.lock = kind, {}, {}, [], threading.Lock()
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            self.socket.listen()
        self.socket.settimeout(0.2)
        self.stopping = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        peer, rest = None, b""
        while not self.stopping:
            try:
                if self.kind == socket.SOCK_STREAM and peer is None:
                    peer, _ = self.socket.accept()
                    peer.settimeout(0.2)
                data = (peer or self.socket).recv(65536)
            except socket.timeout:
                continue
            if not data:
                peer = None
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.take(line.decode())
        if peer is not None:
            peer.close()

    def take(self, line):
        m = re.fullmatch(r"([A-Za-z0-9_./\-\[\]]+):([0-9.e+-]+)\|(c|g|ms)(\|@[0-9.e-]+)?(\|#.*)?", line)
        with self.lock:
            if not m:
                self.bad.append(line)
            elif m[3] == "c":
                self.sums[m[1] + (m[5] or "")] = self.sums.get(m[1] + (m[5] or ""), 0) + int(m[2])
            elif m[3] == "g":
                self.gauges[m[1]] = int(m[2])

    def wait_for(self, name, value, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.lock:
                if self.sums.get(name) == value:
                    return
            time.sleep(0.05)
        with self.lock:
            raise AssertionError(f"{name} is {self.sums.get(name)}, not {value}; there are {sorted(self.sums)[:200]}")

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.socket.close()


@pytest.fixture(scope="module")
def world():
    tcp, udp = Collector(socket.SOCK_STREAM), Collector(socket.SOCK_DGRAM)
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "web\\n"; }} }}')
        config = L.bootstrap([L.listener("http", 8080, L.hcm([{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]))],
            [L.cluster("web", [(lab.upstream4(0), 8001)]), L.cluster("statsd", [("127.0.0.1", tcp.port)])])
        config["stats_flush_interval"] = "0.1s"
        config["stats_sinks"] = [
            {"name": "envoy.stat_sinks.statsd", "typed_config": {"@type": TYPE + "StatsdSink", "tcp_cluster_name": "statsd"}},
            {"name": "envoy.stat_sinks.dog_statsd", "typed_config": {
                "@type": TYPE + "DogStatsdSink", "prefix": "edge", "max_bytes_per_datagram": 1432,
                "address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": udp.port}}}}]
        lab.path = lab.start_gateway(config)
        yield lab, tcp, udp, config
        assert lab.stop_gateway() == 0
    tcp.stop()
    udp.stop()


def test_every_request_is_counted_once(world):
    lab, tcp, udp, _ = world
    for _ in range(25):
        lab.curl("-f", "-o", "/dev/null", f"http://{lab.INGRESS4}:8080/")
    tcp.wait_for("envoy.http.ingress.downstream_rq_total", 25)
    tcp.wait_for("envoy.cluster.web.upstream_rq_2xx", 25)
    tcp.wait_for("envoy.listener.0.0.0.0_8080.downstream_cx_total", 25)
    udp.wait_for("edge.cluster.upstream_rq_2xx|#envoy.cluster_name:web", 25)
    assert tcp.gauges["envoy.server.live"] == 1 and not tcp.bad and not udp.bad
    assert not [n for n in tcp.sums if ".endpoint." in n]


def test_another_sink_is_refused_while_running(world):
    lab, _, _, config = world
    p = lab.millctl("apply", "-f", lab.write("other.yaml", dict(config, stats_flush_interval="7s")), check=False)
    assert p.returncode == 1 and b"stats_sinks: differs from what is running" in p.stderr
    assert lab.millctl("apply", "-f", lab.write("same.yaml", config), check=False).returncode == 0
