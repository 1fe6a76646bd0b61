"""Requests that end well, and those the gateway answers itself: bodies, framing, headers, routing, balancing, response flags, access log."""
import collections
import hashlib
import json
import os
import re
import socket
import threading

import pytest

from conftest import EDGE, HTTP, MIB, NGINX, STRICT, command, until
from upstream_server import pattern, pattern_sha256

URL = "http://10.77.1.1"
URL6 = "http://[fd77:1::1]"


@pytest.fixture(scope="module")
def bodies(gateway):
    """Files to send, by size, with their digests."""
    out = {}
    for size in (1, 65536, 200 * MIB):
        path = gateway.lab.big_file if size == 200 * MIB else os.path.join(gateway.lab.dir, f"body{size}")
        if size != 200 * MIB:
            with open(path, "wb") as f:
                f.write(os.urandom(size))
        with open(path, "rb") as f:
            out[size] = path, hashlib.file_digest(f, "sha256").hexdigest()
    return out


# --- bodies -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("base", [URL, URL6, URL + "/v6", URL6 + "/v6"], ids=["4to4", "6to4", "4to6", "6to6"])
def test_get_both_families(gateway, base):
    p = gateway.lab.curl("-g", "-w", "%{http_code}", base + "/who")
    assert p.stdout.decode() == ("fd77:2::a" if base.endswith("/v6") else "10.77.2.10") + "\n200"


@pytest.mark.parametrize("size", [1, 65536, 200 * MIB])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_upload(gateway, bodies, size, chunked):
    path, digest = bodies[size]
    p = gateway.lab.curl("-T", path, "-X", "POST", "-H", "expect:", *(["-H", "transfer-encoding: chunked"] if chunked else []), URL + "/sha256")
    assert p.stdout.decode() == digest


def test_upload_while_downloading(gateway, bodies):
    """200 MB through both directions of one exchange at once."""
    path, digest = bodies[200 * MIB]
    out = os.path.join(gateway.lab.dir, "echoed")
    gateway.lab.curl("-T", path, "-X", "POST", "-H", "expect:", "-o", out, URL + "/echo")
    with open(out, "rb") as f:
        assert hashlib.file_digest(f, "sha256").hexdigest() == digest
    os.unlink(out)


def test_download_from_nginx(gateway, bodies):
    out = os.path.join(gateway.lab.dir, "downloaded")
    gateway.lab.curl("-o", out, URL + "/nginx/big")
    with open(out, "rb") as f:
        assert hashlib.file_digest(f, "sha256").hexdigest() == bodies[200 * MIB][1]
    os.unlink(out)


@pytest.mark.parametrize("target,length", [("/bytes/0", 0), ("/bytes/1", 1), ("/bytes/65536", 65536), ("/bytes/3000001", 3000001),
                                           ("/chunked?n=1&size=1", 1), ("/chunked?n=100&size=1000", 100000), ("/chunked?n=0", 0),
                                           ("/chunked?n=7&size=300000", 2100000), ("/until-close?n=100000", 100000)])
def test_download(gateway, target, length):
    r = gateway.ask(target)
    assert (r.status, r.complete, len(r.body)) == (200, True, length)
    assert r.body == pattern(0, length)
    if "chunked" in target or "until" in target:
        assert r.header("transfer-encoding") == "chunked" and r.header("content-length") is None


