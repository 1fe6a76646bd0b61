"""gRPC through the gateway, between a real client and a real server (grpcio): unary, streaming both ways, statuses, deadlines, many at once."""
import json
import os
import subprocess

import pytest

import conftest
import lab as laboratory
from conftest import HTTP, Gateway, until
from lab import bootstrap, cluster, hcm, listener
from test_http2_upstream import SYSTEM_PYTHON, http2

SUPPORT = os.path.join(laboratory.ROOT, "tests", "support")
GRPC, MANY = 50051, 10_000
pytestmark = pytest.mark.skipif(subprocess.run([SYSTEM_PYTHON, "-c", "import grpc"], capture_output=True).returncode != 0,
                                reason="no python3-grpcio (Debian package); scripts/setup installs it")


def configuration(lab):
    u, log = lab.upstream4(0), os.path.join(lab.dir, "access.log")
    many = {"circuit_breakers": {"thresholds": [{"max_connections": 100, "max_pending_requests": 2 * MANY, "max_requests": 2 * MANY}]}}
    routes = [
        {"match": {"path": "/test.T/Refused"}, "route": {"cluster": "refused"}},
        {"match": {"path": "/test.T/Short", "grpc": {}}, "route": {"cluster": "grpc", "prefix_rewrite": "/test.T/Sleep", "timeout": "0.3s"}},
        {"match": {"path": "/test.T/Denied"}, "direct_response": {"status": 403, "body": {"inline_string": "not you, 100 %"}}},
        {"match": {"prefix": "/test.T/", "grpc": {}}, "route": {"cluster": "grpc", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": "no gRPC"}}}]
    edge = hcm([{"name": "v", "domains": ["*"], "routes": routes}], access_log=log)
    edge["typed_config"]["access_log"].append({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": laboratory.TYPES["file_log"], "path": os.path.join(lab.dir, "status.log"),
        "log_format": {"text_format_source": {"inline_string": "%PATH% %PROTOCOL% %UPSTREAM_PROTOCOL% %RESPONSE_CODE% %GRPC_STATUS% %TRAILER(x-sent)%\n"}}}})
    return bootstrap([listener("plain", HTTP, edge)],
                     [cluster("grpc", [(u, GRPC)], **http2(), **many), cluster("refused", [(u, 9)], **http2())])


@pytest.fixture(scope="module")
def gateway():
    lab = laboratory.Lab(device="af_packet", memory_mb=1024)
    try:
        lab.start("grpc", [SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_server.py"), str(GRPC)], lab.upstream).wait_log("listening")
        lab.start_gateway(dict(configuration(lab), dataplane=lab.dataplane_section()))
        g = Gateway(lab)
    except BaseException:
        lab.close()
        raise
    yield g
    conftest.end_gateway(g)


def call(gateway, *what, timeout=60):
    p = gateway.lab.client.run([SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_client.py"), f"10.77.1.1:{HTTP}", *map(str, what)], timeout=timeout)
    return json.loads(p.stdout)


def test_unary(gateway):
    r = call(gateway, "unary", "hello")
    assert (r["code"], r["answers"]) == ("OK", ["HELLO"])
    assert r["trailing"]["x-sent"] == "metadata"


def test_status_and_trailers_are_logged(gateway):
    call(gateway, "unary", "hello")
    call(gateway, "fail", "NOT_FOUND", "what")
    call(gateway, "method", "/test.T/Denied", "x")
    want = ["/test.T/Unary HTTP/2 HTTP/2 200 OK metadata", "/test.T/Fail HTTP/2 HTTP/2 200 NotFound -", "/test.T/Denied HTTP/2 - 200 PermissionDenied -"]
    until(lambda: set(want) <= set(gateway.lab.access_log("status.log")), 15, want)


def test_streams_of_the_client(gateway):
    assert call(gateway, "collect", *"abcdefgh")["answers"] == ["abcdefgh"]


def test_streams_of_the_server(gateway):
    assert call(gateway, "count", 1000)["answers"] == [str(i) for i in range(1000)]


def test_both_ways_at_once(gateway):
    assert call(gateway, "chat", "a", "b", "c")["answers"] == ["you said a", "you said b", "you said c"]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE"])
def test_statuses_of_the_server(gateway, code):
    r = call(gateway, "fail", code, "what", "it", "says")
    assert (r["code"], r["message"]) == (code, "what it says")


@pytest.mark.parametrize("method, code, message", [
    ("/test.T/Refused", "UNAVAILABLE", "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"),
    ("/test.T/Denied", "PERMISSION_DENIED", "not you, 100 %"), ("/elsewhere", "UNIMPLEMENTED", "no gRPC")])
def test_our_own_answers_are_statuses(gateway, method, code, message):
    r = call(gateway, "method", method, "x")
    assert (r["code"], r["message"]) == (code, message)


def test_the_routes_timeout_is_a_status(gateway):
    r = call(gateway, "method", "/test.T/Short", "2000")
    assert (r["code"], r["message"]) == ("UNAVAILABLE", "upstream request timeout")


def test_the_clients_deadline(gateway):
    assert call(gateway, "sleep", 3000, 0.5)["code"] == "DEADLINE_EXCEEDED"
    assert call(gateway, "unary", "x", 10)["trailing"]["x-deadline"] == "yes", "grpc-timeout reaches the server"


def test_a_call_given_up(gateway):
    assert call(gateway, "cancel") == {"code": "CANCELLED", "message": "", "answers": ["you said x"], "trailing": {}}
    gateway.wait_idle()


def test_only_grpc_matches_grpc(gateway):
    r = gateway.ask("/test.T/Unary")
    assert (r.status, r.body) == (404, b"no gRPC")


def test_many_streams_at_once(gateway):
    """10,000 calls that are all open before the first is answered."""
    r = call(gateway, "gather", MANY, 10, timeout=280)
    assert r["code"] == "OK" and r["answers"] == [MANY]
    connections = gateway.counters()[("cluster", "grpc", "upstream_cx_http2_total")]
    assert connections <= 20, "1,024 streams a connection"
    gateway.wait_idle(60)
