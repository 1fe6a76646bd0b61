"""Endpoints that speak HTTP/2, and every pair of versions: the same requests from clients of HTTP/1.1 and 2 to endpoints of HTTP/1.1 and 2,
with real peers (curl, raw sockets and python-h2 in front; python-h2, nghttpd and our HTTP/1.1 server behind)."""
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

import conftest
import lab as laboratory
from conftest import HTTP, PY, Gateway
from lab import bootstrap, cluster, hcm, listener, tls_socket
from upstream_server import pattern_sha256

SUPPORT = os.path.join(laboratory.ROOT, "tests", "support")
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-h2 is for
WEBSOCKET_PEER = os.path.join(SUPPORT, "websocket_peer.py")
H2, NGHTTPD, WS, NGHTTPD_TLS, NGINX_TLS, TLS = 8002, 8003, 8004, 8443, 8444, 443
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
has_websockets = subprocess.run([SYSTEM_PYTHON, "-c", "import websockets"], capture_output=True).returncode == 0
has_h2 = subprocess.run([SYSTEM_PYTHON, "-c", "import h2"], capture_output=True).returncode == 0
pytestmark = pytest.mark.skipif(not has_h2, reason="no python3-h2 (Debian package); scripts/setup installs it")


def http2(**options):
    return {"typed_extension_protocol_options": {OPTIONS: {"@type": "type.googleapis.com/" + OPTIONS,
                                                           "explicit_http_config": {"http2_protocol_options": options}}}}


def http1_with_trailers():
    return {"typed_extension_protocol_options": {OPTIONS: {"@type": "type.googleapis.com/" + OPTIONS,
                                                           "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}}}


def configuration(lab):
    u, log = lab.upstream4(0), os.path.join(lab.dir, "access.log")
    to = lambda name: {"cluster": name, "prefix_rewrite": "/", "timeout": "60s"}
    routes = [{"match": {"prefix": "/1/"}, "route": to("h1")}, {"match": {"prefix": "/2/"}, "route": to("h2")},
              {"match": {"prefix": "/old/"}, "route": to("old_style")}, {"match": {"prefix": "/same/"}, "route": to("as_downstream")},
              {"match": {"prefix": "/nghttpd/"}, "route": to("nghttpd")}, {"match": {"prefix": "/few/"}, "route": to("few")},
              {"match": {"prefix": "/tls/"}, "route": to("tls")}, {"match": {"prefix": "/auto2/"}, "route": to("auto2")},
              {"match": {"prefix": "/auto1/"}, "route": to("auto1")}, {"match": {"prefix": "/no/"}, "route": to("nghttpd")},
              {"match": {"connect_matcher": {}}, "route": {"cluster": "h2", "upgrade_configs": [{"upgrade_type": "CONNECT"}]}}]
    plain = hcm([{"name": "v", "domains": ["*"], "routes": routes}], access_log=log, http_protocol_options={"enable_trailers": True},
                http2_protocol_options={"allow_connect": True}, upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "other"}])
    as_downstream = {"typed_extension_protocol_options": {OPTIONS: {"@type": "type.googleapis.com/" + OPTIONS, "use_downstream_protocol_config": {
        "http_protocol_options": {}, "http2_protocol_options": {}}}}}
    tls = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}
    auto = {"typed_extension_protocol_options": {OPTIONS: {"@type": "type.googleapis.com/" + OPTIONS, "auto_config": {"http2_protocol_options": {}}}}}
    secure = {"name": "secure", "filters": [plain], "transport_socket": tls_socket(*lab.certificate, alpn=["h2", "http/1.1"])}
    return bootstrap([listener("plain", HTTP, plain), listener("tls", TLS, [secure])], [
        cluster("tls", [(u, NGHTTPD_TLS)], **tls, **http2(max_concurrent_streams=100)),
        cluster("auto2", [(u, NGHTTPD_TLS)], **tls, **auto), cluster("auto1", [(u, NGINX_TLS)], **tls, **auto),
        cluster("h1", [(u, PY)], **http1_with_trailers()), cluster("h2", [(u, H2)], **http2()),
        cluster("old_style", [(u, H2)], http2_protocol_options={"max_concurrent_streams": 10}),
        cluster("as_downstream", [(u, H2)], **as_downstream),
        cluster("nghttpd", [(u, NGHTTPD)], **http2()), cluster("few", [(u, NGHTTPD)], **http2(max_concurrent_streams=5))])


