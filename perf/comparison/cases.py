"""The cases, as a table. What a kind of case does is in measure.py; how often and how long in plan.py."""
import dataclasses

from .routes import RouteTable
from .systems import SMALL, Service

GATEWAYS = ("millrace", "millrace-veth", "nginx", "haproxy", "envoy")
LIMITS = ("limit", "limit-veth")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    title: str
    kind: str                        # throughput, latency, memory, change, limit
    unit: str
    service: Service = Service()
    key: str = "requests_per_s"      # of the generator's result
    body: int = 64
    per_connection: int = 0          # requests; 0: for ever
    resume: bool = False
    connections: int = 64
    idle: int = 0
    rate_of: str = ""                # latency: "half" of each one's own maximum, or "common"
    systems: tuple = GATEWAYS
    quick: bool = False              # part of --quick
    higher_is_better: bool = True
    group: str = ""                  # cases that belong in one plot


def _routes(kind, name, quick_sizes=()):
    out = []
    for n in (10, 1_000, 10_000, 100_000):
        out.append(Case(f"{name}{n}", f"{n:,} routes, {kind}", "throughput", "requests/s", Service(table=RouteTable(n, kind)), group=name.rstrip("-"),
                        quick=n in quick_sizes, systems=("millrace", "nginx", "haproxy", "envoy")))
    return out


TLS = Service(tls=True)
CASES = [
    Case("keepalive-64B", "keep-alive, 64 B", "throughput", "requests/s", quick=True, group="keepalive"),
    Case("keepalive-1KB", "keep-alive, 1 KB", "throughput", "requests/s", body=1024, group="keepalive"),
    Case("keepalive-16KB", "keep-alive, 16 KB", "throughput", "requests/s", body=16 * 1024, group="keepalive"),
    Case("keepalive-64B-log", "keep-alive, 64 B, access log on", "throughput", "requests/s", Service(log=True), group="keepalive"),
    Case("connections", "one request a connection", "throughput", "connections/s", key="connections_per_s", per_connection=1, connections=128, quick=True,
         group="connections"),
    Case("bulk-1MB", "1 MB bodies", "throughput", "Gbit/s", Service(kernel_load=True), key="response_gbit_per_s", body=1 << 20, connections=16, quick=True, group="bulk"),
    Case("latency-half", "at half of its own maximum", "latency", "us", rate_of="half", quick=True, higher_is_better=False, group="latency-half"),
    Case("latency-common", "at one common rate", "latency", "us", rate_of="common", higher_is_better=False, group="latency-common"),
    Case("tls13-keepalive", "TLS 1.3, keep-alive, 64 B", "throughput", "requests/s", TLS, quick=True, group="tls"),
    Case("tls13-full-handshakes", "TLS 1.3, full handshakes", "throughput", "handshakes/s", TLS, key="handshakes_full_per_s", per_connection=1,
         group="handshakes"),
    Case("tls13-resumed-handshakes", "TLS 1.3, resumed handshakes", "throughput", "handshakes/s", TLS, key="handshakes_resumed_per_s", per_connection=1,
         resume=True, group="handshakes"),
    *_routes("literal", "routes-", (1_000,)),
    *_routes("regex", "routes-regex-"),
    Case("route-change-10", "one route more among 10", "change", "ms", Service(table=RouteTable(10), probe=True), systems=("millrace", "nginx", "haproxy", "envoy"),
         higher_is_better=False, group="route-change"),
    Case("route-change-1000", "one route more among 1,000", "change", "ms", Service(table=RouteTable(1_000), probe=True),
         systems=("millrace", "nginx", "haproxy", "envoy"), higher_is_better=False, quick=True, group="route-change"),
    Case("route-change-100000", "one route more among 100,000", "change", "ms", Service(table=RouteTable(100_000), probe=True),
         systems=("millrace", "nginx", "haproxy", "envoy"), higher_is_better=False, group="route-change"),
    Case("idle-memory-100000", "100,000 idle connections", "memory", "B/connection", Service(connections=100_000 + SMALL), idle=100_000,
         systems=("millrace", "nginx", "haproxy", "envoy"), higher_is_better=False, group="idle-memory"),
    Case("idle-memory-1000000", "1,000,000 idle connections", "memory", "B/connection", Service(connections=1_000_000 + SMALL), idle=1_000_000,
         systems=("millrace", "nginx", "haproxy", "envoy"), higher_is_better=False, group="idle-memory"),
    Case("raw-forward", "frames sent back, no TCP in between", "limit", "requests/s", systems=LIMITS, quick=True, group="raw-forward"),
]
BY_NAME = {c.name: c for c in CASES}
