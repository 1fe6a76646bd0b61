"""The laboratory that tests/e2e shares: one gateway configuration with every listener, route and cluster the tests ask for, one Python
upstream that makes trouble on request, one nginx. A lab lives as long as one test file; it ends with both programs stopped, and the
data plane's exit code says whether every packet came back to its pool."""
import json
import os
import re
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as laboratory  # noqa: E402
from lab import bootstrap, cluster, hcm, listener, tls_socket  # noqa: E402
from raw_http import RawHttp  # noqa: E402

PY, NGINX, NGINX_TLS = 8001, 8000, 8443       # upstream ports
HTTP, STRICT, EDGE, H2C, TLS, TLS_ONLY, TCP, HTTP6, TLS6 = 80, 81, 82, 83, 443, 444, 90, 80, 443  # listeners
MIB = 1 << 20
FLAGS = {"NoHealthyUpstream": "UH", "UpstreamConnectionFailure": "UF", "UpstreamConnectionTermination": "UC", "UpstreamOverflow": "UO",
         "NoRouteFound": "NR", "NoClusterFound": "NC", "UpstreamRequestTimeout": "UT", "DownstreamConnectionTermination": "DC",
         "StreamIdleTimeout": "SI", "UpstreamProtocolError": "UPE", "DownstreamProtocolError": "DPE", "OverloadManagerTerminated": "OM"}
LOG = re.compile(r'\[(?P<start>[^]]+)\] "(?P<method>\S+) (?P<path>\S+) (?P<protocol>\S+)" (?P<code>\d+) (?P<flags>\S+) (?P<received>\d+) '
                 r'(?P<sent>\d+) (?P<duration>\d+|-) (?P<service>\d+|-) "(?P<xff>[^"]*)" "(?P<agent>[^"]*)" "(?P<id>[^"]*)" '
                 r'"(?P<authority>[^"]*)" "(?P<upstream>[^"]*)"')


def until(condition, timeout=15, what="the condition"):
    """Waits for a value that is true, and returns it."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not hold within {timeout} s")
        time.sleep(0.03)


class Gateway:
    """A running lab with the configuration below, and the questions tests ask of it."""

    def __init__(self, lab):
        self.lab = lab
        self.serial = 0
        self.tls_upstreams = False  # idle connections to endpoints keep their TLS sessions

    def tag(self):
        """A user agent that no other request has: finds this request's line in the access log."""
        self.serial += 1
        return f"test-{self.serial}"

    def connect(self, port=HTTP, v6=False, timeout=15):
        return RawHttp(self.lab.connect(port, v6, timeout))

    def ask(self, target, port=HTTP, **request):
        """One request on a connection of its own."""
        with self.connect(port) as c:
            return c.request(target, **request).response(request.get("method", "GET"))

    def log(self, tag, count=1, timeout=15):
        """The access log entries of a tag, parsed, once there are so many of them."""
        def found():
            lines = [x for x in self.lab.access_log() if f'"{tag}"' in x]
            return lines if len(lines) >= count else None
        lines = until(found, timeout, f"{count} access log lines of {tag}")
        assert len(lines) == count, lines
        out = []
        for x in lines:
            m = LOG.fullmatch(x)
            assert m, f"not Envoy's default format: {x}"
            out.append(m.groupdict())
        return out[0] if count == 1 else out

    def pools(self):
        """Elements in use by pool name, over all workers."""
        out = {}
        for w in self.lab.status()["workers"]:
            for p in w["pools"]:
                item = out.setdefault(p["name"], {"in_use": 0, "capacity": 0, "high_water": 0})
                for k in item:
                    item[k] += int(p[k])
        return out

    def wait_idle(self, timeout=20):
        """Until nothing is under way: no client connection, no exchange, no packet lent."""
        # net_af_xdp keeps what it took for its fill rings (2,048 a port), and sent packets until it sends again (at most a ring of 1,024).
        most = {"exchanges": 0, "connections": 0, "tls_sessions": 0, "packets": 2 * (2048 + 1024) * self.lab.workers if self.lab.device == "af_xdp" else 0}
        names, last = list(most), {}

        def idle():
            last.update(self.pools())
            if self.tls_upstreams:
                most["tls_sessions"] = last["upstream_connections"]["in_use"]
            return all(last[n]["in_use"] <= most[n] for n in names)
        try:
            until(idle, timeout)
        except AssertionError:
            raise AssertionError(f"not idle after {timeout} s: " + ", ".join(f"{n} {last[n]['in_use']}" for n in names)) from None

    def counters(self):
        """{(scope, object, counter): value} of everything that has counted."""
        return {(c["scope"], c["name"], c["counter"]): int(c["value"])
                for c in json.loads(self.lab.millctl("stats", "-o", "json"))["counters"]}

    def flags(self):
        """{short flag: count} of requests that did not end well."""
        return {FLAGS.get(f["name"], f["name"]): int(f["count"]) for f in json.loads(self.lab.millctl("drops", "-o", "json"))["flags"]}

    def drops(self):
        """{reason: count} of packets."""
        return {d["name"]: int(d["count"]) for d in json.loads(self.lab.millctl("drops", "-o", "json"))["drops"]}

    def upstream_json(self, path):
        return json.loads(self.ask(path).body)

    def still_serves(self):
        r = self.ask("/who")
        assert (r.status, r.complete) == (200, True)


