"""Clusters whose endpoints are host names: a real name server that changes its answers while requests go on, and one that is silent or broken.

The name server listens where control runs, on the host's loopback; the endpoints lie behind the data plane's ports.
"""
import collections
import os
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from dns_server import AAAA, A, DnsServer  # noqa: E402

CARES = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


def resolver(port, **extra):
    return {"name": "envoy.network.dns_resolver.cares", "typed_config": {
        "@type": CARES, "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": port}}], "query_timeout_seconds": 1,
        "query_tries": 1, **extra}}


def dns_cluster(lab, name, endpoints, kind="STRICT_DNS", options=None, **extra):
    return {**L.cluster(name, endpoints), "type": kind, "dns_lookup_family": "V4_PREFERRED", "dns_refresh_rate": "0.2s",
            "typed_dns_resolver_config": resolver(lab.dns.port, **(options or {})), **extra}


def configuration(lab):
    names = ["strict", "logical", "two", "tcp", "older", "silent", "broken", "auto", "rewrite"]
    routes = [{"match": {"prefix": "/" + n},
               "route": {"cluster": n, **({"auto_host_rewrite": True} if n == "rewrite" else {})}} for n in names]
    clusters = [
        dns_cluster(lab, "strict", [("strict.test", 8001)]),
        dns_cluster(lab, "logical", [("logical.test", 8001)], "LOGICAL_DNS"),
        dns_cluster(lab, "two", [("one.test", 8001, 3), ("other.test", 8001, 1)]),
        dns_cluster(lab, "tcp", [("tcp.test", 8001)], options={"dns_resolver_options": {"use_tcp_for_dns_lookups": True}}),
        {**L.cluster("older", [("older.test", 8001)]), "type": "STRICT_DNS", "dns_refresh_rate": "0.2s",
         "dns_lookup_family": "V4_ONLY", "dns_resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": lab.dns.port}}]},
        dns_cluster(lab, "silent", [("silent.test", 8001)]),
        dns_cluster(lab, "broken", [("broken.test", 8001)]),
        dns_cluster(lab, "auto", [("both.test", 8001)], dns_lookup_family="AUTO"),
        dns_cluster(lab, "rewrite", [("rewrite.test", 8001)]),
    ]
    # A sink, because it asks for the addresses of names up to the very end of control.
    sink = {"name": "envoy.stat_sinks.statsd", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
        "address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": lab.sink.getsockname()[1]}}}}
    return {**L.bootstrap([L.listener("http", 8080, L.hcm([{"name": "all", "domains": ["*"], "routes": routes}]))], clusters), "stats_sinks": [sink]}


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        server = 'server {{ listen {0}:8001; location / {{ return 200 "{1} $host\\n"; }} }}'
        six = 'server {{ listen [{0}]:8001; location / {{ return 200 "six $host\\n"; }} }}'
        lab.start_nginx("web", "".join(server.format(lab.upstream4(i), i) for i in range(4)) + six.format(lab.upstream6(0)))
        a = [lab.upstream4(i) for i in range(4)]
        lab.addresses = a
        lab.dns = DnsServer({
            "strict.test": (60, a[:2]), "logical.test": (60, a[:2]), "one.test": (60, [a[0]]), "other.test": (60, [a[1]]), "tcp.test": (60, [a[0]]),
            "older.test": (60, [a[0]]), "silent.test": "silent", "broken.test": None, "both.test": (60, [a[0], lab.upstream6(0)]),
            "rewrite.test": (60, [a[3]])})
        lab.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        lab.sink.bind(("127.0.0.1", 0))
        lab.start_gateway(configuration(lab))
        yield lab
        stopped = [lab.control.stop(), lab.stop_gateway()]
        lab.dns.close()
        lab.sink.close()
        assert stopped == [0, 0]


def get(lab, path, check=True):
    p = lab.client.run(["curl", "-s", "-m", "10", "-w", "%{http_code}", f"http://{lab.INGRESS4}:8080{path}"], check=check)
    return p.stdout.decode()


def servers(lab, path, requests=40):
    return collections.Counter(get(lab, path).split()[0] for _ in range(requests))


def until(lab, path, wanted, seconds=20):
    """Requests until only `wanted` servers answer; what was seen last when they never do."""
    deadline = time.monotonic() + seconds
    while True:
        seen = set(servers(lab, path, 8))
        if seen == set(wanted):
            return
        assert time.monotonic() < deadline, f"{path}: {seen}, not {wanted}"


