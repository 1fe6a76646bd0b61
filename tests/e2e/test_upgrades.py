"""Upgrades and CONNECT with real clients and servers: python3-websockets over HTTP/1.1 and TLS, curl through CONNECT tunnels, raw bytes."""
import hashlib
import os
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import Gateway, end_gateway  # noqa: E402
from raw_http import RawHttp  # noqa: E402

PYTHON = "/usr/bin/python3"  # the distribution's, which has python3-websockets
PEER = os.path.join(L.ROOT, "tests/support/websocket_peer.py")
WS, PY, PROXY = 9000, 8001, 9001
HTTP, TLS, CONNECT, PASS, SHORT, H2 = 80, 443, 8080, 8081, 8082, 8083
HOST = "10.77.1.1"
needs_websockets = pytest.mark.skipif(subprocess.run([PYTHON, "-c", "import websockets"], capture_output=True).returncode != 0,
                                      reason="no python3-websockets (scripts/setup installs it)")


def configuration(lab, crt):
    u, log = lab.upstream4(0), os.path.join(lab.dir, "access.log")
    ws = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    host = lambda *routes: [{"name": "v", "domains": ["*"], "routes": list(routes)}]
    to = lambda cluster, **more: {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "5s", **more}}
    connect = lambda cluster, **config: {"match": {"connect_matcher": {}}, "route": {"cluster": cluster, "upgrade_configs": [{"upgrade_type": "CONNECT", **config}]}}
    plain = lambda name, hosts, **extra: L.hcm(hosts, access_log=log, route_name=name, stat_prefix=name, **extra)
    return L.bootstrap([
        L.listener("ws", HTTP, plain("ws", host({"match": {"path": "/off"}, "route": {"cluster": "ws", "upgrade_configs": [
            {"upgrade_type": "websocket", "enabled": False}]}}, {"match": {"prefix": "/plain"}, "route": {"cluster": "py"}}, to("ws")), **ws)),
        L.listener("wss", TLS, [{"filters": [plain("wss", host(to("ws")), **ws)], "transport_socket": L.tls_socket(*crt, alpn=["http/1.1"])}]),
        L.listener("connect", CONNECT, plain("connect", host(connect("py", connect_config={}), to("py")))),
        L.listener("pass", PASS, plain("pass", host(connect("proxy"), to("py")))),
        L.listener("short", SHORT, plain("short", host(to("ws", idle_timeout="0.7s")), **ws)),
        L.listener("h2", H2, plain("h2", host(connect("py", connect_config={}), to("ws")), codec_type="HTTP2", http2_protocol_options={"allow_connect": True}, **ws)),
    ], [L.cluster("ws", [(u, WS)]), L.cluster("py", [(u, PY)]), L.cluster("proxy", [(u, PROXY)])])


@pytest.fixture(scope="module")
def gateway():
    lab = L.Lab(device="af_packet")
    try:
        u = lab.upstream4(0)
        if subprocess.run([PYTHON, "-c", "import websockets"], capture_output=True).returncode == 0:
            lab.start("websockets", [PYTHON, PEER, "server", u, str(WS)], lab.upstream).wait_log("listening")
        for name, at in (("upstream", PY),):
            lab.start(name, [sys.executable, os.path.join(L.ROOT, "tests/support/upstream_server.py"), f"0.0.0.0:{at}"], lab.upstream).wait_log("listening")
        lab.start_gateway(dict(configuration(lab, lab.make_certificate("ws", ["ws.test"])), dataplane=lab.dataplane_section()))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    yield g
    end_gateway(g)


@needs_websockets
@pytest.mark.parametrize("url", [f"ws://{HOST}:{HTTP}/chat", f"ws://{HOST}:{SHORT}/"], ids=["plain", "short-idle"])
def test_websockets(gateway, url):
    assert gateway.lab.client.run([PYTHON, PEER, "client", url], timeout=60).stdout.decode().strip() == "ok"


@needs_websockets
def test_websockets_over_tls(gateway):
    script = f"import asyncio,ssl,sys; sys.argv=['','client','wss://{HOST}:{TLS}/']; import websockets; c=ssl._create_unverified_context(); " \
             f"k=websockets.connect; websockets.connect=lambda u,**a: k(u,ssl=c,**a); exec(open({PEER!r}).read())"
    assert gateway.lab.client.run([PYTHON, "-c", script], timeout=60).stdout.decode().strip() == "ok"


