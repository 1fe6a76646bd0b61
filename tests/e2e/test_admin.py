"""The admin interface: Envoy's pages, over the Unix socket and loopback; its numbers after real requests; its shapes beside a real Envoy with the same
clusters and listeners; a real Prometheus that scrapes it."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "support"))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "diff"))
import lab as L  # noqa: E402
from gateways import ENVOY  # noqa: E402


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def ask(connection, target, method="GET", headers=None):
    connection.request(method, target, headers=headers or {})
    r = connection.getresponse()
    return r.status, r.getheader("content-type"), r.read().decode()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class World:
    def __init__(self, lab, port, config):
        self.lab, self.port, self.config = lab, port, config

    def get(self, target, method="GET", headers=None):
        return ask(UnixConnection(self.lab.run_dir + "/admin.sock"), target, method, headers)

    def page(self, target):
        status, _, body = self.get(target)
        assert status == 200, (status, body)
        return body

    def json(self, target):
        return json.loads(self.page(target))


@pytest.fixture(scope="module")
def world():
    port = free_port()
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "web\\n"; }} location /e {{ return 500; }} }}')
        crt, key = lab.make_certificate("edge", ["edge.test"])
        routes = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
        config = L.bootstrap([L.listener("http", 8080, L.hcm(routes)),
                              dict(L.listener("https", 8443, [{"filters": [L.hcm(routes, stat_prefix="tls", route_name="tls")],
                                                               "transport_socket": L.tls_socket(crt, key)}]))],
                             [L.cluster("web", [(lab.upstream4(0), 8001)]), L.cluster('odd "name"', [(lab.upstream4(1), 8001)])])
        config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
        config["node"] = {"id": "edge-1", "cluster": "edges"}
        lab.start_gateway(config)
        for i in range(10):
            lab.curl("-o", "/dev/null", f"http://{lab.INGRESS4}:8080/" + ("e" if i < 3 else ""))
        yield World(lab, port, config)
        assert lab.stop_gateway() == 0
        assert not os.path.exists(lab.run_dir + "/admin.sock")


def test_it_listens_on_its_socket_and_on_loopback(world):
    assert stat.S_IMODE(os.stat(world.lab.run_dir + "/admin.sock").st_mode) == 0o660
    for connection in UnixConnection(world.lab.run_dir + "/admin.sock"), http.client.HTTPConnection("127.0.0.1", world.port, timeout=30):
        assert ask(connection, "/ready") == (200, "text/plain; charset=UTF-8", "LIVE\n")


def test_what_changes_something_is_asked_for_with_post(world):
    status, _, body = world.get("/quitquitquit")
    assert (status, body) == (405, "Method GET not allowed, POST required.")
    status, _, body = world.get("/quitquitquit", "POST", {"Origin": "http://evil.test", "Host": "127.0.0.1"})
    assert status == 403 and "evil.test" in body
    assert world.get("/ready", "DELETE")[0] == 405
    assert world.lab.control.alive()


def test_unknown_pages_and_parameters(world):
    status, _, body = world.get("/no/such")
    assert status == 404 and body.startswith("invalid path. admin commands are:") and "/stats/prometheus" in body
    assert world.get("/stats?format=xml")[0] == 400
    assert world.get("/stats?filter=(")[0] == 400 and world.get("/stats/prometheus?filter=(")[0] == 400
    assert world.get("/config_dump?resource=nothing")[0] == 404 and world.get("/config_dump?name_regex=(")[0] == 400
    assert "/clusters" in world.page("/help") and "<h1>Millrace</h1>" in world.page("/")


def test_statistics_after_requests(world):
    stats = dict(line.split(": ", 1) for line in world.page("/stats").splitlines() if re.search(r": \d+$", line))
    assert stats["http.ingress.downstream_rq_total"] == "10" and stats["http.ingress.downstream_rq_5xx"] == "3"
    assert stats["cluster.web.upstream_rq_2xx"] == "7" and stats["server.live"] == "1"
    assert list(stats) == sorted(stats)
    assert world.page("/stats?filter=^cluster%5C.web%5C.upstream_rq_5xx$") == "cluster.web.upstream_rq_5xx: 3\n"
    assert all(not line.endswith(": 0") for line in world.page("/stats?usedonly").splitlines())
    body = world.json("/stats?format=json&usedonly")["stats"]
    assert {"name": "http.ingress.downstream_rq_2xx", "value": 7} in body
    times = next(s["histograms"] for s in body if "histograms" in s)
    assert len(times["supported_quantiles"]) == 10
    request = next(h for h in times["computed_quantiles"] if h["name"] == "millrace.downstream_rq_time")
    values = [v["cumulative"] for v in request["values"]]
    assert values == sorted(values) and values[-1] > 0
    assert re.search(r"^millrace\.downstream_rq_time: P0\(nan,[0-9.e-]+\) P25", world.page("/stats"), re.M)


def families(text):
    """{metric: type}, {(metric, labels): value}; the format checked line by line."""
    types, samples, current = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if m := re.fullmatch(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)", line):
            assert m[1] not in types, f"{m[1]} twice"
            current, types[m[1]] = m[1], m[2]
            continue
        line = line.replace("{} ", " ")  # Envoy's metrics without labels
        m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*")*\})? (\S+)', line)
        assert m and m[1].startswith(current), line
        assert (m[1], m[2]) not in samples, f"{line}: twice"
        samples[m[1], m[2]] = float(m[3])
    return types, samples


def test_prometheus_text(world):
    types, samples = families(world.page("/stats/prometheus"))
    assert samples["envoy_http_downstream_rq_total", '{envoy_http_conn_manager_prefix="ingress"}'] == 10
    assert samples["envoy_http_downstream_rq_xx", '{envoy_response_code_class="5",envoy_http_conn_manager_prefix="ingress"}'] == 3
    assert samples["envoy_cluster_upstream_rq_xx", '{envoy_response_code_class="2",envoy_cluster_name="web"}'] == 7
    assert samples["envoy_cluster_upstream_cx_total", '{envoy_cluster_name="odd_\\"name\\""}'] == 0
    assert samples["envoy_listener_downstream_cx_total", '{envoy_listener_address="0.0.0.0_8080"}'] == 10
    assert types["envoy_cluster_upstream_rq_active"] == "gauge" and types["millrace_downstream_rq_time"] == "histogram"
    buckets = [v for (n, _), v in samples.items() if n == "millrace_downstream_rq_time_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == samples["millrace_downstream_rq_time_count", None] == 10
    assert samples["millrace_worker_busy_cycles", '{millrace_worker="0"}'] > 0
    assert not any(n.startswith("envoy_cluster_endpoint_") for n, _ in samples)
    _, endpoints = families(world.page("/stats/prometheus?endpoints&usedonly&filter=endpoint_upstream_rq_total"))
    assert list(endpoints) == [("envoy_cluster_endpoint_upstream_rq_total",
                                f'{{envoy_cluster_name="web",envoy_endpoint_address="{world.lab.upstream4(0)}_8001"}}')]
    assert world.page("/stats?format=prometheus&filter=^envoy_server_live$").splitlines()[-1] == "envoy_server_live 1"
    promtool = shutil.which("promtool")
    if promtool:
        p = subprocess.run([promtool, "check", "metrics"], input=world.page("/stats/prometheus"), capture_output=True, text=True, timeout=60)
        problems = [x for x in (p.stdout + p.stderr).splitlines() if "should" not in x and "no help text" not in x]
        assert not problems, problems


def test_clusters_listeners_certificates(world):
    web = next(c for c in world.json("/clusters?format=json")["cluster_statuses"] if c["name"] == "web")
    host, = web["host_statuses"]
    assert host["address"]["socket_address"] == {"address": world.lab.upstream4(0), "port_value": 8001}
    counts = {s["name"]: int(s["value"]) for s in host["stats"]}
    assert counts["rq_total"] == 10 and counts["rq_error"] == 3 and counts["rq_success"] == 7 and host["health_status"]["eds_health_status"] == "HEALTHY"
    assert f"web::{world.lab.upstream4(0)}:8001::rq_total::10" in world.page("/clusters").splitlines()
    assert world.page("/listeners") == "http::0.0.0.0:8080\nhttps::0.0.0.0:8443\n"
    chain = world.json("/certs")["certificates"][0]["cert_chain"][0]
    assert chain["subject_alt_names"] == [{"dns": "edge.test"}] and chain["path"].endswith("/edge.crt")
    assert int(chain["days_until_expiration"]) >= 0


def test_the_configuration_without_keys(world):
    dump = {c["@type"].rsplit(".", 1)[1]: c for c in world.json("/config_dump?include_eds")["configs"]}
    assert set(dump) == {"ClustersConfigDump", "EndpointsConfigDump", "ListenersConfigDump", "RoutesConfigDump", "SecretsConfigDump"}
    names = [c["cluster"]["name"] for c in dump["ClustersConfigDump"]["static_clusters"]]
    assert names == ['odd "name"', "web"]
    one = world.json("/config_dump?resource=static_clusters&name_regex=^web$")["configs"]
    assert [c["cluster"]["name"] for c in one] == ["web"] and one[0]["@type"].endswith(".ClustersConfigDump.StaticCluster")
    assert "PRIVATE KEY" not in json.dumps(dump)
    info = world.json("/server_info")
    assert info["state"] == "LIVE" and info["node"] == {"id": "edge-1", "cluster": "edges"} and info["version"].startswith("millrace/")
    assert int(world.json("/memory")["allocated"]) > 0


# Pages of Envoy's that are not here: allocators that Millrace does not use; names of statistics are not looked up.
NOT_OURS = {"/memory/tcmalloc", "/stats/recentlookups", "/stats/recentlookups/clear", "/stats/recentlookups/disable", "/stats/recentlookups/enable"}
REFUSED = [("POST", "/logging?level=loud"), ("POST", "/logging?quic_no=info"), ("POST", "/logging?paths=main"), ("POST", "/logging?group=main:info"),
           ("POST", "/logging?level=info&main=info"), ("POST", "/runtime_modify"), ("POST", "/runtime_modify?a=1"), ("POST", "/cpuprofiler"),
           ("POST", "/cpuprofiler?enable=x"), ("POST", "/allocprofiler"), ("POST", "/heapprofiler"), ("GET", "/contention"), ("GET", "/hot_restart_version"),
           ("GET", "/stats?format=foo"), ("GET", "/stats?type=foo"), ("GET", "/stats?histogram_buckets=foo"), ("GET", "/stats/prometheus?histogram_buckets=disjoint"),
           ("GET", "/config_dump?mask=foo"), ("GET", "/config_dump?resource=static_clusters&mask=foo"),
           ("GET", "/config_dump?resource=static_clusters&mask=cluster.load_assignment.endpoints.lb_endpoints"), ("GET", "/config_dump?resource=nope"),
           ("POST", "/reopen_logs"), ("POST", "/healthcheck/ok")]
# Envoy's words name its own options and messages there.
ONLY_STATUS = {"/contention", "/stats?format=foo", "/stats?type=foo", "/stats?histogram_buckets=foo", "/config_dump?resource=nope",
               "/config_dump?resource=static_clusters&mask=foo", "/config_dump?resource=static_clusters&mask=cluster.load_assignment.endpoints.lb_endpoints"}


def shape(value):
    return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else [shape(v) for v in value[:1]] if isinstance(value, list) else None


def missing(ours, envoy, path=""):
    """What Envoy's JSON has and ours has not, as paths."""
    if isinstance(envoy, dict):
        return [p for k in envoy for p in ([f"{path}/{k}"] if k not in ours else missing(ours[k], envoy[k], f"{path}/{k}"))]
    if isinstance(envoy, list) and envoy:
        return missing(ours[0], envoy[0], path) if ours else [path]
    return []


