"""Millrace's TCP against Linux's, through a wire with faults (tests/support/impair.cc): the gateway as a TCP proxy between a kernel client behind
the bad wire and a kernel server on a good one, so that every byte passes our sender and our receiver; and Linux to Linux through a wire with the
same faults, beside it, to compare.

    client ── impair ── ingress │ gateway │ egress ── upstream        c0 a0 ═ b0 ingress
      └────── impair ───────────────────────────────── kernel         c1 a1 ═ b1 k0

With MILLRACE_LONG=1 (`scripts/dev kernel`) each transfer is 1 GB each way, and throughput is measured longer and judged more strictly."""
import json
import os
import re
import statistics
import subprocess
import sys

import pytest

import conftest  # noqa: F401 - puts tests/support on the path
import lab

LONG = os.environ.get("MILLRACE_LONG", "") not in ("", "0")
MB = 1 << 20
PORT, PORT6, SINK = 90, 91, 9000
KERNEL4, KERNEL6 = "10.77.3.1", "fd77:3::1"
TRANSFER = os.path.join(lab.ROOT, "tests", "support", "transfer.py")
FAULTS = {"--drop": 0.005, "--duplicate": 0.005, "--reorder": 0.005, "--corrupt": 0.002, "--delay-ms": 0.5, "--reorder-ms": 2}


def impair():
    path = os.path.join(lab.BUILD, "tests", "support", "impair")
    if not os.path.exists(path):
        pytest.skip("tests/support/impair is not built")
    return path