@needs_websockets
def test_many_websockets_at_once(gateway):
    script = f"""
import asyncio, websockets
async def one(i):
    async with websockets.connect('ws://{HOST}:{HTTP}/{{}}'.format(i)) as c:
        for k in range(20):
            await c.send(f'{{i}} {{k}}'); assert await c.recv() == f'{{i}} {{k}}'
async def all():
    await asyncio.gather(*[one(i) for i in range(100)])
asyncio.run(all())"""
    gateway.lab.client.run([PYTHON, "-c", script], timeout=120)
    gateway.wait_idle()
    active = [v for (scope, name, c), v in gateway.counters().items() if c == "downstream_cx_upgrades_active"]
    assert all(v == 0 for v in active)


@needs_websockets
def test_an_idle_websocket_ends(gateway):
    took = float(gateway.lab.client.run([PYTHON, PEER, "idle", f"ws://{HOST}:{SHORT}/", "10"], timeout=30).stdout)
    assert 0.6 < took < 5, took


@pytest.mark.parametrize("path, upgrade, status", [("/off", "websocket", 403), ("/plain/who", "nothing-we-know", 403)])
def test_upgrades_that_nothing_allows(gateway, path, upgrade, status):
    tag = gateway.tag()
    with gateway.connect(HTTP) as c:
        c.send(f"GET {path} HTTP/1.1\r\nhost: a\r\nuser-agent: {tag}\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
        r = c.response("GET")
        assert (r.status, r.header("connection")) == (status, "close")
        assert c.response("GET") is None, "no request is read behind it"
    assert gateway.log(tag)["code"] == str(status)


def test_an_endpoint_that_does_not_know_the_upgrade(gateway):
    with gateway.connect(HTTP) as c:  # the server of /plain answers 200 to everything
        c.send("GET /plain HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n"
               "GET /plain/smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
        r = c.response("GET")
        assert r.status in (200, 404) and r.header("connection") == "close"
        assert c.response("GET") is None


def test_curl_through_connect(gateway):
    lab = gateway.lab
    for _ in range(3):
        p = lab.curl("-p", "-x", f"http://{HOST}:{CONNECT}", "http://somewhere.test:80/who", "-w", " %{http_connect} %{http_code}")
        assert p.stdout.decode().endswith(" 200 200")
    down = lab.curl("-p", "-x", f"http://{HOST}:{CONNECT}", f"http://somewhere.test/bytes/{4 << 20}")
    from upstream_server import pattern_sha256
    assert hashlib.sha256(down.stdout).hexdigest() == pattern_sha256(4 << 20)
    gateway.wait_idle()


def test_curl_through_connect_over_http2(gateway):
    if b"--proxy-http2" not in gateway.lab.client.run(["curl", "--help", "all"]).stdout:
        pytest.skip("this curl speaks no HTTP/2 to proxies")
    p = gateway.lab.curl("-p", "--proxy-http2", "-x", f"http://{HOST}:{H2}", "http://somewhere.test/who", "-w", " %{http_connect}")
    assert p.stdout.decode().endswith(" 200")


def test_connect_is_passed_on_to_a_proxy(gateway):
    """The cluster is a proxy (ours: a few lines): it sees the CONNECT, and then bytes."""
    listener = gateway.lab.upstream.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((gateway.lab.upstream4(0), PROXY))
    listener.listen(8)
    with listener, gateway.connect(PASS) as c:
        c.send("CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\nearly")
        s, _ = listener.accept()
        with s:
            s.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                head += s.recv(4096)
            assert head.startswith(b"CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n") and head.endswith(b"\r\n\r\n")
            s.settimeout(0.5)
            with pytest.raises(TimeoutError):
                s.recv(10)
            s.settimeout(10)
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            assert s.recv(10) == b"early"
            assert c._line().startswith("HTTP/1.1 200")
            while c._line():
                pass
            s.sendall(b"half")
            s.shutdown(socket.SHUT_WR)
            assert c.sock.recv(10) == b"half" and c.sock.recv(10) == b""
            c.send("still")
            assert s.recv(10) == b"still", "each direction ends by itself"


def test_connect_to_nobody(gateway):
    with gateway.connect(PASS) as c:
        c.send("CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n")
        r = c.response("GET")
        assert (r.status, r.header("connection")) == (503, "close")
    gateway.wait_idle()
