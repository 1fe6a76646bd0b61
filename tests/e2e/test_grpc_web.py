"""gRPC-Web through the gateway: clients of HTTP/1.1 and HTTP/2, binary and base64, in front of a real gRPC server (grpcio)."""
import json
import os
import subprocess

import pytest

import conftest
import lab as laboratory
from conftest import HTTP, Gateway, until
from lab import bootstrap, cluster, hcm, listener
from test_grpc import GRPC, SUPPORT
from test_http2_upstream import SYSTEM_PYTHON, http2

pytestmark = pytest.mark.skipif(subprocess.run([SYSTEM_PYTHON, "-c", "import grpc, h2"], capture_output=True).returncode != 0,
                                reason="no python3-grpcio or python3-h2 (Debian packages); scripts/setup installs them")
WAYS = ["h1", "h1-text", "h2", "h2-text"]


@pytest.fixture(scope="module")
def gateway():
    lab = laboratory.Lab(device="af_packet", memory_mb=1024)
    try:
        u = lab.upstream4(0)
        lab.start("grpc", [SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_server.py"), str(GRPC)], lab.upstream).wait_log("listening")
        edge = hcm([{"name": "v", "domains": ["*"], "routes": [
            {"match": {"path": "/test.T/Denied"}, "direct_response": {"status": 403, "body": {"inline_string": "not you, 100 %"}}},
            {"match": {"prefix": "/test.T/"}, "route": {"cluster": "grpc"}}]}])
        edge["typed_config"]["http_filters"].insert(0, {"name": "envoy.filters.http.grpc_web", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}})
        config = bootstrap([listener("plain", HTTP, edge)], [cluster("grpc", [(u, GRPC)], **http2())])
        lab.start_gateway(dict(config, dataplane=lab.dataplane_section()))
        g = Gateway(lab)
    except BaseException:
        lab.close()
        raise
    yield g
    conftest.end_gateway(g)


def call(gateway, way, method, *messages):
    p = gateway.lab.client.run([SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_web_client.py"), f"10.77.1.1:{HTTP}", way, "/test.T/" + method, *messages], timeout=60)
    return json.loads(p.stdout)


@pytest.mark.parametrize("way", WAYS)
def test_unary(gateway, way):
    r = call(gateway, way, "Unary", "hello, gateway")
    assert (r["http"], r["messages"], r["status"]) == (200, ["HELLO, GATEWAY"], "0")
    assert r["trailers"]["x-sent"] == "metadata"


@pytest.mark.parametrize("way", WAYS)
def test_streams(gateway, way):
    r = call(gateway, way, "Count", "300")
    assert r["messages"] == [str(i) for i in range(300)] and r["status"] == "0"
    assert call(gateway, way, "Collect", *"abcdefgh")["messages"] == ["abcdefgh"]
    assert call(gateway, way, "Chat", "a", "b")["messages"] == ["you said a", "you said b"]


@pytest.mark.parametrize("way", WAYS)
def test_statuses(gateway, way):
    r = call(gateway, way, "Fail", "NOT_FOUND what it says")
    assert (r["http"], r["messages"], r["status"], r["message"]) == (200, [], "5", "what it says")
    r = call(gateway, way, "Denied", "x")
    assert (r["http"], r["messages"], r["status"], r["message"]) == (403, [], "7", "not you, 100 %25")


def test_counted(gateway):
    before = gateway.counters()
    call(gateway, "h1", "Unary", "x")
    call(gateway, "h2-text", "Fail", "INTERNAL x")
    def grown(name):
        return gateway.counters()[("cluster", "grpc", name)] - before[("cluster", "grpc", name)]
    until(lambda: (grown("grpc-web.total"), grown("grpc-web.success"), grown("grpc-web.failure")) == (2, 1, 1), 15, "counters")


def test_a_real_clients_gRPC_passes(gateway):
    p = gateway.lab.client.run([SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_client.py"), f"10.77.1.1:{HTTP}", "unary", "hello"], timeout=60)
    assert json.loads(p.stdout)["answers"] == ["HELLO"]