MONITORING = os.path.join(os.path.dirname(os.path.dirname(HERE)), "control", "monitoring")


def expressions():
    """(whose, PromQL) of the dashboard and the alerts."""
    with open(os.path.join(MONITORING, "grafana.json")) as f:
        for p in json.load(f)["panels"]:
            for t in p.get("targets", []):
                yield p["title"], t["expr"]
    with open(os.path.join(MONITORING, "alerts.yaml")) as f:
        for rule in yaml.safe_load(f)["groups"][0]["rules"]:
            yield rule["alert"], rule["expr"]


def test_dashboard_and_alerts_name_what_is_there(world):
    types, samples = families(world.page("/stats/prometheus"))
    labels = {}
    for name, text in samples:
        labels.setdefault(name, set()).update(re.findall(r'([a-zA-Z_]\w*)="', text or ""))
    seen = 0
    for whose, expr in expressions():
        names = re.findall(r"\b((?:envoy|millrace)_\w+)(?=[{\[ )]|$)", re.sub(r"(?:by|without) *\([^)]*\)", "", expr))
        assert names or expr.startswith("up{"), (whose, expr)
        for name in names:
            assert name in labels, (whose, name)
        seen += len(names)
        asked = {x.strip() for group in re.findall(r"by *\(([^)]*)\)", expr) for x in group.split(",")} | set(re.findall(r'(\w+)=~?"', expr))
        theirs = set().union(*(labels[n] for n in names)) if names else set()
        assert asked - theirs <= {"instance", "job", "le"}, (whose, asked - theirs)
        for kind in re.findall(r"(?:rate|increase)\((\w+)", expr):  # of what only grows
            assert types.get(kind, types.get(kind.removesuffix("_bucket"))) in ("counter", "histogram"), (whose, kind)
    assert seen > 50
    if promtool := shutil.which("promtool"):
        p = subprocess.run([promtool, "check", "rules", os.path.join(MONITORING, "alerts.yaml")], capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, p.stdout + p.stderr


def test_shapes_are_envoys(world):
    if not os.path.exists(ENVOY):
        pytest.skip("no Envoy; scripts/setup --peers")
    port = free_port()
    config = {k: v for k, v in world.config.items() if k != "dataplane"}
    config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    lab = world.lab
    for ip in lab.INGRESS4, lab.EGRESS4:
        lab.upstream.ip("addr", "add", ip + "/32", "dev", "lo")
    envoy = lab.start("envoy", [ENVOY, "-c", lab.write("envoy.json", config), "--concurrency", "1", "--disable-hot-restart"], lab.upstream)
    try:
        end = time.monotonic() + 30

        def there(target, method="GET"):
            argv = lab.upstream.argv(["curl", "-sS", "-X", method, "-w", "\n%{http_code}", f"http://127.0.0.1:{port}{target}"])
            while True:
                p = subprocess.run(argv, capture_output=True, text=True, timeout=30)
                if p.returncode == 0 or time.monotonic() > end:
                    body, _, code = p.stdout.rpartition("\n")
                    return int(code or 0), body
                time.sleep(0.1)
        lab.upstream.run(["curl", "-sS", "--retry", "60", "--retry-delay", "1", "--retry-connrefused", "-o", "/dev/null", "http://127.0.0.1:8080/"], timeout=90)
        assert there("/quitquitquit")[0] == world.get("/quitquitquit")[0] == 405
        assert there("/ready")[1] == world.page("/ready")
        for page, known in {
            "/clusters?format=json": [],
            "/listeners?format=json": [],
            "/server_info": ["/node/", "/command_line_options/"],
            "/certs": [],
            "/memory": [],
        }.items():
            lost = [p for p in missing(shape(world.json(page)), shape(json.loads(there(page)[1]))) if not any(p.startswith(k) for k in known)]
            assert not lost, (page, lost)
        # The list of pages, what each says that wants POST or a parameter, and the words of refusals.
        def pages(text):
            return dict(re.findall(r"^  (/\S*)( \(POST\))?: ", text, re.M))
        envoys, mine = pages(there("/help")[1]), pages(world.page("/help"))
        assert set(envoys) - set(mine) == NOT_OURS and set(mine) <= set(envoys)
        assert {p: mine[p] for p in mine} == {p: envoys[p] for p in mine}, "POST or not"
        for page, posted in envoys.items():
            if posted and page in mine:
                assert there(page)[0] == world.get(page)[0] == 405, page
        for method, target in REFUSED:
            theirs, ours = there(quote(target, safe="/?&=,:."), method), world.get(quote(target, safe="/?&=,:."), method)
            assert theirs[0] == ours[0], (method, target, theirs, ours)
            assert ours[2].splitlines()[:1] == theirs[1].splitlines()[:1] or target in ONLY_STATUS, (target, theirs, ours)
        assert json.loads(there("/runtime")[1]) == world.json("/runtime") and json.loads(there("/init_dump")[1]) == world.json("/init_dump")
        for target in "/config_dump?resource=static_clusters&mask=cluster.name,cluster.type&name_regex=w.b", "/config_dump?mask=static_clusters":
            both = [json.loads(there(target)[1]), world.json(target)]
            if "resource" in target:
                for b in both:
                    b["configs"][0]["cluster"].pop("@type", None)
                assert both[0] == both[1]
            assert not missing(shape(both[1]["configs"][0].get("@type")), shape(both[0]["configs"][0].get("@type")))
        for mode in "cumulative", "disjoint", "detailed", "summary":
            target = f"/stats?format=json&type=Histograms&histogram_buckets={mode}"
            theirs = json.loads(there(target + "&filter=^http.ingress.downstream_rq_time$")[1])["stats"][0]
            assert not missing(shape(world.json(target)["stats"][0]), shape(theirs)), mode
        theirs = {x.split("::", 2)[1] if x.count("::") == 2 else x.rsplit("::", 2)[1] for x in there("/clusters")[1].splitlines() if x.startswith("web::")}
        ours = {x.split("::", 2)[1] if x.count("::") == 2 else x.rsplit("::", 2)[1] for x in world.page("/clusters").splitlines() if x.startswith("web::")}
        assert ours == theirs, ours ^ theirs
        # Names of metrics: what both have is of the same type, and the usual ones are there.
        envoys, _ = families(there("/stats/prometheus")[1])
        mine, _ = families(world.page("/stats/prometheus"))
        assert {n: mine[n] for n in mine if n in envoys} == {n: envoys[n] for n in mine if n in envoys}
        for name in ("cluster_upstream_rq_total", "cluster_upstream_cx_active", "cluster_upstream_rq_xx", "http_downstream_rq_xx", "http_downstream_cx_active",
                     "listener_downstream_cx_total", "server_live", "server_uptime", "server_concurrency", "cluster_upstream_cx_rx_bytes_total"):
            assert f"envoy_{name}" in mine and f"envoy_{name}" in envoys, name
        print(sorted(n for n in mine if n.startswith("envoy_") and n not in envoys))
    finally:
        envoy.stop()
        for ip in lab.INGRESS4, lab.EGRESS4:
            lab.upstream.ip("addr", "del", ip + "/32", "dev", "lo")


def test_a_real_prometheus_scrapes_it(world, tmp_path):
    prometheus = shutil.which("prometheus")
    if not prometheus:
        pytest.skip("no prometheus; scripts/setup --peers")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
        f"rule_files: [{MONITORING}/alerts.yaml]\nscrape_configs:\n- job_name: millrace\n  metrics_path: /stats/prometheus\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{world.port}']}}]\n")
    p = L.Process("prometheus", [prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                                 f"--web.listen-address=127.0.0.1:{port}"], str(tmp_path / "log"))
    try:
        def query(q):
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                return json.loads(ask(c, "/api/v1/query?query=" + q)[2])["data"]["result"]
            except (OSError, ValueError, KeyError):
                return []
        end = time.monotonic() + 60
        while not (found := query(quote('envoy_cluster_upstream_rq_xx{envoy_cluster_name="web",envoy_response_code_class="2"}'))):
            assert time.monotonic() < end, p.log()[-2000:]
            time.sleep(0.2)
        assert found[0]["value"][1] == "7" and query("up")[0]["value"][1] == "1"
        # The dashboard's expressions are PromQL, and the rules are evaluated without an error.
        for whose, expr in expressions():
            expr = expr.replace("$__rate_interval", "1m").replace("$instance", ".*")
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            status, _, body = ask(c, "/api/v1/query?query=" + quote(expr))
            assert status == 200, (whose, body)
        assert query(quote('count(ALERTS{alertname="MillraceDataplaneDown"})')) == []
        while True:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            rules = json.loads(ask(c, "/api/v1/rules")[2])["data"]["groups"][0]["rules"]
            if all(r["health"] != "unknown" for r in rules):
                break
            assert time.monotonic() < end
            time.sleep(0.2)
        assert len(rules) > 10 and {r["health"] for r in rules} == {"ok"}, rules
    finally:
        p.stop()


