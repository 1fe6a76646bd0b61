"""Management servers: a real gRPC server says over xDS what the gateway serves, and real requests show that it does."""
import json
import os

import pytest

import conftest
import lab as laboratory
import management
from conftest import Gateway, until
from lab import cluster
from management import HTTP2, ManagementServer, assignment, eds_cluster, rds_listener, routes

EDGE, RED, BLUE, PORT = 80, 8001, 8002, 8600
pytestmark = pytest.mark.skipif(not management.available(), reason="no python3-grpcio (Debian package); scripts/setup installs it")


def world(lab, port=RED, **more):
    """What a server says for one listener, its routes, a cluster and its endpoint."""
    return {"CDS": [eds_cluster("web")], "EDS": [assignment("web", [(lab.upstream4(0), port)])],
            "LDS": [rds_listener("edge", EDGE, "main")], "RDS": [routes("main", "web")], **more}


def bootstrap(services, clusters, delta=False, node=None):
    return {"node": {"id": "gateway-1", "cluster": "edges", "metadata": {"LABELS": {"app": "gateway"}}, **(node or {})},
            "dynamic_resources": {"ads_config": {"api_type": "DELTA_GRPC" if delta else "GRPC", "transport_api_version": "V3",
                                                 "grpc_services": services, "set_node_on_first_message_only": True},
                                  "cds_config": {"ads": {}, "resource_api_version": "V3"},
                                  "lds_config": {"ads": {}, "resource_api_version": "V3"}},
            "static_resources": {"clusters": clusters}}


def by_cluster(name="xds", **metadata):
    return {"envoy_grpc": {"cluster_name": name}, "initial_metadata": [{"key": k, "value": v} for k, v in metadata.items()]}


def admin(lab, path):
    return laboratory.run(["curl", "-s", "--unix-socket", os.path.join(lab.run_dir, "admin.sock"), "http://control" + path]).stdout.decode()


class World(Gateway):
    def __init__(self, lab):
        super().__init__(lab)
        lab.start_nginx("upstreams", "\n".join(f"server {{ listen {p}; return 200 {name}; }}" for p, name in ((RED, "red"), (BLUE, "blue"))))

    def answer(self, path="/"):
        p = self.lab.curl("-o", "-", "-w", " %{http_code}", f"http://10.77.1.1:{EDGE}{path}", check=False)
        return p.stdout.decode()

    def until_answer(self, expected, timeout=60):
        until(lambda: self.answer() == expected, timeout, f"the answer {expected}")


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