class ImpairedLab(lab.Lab):
    """The usual lab with a bad wire between client and gateway, and a kernel server behind a second one."""

    def _wire(self, upstreams):
        self.middle = self._namespace("m")
        super()._wire(upstreams)
        self.kernel = self._namespace("k")
        self._bad_pair(self.client, "c1", "a1", "b1", self.kernel, "k0", ["10.77.3.2/24"], ["fd77:3::2/64"])
        self.kernel.ip("addr", "add", KERNEL4 + "/24", "dev", "k0")
        self.kernel.ip("addr", "add", KERNEL6 + "/64", "dev", "k0", "nodad")
        for n in (self.client, self.upstream, self.kernel):
            n.run(["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"])

    def _pair(self, peer, peer_if, gateway_if, v4, v6):
        if gateway_if == "ingress":
            self._bad_pair(peer, peer_if, "a0", "b0", self.gateway, gateway_if, v4, v6)
            self.gateway.run(["sysctl", "-qw", f"net.ipv6.conf.{gateway_if}.disable_ipv6=1"])
        else:
            super()._pair(peer, peer_if, gateway_if, v4, v6)

    def _bad_pair(self, peer, peer_if, a, b, far, far_if, v4, v6):
        peer.ip("link", "add", peer_if, "type", "veth", "peer", "name", a, "netns", self.middle.name)
        far.ip("link", "add", far_if, "type", "veth", "peer", "name", b, "netns", self.middle.name)
        for i in (a, b):
            self.middle.run(["sysctl", "-qw", f"net.ipv6.conf.{i}.disable_ipv6=1"])
        for ns, interface in ((peer, peer_if), (self.middle, a), (self.middle, b), (far, far_if)):
            ns.run(["ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off", "tso", "off", "gro", "off"], check=False)
            ns.ip("link", "set", interface, "up")
        for address in v4:
            peer.ip("addr", "add", address, "dev", peer_if)
        for address in v6:
            peer.ip("addr", "add", address, "dev", peer_if, "nodad")

    def bad_wire(self, a, b, seed, faults):
        """Connects two ends in the middle; what it did is in wire_report() once it has been stopped."""
        argv = [impair(), a, b, "--seed", str(seed), "--json", os.path.join(self.dir, a + ".json")]
        for name, value in faults.items():
            argv += [name, str(value)]
        wire = self.start(f"impair-{a}-{seed}", argv, self.middle)
        wire.wait_log("connected")
        return wire

    def wire_report(self, wire, a):
        wire.stop()
        with open(os.path.join(self.dir, a + ".json")) as f:
            return json.load(f)

    def serve(self, namespace, name, *options):
        server = self.start(name, [sys.executable, TRANSFER, "serve", "::", str(SINK), *options], namespace)
        server.wait_log("listening")
        return server

    def connect(self, address, port, *options, timeout):
        p = self.client.run([sys.executable, TRANSFER, "connect", address, str(port), *options], timeout=timeout)
        return lines(p.stdout.decode())

    def connect_later(self, address, port, *options):
        return subprocess.Popen(self.client.argv([sys.executable, TRANSFER, "connect", address, str(port), *options]), stdout=subprocess.PIPE)


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def bad():
    impair()
    with ImpairedLab(upstreams=1) as l:
        def proxy(name, to):
            return {"name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {"@type": lab.TYPES["tcp_proxy"], "stat_prefix": name, "cluster": to}}
        l.start_gateway(lab.bootstrap(
            [lab.listener("four", PORT, proxy("four", "four")), lab.listener("six", PORT6, proxy("six", "six"), address="::")],
            [lab.cluster("four", [(l.upstream4(0), SINK)]), lab.cluster("six", [(l.upstream6(0), SINK)])]))
        yield l
        assert l.stop_gateway() == 0, l.dataplane.log()


def check_equal(client, server):
    """Both ends of one transfer: what one sent is what the other received, both ways."""
    assert client["error"] is None and server["error"] is None, (client, server)
    for one, other in ((client, server), (server, client)):
        assert one["sent"] == other["received"] and one["sent_sha256"] == other["received_sha256"], (client, server)


@pytest.mark.parametrize("address, port", [(lab.Lab.INGRESS4, PORT), (lab.Lab.INGRESS6, PORT6)], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name, faults, megabytes, seed", [("clean", {}, 64, 1), ("faults", FAULTS, 16, 4711)], ids=["clean", "faults"])
def test_bytes_arrive_both_ways(bad, address, port, name, faults, megabytes, seed):
    """As many bytes as the size says each way at the same time, through loss, duplication, reordering, corruption and delay."""
    size = (1024 if LONG else megabytes) * MB
    wire = bad.bad_wire("a0", "b0", seed, faults)
    server = bad.serve(bad.upstream, f"serve-{name}-{port}", "--bytes", str(size))
    try:
        client = bad.connect(address, port, "--bytes", str(size), timeout=3600 if LONG else 300)
        conftest.until(lambda: lines(server.log()), what="the server's account")
        report = bad.wire_report(wire, "a0")
    finally:
        wire.stop()
        server.stop()
    check_equal(client[0], lines(server.log())[0])
    assert client[0]["sent"] == client[0]["received"] == size
    print(f"{name}, {address}: {size // MB} MB each way in {client[0]['seconds']:.1f} s; {report}")
    for way in report:
        for kind in ("dropped", "duplicated", "reordered", "corrupted"):
            assert (way[kind] > 0) == bool(faults), report


def test_client_that_half_closes_at_once(bad):
    """Its FIN comes before the gateway has a connection to the server; it gets its answer all the same."""
    wire = bad.bad_wire("a0", "b0", 3, {"--delay-ms": 1})
    server = bad.serve(bad.upstream, "at-once", "--bytes", "1000")
    try:
        for _ in range(5):
            for end in bad.connect(lab.Lab.INGRESS4, PORT, "--bytes", "0", "--connections", "20", timeout=60):
                assert (end["received"], end["error"]) == (1000, None)
    finally:
        wire.stop()
        server.stop()


def round_trip_ms(ping):
    """The mean of what ping measured beside the transfers."""
    return float(re.search(r"= [0-9.]+/([0-9.]+)/", ping.communicate(timeout=60)[0].decode()).group(1))


@pytest.mark.parametrize("way", ["from the gateway", "to the gateway"])
def test_throughput_under_loss(bad, way):
    """1 % loss, 20 ms: as fast as Linux to Linux (CUBIC) through a wire with the same faults, at the same time. Loss-limited throughput is a
    window a round trip, and a data plane that shares its core with other programs has longer ones than a kernel: so windows are compared, and the
    round trips that both had are printed with the rates."""
    flows, seconds, rounds = (16, 30, 4) if LONG else (12, 10, 1)
    rates, trips = ([], []), ([], [])
    sending = ["--seconds", str(seconds)], ["--bytes", "0"]
    client, server = sending if way == "to the gateway" else sending[::-1]
    for seed in range(1, rounds + 1):
        faults = {"--drop": 0.01, "--delay-ms": 10}
        wires = [bad.bad_wire("a0", "b0", seed, faults), bad.bad_wire("a1", "b1", seed + 100, faults)]
        servers = [bad.serve(n, f"rate-{n.name}-{seed}-{client[0]}", *server) for n in (bad.upstream, bad.kernel)]
        try:
            runs = [bad.connect_later(a, p, *client, "--connections", str(flows)) for a, p in ((lab.Lab.INGRESS4, PORT), (KERNEL4, SINK))]
            pings = [subprocess.Popen(bad.client.argv(["ping", "-q", "-i", "0.05", "-c", str(seconds * 19), a]), stdout=subprocess.PIPE)
                     for a in (lab.Lab.INGRESS4, KERNEL4)]
            for t, p in zip(trips, pings):
                t.append(round_trip_ms(p))
            accounts = [lines(r.communicate(timeout=seconds * 4 + 120)[0].decode()) for r in runs]
            for s in servers:
                conftest.until(lambda: len(lines(s.log())) == flows, 60, "every account of the server")
            receivers = [lines(s.log()) for s in servers] if way == "to the gateway" else accounts
        finally:
            for p in wires + servers:
                p.stop()
        for r, ends in zip(rates, receivers):
            assert len(ends) == flows and all(e["error"] is None for e in ends), ends
            r += [e["received"] * 8e-6 / e["receive_seconds"] for e in ends]
    (ours, theirs), (our_trip, their_trip) = [statistics.mean(r) for r in rates], [statistics.mean(t) for t in trips]
    ratio = ours * our_trip / (theirs * their_trip)
    print(f"{way}: {ours:.2f} Mbit/s a flow at {our_trip:.1f} ms, Linux {theirs:.2f} at {their_trip:.1f} ms; "
          f"ratio of rates {ours / theirs:.2f}, of windows {ratio:.2f}")
    # The mean of so many flows has a standard error of about 5 % on each side (2 % in the long run).
    assert ratio >= (0.95 if LONG else 0.6), rates