def test_small_chunks_in_both_directions(gateway):
    """A chunk of a byte each, and its framing in segments that cut everywhere."""
    with gateway.connect() as c:
        c.send("POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        wire = b"".join(b"1\r\n%c\r\n" % b for b in pattern(0, 300)) + b"0\r\n\r\n"
        for i in range(0, len(wire), 7):
            c.send(wire[i:i + 7])
        r = c.response()
        assert (r.status, r.complete, r.body) == (200, True, pattern(0, 300))


# --- framing ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["/bytes/5000", "/chunked?n=3", "/nginx/small.txt", "/who"])
def test_head(gateway, target):
    with gateway.connect() as c:
        r = c.request(target, method="HEAD").response("HEAD")
        assert r.status == 200
        if target == "/bytes/5000":
            assert r.header("content-length") == "5000"
        assert c.request("/who").response().body == b"10.77.2.10\n"  # nothing of a body stands before it


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_body(gateway, status):
    with gateway.connect() as c:
        r = c.request(f"/status/{status}").response()
        assert r.status == status and r.header("transfer-encoding") is None
        assert c.request("/who").response().body == b"10.77.2.10\n"


@pytest.mark.parametrize("status", [200, 201, 400, 404, 429, 500, 503])
def test_status_passes_through(gateway, status):
    tag = gateway.tag()
    r = gateway.ask(f"/status/{status}", headers=[("user-agent", tag)])
    assert (r.status, r.body) == (status, b"status\n")
    e = gateway.log(tag)
    assert (e["code"], e["flags"]) == (str(status), "-")


def test_pipelined_requests_answered_in_order(gateway):
    n = 50
    with gateway.connect() as c:
        c.send("".join(f"GET /bytes/{i} HTTP/1.1\r\nhost: t\r\n\r\n" if i % 3 else
                       f"POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: {i}\r\n\r\n{'x' * i}" for i in range(n)))
        for i in range(n):
            r = c.response()
            assert (r.status, r.body) == (200, pattern(0, i) if i % 3 else b"x" * i), i


def test_pipelined_behind_a_slow_one(gateway):
    with gateway.connect() as c:
        c.send("GET /sleep?ms=300 HTTP/1.1\r\nhost: t\r\n\r\nGET /direct HTTP/1.1\r\nhost: t\r\n\r\nHEAD /who HTTP/1.1\r\nhost: t\r\n\r\n"
               "GET /nothing HTTP/1.1\r\nhost: bare.test\r\n\r\n")
        assert [c.response(m).status for m in ("GET", "GET", "HEAD", "GET")] == [200, 418, 200, 404]


def test_keep_alive_on_both_sides(gateway):
    before = gateway.upstream_json("/counts")["connections"]
    with gateway.connect() as c:
        for _ in range(200):
            assert c.request("/who").response().status == 200
    assert gateway.upstream_json("/counts")["connections"] - before <= 1


@pytest.mark.parametrize("target", ["/who", "/direct", "/chunked?n=2"])
def test_connection_close_of_the_client(gateway, target):
    with gateway.connect() as c:
        r = c.request(target, headers=[("connection", "close")]).response()
        assert r.header("connection") == "close" and r.complete
        assert c.at_end() and c.ended == "fin"


def test_connection_close_of_the_upstream_stays_there(gateway):
    with gateway.connect() as c:
        for _ in range(3):
            r = c.request("/bytes/1000?close=1").response()
            assert (r.status, r.header("connection"), r.complete) == (200, None, True)


def test_http10_refused_and_accepted(gateway):
    with gateway.connect() as c:
        assert c.request("/who", version="HTTP/1.0").response().status == 426
        assert c.wait_end() is not None
    with gateway.connect(STRICT) as c:
        r = c.request("/chunked?n=10&size=100", version="HTTP/1.0").response()
        assert r.status == 200 and r.header("transfer-encoding") is None and r.body == pattern(0, 1000)
    with gateway.connect(STRICT) as c:
        for _ in range(2):
            r = c.request("/bytes/10", version="HTTP/1.0", headers=[("connection", "keep-alive")]).response()
            assert r.status == 200 and len(r.body) == 10


def test_expect_100_continue(gateway):
    body = os.urandom(300000)
    with gateway.connect() as c:
        c.send(f"POST /continue HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n")
        assert c.response().status == 100
        r = c.send(body).response()
        assert (r.status, r.body.decode()) == (200, hashlib.sha256(body).hexdigest())


def test_expect_100_continue_with_curl(gateway, bodies):
    path, digest = bodies[65536]
    p = gateway.lab.curl("-v", "-H", "expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@" + path, URL + "/continue")
    assert p.stdout.decode() == digest and b"< HTTP/1.1 100 Continue" in p.stderr


def test_trailers_pass_where_enabled(gateway):
    chunked = "POST {} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 77\r\n\r\n"
    with gateway.connect(STRICT) as c:
        r = c.request("/trailing/trailers").response()
        assert r.body == b"hello" and ("x-checksum", "12345") in r.trailers and ("x-other", "yes") in r.trailers
        got = json.loads(c.send(chunked.format("/trailing/request")).response().body)
        assert got["body"] == 5 and got["trailers"] == [["x-sum", "77"]]
    with gateway.connect() as c:  # Envoy's default: dropped
        r = c.request("/trailers").response()
        assert r.body == b"hello" and r.trailers == [] and r.complete
        got = json.loads(c.send(chunked.format("/request")).response().body)
        assert got["body"] == 5 and got["trailers"] == []


# --- headers ------------------------------------------------------------------------------------------------------------------
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def sent(gateway, port=HTTP, **request):
    """The headers of a request as the upstream saw them, and the response."""
    r = gateway.ask("/request", port, **request)
    seen = json.loads(r.body)
    return collections.OrderedDict((n, v) for n, v in seen["headers"]), r


def test_headers_towards_the_upstream(gateway):
    up, r = sent(gateway, host="Some.Host:8080", headers=[("X-Custom", "Kept"), ("Connection", "keep-alive, x-hop"), ("x-hop", "gone"), ("TE", "gzip")])
    assert up["host"] == "Some.Host:8080" and up["x-custom"] == "Kept" and up["x-forwarded-proto"] == "http"
    assert UUID.fullmatch(up["x-request-id"])
    assert "connection" not in up or up["connection"] != "keep-alive, x-hop"
    assert up["x-envoy-expected-rq-timeout-ms"] == "60000"
    assert r.header("server") == "envoy" and r.header("date") and r.header("x-envoy-upstream-service-time").isdigit()


def test_headers_of_an_inner_gateway_are_trusted(gateway):
    up, _ = sent(gateway, headers=[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"),
                                   ("x-request-id", "a0000000-0000-4000-8000-000000000000")])
    assert up["x-forwarded-for"] == "1.2.3.4" and up["x-forwarded-proto"] == "https"
    assert up["x-request-id"] == "a0000000-0000-4000-8000-000000000000"


def test_headers_of_an_edge_gateway(gateway):
    tag = gateway.tag()
    up, r = sent(gateway, EDGE, headers=[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("user-agent", tag)])
    assert up["x-forwarded-for"].replace(" ", "") == "1.2.3.4,10.77.1.2" and up["x-forwarded-proto"] == "http"
    assert up["via"] == "1.1 edge-via" or up["via"] == "edge-via"
    assert r.header("server") == "edge-server" and "edge-via" in r.header("via")
    assert gateway.log(tag)["xff"].replace(" ", "") == "1.2.3.4,10.77.1.2"


# --- routing ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host,body", [("exact.test", "exact"), ("exact.test:80", "exact"), ("EXACT.test", "exact"), ("a.suffix.test", "suffix"),
                                       ("a.longer.suffix.test", "longer"), ("prefix.anything", "prefix")])
