"""A real management server that others made, go-control-plane's: it drives Millrace and a real Envoy beside it with the same resources, and their answers
are compared."""
import json
import os
import time

import pytest

import conftest
import lab as laboratory
from conftest import until
from lab import cluster
from management import HTTP2, assignment, eds_cluster, rds_listener
from test_xds import BLUE, EDGE, PORT, RED, World, bootstrap, by_cluster, start

PEERS = os.environ.get("MILLRACE_PEERS", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "millrace-peers"))
SERVER = os.path.join(PEERS, "go-control-plane-0.14.0", "xds_peer")
ENVOY = os.path.join(PEERS, "envoy-1.40.0", "bin", "envoy")
NODES = ("gateway-1", "envoy-1")
PATHS = ("/", "/blue/x", "/direct", "/old?q=1", "/nowhere", "/%2e%2e/blue/", "/BLUE/x", "/blue")
pytestmark = pytest.mark.skipif(not os.path.exists(SERVER) or not os.path.exists(ENVOY),
                                reason="no go-control-plane server or no Envoy: scripts/setup --peers builds the one and installs the other")


class Both:
    """Millrace and Envoy, each with a server of its own over one file of resources: they live in different network namespaces."""

    def __init__(self, lab, delta):
        self.lab, self.version, self.state = lab, 0, os.path.join(lab.dir, "resources.json")
        lab.upstream.ip("addr", "add", lab.INGRESS4 + "/32", "dev", "lo")
        argv = [SERVER, "-address", f"127.0.0.1:{PORT}", "-state", self.state, *NODES]
        self.servers = [lab.start("servers-ours", argv), lab.start("servers-envoys", argv, lab.upstream)]
        for s in self.servers:
            s.wait_log("serving")
        self.config = bootstrap([by_cluster()], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2)], delta)
        beside = dict(self.config, node={"id": NODES[1], "cluster": "edges"})
        self.envoy = lab.start("envoy", [ENVOY, "-c", lab.write("envoy.json", beside), "--concurrency", "1", "--disable-hot-restart"], lab.upstream)

    def set(self, **resources):
        self.version += 1
        with open(self.state + ".new", "w") as f:
            json.dump({"version": str(self.version), "resources": resources}, f)
        os.rename(self.state + ".new", self.state)

    def ask(self, who, path):
        argv = ["curl", "-sS", "--path-as-is", "--max-time", "10", "-w", "\n%{http_code} %{redirect_url}", f"http://{self.lab.INGRESS4}:{EDGE}{path}"]
        return who.run(argv, check=False).stdout.decode()

    def agree(self, path, expected):
        """Both answer a path as is expected, sooner or later; then they agree on all the others."""
        for who in self.lab.client, self.lab.upstream:
            until(lambda: self.ask(who, path).startswith(expected), 60, f"version {self.version}: {expected!r} for {path}, at {who.name}")
        for p in PATHS:
            ours, theirs = self.ask(self.lab.client, p), self.ask(self.lab.upstream, p)
            assert ours == theirs, (self.version, p, ours, theirs)


def route_table(*names):
    table = {"blue": {"match": {"prefix": "/blue"}, "route": {"cluster": "blue"}},
             "direct": {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "short and stout"}}},
             "old": {"match": {"prefix": "/old"}, "redirect": {"path_redirect": "/new", "strip_query": True}},
             "gone": {"match": {"prefix": "/nowhere"}, "route": {"cluster": "nobody"}},
             "red": {"match": {"prefix": "/"}, "route": {"cluster": "red"}}}
    return {"name": "main", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [table[n] for n in names]}]}


@pytest.fixture
def gateway():
    lab = laboratory.Lab(device="af_packet")
    try:
        g = World(lab)
    except BaseException:
        lab.close()
        raise
    yield g
    lab.close()


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_go_control_plane_drives_us_as_it_drives_envoy(gateway, delta):
    lab = gateway.lab
    both = Both(lab, delta)

    def world(*names, red=RED, clusters=("red", "blue")):
        ports = {"red": red, "blue": BLUE}
        return {"CDS": [eds_cluster(c) for c in clusters], "EDS": [assignment(c, [(lab.upstream4(0), ports[c])]) for c in clusters],
                "LDS": [rds_listener("edge", EDGE, "main")], "RDS": [route_table(*names)]}

    both.set(**world("red", clusters=("red",)))
    start(gateway, both.config)
    both.agree("/", "red")
    both.set(**world("blue", "red"))  # a cluster, its endpoints and a route to it at once
    both.agree("/blue/x", "blue")
    both.set(**world("blue", "direct", "old", "gone", "red"))
    both.agree("/direct", "short and stout")
    both.set(**world("blue", "direct", "old", "gone", "red", red=BLUE))  # endpoints only
    both.agree("/", "blue")
    both.set(**world("direct", "red", clusters=("red",)))  # a cluster goes with its route
    both.agree("/blue/x", "red")
    both.set(**dict(world("red", clusters=("red",)), LDS=[], RDS=[]))
    for who in lab.client, lab.upstream:
        until(lambda: both.ask(who, "/").endswith("000 "), 60, "no listener")
    reply = json.loads(lab.millctl("xds", "-o", "json"))
    assert reply["servers"][0]["state"] == "connected" and reply["streams"] == "1", reply
    assert not any(int(s["update_rejected"]) for s in reply["subscriptions"]), reply
    conftest.end_gateway(gateway)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_what_it_repeats_after_a_refusal_makes_no_loop(gateway, delta):
    """go-control-plane compares versions: a refusal with the old one brings the same bad resource back at once."""
    lab = gateway.lab
    both = Both(lab, delta)  # Envoy is not asked: it takes nothing of a response with a part that violates a rule
    bad = {"name": "bad", "type": "STATIC", "connect_timeout": "-1s"}
    good = {"EDS": [assignment("red", [(lab.upstream4(0), RED)])], "LDS": [rds_listener("edge", EDGE, "main")], "RDS": [route_table("red")]}
    both.set(CDS=[bad, eds_cluster("red")], **good)
    start(gateway, both.config)
    gateway.until_answer("red 200")
    before = int(json.loads(lab.millctl("xds", "-o", "json"))["responses"])
    time.sleep(3)
    reply = json.loads(lab.millctl("xds", "-o", "json"))
    assert int(reply["responses"]) - before < 20, reply  # a loop would be thousands
    refused, = (r for r in reply["resources"] if r["state"] == "refused")
    assert (refused["type"], refused["name"]) == ("CDS", "bad") and "connect_timeout" in refused["reason"]
    both.set(CDS=[eds_cluster("red")], **good)
    until(lambda: not any(r["state"] == "refused" for r in json.loads(lab.millctl("xds", "-o", "json"))["resources"]), 60, "acceptance")
    gateway.until_answer("red 200")
    conftest.end_gateway(gateway)
