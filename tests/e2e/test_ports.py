"""Kinds of ports and of addresses: the basic set over af_packet and af_xdp, VLAN, ping of both families, what is not ours, and what the
network says when it cannot deliver."""
import hashlib
import os

import pytest

import conftest
from conftest import HTTP, MIB, TLS, command, until
from upstream_server import pattern, pattern_sha256


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def ported(request):
    g = conftest.start_gateway(request.param)
    g.device = request.param
    yield g
    conftest.end_gateway(g)


def test_the_driver_is_the_one_asked_for(ported):
    assert "net_" + ported.device in ported.lab.dataplane.log()


@pytest.mark.parametrize("base", ["http://10.77.1.1", "http://[fd77:1::1]", "http://10.77.1.1/v6", "http://[fd77:1::1]/v6"])
def test_basic_set(ported, base):
    curl = ported.lab.curl
    assert curl("-g", base + "/who").stdout.startswith(b"fd77" if base.endswith("/v6") else b"10.77.2.10")
    small = os.path.join(ported.lab.dir, "small")
    with open(small, "wb") as f:
        f.write(os.urandom(65536))
    digest = hashlib.sha256(open(small, "rb").read()).hexdigest()
    assert curl("-g", "--data-binary", "@" + small, base + "/sha256").stdout.decode() == digest
    assert curl("-g", "--data-binary", "@" + small, "-H", "transfer-encoding: chunked", base + "/sha256").stdout.decode() == digest
    assert hashlib.sha256(curl("-g", base + "/chunked?n=20&size=50000").stdout).hexdigest() == pattern_sha256(1000000)
    assert b"content-length: 5000" in curl("-g", "-I", base + "/bytes/5000").stdout


def test_large_bodies(ported):
    size = 50 * MIB
    out = os.path.join(ported.lab.dir, "out")
    ported.lab.curl("-o", out, f"http://10.77.1.1/bytes/{size}")
    with open(out, "rb") as f:
        assert hashlib.file_digest(f, "sha256").hexdigest() == pattern_sha256(size)
    p = ported.lab.curl("-T", out, "-X", "POST", "-H", "expect:", "-g", "http://[fd77:1::1]/v6/sha256")
    assert p.stdout.decode() == pattern_sha256(size)
    os.unlink(out)


def test_tls(ported):
    p = ported.lab.curl("-k", "--resolve", "exact.test:443:10.77.1.1", "https://exact.test/chain")
    assert p.stdout == b"chain_exact\n"


def test_many_connections(ported):
    clients = [ported.connect() for _ in range(100)]
    for c in clients:
        c.request("/bytes/3000")
    for c in clients:
        assert c.response().body == pattern(0, 3000)
        c.close()


@pytest.mark.parametrize("address", ["10.77.1.1", "fd77:1::1"])
@pytest.mark.parametrize("size", [0, 56, 1400])
def test_ping(ported, address, size):
    p = ported.lab.client.run(["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "5", "-s", str(size), address], check=False)
    assert b"3 received" in p.stdout, p.stdout


def test_closed_port_is_refused(ported):
    for v6 in (False, True):
        with pytest.raises(ConnectionRefusedError):
            ported.connect(9999, v6)


def test_ports_agree_with_what_was_sent(ported):
    ported.wait_idle()
    before = {p["name"]: int(p["rx_packets"]) for p in ported.lab.status()["ports"]}
    for _ in range(20):
        ported.still_serves()
    ported.wait_idle()
    status = ported.lab.status()
    after = {p["name"]: int(p["rx_packets"]) for p in status["ports"]}
    # At least SYN, request, FIN and an acknowledgement of ours a connection; nothing that multiplies.
    assert 20 * 3 <= after["ingress"] - before["ingress"] <= 20 * 12
    assert all(p["drops"] == "0" for p in status["ports"])
    bad = {"tcp_checksum", "ip4_checksum", "udp_checksum", "tx_queue_full", "no_memory", "tcp_memory"} & set(ported.drops())
    assert not bad, ported.drops()