def ctl(lab, *words):
    return L.run([L.program("millctl"), "--run-dir", lab.run_dir, *words]).stdout.decode()


def test_strict_uses_every_address(lab):
    seen = servers(lab, "/strict")
    assert set(seen) == {"0", "1"} and min(seen.values()) >= 10, seen


def test_logical_uses_the_first(lab):
    assert set(servers(lab, "/logical")) == {"0"}


def test_weights_are_the_names(lab):
    seen = servers(lab, "/two")
    assert seen["0"] == 30 and seen["1"] == 10, seen


def test_over_tcp(lab):
    assert get(lab, "/tcp").startswith("0 ")
    with lab.dns.lock:
        assert lab.dns.queries["tcp.test", A, "tcp"] > 0 and lab.dns.queries["tcp.test", A, "udp"] == 0


def test_the_oldest_way_to_name_a_server(lab):
    assert get(lab, "/older").startswith("0 ")
    with lab.dns.lock:
        assert lab.dns.queries["older.test", AAAA, "udp"] == 0


def test_auto_prefers_six(lab):
    assert set(servers(lab, "/auto", 8)) == {"six"}


def test_auto_host_rewrite_says_the_name(lab):
    assert get(lab, "/rewrite").split()[1].startswith("rewrite.test")


@pytest.mark.parametrize("name", ["silent", "broken"])
def test_a_server_that_fails_leaves_nobody(lab, name):
    assert get(lab, "/" + name).endswith("503")
    assert f"DNS: {name}.test: " in ctl(lab, "log")


def test_it_works_as_soon_as_the_server_does(lab):
    lab.dns.set("broken.test", (60, [lab.addresses[2]]))
    until(lab, "/broken", ["2"])
    assert "DNS: broken.test is answered again" in ctl(lab, "log")


def test_answers_change_under_load_without_a_failed_request(lab):
    load = subprocess.Popen(lab.client.argv(["wrk", "-t1", "-c16", "-d6s", f"http://{lab.INGRESS4}:8080/strict"]), stdout=subprocess.PIPE, text=True)
    for addresses in ([2, 3], [0], [0, 1, 2, 3], [1]):
        lab.dns.set("strict.test", (60, [lab.addresses[i] for i in addresses]))
        until(lab, "/strict", [str(i) for i in addresses])
    out = load.communicate(timeout=60)[0]
    assert "Non-2xx" not in out and "Socket errors" not in out, out


def test_logical_follows(lab):
    lab.dns.set("logical.test", (60, [lab.addresses[3], lab.addresses[0]]))
    until(lab, "/logical", ["3"])


def test_a_name_that_fails_keeps_its_addresses_and_one_that_is_gone_does_not(lab):
    lab.dns.set("one.test", None)
    asked = lab.dns.asked("one.test")
    while lab.dns.asked("one.test") < asked + 6:
        time.sleep(0.05)
    assert set(servers(lab, "/two")) == {"0", "1"}
    lab.dns.set("one.test", "gone")
    until(lab, "/two", ["1"])
    lab.dns.set("one.test", (60, [lab.addresses[0]]))
    until(lab, "/two", ["0", "1"])


def test_an_edit_waits_for_its_names(lab):
    lab.dns.set("new.test", (60, [lab.addresses[2]]))
    path = lab.write("new.json", {"resources": [
        {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", **dns_cluster(lab, "new", [("new.test", 8001)])}]})
    ctl(lab, "apply", "-f", path)
    ctl(lab, "route", "add", "--prefix", "/new", "--cluster", "new")
    assert get(lab, "/new").startswith("2 "), "the first request already"


def test_ttl_is_respected_where_it_is_asked_for(lab):
    lab.dns.set("ttl.test", (3600, [lab.addresses[2]]))
    path = lab.write("ttl.json", {"resources": [
        {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", **dns_cluster(lab, "ttl", [("ttl.test", 8001)], respect_dns_ttl=True)}]})
    ctl(lab, "apply", "-f", path)
    asked, others = lab.dns.asked("ttl.test"), lab.dns.asked("logical.test")
    while lab.dns.asked("logical.test") < others + 10:
        time.sleep(0.05)
    assert lab.dns.asked("ttl.test") == asked > 0


def test_control_restarts_and_clients_do_not_notice(lab):
    lab.control.stop()
    assert set(servers(lab, "/strict", 4)) == {"1"}
    lab.start_control(os.path.join(lab.dir, "bootstrap.json"))
    assert set(servers(lab, "/strict", 4)) == {"1"}
