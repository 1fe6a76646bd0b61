"""TCP as listeners and clusters ask for it: socket_options and tcp_keepalive, seen on the wire by a real kernel's ends, and fast open."""
import json
import os
import socket
import struct
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

BBR, PLAIN, FAST = 8080, 8081, 8082
SOL_SOCKET, IPPROTO_TCP = 1, 6
SO_KEEPALIVE, MAXSEG, KEEPIDLE, CONGESTION = 9, 2, 4, 13
MSG_FASTOPEN = 0x20000000


def option(level, name, value):
    return {"level": level, "name": name, **({"int_value": value} if isinstance(value, int) else {"buf_value": value})}


RENO = "cmVubw=="
BBR_NAME = "YmJy"


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "ok\\n"; }} }}')

        def http(name, port, **extra):
            hosts = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
            return L.listener(name, port, L.hcm(hosts, route_name=name), **extra)

        web = L.cluster("web", [(lab.upstream4(0), 8001)],
                        upstream_bind_config={"socket_options": [option(IPPROTO_TCP, CONGESTION, RENO), option(IPPROTO_TCP, MAXSEG, 900)]},
                        upstream_connection_options={"tcp_keepalive": {"keepalive_time": 600}})
        lab.config = L.bootstrap(
            [http("bbr", BBR, socket_options=[option(IPPROTO_TCP, CONGESTION, BBR_NAME), option(IPPROTO_TCP, MAXSEG, 1000),
                                              option(SOL_SOCKET, SO_KEEPALIVE, 1), option(IPPROTO_TCP, KEEPIDLE, 1)]),
             http("plain", PLAIN), http("fast", FAST, tcp_fast_open_queue_length=8)], [web])
        lab.path = lab.start_gateway(lab.config)
        yield lab
        assert lab.stop_gateway() == 0


def ask(s, request=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
    if request:
        s.sendall(request)
    got = b""
    while b"ok\n" not in got:
        piece = s.recv(4096)
        assert piece, got
        got += piece


def connections(lab):
    return json.loads(lab.millctl("conn", "list", "-o", "json"))["connections"]


def of(lab, s):
    mine = "%s:%d" % s.getsockname()[:2]
    return next(c for c in connections(lab) if c["remote"] == mine)


def nstat(lab):
    words = json.loads(lab.millctl("nstat", "--all", "-o", "json"))
    return {c["counter"]: int(c["value"]) for c in words["counters"]}


def tcp_info(s):
    # struct tcp_info: ..., tcpi_snd_mss and tcpi_advmss are 32-bit words of it.
    raw = s.getsockopt(IPPROTO_TCP, socket.TCP_INFO, 192)
    words = struct.unpack_from("=8B4I", raw)
    return {"snd_mss": words[10], "options": words[5]}


def test_a_listener_chooses(lab):
    with lab.connect(BBR) as a, lab.connect(PLAIN) as b:
        ask(a)
        ask(b)
        assert (of(lab, a)["congestion"], of(lab, b)["congestion"]) == ("bbr", "cubic")
        assert of(lab, a)["mss"] <= 1000 < of(lab, b)["mss"]
        assert tcp_info(a)["snd_mss"] <= 1000 < tcp_info(b)["snd_mss"]  # what the kernel was told
        up = [c for c in connections(lab) if c["role"] == "upstream"]
        assert up and all(c["congestion"] == "reno" and c["mss"] <= 900 for c in up)


def test_keepalive_of_a_listener(lab):
    with lab.connect(BBR) as a:
        ask(a)
        before = nstat(lab)["TcpExtTCPKeepAlive"]
        deadline = time.monotonic() + 15
        while nstat(lab)["TcpExtTCPKeepAlive"] < before + 2:  # one a second; the gateway's own would take five minutes
            assert time.monotonic() < deadline, "no keepalive probes"
            time.sleep(0.2)
        ask(a)


def test_an_edit_changes_no_open_connection(lab):
    with lab.connect(BBR) as a:
        ask(a)
        config = json.loads(json.dumps(lab.config))
        config["static_resources"]["listeners"][0]["socket_options"] = [option(IPPROTO_TCP, CONGESTION, RENO)]
        path = lab.write("edited.json", config)
        lab.millctl("apply", "-f", path)
        lab.wait_in_force()
        ask(a)
        with lab.connect(BBR) as b:
            ask(b)
            assert (of(lab, a)["congestion"], of(lab, b)["congestion"]) == ("bbr", "reno")
        lab.millctl("apply", "-f", lab.write("back.json", lab.config))
        lab.wait_in_force()


def test_what_cannot_be_is_refused_by_its_path(lab):
    config = json.loads(json.dumps(lab.config))
    config["static_resources"]["clusters"][0]["upstream_bind_config"]["socket_options"][0]["buf_value"] = "dmVnYXM="
    p = lab.millctl("check", "-f", lab.write("bad.json", config), check=False)
    assert p.returncode != 0
    assert b"clusters[0].upstream_bind_config.socket_options[0].buf_value: there is no controller \"vegas\"" in p.stdout + p.stderr


def test_fast_open_with_a_kernel(lab):
    lab.client.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=1"])

    def fast(request):
        s = lab.client.socket(socket.AF_INET)
        s.settimeout(None)  # with a timeout the socket does not block, and sendto() says so instead of waiting
        s.sendto(request, MSG_FASTOPEN, (lab.INGRESS4, FAST))
        return s

    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    before = nstat(lab)
    with fast(request) as s:  # the kernel has no cookie yet: it asks for one
        ask(s, b"")
    asked = nstat(lab)
    assert asked["TcpExtTCPFastOpenCookieReqd"] == before["TcpExtTCPFastOpenCookieReqd"] + 1
    assert asked["TcpExtTCPFastOpenPassive"] == before["TcpExtTCPFastOpenPassive"]
    for n in range(1, 4):
        with fast(request) as s:
            ask(s, b"")
            ask(s)  # and it goes on as any connection
            assert tcp_info(s)["options"] & 32, "TCPI_OPT_SYN_DATA: the data of the SYN was acknowledged"
        assert nstat(lab)["TcpExtTCPFastOpenPassive"] == before["TcpExtTCPFastOpenPassive"] + n
