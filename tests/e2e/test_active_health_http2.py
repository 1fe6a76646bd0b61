"""Active health checks by gRPC against a real server (grpcio), and by HTTP/1.1 and HTTP/2 over TLS against a real nginx."""
import os
import subprocess
import sys
import time

import pytest

SUPPORT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support")
sys.path.insert(0, SUPPORT)
import lab as L  # noqa: E402

SYSTEM_PYTHON = "/usr/bin/python3"
pytestmark = pytest.mark.skipif(subprocess.run([SYSTEM_PYTHON, "-c", "import grpc"], capture_output=True).returncode != 0,
                                reason="no python3-grpcio (Debian package); scripts/setup installs it")
CHECK = {"timeout": "0.5s", "interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 2, "healthy_threshold": 2}
GRPC, TLS = 8001, 8443


def configuration(lab, certificate):
    u = lab.upstream4(0)
    tls = {"transport_socket": {"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "web.test",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": certificate}}}}}}
    http2 = {"http2_protocol_options": {}}
    grpc = {"service_name": "shop.Cart", "initial_metadata": [{"header": {"key": "x-check", "value": "yes"}}]}
    clusters = [
        {**L.cluster("grpc", [(u, GRPC)]), **http2, "health_checks": [{**CHECK, "grpc_health_check": grpc}]},
        {**L.cluster("tls1", [(u, TLS)]), **tls, "health_checks": [{**CHECK, "http_health_check": {"path": "/h1"}}]},
        {**L.cluster("tls2", [(u, TLS)]), **http2, **tls,
         "health_checks": [{**CHECK, "http_health_check": {"path": "/h2", "codec_client_type": "HTTP2"}}]}]
    return L.bootstrap([], clusters)


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=512, upstreams=1) as lab:
        lab.say_path = lab.write("says", "1")
        lab.server = lab.start("grpc", [SYSTEM_PYTHON, os.path.join(SUPPORT, "grpc_health_server.py"), str(GRPC), lab.say_path], lab.upstream)
        lab.server.wait_log("listening")
        certificate, key = lab.make_certificate("web", ["web.test"])
        lab.flag = os.path.join(lab.dir, "sick")
        lab.start_nginx("web", f"""server {{ listen {lab.upstream4(0)}:{TLS} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};
            location /h1 {{ if ($server_protocol != "HTTP/1.1") {{ return 505; }} if (-f {lab.flag}) {{ return 503; }} return 200; }}
            location /h2 {{ if ($server_protocol != "HTTP/2.0") {{ return 505; }} if (-f {lab.flag}) {{ return 503; }} return 200; }} }}""")
        lab.start_gateway(configuration(lab, certificate))
        yield lab
        assert [lab.control.stop(), lab.stop_gateway()] == [0, 0]


def states(lab):
    rows = [line.split(maxsplit=3) for line in lab.millctl("list", "endpoints").splitlines()[1:]]
    return {row[0]: row[3].strip() for row in rows}


def until(lab, cluster, state, seconds=20):
    deadline = time.monotonic() + seconds
    while states(lab)[cluster] != state:
        assert time.monotonic() < deadline, states(lab)
        time.sleep(0.02)


@pytest.mark.parametrize("say, state", [("2", "not serving"), ("UNAVAILABLE", "gRPC status 14"), ("hang", "timeout")])
def test_grpc(lab, say, state):
    lab.write("says", "1")
    until(lab, "grpc", "in rotation")
    assert "asked 0a0973686f702e43617274 yes" in lab.server.log()
    lab.write("says", say)
    until(lab, "grpc", "failed active health check: " + state)
    lab.write("says", "1")
    until(lab, "grpc", "in rotation")


def test_over_tls(lab):
    for cluster in ("tls1", "tls2"):
        until(lab, cluster, "in rotation")
    lab.write("sick", "")
    for cluster in ("tls1", "tls2"):
        until(lab, cluster, "failed active health check: status 503")
    os.unlink(lab.flag)
    for cluster in ("tls1", "tls2"):
        until(lab, cluster, "in rotation")
