"""The load generator (perf/load) against the gateway on one wire of shared memory: net_vhost is the generator's end, net_virtio_user the gateway's,
as in perf/compare. Whatever the machine does meanwhile, every answer must be right and nothing may be lost; how fast it went is only printed."""
import json
import os
import signal

import pytest

import conftest  # noqa: F401 - puts tests/support on the path
import lab

ROUTER, GATEWAY = "10.63.0.1", "10.63.0.2"
SERVERS = [f"10.65.0.{i}" for i in range(1, 5)]
GATEWAY_MB, GENERATOR_MB = 512, 256


def generator():
    path = os.path.join(lab.BUILD, "perf", "millrace-load")
    if not os.path.exists(path):
        pytest.skip("perf/millrace-load is not built")
    return path


class Bench:
    """A gateway with one port, and the generator as its only neighbour. The generator owns the socket, so it is started first and waits."""

    def __init__(self):
        program = generator()
        lab.reserve_hugepages(GATEWAY_MB + GENERATOR_MB + 64)
        self.lab = lab.Lab(hugepages=True, memory_mb=GATEWAY_MB)
        self.program, self.socket = program, os.path.join(self.lab.dir, "wire.sock")

    def configuration(self):
        certificate, key = self.lab.make_certificate("load", ["load.example"])
        route = {"match": {"prefix": "/"}, "route": {"cluster": "servers"}}
        http = lab.hcm([{"name": "all", "domains": ["*"], "routes": [route]}])
        listeners = [lab.listener("http", 80, http),
                     lab.listener("https", 443, [{"filters": [http], "transport_socket": lab.tls_socket(certificate, key)}])]
        clusters = [lab.cluster("servers", [(a, 8080) for a in SERVERS])]
        return self.lab.write("bootstrap.json", dict(lab.bootstrap(listeners, clusters), dataplane=self.lab.dataplane_section(ports=[self.port()])))

    def port(self):
        return {"name": "wire", "device": "virtio_user:" + self.socket, "addresses": [GATEWAY + "/24"], "gateways": [ROUTER]}

    def run(self, *options, port=80):
        """One run of clients and servers; returns the result, with the exit code as "code" and what was printed as "text"."""
        result = os.path.join(self.lab.dir, "result.json")
        argv = [self.program, "--core", str(self.lab.main_core), "--main-core", str(self.lab.worker_core), "--memory-mb", str(GENERATOR_MB),
                "--device", f"net_vhost0,iface={self.socket},tso=1", "--router", ROUTER + "/24", "--dut", GATEWAY,
                "--clients", "10.64.0.0/16", "--target", f"{GATEWAY}:{port}", "--servers", f"{SERVERS[0]}-{SERVERS[-1]}:8080",
                "--warmup", "0.3", "--interval", "0", "--start-on-signal", "--json", result, *options]
        load = self.lab.start("load", argv)
        load.wait_log("waiting for SIGUSR1")
        path = self.configuration()
        self.lab.start_dataplane(path)
        self.lab.start_control(path)
        load.kill(signal.SIGUSR1)
        load.popen.wait(90)
        print(load.log())
        print(self.lab.millctl("drops"))
        assert self.lab.stop_gateway() == 0, self.lab.dataplane.log()
        with open(result) as f:
            return dict(json.load(f), code=load.popen.returncode, text=load.log())

    def close(self):
        self.lab.close()


@pytest.fixture
def bench():
    b = Bench()
    yield b
    b.close()


REPEATED = ("retransmissions", "syn_retransmissions", "duplicates")  # what a data plane that is descheduled repeats (RFC 8985 probes soon)


def assert_clean(r):
    wrong = {k: v for k, v in r["errors"].items() if v and k not in REPEATED}
    assert not wrong and (r["clean"] or any(r["errors"].values())), r["text"]
    # Both are counted between the same two moments, so what is under way then is in one and not in the other.
    assert r["requests"] > 0 and r["server_requests"] == pytest.approx(r["requests"], rel=0.01, abs=100), r["text"]


def test_keep_alive(bench):
    r = bench.run("--connections", "32", "--response-body", "64", "--duration", "2")
    assert_clean(r)
    assert r["requests"] > 1000, r["text"]


def test_connection_for_each_request(bench):
    r = bench.run("--connections", "32", "--requests-per-connection", "1", "--response-body", "64", "--duration", "1")
    assert_clean(r)
    assert r["connections"] > 100, r["text"]


def test_open_loop(bench):
    r = bench.run("--connections", "64", "--rate", "5000", "--response-body", "1K", "--duration", "2")
    assert_clean(r)
    assert r["requests"] == pytest.approx(10_000, rel=0.05), r["text"]


def test_bodies_both_ways(bench):
    # What is in flight fits the gateway's transmit ring, so that nothing is lost however rarely the generator gets its core.
    r = bench.run("--connections", "4", "--window", "64K", "--method", "POST", "--request-body", "100K", "--response-body", "1M", "--duration", "1")
    assert_clean(r)


def test_tls(bench):
    r = bench.run("--connections", "16", "--tls-clients", "--requests-per-connection", "50", "--tls-resume", "--response-body", "64", "--duration", "1",
                  port=443)
    assert_clean(r)
    assert r["handshakes_resumed_per_s"] > 0, r["text"]


def test_idle_connections(bench):
    r = bench.run("--connections", "4", "--idle", "5000", "--ramp", "5000", "--response-body", "64", "--duration", "1")
    assert_clean(r)
    assert r["idle_connections"] == 5000, r["text"]