@pytest.fixture(scope="module")
def gateway():
    lab = laboratory.Lab(device="af_packet")
    try:
        lab.start("http1", [sys.executable, os.path.join(SUPPORT, "upstream_server.py"), f"0.0.0.0:{PY}"], lab.upstream).wait_log("listening")
        websockets = f"{lab.upstream4(0)}:{WS}"
        if has_websockets:
            lab.start("websockets", [SYSTEM_PYTHON, WEBSOCKET_PEER, "server", lab.upstream4(0), str(WS)], lab.upstream).wait_log("listening")
        lab.start("http2", [SYSTEM_PYTHON, os.path.join(SUPPORT, "h2_server.py"), "--websockets", websockets, f"0.0.0.0:{H2}"],
                  lab.upstream).wait_log("listening")
        www = os.path.join(lab.dir, "www")
        os.makedirs(www)
        with open(os.path.join(www, "small.txt"), "w") as f:
            f.write("small file\n")
        crt, key = lab.certificate = lab.make_certificate("h2", ["h2.test"])
        lab.start_nginx("nginx", f"""
  server {{ listen {lab.upstream4(0)}:{NGINX_TLS} ssl; ssl_certificate {crt}; ssl_certificate_key {key}; root {www}; }}""")
        if shutil.which("nghttpd"):
            lab.start("nghttpd-tls", ["nghttpd", "-d", www, "-n", "1", "--echo-upload", str(NGHTTPD_TLS), key, crt], lab.upstream)
            lab.start("nghttpd", ["nghttpd", "--no-tls", "-d", www, "-n", "1", "--echo-upload", str(NGHTTPD)], lab.upstream)
        lab.start_gateway(dict(configuration(lab), dataplane=lab.dataplane_section()))
        g = Gateway(lab)
        g.tls_upstreams = True
    except BaseException:
        lab.close()
        raise
    yield g
    conftest.end_gateway(g)


class Answer:
    """What a client saw, whatever it speaks."""

    def __init__(self, status, headers, body, trailers, whole):
        self.status, self.headers, self.body, self.trailers, self.whole = status, {n.lower(): v for n, v in headers}, body, dict(trailers), whole

    def json(self):
        return json.loads(self.body)


class Http1Client:
    version = "1.1"

    def __init__(self, gateway):
        self.gateway = gateway

    def ask(self, target, method="GET", headers=(), body=None, chunked=False, trailers=(), tag="-"):
        headers = [*headers, ("user-agent", tag)]
        with self.gateway.connect() as c:
            if chunked:
                c.request(target, method, headers=[*headers, ("transfer-encoding", "chunked")])
                c.send(b"%x\r\n%s\r\n0\r\n" % (len(body), body) + b"".join(f"{n}: {v}\r\n".encode() for n, v in trailers) + b"\r\n")
            else:
                c.request(target, method, headers=headers, body=body or b"")
            r = c.response(method)
            while r is not None and r.status < 200:
                r = c.response(method)
            if r is None:
                return None
            return Answer(r.status, r.headers, r.body, r.trailers, r.complete)


class Http2Client:
    version = "2"

    def __init__(self, gateway):
        self.gateway = gateway

    def raw(self, *requests):
        p = self.gateway.lab.client.run([SYSTEM_PYTHON, os.path.join(SUPPORT, "h2_client.py"), "10.77.1.1", str(HTTP)],
                                        input=json.dumps(requests).encode(), timeout=60)
        return json.loads(p.stdout)

    def ask(self, target, method="GET", headers=(), body=None, chunked=False, trailers=(), tag="-"):
        fields = [(":method", method), (":scheme", "http"), (":path", target), (":authority", "test"), *headers, ("user-agent", tag)]
        if body is not None and not chunked:
            fields.append(("content-length", str(len(body))))
        r = self.raw({"headers": fields, "body": None if body is None else body.decode("latin-1"), "trailers": list(trailers)})[0]
        if r["status"] is None:
            return None
        return Answer(r["status"], r["headers"], r["body"].encode("latin-1"), r["trailers"], r["reset"] in (None, 0))


