"""The PROXY protocol with real speakers: HAProxy in front of the gateway (versions 1 and 2), curl (version 1), and in front of TLS and raw TCP."""
import json
import os
import shutil
import socket
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import Gateway, end_gateway, tcp_proxy, until  # noqa: E402

GATEWAY, CLIENT, PY = "10.77.1.1", "10.77.1.2", 8001
HTTP, TLS, TCP, CONNECT = 80, 443, 90, 8080
FRONTS = {"v1": 7001, "v2": 7002, "tls": 7003, "tcp": 7004, "none": 7005}
FILTER = {"name": "envoy.filters.listener.proxy_protocol",
          "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy (scripts/setup --peers)")


def configuration(lab, crt):
    u, log = lab.upstream4(0), os.path.join(lab.dir, "access.log")
    host = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "py"}}]}]
    tunnels = [{"name": "v", "domains": ["*"], "routes": [{"match": {"connect_matcher": {}}, "route": {"cluster": "told", "upgrade_configs": [
        {"upgrade_type": "CONNECT", "connect_config": {"proxy_protocol_config": {"version": "V2"}}}]}}]}]
    http = lambda name, hosts=host: L.hcm(hosts, access_log=log, route_name=name, stat_prefix=name, use_remote_address=True)
    proxied = lambda l: dict(l, listener_filters=[FILTER] + l.get("listener_filters", []))
    return L.bootstrap([
        proxied(L.listener("http", HTTP, http("http"))),
        proxied(L.listener("tls", TLS, [{"filters": [http("tls")], "transport_socket": L.tls_socket(*crt)}], inspector=True)),
        proxied(L.listener("tcp", TCP, tcp_proxy("tcp", "py", log))),
        L.listener("connect", CONNECT, http("connect", tunnels)),
    ], [L.cluster("py", [(u, PY)]), L.cluster("told", [(u, 9500)])])


@pytest.fixture(scope="module")
def gateway():
    lab = L.Lab(device="af_packet")
    try:
        lab.start("upstream", [sys.executable, os.path.join(L.ROOT, "tests/support/upstream_server.py"), f"0.0.0.0:{PY}"], lab.upstream).wait_log("listening")
        lab.start_gateway(dict(configuration(lab, lab.make_certificate("p", ["p.test"])), dataplane=lab.dataplane_section()))
        if shutil.which("haproxy"):
            lines = ["defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 20s", "  timeout server 20s"]
            for name, (to, how) in {"v1": (HTTP, "send-proxy"), "v2": (HTTP, "send-proxy-v2"), "tls": (TLS, "send-proxy-v2"), "tcp": (TCP, "send-proxy"),
                                    "none": (HTTP, "")}.items():
                lines += [f"listen {name}", f"  bind {CLIENT}:{FRONTS[name]}", f"  server s {GATEWAY}:{to} {how}"]
            path = lab.write("haproxy.cfg", "\n".join(lines) + "\n")
            lab.start("haproxy", ["haproxy", "-db", "-f", path], lab.client)
            until(lambda: lab.client.socket().connect_ex((CLIENT, FRONTS["none"])) == 0, 10, "HAProxy to listen")
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    yield g
    end_gateway(g)


@needs_haproxy
@pytest.mark.parametrize("front", ["v1", "v2", "tls"])
def test_haproxy_says_whose_connection_it_is(gateway, front):
    scheme = "https" if front == "tls" else "http"
    p = gateway.lab.curl("-k", "--local-port", "45000-45999", f"{scheme}://{CLIENT}:{FRONTS[front]}/request")
    seen = {k.lower(): v for k, v in json.loads(p.stdout)["headers"]}
    assert seen["x-forwarded-for"] == CLIENT


@needs_haproxy
def test_raw_tcp_behind_haproxy(gateway):
    assert gateway.lab.curl(f"http://{CLIENT}:{FRONTS['tcp']}/who").stdout.decode().strip() == gateway.lab.upstream4(0)


@needs_haproxy
def test_a_proxy_that_says_nothing_is_turned_away(gateway):
    assert gateway.lab.curl(f"http://{CLIENT}:{FRONTS['none']}/who", check=False).returncode != 0
    counts = gateway.counters()
    assert any(c == "proxy_proto.not_found_disallowed" and v > 0 for (_, _, c), v in counts.items())


def test_curl_says_it(gateway):
    p = gateway.lab.curl("--haproxy-protocol", f"http://{GATEWAY}:{HTTP}/request")
    seen = {k.lower(): v for k, v in json.loads(p.stdout)["headers"]}
    assert seen["x-forwarded-for"] == CLIENT


def test_the_end_of_a_tunnel_is_told(gateway):
    listener = gateway.lab.upstream.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((gateway.lab.upstream4(0), 9500))
    listener.listen(4)
    with listener, gateway.connect(CONNECT) as c:
        c.send("CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\nquestion")
        s, _ = listener.accept()
        with s:
            s.settimeout(10)
            data = b""
            while len(data) < 28 + 8:
                data += s.recv(100)
            assert data[:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
            assert data[16:24] == socket.inet_aton(CLIENT) + socket.inet_aton(GATEWAY)
            assert int.from_bytes(data[24:26], "big") == c.sock.getsockname()[1] and data[26:28] == (CONNECT).to_bytes(2, "big")
            assert data[28:] == b"question"