def start(gateway, config):
    path = gateway.lab.write("bootstrap.json", dict(config, dataplane=gateway.lab.dataplane_section()))
    gateway.lab.start_dataplane(path)
    return gateway.lab.start_control(path, wait=False)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_served_from_nothing_and_changed(gateway, delta):
    lab = gateway.lab
    server = ManagementServer(lab, "management", PORT)
    server.set(**world(lab))
    server.start()
    start(gateway, bootstrap([by_cluster(**{"x-tenant": "a"})], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2)], delta))
    gateway.until_answer("red 200")

    # Who asks, and what: the node once, clusters and listeners by wildcard, the rest by the names that those say.
    stream, = server.said("stream")
    assert stream["delta"] is delta and ["x-tenant", "a"] in stream["metadata"]
    said = server.said()
    assert said[0]["type"] == "CDS" and said[0]["node"]["id"] == "gateway-1" and said[0]["node"]["user_agent_name"] == "millrace"
    assert said[0]["node"]["metadata"] == {"LABELS": {"app": "gateway"}}
    assert not any("node" in r for r in said[1:])
    names = "resource_names_subscribe" if delta else "resource_names"
    assert any(r.get(names) == ["web"] for r in server.requests("EDS")) and any(r.get(names) == ["main"] for r in server.requests("RDS"))
    server.wait("an acknowledgement of all", lambda s: all(any(r.get("response_nonce") for r in s.requests(t)) for t in ("CDS", "EDS", "LDS", "RDS")))
    assert not any("error_detail" in r for r in server.said())

    server.set(**world(lab, BLUE))  # endpoints
    gateway.until_answer("blue 200")
    server.set(**dict(world(lab, BLUE), CDS=[eds_cluster("web"), eds_cluster("other")],  # a cluster, its endpoints and a route to it at once
                      EDS=[assignment("web", [(lab.upstream4(0), BLUE)]), assignment("other", [(lab.upstream4(0), RED)])],
                      RDS=[routes("main", "other")]))
    gateway.until_answer("red 200")
    server.set(**dict(world(lab, BLUE), LDS=[]))  # the listener goes
    until(lambda: gateway.answer().endswith("000"), 60, "no listener")
    conftest.end_gateway(gateway)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_a_bad_resource_is_refused_by_name_and_the_good_ones_serve(gateway, delta):
    lab = gateway.lab
    server = ManagementServer(lab, "management", PORT)
    bad = {"name": "bad", "type": "STATIC", "connect_timeout": "-1s"}
    server.set(**world(lab, CDS=[bad, eds_cluster("web")]))
    server.start()
    start(gateway, bootstrap([by_cluster()], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2)], delta))
    gateway.until_answer("red 200")
    server.wait("a refusal", lambda s: any("error_detail" in r for r in s.requests("CDS")))
    refusal = next(r for r in server.requests("CDS") if "error_detail" in r)
    assert refusal["error_detail"]["code"] == 3 and "bad" in refusal["error_detail"]["message"], refusal
    assert "connect_timeout" in refusal["error_detail"]["message"] and "web" not in refusal["error_detail"]["message"], refusal
    assert delta or "version_info" not in refusal  # nothing was accepted before

    server.set(**world(lab, BLUE))  # put right
    gateway.until_answer("blue 200")
    server.wait("the acknowledgement", lambda s: "error_detail" not in s.requests("CDS")[-1])
    assert delta or server.requests("CDS")[-1]["version_info"] == "2"
    conftest.end_gateway(gateway)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_a_server_that_dies_takes_nothing_away(gateway, delta):
    lab = gateway.lab
    server = ManagementServer(lab, "management", PORT)
    server.set(**world(lab))
    server.start()
    start(gateway, bootstrap([by_cluster()], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2)], delta))
    gateway.until_answer("red 200")
    server.kill()
    until(lambda: "lost" in lab.control.log(), 60, "the loss")
    assert gateway.answer() == "red 200"
    server.set(**world(lab, BLUE))
    server.start()
    gateway.until_answer("blue 200", 90)
    assert len(server.said("stream")) >= 2
    if delta:  # the new stream says what is known
        again = [r for r in server.requests("CDS") if "node" in r][-1]
        assert list(again["initial_resource_versions"]) == ["web"], again
    conftest.end_gateway(gateway)


def test_the_second_server_serves_while_the_first_is_away(gateway):
    lab = gateway.lab
    first, second = ManagementServer(lab, "first", PORT), ManagementServer(lab, "second", PORT + 1)
    first.set(**world(lab, RED))
    second.set(**world(lab, BLUE))
    second.start()
    start(gateway, bootstrap([by_cluster("one"), by_cluster("two")],
                             [cluster("one", [("127.0.0.1", PORT)], **HTTP2), cluster("two", [("127.0.0.1", PORT + 1)], **HTTP2)]))
    gateway.until_answer("blue 200")
    first.start()
    second.kill()
    gateway.until_answer("red 200", 90)
    conftest.end_gateway(gateway)


def test_a_gateway_whose_server_is_away_serves_what_is_static(gateway):
    lab = gateway.lab
    config = bootstrap([by_cluster()], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2), cluster("web", [(lab.upstream4(0), RED)])])
    config["static_resources"]["listeners"] = [laboratory.listener("edge", EDGE, laboratory.hcm(routes("", "web")["virtual_hosts"]))]
    for source in ("cds_config", "lds_config"):
        config["dynamic_resources"][source]["initial_fetch_timeout"] = "1s"
    start(gateway, config)
    gateway.until_answer("red 200")
    assert "xDS: cluster xds not reached" in lab.control.log()
    conftest.end_gateway(gateway)