@pytest.fixture(params=[Http1Client, Http2Client], ids=["from-1.1", "from-2"])
def client(request, gateway):
    return request.param(gateway)


@pytest.fixture(params=["/1", "/2"], ids=["to-1.1", "to-2"])
def endpoint(request):
    return request.param


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_methods(gateway, client, endpoint, method):
    body = b"some bytes" if method in ("POST", "PUT", "PATCH") else None
    tag = gateway.tag()
    r = client.ask(endpoint + "/request?a=b", method, [("x-one", "1"), ("te", "trailers")], body, tag=tag)
    assert (r.status, r.whole) == (200, True)
    line = gateway.log(tag)
    assert (line["method"], line["code"], line["flags"]) == (method, "200", "-")
    assert line["protocol"] == {"1.1": "HTTP/1.1", "2": "HTTP/2"}[client.version]
    if method == "HEAD":
        assert r.body == b""
        return
    seen = r.json()
    headers = {n.lower(): v for n, v in seen["headers"]}
    assert (seen["method"], seen["target"], seen["body"]) == (method, "/request?a=b", len(body or b""))
    assert headers["x-one"] == "1" and headers["x-envoy-original-path"] == endpoint + "/request?a=b"
    assert not {"connection", "keep-alive", "upgrade", "proxy-connection"} & set(headers)
    assert ("transfer-encoding" in headers) is False
    if endpoint == "/2":
        assert (seen["authority"], seen["scheme"], headers["te"]) == ("test", "http", "trailers")
        assert "host" not in headers
    else:
        assert headers["host"] == "test"
    if body is not None:
        assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_000_003])
def test_bodies(client, endpoint, size):
    body = os.urandom(size)
    for chunked in (False, True):
        r = client.ask(endpoint + "/sha256", "POST", body=body, chunked=chunked)
        assert (r.status, r.body.decode()) == (200, hashlib.sha256(body).hexdigest())
    r = client.ask(f"{endpoint}/bytes/{min(size, 90_000)}")
    assert hashlib.sha256(r.body).hexdigest() == pattern_sha256(min(size, 90_000))
    assert r.headers["content-length"] == str(min(size, 90_000))


def test_a_body_of_unknown_length(client, endpoint):
    r = client.ask(endpoint + "/chunked?n=20&size=3000")
    assert r.whole and hashlib.sha256(r.body).hexdigest() == pattern_sha256(60_000)
    assert "content-length" not in r.headers


