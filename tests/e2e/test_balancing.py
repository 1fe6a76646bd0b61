"""Balancing by hashes and by health, with real clients and servers: a cookie that keeps a client at its endpoint, a client's address that chooses
the endpoint of its connections, priorities, and a cluster in panic."""
import collections
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

HTTP, TCP = 80, 81
SERVERS = 4


def cluster(lab, name, policy="ROUND_ROBIN", states=None, priorities=None, **extra):
    """Endpoint i answers `iN`; `states`, `priorities`: of each."""
    localities = collections.defaultdict(list)
    for i in range(SERVERS):
        e = {"endpoint": {"address": {"socket_address": {"address": lab.upstream4(i), "port_value": 8001}}}}
        if states:
            e["health_status"] = states[i]
        localities[priorities[i] if priorities else 0].append(e)
    return {"name": name, "type": "STATIC", "connect_timeout": "2s", "lb_policy": policy, **extra, "load_assignment": {
        "cluster_name": name, "endpoints": [{"priority": p, "lb_endpoints": e} for p, e in sorted(localities.items())]}}


@pytest.fixture(scope="module")
def gateway():
    with L.Lab(memory_mb=256, upstreams=SERVERS) as lab:
        lab.start_nginx("nginx", "server { listen 8001; location / { return 200 $server_addr; } }")
        by_cookie = [{"cookie": {"name": "sid", "ttl": "60s", "path": "/", "attributes": [{"name": "SameSite", "value": "Lax"}]}}]
        routes = [{"match": {"prefix": "/cookie"}, "route": {"cluster": "ring", "hash_policy": by_cookie}},
                  {"match": {"prefix": "/header"}, "route": {"cluster": "maglev", "hash_policy": [{"header": {"header_name": "x-user"}}]}},
                  *[{"match": {"prefix": "/" + n}, "route": {"cluster": n}} for n in ("priorities", "panic", "refusing", "calm")]]
        down = ["UNHEALTHY", "UNHEALTHY", "UNHEALTHY", "HEALTHY"]
        clusters = [cluster(lab, "ring", "RING_HASH"), cluster(lab, "maglev", "MAGLEV"),
                    cluster(lab, "priorities", states=["HEALTHY", "UNHEALTHY", "HEALTHY", "HEALTHY"], priorities=[0, 0, 1, 1]),
                    cluster(lab, "panic", states=down),
                    cluster(lab, "refusing", states=down, common_lb_config={"zone_aware_lb_config": {"fail_traffic_on_panic": True}}),
                    cluster(lab, "calm", states=down, common_lb_config={"healthy_panic_threshold": {"value": 25}})]
        tcp = {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp",
            "cluster": "maglev", "hash_policy": [{"source_ip": {}}]}}
        lab.start_gateway(L.bootstrap([L.listener("http", HTTP, L.hcm([{"name": "all", "domains": ["*"], "routes": routes}])),
                                       L.listener("tcp", TCP, [{"filters": [tcp]}])], clusters))
        yield lab


def get(s, path, *headers):
    s.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += s.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(body) < size:
        body += s.recv(65536)
    return head.decode(), body.decode()


def test_cookie_is_made_and_kept(gateway):
    places = set()
    for _ in range(12):  # a client's port is part of what its cookie is made of
        with gateway.connect(HTTP) as s:
            head, place = get(s, "/cookie")
            made = re.search(r'(?i)set-cookie: sid="([0-9a-f]{16})"; Max-Age=60; Path=/; SameSite=Lax; HttpOnly\r?$', head, re.M)
            assert made, head
            again, same = get(s, "/cookie")  # the same connection, still without it: the same cookie, the same place
            assert made.group(1) in again and same == place
        with gateway.connect(HTTP) as s:
            for _ in range(3):
                head, there = get(s, "/cookie", f"Cookie: a=b; sid={made.group(1)}")
                assert there == place and "set-cookie" not in head.lower()
        places.add(place)
    assert len(places) > 1


def test_header_chooses(gateway):
    with gateway.connect(HTTP) as s:
        first = {i: get(s, "/header", f"x-user: {i}")[1] for i in range(40)}
    assert len(set(first.values())) == SERVERS
    with gateway.connect(HTTP) as s:
        assert {i: get(s, "/header", f"x-user: {i}")[1] for i in range(40)} == first


def test_client_address_chooses(gateway):
    places = set()
    for _ in range(10):
        with gateway.connect(TCP) as s:
            places.add(get(s, "/", "Connection: close")[1])
    assert len(places) == 1


def shares(gateway, path, count=200):
    with gateway.connect(HTTP) as s:
        return collections.Counter(get(s, path)[1] for _ in range(count))


def test_priorities(gateway):
    # Half of priority 0 is healthy: 50 * 1.4 = 70 percent.
    got = shares(gateway, "/priorities", 400)
    assert gateway.upstream4(1) not in got
    assert 230 <= got[gateway.upstream4(0)] <= 330, got  # five standard deviations
    assert got[gateway.upstream4(2)] + got[gateway.upstream4(3)] == 400 - got[gateway.upstream4(0)]


def test_panic(gateway):
    assert len(shares(gateway, "/panic")) == SERVERS
    assert list(shares(gateway, "/calm", 20)) == [gateway.upstream4(3)]
    with gateway.connect(HTTP) as s:
        head, body = get(s, "/refusing")
    assert head.startswith("HTTP/1.1 503") and body == "no healthy upstream"