def pki(lab):
    def run(*args):
        laboratory.run(["openssl", *args])
    ca, ca_key = os.path.join(lab.dir, "ca.crt"), os.path.join(lab.dir, "ca.key")
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-keyout", ca_key, "-out", ca, "-subj", "/CN=ca")
    out = {"ca": ca}
    for name in ("server", "client"):
        key, csr, crt, ext = (os.path.join(lab.dir, f"{name}.{end}") for end in ("key", "csr", "crt", "ext"))
        with open(ext, "w") as f:
            f.write("subjectAltName=DNS:istiod.test\n")
        run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csr, "-subj", f"/CN={name}")
        run("x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "30", "-extfile", ext, "-out", crt)
        out[name] = (crt, key)
    return out


def secured(lab, files, san="istiod.test"):
    certificate, key = files["client"]
    return cluster("xds", [("127.0.0.1", PORT)], **HTTP2, transport_socket={"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "istiod.test",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
            "validation_context": {"trusted_ca": {"filename": files["ca"]},
                                   "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": san}}]}}}})


@pytest.mark.parametrize("way", ["envoy_grpc", "google_grpc"])
def test_mutual_tls(gateway, way):
    lab = gateway.lab
    files = pki(lab)
    certificate, key = files["server"]
    server = ManagementServer(lab, "management", PORT, ["--certificate", certificate, "--key", key, "--client-ca", files["ca"]])
    server.set(**world(lab))
    server.start()
    token = os.path.join(lab.dir, "token")
    with open(token, "w") as f:
        f.write("abc\n")
    service, clusters = by_cluster(), [secured(lab, files)]
    if way == "google_grpc":
        service = {"google_grpc": {
            "target_uri": f"127.0.0.1:{PORT}", "stat_prefix": "xds",
            "channel_credentials": {"ssl_credentials": {"root_certs": {"filename": files["ca"]}, "cert_chain": {"filename": files["client"][0]},
                                                        "private_key": {"filename": files["client"][1]}}},
            "credentials_factory_name": "envoy.grpc_credentials.file_based_metadata",
            "call_credentials": [{"from_plugin": {"name": "envoy.grpc_credentials.file_based_metadata", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
                "secret_data": {"filename": token}, "header_prefix": "Bearer "}}}],
            "channel_args": {"args": {"grpc.ssl_target_name_override": {"string_value": "istiod.test"}}}}}
        clusters = []
    start(gateway, bootstrap([service], clusters))
    gateway.until_answer("red 200")
    stream = server.said("stream")[-1]
    assert stream["peer"] == ["client"]
    assert way == "envoy_grpc" or ["authorization", "Bearer abc"] in stream["metadata"]
    conftest.end_gateway(gateway)


def test_a_server_of_another_name_is_not_believed(gateway):
    lab = gateway.lab
    files = pki(lab)
    certificate, key = files["server"]
    server = ManagementServer(lab, "management", PORT, ["--certificate", certificate, "--key", key, "--client-ca", files["ca"]])
    server.set(**world(lab))
    server.start()
    control = start(gateway, bootstrap([by_cluster()], [secured(lab, files, "somebody.test")]))
    control.wait_log("xDS: cluster xds not reached")
    assert server.said("stream") == [] and gateway.answer().endswith("000")
    conftest.end_gateway(gateway)


