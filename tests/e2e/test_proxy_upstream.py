"""The PROXY protocol towards endpoints with real listeners: HAProxy behind the gateway (accept-proxy, raw and inside of it TLS), and a server that keeps
the bytes; each client's requests over connections that say they are his."""
import json
import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import Gateway, end_gateway, tcp_proxy, until  # noqa: E402

GATEWAY, CLIENT, PY = "10.77.1.1", "10.77.1.2", 8001
LISTENERS = {"v1": 80, "v2": 81, "tls": 443, "tcp": 90}
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
RAW = {"name": "envoy.transport_sockets.raw_buffer",
       "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}
TLS = {"name": "envoy.transport_sockets.tls",
       "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}
PROXIED = {"name": "envoy.filters.listener.proxy_protocol",
           "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                            "allow_requests_without_proxy_protocol": True, "pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [0xE1, 0xE2]}}}
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy (scripts/setup --peers)")


def told(cluster, version, inner=RAW, **more):
    return dict(cluster, transport_socket={"name": "envoy.transport_sockets.upstream_proxy_protocol",
                                           "typed_config": {"@type": PROXY, "config": {"version": version, **more}, "transport_socket": inner}})


def configuration(lab):
    u, log = lab.upstream4(0), os.path.join(lab.dir, "access.log")
    host = lambda c: [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": c}}]}]
    listeners = [L.listener(n, LISTENERS[n], L.hcm(host(n), access_log=log, route_name=n, stat_prefix=n, use_remote_address=True)) for n in ("v1", "v2", "tls")]
    listeners += [dict(L.listener("tcp", LISTENERS["tcp"], tcp_proxy("tcp", "bytes", log)), listener_filters=[PROXIED])]
    return L.bootstrap(listeners, [
        told(L.cluster("v1", [(u, 7001)]), "V1"), told(L.cluster("v2", [(u, 7001)]), "V2"), told(L.cluster("tls", [(u, 7002)]), "V2", TLS),
        told(L.cluster("bytes", [(u, 9500)]), "V2", pass_through_tlvs={"match_type": "INCLUDE", "tlv_type": [0xE2]},
             added_tlvs=[{"type": 0xF0, "value": "aGVsbG8="}])])


@pytest.fixture(scope="module")
def gateway():
    lab = L.Lab(device="af_packet")
    try:
        lab.start("upstream", [sys.executable, os.path.join(L.ROOT, "tests/support/upstream_server.py"), f"0.0.0.0:{PY}"], lab.upstream).wait_log("listening")
        if shutil.which("haproxy"):
            crt = lab.make_certificate("up", ["up.test"])
            pem = lab.write("up.pem", "".join(open(p).read() for p in crt))
            lines = ["defaults", "  mode http", "  timeout connect 5s", "  timeout client 60s", "  timeout server 60s"]
            for name, bind in {"plain": "7001 accept-proxy", "tls": f"7002 accept-proxy ssl crt {pem}"}.items():
                lines += [f"frontend {name}", f"  bind {lab.upstream4(0)}:{bind}", "  http-request set-header x-seen %[src]:%[src_port]-%[dst]:%[dst_port]",
                          "  default_backend py"]
            path = lab.write("haproxy.cfg", "\n".join(lines + ["backend py", f"  server s {lab.upstream4(0)}:{PY}"]) + "\n")
            lab.start("haproxy", ["haproxy", "-db", "-f", path], lab.upstream)
            until(lambda: lab.upstream.socket().connect_ex((lab.upstream4(0), 7001)) == 0, 10, "HAProxy to listen")
        lab.start_gateway(dict(configuration(lab), dataplane=lab.dataplane_section()))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    yield g
    end_gateway(g)


def seen_by_endpoint(s, path="/request"):
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += s.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += s.recv(65536)
    return {k.lower(): v for k, v in json.loads(body)["headers"]}


@needs_haproxy
@pytest.mark.parametrize("name", ["v1", "v2", "tls"])
def test_haproxy_hears_whose_requests_they_are(gateway, name):
    """Two clients take turns on one cluster: an endpoint that mixed up their connections would tell."""
    clients = [gateway.lab.connect(LISTENERS[name], timeout=10) for _ in range(2)]
    for _ in range(3):
        for c in clients:
            assert seen_by_endpoint(c)["x-seen"] == f"{CLIENT}:{c.getsockname()[1]}-{GATEWAY}:{LISTENERS[name]}"
    connections = sum(v for (_, n, c), v in gateway.counters().items() if c == "upstream_cx_active" and n == name)
    assert connections == 2
    for c in clients:
        c.close()
    until(lambda: sum(v for (_, n, c), v in gateway.counters().items() if c == "upstream_cx_active" and n == name) == 0, 10,
          "connections of clients that have gone to end")


def test_tlvs_pass_and_are_added_in_front_of_raw_bytes(gateway):
    listening = gateway.lab.upstream.socket()
    listening.bind((gateway.lab.upstream4(0), 9500))
    listening.listen(1)
    listening.settimeout(10)
    addresses = bytes([192, 0, 2, 1, 198, 51, 100, 1, 0xDC, 4, 1, 0xBB])
    tlvs = b"\xe1\x00\x01a" + b"\xe2\x00\x03bcd" + b"\xe3\x00\x01e"
    c = gateway.lab.connect(LISTENERS["tcp"], timeout=10)
    c.sendall(SIGNATURE + b"\x21\x11" + (12 + len(tlvs)).to_bytes(2, "big") + addresses + tlvs + b"bytes behind it")
    s, _ = listening.accept()
    s.settimeout(10)
    wanted = addresses + b"\xf0\x00\x05hello" + b"\xe2\x00\x03bcd"
    expected = SIGNATURE + b"\x21\x11" + len(wanted).to_bytes(2, "big") + wanted + b"bytes behind it"
    got = b""
    while len(got) < len(expected):
        more = s.recv(65536)
        assert more, got
        got += more
    assert got == expected
    for x in (c, s, listening):
        x.close()