def test_large_bodies_between_versions(gateway, endpoint, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(os.urandom(5 << 20))
    for version in ("--http1.1", "--http2-prior-knowledge"):
        p = gateway.lab.curl(version, "--data-binary", f"@{body}", f"http://10.77.1.1:{HTTP}{endpoint}/sha256", timeout=120)
        assert p.stdout.decode() == hashlib.sha256(body.read_bytes()).hexdigest()
        p = gateway.lab.curl(version, f"http://10.77.1.1:{HTTP}{endpoint}/bytes/{5 << 20}", timeout=120)
        assert hashlib.sha256(p.stdout).hexdigest() == pattern_sha256(5 << 20)


def test_trailers_of_requests(client, endpoint):
    r = client.ask(endpoint + "/request", "POST", body=b"abc", chunked=True, trailers=[("x-check", "1"), ("x-more", "two")])
    assert r.json()["body"] == 3
    assert [list(t) for t in r.json()["trailers"]] == [["x-check", "1"], ["x-more", "two"]]


def test_trailers_of_responses(client, endpoint):
    r = client.ask(endpoint + "/trailers")
    assert (r.body, r.trailers) == (b"hello", {"x-checksum": "12345", "x-other": "yes"})


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_statuses(client, endpoint, status, method):
    r = client.ask(f"{endpoint}/status/{status}", method)
    assert (r.status, r.whole) == (status, True)
    assert r.body == (b"" if method == "HEAD" or status in (204, 304) else b"status\n")


def test_continue(gateway, endpoint):
    with gateway.connect() as c:
        c.request(endpoint + "/sha256", "POST", headers=[("expect", "100-continue"), ("content-length", "4")])
        assert c.response().status == 100
        r = c.send(b"body").response()
        assert (r.status, r.body.decode()) == (200, hashlib.sha256(b"body").hexdigest())
    r = Http2Client(gateway).raw({"headers": [(":method", "POST"), (":scheme", "http"), (":path", endpoint + "/sha256"), (":authority", "test"),
                                              ("expect", "100-continue")], "body": "body"})[0]
    assert (r["interim"], r["status"], r["body"]) == ([100], 200, hashlib.sha256(b"body").hexdigest())


def test_interim_responses_are_taken_out(client):
    r = client.ask("/2/interim")
    assert (r.status, r.body) == (200, b"done\n")


def test_an_early_answer(client, endpoint):
    r = client.ask(endpoint + "/early?status=413", "POST", body=b"x" * 200_000)
    assert r is None or (r.status, r.body) == (413, b"early\n")  # a reset may overtake what a client of 1.1 would have read


@pytest.mark.parametrize("path, flags", [("/2/reset?code=8", "UR"), ("/2/reset?code=2", "UR"), ("/2/reset?code=7", "UR"), ("/1/close?at=before", "UC")])
def test_no_answer_at_all(gateway, client, path, flags):
    tag = gateway.tag()
    r = client.ask(path, tag=tag)
    assert r.status == 503 and b"reset reason" in r.body
    assert gateway.log(tag)["flags"] == flags


@pytest.mark.parametrize("path, flags", [("/2/reset?at=body&code=2", "UR"), ("/2/close", "UC"), ("/1/close?at=body", "UPE"), ("/1/close?at=chunk", "UPE")])
def test_half_an_answer_never_looks_whole(gateway, client, path, flags):
    tag = gateway.tag()
    r = client.ask(path, tag=tag)
    line = gateway.log(tag)
    assert line["flags"] == flags
    if r is not None and r.whole:  # head and reset came with one read: nothing of the half is told
        assert "reset" in path and (r.status, line["code"]) == (503, "503") and b"reset reason" in r.body
    else:
        assert line["code"] == "200"


def test_as_the_client_speaks(gateway):
    assert Http2Client(gateway).ask("/same/request").json()["version"] == "HTTP/2"


def test_the_older_way_to_say_it(gateway, client):
    assert client.ask("/old/request").json()["version"] == "HTTP/2"


def test_goaway_moves_on(gateway, client):
    for _ in range(3):
        assert client.ask("/2/goaway").body == b"goodbye\n"
        assert client.ask("/2/who").status == 200


def test_few_connections(gateway):
    """However many clients there are, their streams share the connections."""
    before = gateway.counters()[("cluster", "h2", "upstream_cx_http2_total")]
    for _ in range(10):
        assert Http1Client(gateway).ask("/2/who").status == 200
    assert gateway.counters()[("cluster", "h2", "upstream_cx_http2_total")] - before <= 1


needs_nghttpd = pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttpd is not installed (Debian: nghttp2-server)")


@needs_nghttpd
@pytest.mark.parametrize("where, connections", [("nghttpd", 1), ("few", 20)])
def test_h2load_to_nghttpd(gateway, where, connections):
    out = gateway.lab.client.run(["h2load", "-n", "4000", "-c", "4", "-m", "20", f"http://10.77.1.1:{HTTP}/{where}/small.txt"], timeout=120).stdout.decode()
    assert "4000 succeeded, 0 failed" in out and "4000 2xx" in out, out
    opened = gateway.counters()[("cluster", where, "upstream_cx_http2_total")]
    assert opened <= connections, "as few connections as their streams allow"


@needs_nghttpd
def test_upload_to_nghttpd(gateway, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(os.urandom(1 << 20))
    for version in ("--http1.1", "--http2-prior-knowledge"):
        p = gateway.lab.curl(version, "--data-binary", f"@{body}", f"http://10.77.1.1:{HTTP}/nghttpd/echo", timeout=60)
        assert p.stdout == body.read_bytes()


@needs_nghttpd
@pytest.mark.parametrize("where", ["tls", "auto2", "auto1"])
@pytest.mark.parametrize("scheme, port", [("http", HTTP), ("https", TLS)])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_tls_on_either_side(gateway, where, scheme, port, version):
    """HTTP/2 over TLS to the endpoint, told or agreed on by ALPN; an endpoint that only knows HTTP/1.1."""
    if (version, scheme) == ("--http2", "http"):
        version = "--http2-prior-knowledge"
    p = gateway.lab.curl("-k", version, "-w", " %{http_version}", f"{scheme}://10.77.1.1:{port}/{where}/small.txt")
    assert p.stdout.decode() == "small file\n " + ("1.1" if version == "--http1.1" else "2")
    spoken = gateway.counters().get(("cluster", where, "upstream_cx_http2_total"), 0)
    assert (spoken > 0) == (where != "auto1")


@needs_nghttpd
def test_h2load_with_tls_on_both_sides(gateway):
    out = gateway.lab.client.run(["h2load", "-n", "2000", "-c", "4", "-m", "20", f"https://10.77.1.1:{TLS}/tls/small.txt"], timeout=120).stdout.decode()
    assert "2000 succeeded, 0 failed" in out and "2000 2xx" in out, out


# What must not reach an endpoint of HTTP/1.1 as a second request, or as fields that nobody checked: RFC 9113 10.3, 8.2.2, 8.3.1.
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/1/request"), (":authority", "test")]
SMUGGLING = {
    "crlf in a value": REQUEST + [("x-a", "b\r\ntransfer-encoding: chunked")],
    "lf in a value": REQUEST + [("x-a", "b\nx-b: c")],
    "nul in a value": REQUEST + [("x-a", "b\0c")],
    "crlf in a name": REQUEST + [("x-a: b\r\nx-c", "d")],
    "colon in a name": REQUEST + [("x-a:", "b")],
    "blank in a name": REQUEST + [("x a", "b")],
    "upper case name": REQUEST + [("X-A", "b")],
    "empty name": REQUEST + [("", "b")],
    "crlf in the path": [(n, "/1/request HTTP/1.1\r\nx: y" if n == ":path" else v) for n, v in REQUEST],
    "blank in the path": [(n, "/1/request x" if n == ":path" else v) for n, v in REQUEST],
    "crlf in the method": [(n, "GET / HTTP/1.1\r\nhost: x\r\n\r\nPOST" if n == ":method" else v) for n, v in REQUEST],
    "crlf in the authority": [(n, "test\r\nx-a: b" if n == ":authority" else v) for n, v in REQUEST],
    "transfer-encoding": REQUEST + [("transfer-encoding", "chunked")],
    "connection": REQUEST + [("connection", "x-a"), ("x-a", "b")],
    "keep-alive": REQUEST + [("keep-alive", "timeout=5")],
    "proxy-connection": REQUEST + [("proxy-connection", "close")],
    "upgrade": REQUEST + [("upgrade", "websocket")],
    "te": REQUEST + [("te", "chunked")],
    "two lengths": REQUEST + [("content-length", "4"), ("content-length", "5")],
    "length that lies": REQUEST + [("content-length", "3")],
    "length and more": REQUEST + [("content-length", "0")],
    "length that is none": REQUEST + [("content-length", "+4")],
    "two paths": REQUEST + [(":path", "/admin")],
    "two methods": [(":method", "GET"), *REQUEST],
    "two authorities": REQUEST[:3] + [(":authority", "a"), (":authority", "b")],
    "host against authority": REQUEST + [("host", "other")],
    "no path": REQUEST[:2] + REQUEST[3:],
    "empty path": [(n, "" if n == ":path" else v) for n, v in REQUEST],
    "pseudo header behind fields": REQUEST[:3] + [("x-a", "b"), REQUEST[3]],
    "unknown pseudo header": REQUEST + [(":x", "y")],
    "response's pseudo header": REQUEST + [(":status", "200")],
}


# The lie shows with the body, when the head may have gone on: of these the endpoint may see the request that was announced, and no byte more.
SHOWS_IN_THE_BODY = {"length that lies", "length and more"}


@pytest.mark.parametrize("name", SMUGGLING)
def test_nothing_is_smuggled_on_the_way_down(gateway, name):
    counts = lambda: json.loads(Http1Client(gateway).ask("/1/counts").body)
    before = counts()
    r = Http2Client(gateway).raw({"headers": SMUGGLING[name], "body": "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"})[0]
    assert r["status"] is None or 400 <= r["status"] < 500, r
    assert r["reset"] is not None or r["goaway"] is not None or "error" in r or r["status"] is not None
    after = counts()
    seen = lambda c: c["requests"] if "requests" in c else c
    assert "/smuggled" not in json.dumps(after)
    reached = seen(after).get("/request", 0) - seen(before).get("/request", 0)
    assert reached <= (name in SHOWS_IN_THE_BODY), "nothing of it reached the endpoint"


# --- tunnels: upgrades are extended CONNECT towards endpoints of HTTP/2 (RFC 8441), CONNECT is itself

@pytest.mark.skipif(not has_websockets, reason="no python3-websockets (scripts/setup installs it)")
def test_websockets_over_streams(gateway):
    p = gateway.lab.client.run([SYSTEM_PYTHON, WEBSOCKET_PEER, "client", f"ws://10.77.1.1:{HTTP}/2/chat"], timeout=60)
    assert p.stdout.decode().strip() == "ok", p.stderr.decode()


@pytest.mark.skipif(not has_websockets, reason="no python3-websockets (scripts/setup installs it)")
def test_many_websockets_share_connections(gateway):
    total = lambda: gateway.counters().get(("cluster", "h2", "upstream_cx_http2_total"), 0)
    before = total()
    script = f"""
import asyncio, websockets
async def one(i):
    async with websockets.connect('ws://10.77.1.1:{HTTP}/2/{{}}'.format(i)) as c:
        for n in range(5):
            await c.send(f'{{i}} {{n}}')
            assert await c.recv() == f'{{i}} {{n}}'
async def main():
    await asyncio.gather(*(one(i) for i in range(150)))
asyncio.run(main())
"""
    p = gateway.lab.client.run([SYSTEM_PYTHON, "-c", script], timeout=120)
    assert p.returncode == 0, p.stderr.decode()
    assert total() - before <= 2  # the server allows 200 streams


def test_curl_through_connect(gateway):
    url = f"http://{gateway.lab.upstream4(0)}:{PY}/bytes/{4 << 20}"
    p = gateway.lab.client.run(["curl", "-s", "-p", "-x", f"http://10.77.1.1:{HTTP}", url], timeout=60)
    assert hashlib.sha256(p.stdout).hexdigest() == pattern_sha256(4 << 20), p.stderr


@pytest.mark.parametrize("target,upgrade,status", [("/no/", "websocket", 502), ("/2/", "other", 501)], ids=["endpoint-does-not-allow", "endpoint-refuses"])
def test_upgrades_that_endpoints_refuse(gateway, target, upgrade, status):
    with gateway.connect() as c:
        headers = [("connection", "upgrade"), ("upgrade", upgrade)]
        if upgrade == "websocket":
            headers += [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")]
        c.request(target, headers=headers)
        assert c.response().status == status
    assert Http1Client(gateway).ask("/2/who").status == 200