def test_a_mask_of_fields(world):
    one = world.json("/config_dump?resource=static_clusters&mask=cluster.name,cluster.type&name_regex=w.b")["configs"]
    assert [set(c["cluster"]) - {"@type"} for c in one] == [{"name", "type"}] or one[0]["cluster"]["name"] == "web"
    assert world.json("/config_dump?resource=static_clusters&name_regex=w") == {"configs": []}  # as a whole, as Envoy
    assert [set(c) for c in world.json("/config_dump?mask=static_listeners")["configs"]] == [{"@type", "static_listeners"}]


def test_levels_of_the_log(world):
    assert "  admin: info" in world.get("/logging", "POST")[2].splitlines()
    assert world.get("/logging?admin=debug", "POST")[0] == 200
    world.page("/ready?seen")
    world.lab.control.wait_log("debug: GET /ready?seen: 200")
    assert world.get("/logging?level=info", "POST")[0] == 200


def test_counters_begin_again(world):
    name = "cluster.web.upstream_rq_2xx"
    assert int(world.page(f"/stats?filter=^{name}$").split()[1]) > 0
    assert world.get("/reset_counters", "POST")[::2] == (200, "OK\n")
    assert world.page(f"/stats?filter=^{name}$") == f"{name}: 0\n"
    world.lab.curl("-o", "/dev/null", f"http://{world.lab.INGRESS4}:8080/")
    end = time.monotonic() + 20
    while world.page(f"/stats?filter=^{name}$") != f"{name}: 1\n":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_address_of_the_world_is_refused(world):
    bad = dict(world.config, admin={"address": {"socket_address": {"address": "0.0.0.0", "port_value": 9901}}})
    p = subprocess.run([L.program("millrace-control"), "--validate", "--config", world.lab.write("bad.json", bad)], capture_output=True, text=True)
    assert p.returncode == 3 and 'admin.address.socket_address.address: "0.0.0.0" is not on loopback' in p.stderr, p.stderr