def test_what_cannot_be_done_is_refused_at_the_start(gateway):
    lab = gateway.lab
    files = pki(lab)
    bad = secured(lab, files)
    bad["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_2"}
    path = lab.write("bad.json", dict(bootstrap([by_cluster()], [bad]), dataplane=lab.dataplane_section()))
    control = lab.start("bad", [laboratory.program("millrace-control"), "--config", path, "--run-dir", lab.run_dir])
    until(lambda: not control.alive(), 30, "its end")
    assert "dynamic_resources.ads_config.grpc_services[0]: cluster xds: common_tls_context.tls_params is not supported" in control.log()


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_an_operator_sees_what_became_of_each_resource(gateway, delta):
    lab = gateway.lab
    server = ManagementServer(lab, "management", PORT)
    bad = {"name": "bad", "type": "STATIC", "connect_timeout": "-1s"}
    server.set(**world(lab, CDS=[bad, eds_cluster("web"), eds_cluster("lonely")]))  # whose endpoints never come
    server.start()
    start(gateway, bootstrap([by_cluster(), by_cluster("spare")], [cluster("xds", [("127.0.0.1", PORT)], **HTTP2),
                                                                   cluster("spare", [("127.0.0.1", PORT + 1)], **HTTP2)], delta))
    # The first publication waits for the endpoints that never come, as long as initial_fetch_timeout says.
    gateway.until_answer("red 200")

    def xds(*filters):
        return json.loads(lab.millctl("xds", *filters, "-o", "json"))

    reply = xds()
    assert reply["configured"] and reply["delta"] is delta
    one, two = reply["servers"]
    assert (one["name"], one["state"], one["current"]) == ("cluster xds", "connected", True) and one["identifier"], reply["servers"]
    assert (two["name"], two["state"], two["current"]) == ("cluster spare", "standby", False)
    by_name = {(r["type"], r["name"]): r for r in reply["resources"]}
    assert {key: r["state"] for key, r in by_name.items()} == {
        ("CDS", "bad"): "refused", ("CDS", "web"): "in force", ("CDS", "lonely"): "in force", ("EDS", "web"): "in force",
        ("EDS", "lonely"): "given up", ("LDS", "edge"): "in force", ("RDS", "main"): "in force"}, by_name
    assert "connect_timeout" in by_name["CDS", "bad"]["reason"] and by_name["CDS", "bad"]["version"] == ""
    assert by_name["CDS", "web"]["server"] == "cluster xds" and by_name["CDS", "web"]["version"]
    subscriptions = {s["type"]: s for s in reply["subscriptions"]}
    assert subscriptions["CDS"]["whole"] and int(subscriptions["CDS"]["update_rejected"]) == 1
    assert "connect_timeout" in subscriptions["CDS"]["last_nack"] and subscriptions["RDS"]["asked"] == "1"
    assert [r["name"] for r in xds("lonely")["resources"]] == ["lonely", "lonely"]
    table = lab.millctl("xds")
    assert "cluster xds" in table and "last refusal of CDS" in table and "given up" in table, table

    stats = dict(line.split(": ", 1) for line in admin(lab, "/stats").splitlines() if ": " in line)
    assert stats["cluster_manager.cds.update_rejected"] == "1" and stats["cluster_manager.cds.update_success"] == "0"
    assert stats["listener_manager.lds.update_success"] == "1" and stats["control_plane.connected_state"] == "1"
    assert stats["cluster.web.update_success"] == "1" and stats["cluster.lonely.init_fetch_timeout"] == ("0" if delta else "1")
    assert [v for k, v in stats.items() if k.endswith(".rds.main.update_success")] == ["1"]
    assert stats["control_plane.identifier"] == '"' + one["identifier"] + '"'
    prometheus = admin(lab, "/stats/prometheus")
    assert 'envoy_cluster_update_success{envoy_cluster_name="web"} 1' in prometheus and "envoy_control_plane_connected_state 1" in prometheus
    counters = json.loads(lab.millctl("stats", "cluster_manager.cds", "-o", "json"))["counters"]
    assert any(c["counter"] == "update_rejected" and c["value"] == "1" for c in counters), counters

    server.kill()
    until(lambda: "control_plane.connected_state: 0" in admin(lab, "/stats"), 60, "the loss")
    until(lambda: xds()["servers"][0]["state"] != "connected", 60, "the loss")
    assert gateway.answer() == "red 200"
    conftest.end_gateway(gateway)
