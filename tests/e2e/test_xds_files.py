"""Resources out of files (path_config_source): listeners, clusters, routes, endpoints and a certificate, replaced while requests run; where there is an
Envoy, it stands beside with the same files, and the answers are compared."""
import json
import os

import pytest

import conftest
import lab as laboratory
from conftest import until
from lab import cluster
from management import assignment, eds_cluster, rds_listener, routes
from test_xds import BLUE, EDGE, RED, World, start
from test_xds_peers import ENVOY

TYPES = {"CDS": "envoy.config.cluster.v3.Cluster", "EDS": "envoy.config.endpoint.v3.ClusterLoadAssignment", "LDS": "envoy.config.listener.v3.Listener",
         "RDS": "envoy.config.route.v3.RouteConfiguration"}


class Folder:
    def __init__(self, lab):
        self.path, self.version = os.path.join(lab.dir, "xds"), 0
        os.mkdir(self.path)

    def source(self, name):
        return {"path_config_source": {"path": self.file(name)}, "resource_api_version": "V3"}

    def file(self, name):
        return os.path.join(self.path, name)

    def put(self, name, short, *resources, text=None):
        self.version += 1
        content = {"version_info": str(self.version),
                   "resources": [dict({"@type": "type.googleapis.com/" + TYPES[short]}, **r) for r in resources]}
        with open(self.file(name + ".new"), "w") as f:
            f.write(text if text is not None else json.dumps(content))
        os.rename(self.file(name + ".new"), self.file(name))

    def eds(self, name):
        return eds_cluster(name, eds_cluster_config={"eds_config": self.source(f"eds-{name}.yaml")})

    def listener(self, *args):
        lds = rds_listener(*args)
        lds["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"] = self.source("rds.yaml")
        return lds

    def bootstrap(self, node):
        return {"node": {"id": node, "cluster": "edges"}, "static_resources": {},
                "dynamic_resources": {"cds_config": self.source("cds.yaml"), "lds_config": self.source("lds.yaml")}}


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


def xds(lab):
    return json.loads(lab.millctl("xds", "-o", "json"))


def test_files_drive_us_as_they_drive_envoy(gateway):
    lab = gateway.lab
    folder = Folder(lab)
    folder.put("cds.yaml", "CDS", folder.eds("red"))
    folder.put("eds-red.yaml", "EDS", assignment("red", [(lab.upstream4(0), RED)]))
    folder.put("eds-blue.yaml", "EDS", assignment("blue", [(lab.upstream4(0), BLUE)]))
    folder.put("lds.yaml", "LDS", folder.listener("edge", EDGE, "main"))
    folder.put("rds.yaml", "RDS", routes("main", "red"))
    start(gateway, folder.bootstrap("gateway-1"))
    both = [lab.client]
    if os.path.exists(ENVOY):
        lab.upstream.ip("addr", "add", lab.INGRESS4 + "/32", "dev", "lo")
        lab.start("envoy", [ENVOY, "-c", lab.write("envoy.json", folder.bootstrap("envoy-1")), "--concurrency", "1", "--disable-hot-restart"], lab.upstream)
        both.append(lab.upstream)

    def answers(expected):
        for who in both:
            ask = ["curl", "-sS", "--max-time", "10", "-o", "-", "-w", " %{http_code}", f"http://{lab.INGRESS4}:{EDGE}/"]
            until(lambda: who.run(ask, check=False).stdout.decode() == expected, 60, f"{expected} at {who.name}")

    answers("red 200")
    folder.put("eds-red.yaml", "EDS", assignment("red", [(lab.upstream4(0), BLUE)]))  # endpoints
    answers("blue 200")
    folder.put("cds.yaml", "CDS", folder.eds("red"), folder.eds("blue"))  # a cluster, then a route to it
    folder.put("eds-red.yaml", "EDS", assignment("red", [(lab.upstream4(0), RED)]))
    answers("red 200")
    folder.put("rds.yaml", "RDS", routes("main", "blue"))
    answers("blue 200")
    folder.put("cds.yaml", "CDS", folder.eds("blue"))  # a cluster that is used goes
    folder.put("rds.yaml", "RDS", routes("main", "red"))
    answers(" 503")
    folder.put("rds.yaml", "RDS", text="resources: [")  # half a file
    until(lambda: any("rds.yaml:1:" in f["error"] for f in xds(lab).get("files", [])), 60, "an error that says where")
    answers(" 503")
    folder.put("rds.yaml", "RDS", routes("main", "blue"))
    answers("blue 200")

    # Here a bad resource does not block the good ones of its file; Envoy takes nothing of it.
    folder.put("cds.yaml", "CDS", folder.eds("blue"), {"name": "bad", "type": "STATIC", "connect_timeout": "-1s"})
    until(lambda: any(r["state"] == "refused" for r in xds(lab)["resources"]), 60, "a refusal")
    reply = xds(lab)
    assert not reply.get("streaming") and not reply.get("servers"), reply
    assert {f["path"].rsplit("/", 1)[1] for f in reply["files"]} == {"cds.yaml", "lds.yaml", "rds.yaml", "eds-blue.yaml"}
    assert not any(f["error"] for f in reply["files"])
    refused, = (r for r in reply["resources"] if r["state"] == "refused")
    assert (refused["type"], refused["name"]) == ("CDS", "bad") and "connect_timeout" in refused["reason"]
    assert refused["server"] == "file " + folder.file("cds.yaml")
    stats = lab.millctl("stats", "update_")
    assert "cluster.blue" in stats and "http.ingress.rds.main" in stats and "cluster_manager.cds" in stats, stats
    shown = lab.millctl("xds")
    assert "FILE" in shown and folder.file("rds.yaml") in shown and "SERVER " not in shown.splitlines()[0], shown

    folder.put("lds.yaml", "LDS")  # the listener goes
    until(lambda: gateway.answer().endswith("000"), 60, "no listener")
    conftest.end_gateway(gateway)


def test_files_and_what_is_written_stand_side_by_side(gateway):
    """A static listener and cluster, the one's routes and the other's endpoints out of files, one of which comes late."""
    lab = gateway.lab
    folder = Folder(lab)
    folder.put("rds.yaml", "RDS", routes("main", "web"))
    web = folder.eds("web")
    config = {"node": {"id": "gateway-1"}, "static_resources": {"listeners": [folder.listener("edge", EDGE, "main")],
                                                                "clusters": [web, cluster("other", [(lab.upstream4(0), RED)])]}}
    control = start(gateway, config)
    gateway.until_answer("no healthy upstream 503")
    control.wait_log("eds-web.yaml: cannot be read: No such file or directory")
    folder.put("eds-web.yaml", "EDS", assignment("web", [(lab.upstream4(0), BLUE)]))
    gateway.until_answer("blue 200")
    lab.millctl("endpoint", "add", "other", f"{lab.upstream4(0)}:{BLUE}")  # edits by hand go on
    folder.put("rds.yaml", "RDS", routes("main", "other"))
    until(lambda: {gateway.answer() for _ in range(8)} == {"red 200", "blue 200"}, 60, "both endpoints")
    conftest.end_gateway(gateway)