def test_without_a_data_plane_it_is_not_ready_and_it_ends_by_post(tmp_path):
    with L.Lab(memory_mb=256, upstreams=1) as lab:
        path = lab.write("bootstrap.json", dict(L.bootstrap([], []), dataplane=lab.dataplane_section()))
        control = lab.start_control(path, wait=False)
        control.wait_log("serving")
        sock = lab.run_dir + "/admin.sock"
        assert ask(UnixConnection(sock), "/ready")[::2] == (503, "PRE_INITIALIZING\n")
        assert ask(UnixConnection(sock), "/stats/prometheus")[2].splitlines()[-1] == "envoy_server_live 0"
        assert json.loads(ask(UnixConnection(sock), "/server_info")[2])["state"] == "PRE_INITIALIZING"
        assert ask(UnixConnection(sock), "/quitquitquit", "POST")[::2] == (200, "OK\n")
        control.popen.wait(20)
        assert control.popen.returncode == 0 and not os.path.exists(sock)


def test_the_log_as_json_in_a_file(tmp_path):
    with L.Lab(memory_mb=256, upstreams=1) as lab:
        path, log = lab.write("bootstrap.json", dict(L.bootstrap([], []), dataplane=lab.dataplane_section())), str(tmp_path / "control.log")
        control = lab.start_control(path, wait=False, extra=["--log-format", "json", "--log-file", log])

        def lines(file):
            return [json.loads(x) for x in open(file)] if os.path.exists(file) else []

        def wait_for(file, word):
            end = time.monotonic() + 20
            while not any(word in x["message"] for x in lines(file)):
                assert time.monotonic() < end, (control.log(), lines(file))
                time.sleep(0.05)
        wait_for(log, "serving ")
        assert {"time", "level", "logger", "program", "message"} == set(lines(log)[0]) and lines(log)[0]["program"] == "millrace-control"
        sock = lab.run_dir + "/admin.sock"
        assert ask(UnixConnection(sock), "/logging?admin=debug", "POST")[0] == 200
        for again, act in enumerate([lambda: control.popen.send_signal(signal.SIGUSR1), lambda: ask(UnixConnection(sock), "/reopen_logs", "POST")]):
            os.rename(log, f"{log}.{again}")
            act()
            end = time.monotonic() + 20
            while not os.path.exists(log):
                assert time.monotonic() < end
                time.sleep(0.05)
            ask(UnixConnection(sock), f"/ready?round={again}")
            wait_for(log, f"GET /ready?round={again}: 503")
        assert lines(log + ".0")[-1]["logger"] in ("admin", "link", "main")
        control.stop()
        assert "stopping" in lines(log)[-1]["message"]
        p = subprocess.run([L.program("millrace-control"), "--config", path, "--run-dir", str(tmp_path), "--log-file", "/no/such/folder/log"],
                           capture_output=True, text=True, timeout=60)
        assert p.returncode == 4 and "--log-file: /no/such/folder/log: No such file or directory" in p.stderr