def test_virtual_hosts(gateway, host, body):
    r = gateway.ask("/", host=host)
    if ":" in host:  # Envoy compares with the port unless told otherwise
        assert r.body != body.encode() + b"\n"
    else:
        assert r.body == body.encode() + b"\n"


@pytest.mark.parametrize("target,headers,body", [
    ("/match", [("x-match", "header")], b"header\n"), ("/match?q=query", [], b"query\n"), ("/match?q=other", [], b"neither\n"),
    ("/match?q=query", [("x-match", "header")], b"header\n"), ("/separated", [], b"separated\n"), ("/separated/x?y", [], b"separated\n")])
def test_matches(gateway, target, headers, body):
    assert gateway.ask(target, headers=headers).body == body


@pytest.mark.parametrize("target,rewritten", [("/regex/123", "/request"), ("/regex/123?q=1", "/request?q=1")])
def test_prefix_rewrite_of_a_regex_route_rewrites_the_path(gateway, target, rewritten):
    assert json.loads(gateway.ask(target).body)["target"] == rewritten


def test_prefix_rewrite(gateway):
    up = json.loads(gateway.ask("/v6/request?a=b").body)
    assert up["target"] == "/request?a=b" and ["x-envoy-original-path", "/v6/request?a=b"] in up["headers"]
    tag = gateway.tag()
    gateway.ask("/v6/request?a=b", headers=[("user-agent", tag)])
    assert gateway.log(tag)["path"] == "/v6/request?a=b"