def configuration(lab, certificates):
    u, u6, log = lab.upstream4(0), lab.upstream6(0), os.path.join(lab.dir, "access.log")
    three = [(lab.upstream4(i), PY) for i in range(3)]
    to = lambda name, **extra: {"cluster": name, **extra}
    tight = {"circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 1, "max_requests": 1}]}}
    routes = [
        {"match": {"prefix": "/nginx/"}, "route": to("nginx", prefix_rewrite="/")},
        {"match": {"prefix": "/v6/"}, "route": to("py6", prefix_rewrite="/")},
        {"match": {"prefix": "/rr/"}, "route": to("round_robin", prefix_rewrite="/")},
        {"match": {"prefix": "/lr/"}, "route": to("least_request", prefix_rewrite="/")},
        {"match": {"prefix": "/random/"}, "route": to("random", prefix_rewrite="/")},
        {"match": {"prefix": "/weighted/"}, "route": {"prefix_rewrite": "/", "weighted_clusters": {
            "clusters": [{"name": "first", "weight": 75}, {"name": "second", "weight": 25}]}}},
        {"match": {"prefix": "/half/"}, "route": to("first", prefix_rewrite="/")},
        {"match": {"prefix": "/refused"}, "route": to("refused")},
        {"match": {"prefix": "/unanswered"}, "route": to("unanswered")},
        {"match": {"prefix": "/empty"}, "route": to("empty")},
        {"match": {"prefix": "/unknown-cluster"}, "route": to("nowhere")},
        {"match": {"prefix": "/tight/"}, "route": to("tight", prefix_rewrite="/")},
        {"match": {"prefix": "/timeout/"}, "route": to("py", prefix_rewrite="/", timeout="0.3s")},
        {"match": {"prefix": "/long/"}, "route": to("py", prefix_rewrite="/", timeout="0s")},
        {"match": {"prefix": "/trailing/"}, "route": to("trailing", prefix_rewrite="/")},
        {"match": {"path": "/old"}, "redirect": {"path_redirect": "/new", "response_code": "FOUND"}},
        {"match": {"prefix": "/secure"}, "redirect": {"https_redirect": True}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "short and stout\n"}}},
        {"match": {"safe_regex": {"regex": "/regex/[0-9]+"}}, "route": to("py", prefix_rewrite="/request")},
        {"match": {"path_separated_prefix": "/separated"}, "direct_response": {"status": 200, "body": {"inline_string": "separated\n"}}},
        {"match": {"prefix": "/match", "headers": [{"name": "x-match", "string_match": {"exact": "header"}}]},
         "direct_response": {"status": 200, "body": {"inline_string": "header\n"}}},
        {"match": {"prefix": "/match", "query_parameters": [{"name": "q", "string_match": {"exact": "query"}}]},
         "direct_response": {"status": 200, "body": {"inline_string": "query\n"}}},
        {"match": {"prefix": "/match"}, "direct_response": {"status": 200, "body": {"inline_string": "neither\n"}}},
        {"match": {"prefix": "/"}, "route": to("py", timeout="60s")},
    ]
    hosts = [
        {"name": "main", "domains": ["*"], "routes": routes},
        {"name": "exact", "domains": ["exact.test"], "routes": [host_route("exact")]},
        {"name": "suffix", "domains": ["*.suffix.test"], "routes": [host_route("suffix")]},
        {"name": "longer", "domains": ["*.longer.suffix.test"], "routes": [host_route("longer")]},
        {"name": "prefix", "domains": ["prefix.*"], "routes": [host_route("prefix")]},
        {"name": "bare", "domains": ["bare.test"], "routes": [{"match": {"path": "/only"}, "route": to("py")}]},
    ]
    no_check = {"validate_clusters": False}
    plain = lambda name, **extra: hcm(hosts, access_log=log, route_name=name, stat_prefix=name, route_extra=no_check, **extra)
    tagged = lambda name: hcm([{"name": "v", "domains": ["*"], "routes": [
        {"match": {"path": "/chain"}, "direct_response": {"status": 200, "body": {"inline_string": name + "\n"}}},
        {"match": {"prefix": "/"}, "route": to("py", timeout="60s")}]}], access_log=log, route_name=name, stat_prefix=name)
    crt = certificates
    tls_chains = [
        {"name": "exact", "filter_chain_match": {"server_names": ["exact.test"]}, "filters": [tagged("chain_exact")],
         "transport_socket": tls_socket(*crt["exact"])},
        {"name": "wildcard", "filter_chain_match": {"server_names": ["*.wild.test"]}, "filters": [tagged("chain_wildcard")],
         "transport_socket": tls_socket(*crt["wild"])},
        {"name": "h2", "filter_chain_match": {"server_names": ["h2.test"]}, "filters": [tagged("chain_h2")],
         "transport_socket": tls_socket(*crt["default"], alpn=["h2", "http/1.1"])},
        {"name": "passthrough", "filter_chain_match": {"server_names": ["pass.test"]}, "filters": [tcp_proxy("passthrough", "nginx_tls", log)]},
    ]
    default = {"name": "default", "filters": [tagged("chain_default")],
               "transport_socket": tls_socket(*crt["default"], alpn=["h2", "http/1.1"])}
    listeners = [
        listener("plain", HTTP, plain("ingress")),
        listener("plain6", HTTP6, plain("ingress6"), address="::"),
        listener("strict", STRICT, plain("strict", common_http_protocol_options={"idle_timeout": "1s"}, via="millrace", request_timeout="2s",
                                         stream_idle_timeout="3s", http_protocol_options={"accept_http_10": True, "enable_trailers": True})),
        listener("edge", EDGE, plain("edge", use_remote_address=True, server_name="edge-server", via="edge-via")),
        listener("h2c", H2C, plain("h2c", codec_type="HTTP2", http2_protocol_options={"max_concurrent_streams": 100})),
        listener("tls", TLS, tls_chains, inspector=True, default_filter_chain=default),
        listener("tls6", TLS6, tls_chains, inspector=True, default_filter_chain=default, address="::"),
        listener("tls_only", TLS_ONLY, tls_chains[:2], inspector=True),
        listener("tcp", TCP, tcp_proxy("raw", "py", log)),
    ]
    http1 = lambda **options: {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": options}}}}
    clusters = [
        cluster("py", [(u, PY)]), cluster("py6", [(u6, PY)]), cluster("nginx", [(u, NGINX)]), cluster("nginx_tls", [(u, NGINX_TLS)]),
        cluster("round_robin", three), cluster("least_request", three, lb_policy="LEAST_REQUEST"), cluster("random", three, lb_policy="RANDOM"),
        cluster("first", three[:1]), cluster("second", three[1:2]),
        cluster("refused", [(u, 9)]), cluster("unanswered", [("10.77.2.250", PY)], **{"connect_timeout": "0.4s"}), cluster("empty", []),
        cluster("tight", [(u, PY)], **tight), cluster("trailing", [(u, PY)], **http1(enable_trailers=True)),
    ]
    return bootstrap(listeners, clusters)


def host_route(text):
    return {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text + "\n"}}}


