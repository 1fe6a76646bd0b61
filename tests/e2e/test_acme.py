"""The canonical example, as it is: an Envoy bootstrap with TLS by SNI, HTTP/2 on both sides, one exact route, two endpoints, an access log and a StatsD sink;
only `dataplane:` comes from the command line. Its addresses, ports and file names are its own, so this lab's wires are made for it."""
import json
import os
import re
import shutil
import socket
import sys
import threading

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import until  # noqa: E402

TEXT = """
static_resources:
  listeners:
  - name: listener_https
    address:
      socket_address: { protocol: TCP, address: 0.0.0.0, port_value: 443 }
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
    filter_chains:
    - filter_chain_match:
        server_names: ["acme.com"]
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: ["h2", "http/1.1"]
            tls_certificates:
            - certificate_chain: { filename: "certs/servercert.pem" }
              private_key: { filename: "certs/serverkey.pem" }
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          use_remote_address: true
          http2_protocol_options:
            max_concurrent_streams: 100
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: "/var/log/millrace/access.log"
          route_config:
            name: local_route
            virtual_hosts:
            - name: local_service
              domains: ["acme.com"]
              routes:
              - match: { path: "/foo" }
                route: { cluster: some_service }
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: some_service
    connect_timeout: 5s
    type: STATIC
    lb_policy: ROUND_ROBIN
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    load_assignment:
      cluster_name: some_service
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: { socket_address: { address: 10.1.2.10, port_value: 10002 } }
        - endpoint:
            address: { socket_address: { address: 10.1.2.11, port_value: 10002 } }
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            max_concurrent_streams: 100
  - name: some_statsd_cluster
    connect_timeout: 5s
    type: STATIC
    load_assignment:
      cluster_name: some_statsd_cluster
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: { socket_address: { address: 127.0.0.1, port_value: 8125 } }
stats_sinks:
- name: envoy.stat_sinks.statsd
  typed_config:
    "@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink
    tcp_cluster_name: some_statsd_cluster
"""
CLIENT, GATEWAY, EGRESS = "10.1.1.2", "10.1.1.1", "10.1.2.1"


class AcmeLab(L.Lab):
    CLIENT4, INGRESS4, EGRESS4 = CLIENT, GATEWAY, EGRESS

    @staticmethod
    def upstream4(i):
        return f"10.1.2.{10 + i}"


def statsd(namespace, lines):
    """A StatsD server inside the namespace that control runs in; its file descriptor is made there, so that port 8125 is nobody else's."""
    s = namespace.socket(socket.AF_INET)
    s.bind(("127.0.0.1", 8125))
    s.listen()

    def serve():
        try:
            peer, _ = s.accept()
            for line in peer.makefile():
                lines.append(line.strip())
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    return s


@pytest.fixture(scope="module")
def world():
    lines = []
    with AcmeLab(memory_mb=256) as lab:
        for name, dns in (("server", "acme.com"), ("endpoint", "endpoint.acme.com")):
            lab.make_certificate(name, [dns])
        os.makedirs(os.path.join(lab.dir, "certs"))
        shutil.copy(os.path.join(lab.dir, "server.crt"), os.path.join(lab.dir, "certs", "servercert.pem"))
        shutil.copy(os.path.join(lab.dir, "server.key"), os.path.join(lab.dir, "certs", "serverkey.pem"))
        servers = "".join(f"server {{ listen {lab.upstream4(i)}:10002 ssl http2; ssl_certificate {lab.dir}/endpoint.crt; "
                          f"ssl_certificate_key {lab.dir}/endpoint.key; location / {{ return 200 \"{i} $server_protocol $request_uri\\n\"; }} }}\n"
                          for i in range(2))
        lab.start_nginx("endpoints", servers)
        path = lab.write("acme.yaml", TEXT)
        lab.gateway.ip("link", "set", "lo", "up")
        sink = statsd(lab.gateway, lines)
        section = json.dumps(lab.dataplane_section())
        lab.dataplane = lab.start("dataplane", [L.program("millrace-dataplane"), "--config", path, "--dataplane", section, "--run-dir", lab.run_dir],
                                  lab.gateway)
        lab.dataplane.wait_log("waiting for tables")
        # /var/log/millrace and 127.0.0.1:8125 are this process' own: a mount and a network of its namespaces.
        os.makedirs(os.path.join(lab.dir, "log"))
        inside = (f"mount -t tmpfs none /var/log && mkdir /var/log/millrace && mount --bind {lab.dir}/log /var/log/millrace && "
                  f"exec {L.program('millrace-control')} --config {path} --run-dir {lab.run_dir}")
        lab.control = lab.start("control", ["unshare", "--mount", "sh", "-c", inside], lab.gateway)
        lab.wait_in_force()
        yield lab, lines
        assert lab.stop_gateway() == 0
        sink.close()


def ask(lab, *args):
    return lab.curl("--cacert", os.path.join(lab.dir, "server.crt"), "--resolve", f"acme.com:443:{GATEWAY}", *args, check=False)


def test_both_versions_reach_both_endpoints(world):
    lab, _ = world
    seen = set()
    for version in ("--http2", "--http1.1") * 4:
        p = ask(lab, version, "-w", "%{http_version} %{http_code}", "https://acme.com/foo")
        body, version_seen = p.stdout.decode().splitlines()
        assert version_seen == ("2 200" if version == "--http2" else "1.1 200"), p.stderr
        endpoint, protocol, path = body.split()
        assert protocol == "HTTP/2.0" and path == "/foo"
        seen.add(endpoint)
    assert seen == {"0", "1"}


def test_what_is_not_routed(world):
    lab, _ = world
    assert ask(lab, "-o", "/dev/null", "-w", "%{http_code}", "https://acme.com/foo/bar").stdout == b"404"
    other = lab.curl("-k", "--resolve", f"other.com:443:{GATEWAY}", "https://other.com/foo", check=False)
    assert other.returncode in (35, 52, 56), other.stderr  # no filter chain for that name: the connection is closed


def test_access_log_and_statsd(world):
    lab, lines = world
    path = os.path.join(lab.dir, "log", "access.log")
    until(lambda: os.path.exists(path) and '"GET /foo HTTP/2" 200' in open(path).read(), what="the request's line in the access log")
    line = next(x for x in open(path) if '"GET /foo HTTP/2" 200' in x)
    assert re.search(r'"10\.1\.2\.1[01]:10002"$', line.strip()) and f'"{CLIENT}"' in line, line
    until(lambda: any(re.match(r"envoy\.http\.ingress_http\.downstream_rq_total:[0-9]+\|c$", x) for x in list(lines)), 30, "StatsD's line")
    assert any(x.startswith("envoy.cluster.some_service.upstream_rq_2xx:") for x in lines)