def test_redirects(gateway):
    r = gateway.ask("/old?q=1", host="h.test")
    assert (r.status, r.header("location")) == (302, "http://h.test/new?q=1")
    r = gateway.ask("/secure/x", host="h.test")
    assert (r.status, r.header("location"), r.body) == (301, "https://h.test/secure/x", b"")


def test_direct_response(gateway):
    tag = gateway.tag()
    r = gateway.ask("/direct", headers=[("user-agent", tag)])
    assert (r.status, r.body, r.header("content-type")) == (418, b"short and stout\n", "text/plain")
    e = gateway.log(tag)
    assert (e["code"], e["flags"], e["sent"], e["upstream"], e["service"]) == ("418", "-", "16", "-", "-")


# --- balancing ----------------------------------------------------------------------------------------------------------------
def spread(gateway, target, n):
    with gateway.connect() as c:
        return collections.Counter(c.request(target).response().body.decode().strip() for _ in range(n))


def test_round_robin_is_even(gateway):
    assert set(spread(gateway, "/rr/who", 60).values()) == {20}


@pytest.mark.parametrize("target", ["/lr/who", "/random/who"])
def test_others_reach_all(gateway, target):
    assert set(spread(gateway, target, 90)) == {"10.77.2.10", "10.77.2.11", "10.77.2.12"}


def test_weighted_clusters_get_their_share(gateway):
    n = 600
    got = spread(gateway, "/weighted/who", n)
    # Binomial, p = 3/4: five standard deviations are 53.
    assert set(got) == {"10.77.2.10", "10.77.2.11"} and abs(got["10.77.2.10"] - n * 3 / 4) < 53, got


def test_least_request_avoids_the_busy_one(gateway):
    """While one endpoint holds requests, of two chosen at random the other one is taken."""
    held = [gateway.connect() for _ in range(9)]
    try:
        for i, c in enumerate(held):
            c.request(f"/lr/hold?id=least{i}")
            assert gateway.ask(f"/held?id=least{i}").status == 200
        tally = collections.Counter(gateway.ask("/lr/who").body for _ in range(30))
        assert sum(tally.values()) == 30
    finally:
        for i, c in enumerate(held):
            gateway.ask(f"/release?id=least{i}")
            assert c.response().status == 200
            c.close()


# --- answers of the gateway itself --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target,host,status,flag,body", [
    ("/refused", "t", 503, "UF", b"remote connection failure"),
    ("/unanswered", "t", 503, "UF", b"connection timeout"),
    ("/empty", "t", 503, "UH", b"no healthy upstream"),
    ("/unknown-cluster", "t", 503, "NC", b""),
    ("/other", "bare.test", 404, "NR", b""),
    ("/timeout/sleep?ms=2000", "t", 504, "UT", b"upstream request timeout"),
])
def test_local_replies(gateway, target, host, status, flag, body):
    tag = gateway.tag()
    flags, counters = gateway.flags(), gateway.counters()
    with gateway.connect() as c:
        r = c.request(target, host=host, headers=[("user-agent", tag)]).response()
        assert r.status == status and r.complete and body in r.body
        assert c.request("/who").response().status == 200  # the connection lives on
    e = gateway.log(tag)
    assert (e["code"], e["flags"], e["sent"]) == (str(status), flag, str(len(r.body)))
    assert e["path"] == target and e["authority"] == host
    if flag == "UF":
        assert e["upstream"].startswith("10.77.2.")
    assert gateway.flags()[flag] - flags.get(flag, 0) == 1
    key = ("http", "ingress", f"downstream_rq_{status // 100}xx")
    assert gateway.counters()[key] - counters.get(key, 0) == 1