def tcp_proxy(stat_prefix, to, log):
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": laboratory.TYPES["tcp_proxy"], "stat_prefix": stat_prefix, "cluster": to,
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {"@type": laboratory.TYPES["file_log"], "path": log}}]}}


def start_upstreams(lab, certificates):
    lab.big_file = os.path.join(lab.dir, "www", "big")
    os.makedirs(os.path.dirname(lab.big_file))
    with open(lab.big_file, "wb") as f:
        for _ in range(200):
            f.write(os.urandom(MIB))
    with open(os.path.join(os.path.dirname(lab.big_file), "small.txt"), "w") as f:
        f.write("small file\n")
    crt, key = certificates["upstream"]
    lab.start_nginx("nginx", f"""
  server {{ listen {lab.upstream4(0)}:{NGINX}; listen [{lab.upstream6(0)}]:{NGINX}; root {os.path.dirname(lab.big_file)}; }}
  server {{ listen {lab.upstream4(0)}:{NGINX_TLS} ssl; ssl_certificate {crt}; ssl_certificate_key {key};
            location / {{ return 200 "the upstream itself\\n"; }} }}""")
    python = lab.start("upstream", [sys.executable, os.path.join(laboratory.ROOT, "tests/support/upstream_server.py"),
                                    f"0.0.0.0:{PY}", f"[::]:{PY}"], lab.upstream)
    python.wait_log("listening")


def start_gateway(device, workers=1, section=None):
    """`section`: keys of `dataplane:` beyond those of the laboratory."""
    lab = laboratory.Lab(device=device, workers=workers)
    try:
        lab.certificates = {name: lab.make_certificate(name, dns, key) for name, dns, key in (
            ("exact", ["exact.test"], "ec"), ("wild", ["*.wild.test"], "rsa"), ("default", ["default.test"], "ec"), ("upstream", ["pass.test"], "ec"))}
        start_upstreams(lab, lab.certificates)
        lab.start_gateway(dict(configuration(lab, lab.certificates), dataplane=lab.dataplane_section(**(section or {}))))
        return Gateway(lab)
    except BaseException:
        lab.close()
        raise


def end_gateway(gateway):
    """Nothing under way, then the end: exit code 0 of the data plane says that every packet came back."""
    lab = gateway.lab
    try:
        try:
            gateway.wait_idle()
        finally:
            code = lab.stop_gateway()
        assert code == 0, f"data plane ended with {code}:\n{lab.dataplane.log()[-2000:]}"
    finally:
        lab.close()


@pytest.fixture(scope="module")
def gateway():
    """The gateway on af_packet ports."""
    g = start_gateway("af_packet")
    yield g
    end_gateway(g)


def command(*argv, **kwargs):
    return subprocess.run(list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **kwargs)