def test_overflow(gateway):
    """One request is served, one waits; the third is one too many."""
    tag = gateway.tag()
    with gateway.connect() as first, gateway.connect() as second:
        first.request("/tight/hold?id=tight")
        assert gateway.ask("/held?id=tight").status == 200
        second.request("/tight/who")
        r = gateway.ask("/tight/who", headers=[("user-agent", tag)])
        assert (r.status, r.header("x-envoy-overloaded")) == (503, "true") and b"overflow" in r.body
        e = gateway.log(tag)
        assert (e["code"], e["flags"]) == ("503", "UO")
        gateway.ask("/release?id=tight")
        assert first.response().status == 200
        # Envoy counts the waiting one against max_requests only once it is sent; here it may have been refused like the third.
        assert second.response().status in (200, 503)
    assert gateway.ask("/tight/who").status == 200


def test_timeout_from_a_header_of_a_stranger_is_ignored(gateway):
    r = gateway.ask("/sleep?ms=500", headers=[("x-envoy-upstream-rq-timeout-ms", "100")])
    assert r.status == 200
    up, _ = sent(gateway, headers=[("x-envoy-upstream-rq-timeout-ms", "5000")])
    assert "x-envoy-upstream-rq-timeout-ms" not in up and up["x-envoy-expected-rq-timeout-ms"] == "60000"


def test_request_timeouts_of_the_listener(gateway):
    tag = gateway.tag()
    with gateway.connect(STRICT) as c:  # request_timeout: a body that does not come
        c.send(f"POST /sha256 HTTP/1.1\r\nhost: t\r\nuser-agent: {tag}\r\ncontent-length: 10\r\n\r\n123")
        assert c.response().status == 408
        assert c.wait_end() is not None
    assert gateway.log(tag)["code"] == "408"
    with gateway.connect(STRICT) as c:  # stream_idle_timeout: a response that does not come
        tag = gateway.tag()
        assert c.request("/sleep?ms=6000", headers=[("user-agent", tag)]).response().status == 504
    e = gateway.log(tag)
    assert e["flags"] == "SI"


def test_idle_connection_is_closed(gateway):
    with gateway.connect(STRICT) as c:
        assert c.request("/who").response().status == 200
        assert c.at_end() and c.ended == "fin"


# --- back-pressure ------------------------------------------------------------------------------------------------------------
def test_slow_reader_bounds_memory(gateway):
    """Clients that do not read a body of 64 MB each: the upstream is slowed down, the gateway holds no more than its buffers."""
    clients = [gateway.connect() for _ in range(4)]
    try:
        for c in clients:
            c.request(f"/long/bytes/{64 * MIB}")
        seen = 0

        def stands_still():
            nonlocal seen
            now = gateway.pools()["packets"]["in_use"]
            still = now == seen and now > 0
            seen = now
            return still
        until(stands_still, 20, "the end of growth")
        # Send buffer and receive buffer of an exchange: 1 MiB each at most, in packets of an MSS; two thirds more for partly filled ones.
        assert seen < 4 * 2 * MIB / 1448 * 1.7, seen
        gateway.still_serves()  # the others do not notice
        for c in clients:
            r = c.response()
            assert r.complete and len(r.body) == 64 * MIB and r.body[:1000] == pattern(0, 1000)
    finally:
        for c in clients:
            c.close()
    gateway.wait_idle()


def test_a_client_that_pipelines_and_never_reads(gateway):
    """The requests wait, their responses do not pile up; once the client reads, each is answered."""
    n = 3000
    with gateway.connect(timeout=30) as c:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /bytes/2000 HTTP/1.1\r\nhost: t\r\n\r\n"
        writer = threading.Thread(target=lambda: c.send(request * n))
        writer.start()
        first = c.response()
        until(lambda: gateway.counters().get(("http_total", "", "downstream_rq_active"), 0) <= 1, 10)
        for r in [first] + [c.response() for _ in range(n - 1)]:
            assert (r.status, r.body) == (200, pattern(0, 2000))
        writer.join()


def test_slow_upstream_bounds_memory(gateway):
    """An upload that the upstream does not read: the client is slowed down."""
    with gateway.connect(timeout=30) as c:
        c.send(f"POST /close?read=0&at=before HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n")  # a connection that ends, to begin with
        assert c.response().status == 503
    with gateway.connect(timeout=30) as c:
        body = os.urandom(MIB)
        tag = gateway.tag()
        c.send(f"POST /hold?id=x{tag} HTTP/1.1\r\nhost: t\r\nuser-agent: {tag}\r\ncontent-length: {32 * MIB}\r\n\r\n")
        writer = threading.Thread(target=lambda: [c.send(body) for _ in range(32)])
        writer.start()
        writer.join()
        assert gateway.ask(f"/held?id=x{tag}").status == 200
        gateway.ask(f"/release?id=x{tag}")
        assert c.response().status == 200
    e = gateway.log(tag)
    assert int(e["received"]) == 32 * MIB


# --- what is counted ----------------------------------------------------------------------------------------------------------
def test_counters_agree_with_what_was_sent(gateway):
    gateway.wait_idle()
    before = gateway.counters()
    plan = [("/who", 30, 200), ("/status/500", 5, 500), ("/direct", 7, 418), ("/status/204", 3, 204)]
    with gateway.connect() as c:
        for target, n, status in plan:
            for _ in range(n):
                assert c.request(target).response().status == status
    gateway.wait_idle()
    after = gateway.counters()
    grown = lambda *key: after.get(key, 0) - before.get(key, 0)
    assert grown("http", "ingress", "downstream_cx_total") == grown("http", "ingress", "downstream_cx_destroy") == 1
    assert grown("http", "ingress", "downstream_rq_total") == 45
    assert [grown("http", "ingress", f"downstream_rq_{c}xx") for c in (2, 4, 5)] == [33, 7, 5]
    assert [grown("cluster", "py", k) for k in ("upstream_rq_total", "upstream_rq_2xx", "upstream_rq_5xx")] == [38, 33, 5]
    assert after.get(("http", "ingress", "downstream_rq_active"), 0) == after.get(("cluster", "py", "upstream_rq_active"), 0) == 0
    assert grown("listener", "plain", "downstream_cx_total") == 1


def test_access_log_of_a_good_request(gateway):
    tag = gateway.tag()
    p = gateway.lab.curl("-A", tag, "-H", "x-request-id: b0000000-0000-4000-8000-000000000000", "-H", "x-forwarded-for: 9.9.9.9", "-H", "host: log.test",
                         "--data-binary", "x" * 1234, URL + "/sha256?q=1")
    assert len(p.stdout) == 64
    e = gateway.log(tag)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", e.pop("start"))
    assert int(e.pop("duration")) < 10000 and int(e.pop("service")) < 10000
    assert e == {"method": "POST", "path": "/sha256?q=1", "protocol": "HTTP/1.1", "code": "200", "flags": "-", "received": "1234", "sent": "64",
                 "xff": "9.9.9.9", "agent": tag, "id": "b0000000-0000-4000-8000-000000000000", "authority": "log.test",
                 "upstream": "10.77.2.10:8001"}


def test_many_at_once(gateway):
    """wrk, to see that load changes nothing: no error, every response counted."""
    before = gateway.counters()
    p = command(*gateway.lab.client.argv(["wrk", "-t1", "-c32", "-d3s", "--timeout", "10s", URL + "/nginx/small.txt"]))
    out = p.stdout.decode()
    assert p.returncode == 0 and "Socket errors" not in out and "Non-2xx" not in out, out
    n = int(re.search(r"(\d+) requests in", out)[1])
    gateway.wait_idle()
    after = gateway.counters()
    key = ("cluster", "nginx", "upstream_rq_2xx")
    assert n <= after[key] - before.get(key, 0) <= n + 32
