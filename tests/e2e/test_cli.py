"""millctl as people and scripts use it: every verb, its tables and its JSON, its exit codes, its words of help."""
import json
import os
import re
import subprocess
import sys

import pytest
import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

DONE, REFUSED, USAGE, NO_CONTROL, NOT_IN_FORCE = 0, 1, 2, 3, 4
VERBS = ["status", "apply", "check", "diff", "list", "get", "delete", "route", "route add", "route remove", "route weight",
         "endpoint",
         "endpoint add", "endpoint remove", "endpoint drain", "endpoint undrain", "explain", "history", "rollback", "dump", "log", "stats", "nstat", "top", "drops", "conn",
         "conn list", "conn show", "conn kill", "capture", "batch", "completion"]


def routes():
    return [{"name": "split", "match": {"prefix": "/split"},
             "route": {"weighted_clusters": {"clusters": [{"name": "web", "weight": 90}, {"name": "canary", "weight": 10}]}}},
            {"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "web"}}]


def configuration(lab):
    crt, key = lab.make_certificate("shop", ["shop.test"])
    inline = L.tls_socket(crt, key)
    inline["typed_config"]["common_tls_context"]["tls_certificates"][0]["private_key"] = {"inline_string": open(key).read()}
    vhosts = [{"name": "shop", "domains": ["shop.test", "*"], "routes": routes()}]
    return L.bootstrap(
        [L.listener("http", 8080, L.hcm(vhosts, access_log=os.path.join(lab.dir, "access.log"))),
         L.listener("https", 8443, [{"name": "tls", "filters": [L.hcm(vhosts, route_name="secure", stat_prefix="secure")],
                                     "transport_socket": inline}], inspector=True),
         L.listener("files", 8444, [{"name": "tls", "filters": [L.hcm(vhosts, route_name="files", stat_prefix="files")],
                                     "transport_socket": L.tls_socket(crt, key)}], inspector=True)],
        [L.cluster("web", [(lab.upstream4(0), 8001), (lab.upstream4(1), 8001)]), L.cluster("canary", [(lab.upstream4(2), 8001)]),
         L.cluster("unused", [(lab.upstream4(3), 8001)])])


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        server = 'server {{ listen {}:8001; location / {{ return 200 "{}\\n"; }} }}'
        lab.start_nginx("web", "".join(server.format(lab.upstream4(i), i) for i in range(4)))
        lab.path = lab.start_gateway(configuration(lab))
        lab.key = open(os.path.join(lab.dir, "shop.key")).read()
        yield lab
        assert lab.stop_gateway() == 0


def ctl(lab, *words, stdin=None, env=None):
    there = [] if "--run-dir" in words else ["--run-dir", lab.run_dir]
    p = subprocess.run([L.program("millctl"), *there, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60, text=True, env=env)
    assert p.returncode >= 0, f"ended by signal {-p.returncode}"
    return p


def good(lab, *words, stdin=None):
    p = ctl(lab, *words, stdin=stdin)
    assert p.returncode == DONE, p.stdout + p.stderr
    return p.stdout


def as_json(lab, *words, stdin=None):
    return json.loads(good(lab, "-o", "json", *words, stdin=stdin))


# --- help -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_by_example(verb):
    p = subprocess.run([L.program("millctl"), *verb.split(), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 0 and p.stderr == ""
    assert re.search(r"Examples?:\n.*millctl " + verb, p.stdout, re.S), p.stdout


def test_help_names_every_verb_and_the_exit_codes():
    text = subprocess.run([L.program("millctl"), "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb.split()[0]}\b", text, re.M), verb
    for code in ("0 done", "1 refused", "2 usage", "3 control is not there", "4 not in force"):
        assert code in text


USAGE_ERRORS = [
    ("no verb", []),
    ("unknown verb", ["statsu"]),
    ("unknown option", ["status", "--wat"]),
    ("missing file", ["apply"]),
    ("missing name", ["get", "cluster"]),
    ("bad output", ["status", "-o", "xml"]),
    ("route without match", ["route", "add", "--cluster", "web"]),
    ("route without action", ["route", "add", "--prefix", "/"]),
    ("two matches", ["route", "add", "--prefix", "/", "--path", "/", "--cluster", "web"]),
    ("two places", ["route", "add", "--prefix", "/", "--cluster", "web", "--first", "--index", "1"]),
    ("bad weights", ["route", "weight", "split", "web"]),
    ("bad header", ["route", "add", "--prefix", "/", "--cluster", "web", "-H", "x"]),
    ("bad URL", ["explain", "ftp://x/"]),
    ("unknown shell", ["completion", "tcsh"]),
    ("timeout of nonsense", ["--timeout", "soon", "status"]),
]


@pytest.mark.parametrize("name,words", USAGE_ERRORS, ids=[n for n, _ in USAGE_ERRORS])
def test_wrong_usage(lab, name, words):
    p = ctl(lab, *words)
    assert p.returncode == USAGE and p.stderr.strip() and p.stdout == ""


@pytest.mark.parametrize("words,said", [
    (["-o", "json", "staus"], '"staus" is no verb; did you mean status?'),
    (["--run-dir", "stats", "drps", "--all"], '"drps" is no verb; did you mean drops?'),
    (["route", "ad", "--name", "x"], '"ad" is no verb of millctl route; did you mean add?'),
    (["xylophone"], r'"xylophone" is no verb; there are status, apply, .* and completion'),
    ([], "millctl needs a verb: status, apply, .* or completion"),
    (["endpoint"], "millctl endpoint needs a verb: add, remove, drain or undrain"),
    (["get", "cluster"], "name is required; see millctl get --help"),
    (["top", "--interval", "soon"], r".*--interval.*; see millctl top --help")], ids=lambda x: "-".join(x) if isinstance(x, list) else "")
def test_what_is_wrong_with_a_command_line_is_one_sentence(words, said):
    """A misspelt verb is guessed."""
    p = subprocess.run([L.program("millctl"), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.returncode == USAGE and p.stdout == ""
    assert re.fullmatch(f"millctl: {said if '*' in said else re.escape(said)}\n", p.stderr), p.stderr


# --- looking ----------------------------------------------------------------------------------------------------------
def test_status(lab):
    text = good(lab, "status")
    for words in ("in force on every worker", "ingress", "egress", f"process {lab.control.popen.pid}"):
        assert words in text
    s = as_json(lab, "status")
    assert s["dataplane_connected"] and s["epoch"] == s["epoch_in_force"] and [w["epoch"] for w in s["workers"]] == [s["epoch"]]
    assert s["objects"]["listener"] == 3 and s["objects"]["cluster"] == 3 and not s["rejection"]
    assert {p["name"] for p in s["workers"][0]["pools"]} >= {"packets", "tcbs", "connections", "exchanges"}


def test_status_wait(lab):
    assert "in force" in good(lab, "status", "--wait", "5")


def test_list(lab):
    text = good(lab, "list")
    for name in ("http", "https", "routes", "secure", "web", "canary"):
        assert re.search(rf"\b{name}\b", text), name
    for kind, names in {"listeners": ["files", "http", "https"], "routes": ["files", "routes", "secure"],
                        "clusters": ["canary", "unused", "web"],
                        "endpoints": ["canary", "unused", "web"],
                        "secrets": ["files/tls/tls_certificates[0]", "https/tls/tls_certificates[0]"]}.items():
        assert sorted(set(good(lab, "list", kind, "--names").split())) == names
        assert sorted({o["name"] for o in as_json(lab, "list", kind)["objects"]}) == names
    p = ctl(lab, "list", "listners")
    assert p.returncode == REFUSED and "listeners" in p.stderr


def test_get_and_near_names(lab):
    assert "@type" in good(lab, "get", "cluster", "web") and as_json(lab, "get", "cluster", "web")["name"] == "web"
    p = ctl(lab, "get", "cluster", "canry")
    assert (p.returncode, p.stderr) == (REFUSED, 'millctl: no cluster "canry"; did you mean canary?\n')
    p = ctl(lab, "get", "cluster", "zzzzzz")
    assert p.returncode == REFUSED and "there are: canary, unused, web" in p.stderr
    p = ctl(lab, "get", "clutser", "web")
    assert p.returncode == REFUSED and "no kind of object" in p.stderr


def test_what_get_shows_can_be_applied(lab):
    epoch = lab.status()["epoch"]
    for kind in ("listener", "route", "cluster", "endpoint"):
        for name in good(lab, "list", kind, "--names").split():
            if name == "https":
                continue  # holds a private key; see below
            for output in ("yaml", "json"):
                text = good(lab, "get", kind, name, "-o", output)
                assert "no difference" in good(lab, "diff", "-f", "-", stdin=text), (kind, name)
                assert "no difference" in good(lab, "apply", "-f", "-", stdin=text)
    assert lab.status()["epoch"] == epoch


def test_private_keys_are_not_shown(lab):
    line = lab.key.splitlines()[1]
    secrets = good(lab, "list", "secret", "--names").split()
    for words in (["get", "listener", "https"], *[["get", "secret", s] for s in secrets], ["list", "secrets"]):
        for output in ("table", "yaml", "json"):
            assert line not in good(lab, *words, "-o", output)
    shown = as_json(lab, "get", "listener", "https")
    certificate = shown["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0]
    assert certificate["private_key"] == {"inline_string": "[redacted]"}
    # A file's name is no secret, and what is shown of such a listener can be applied.
    assert "shop.key" in good(lab, "get", "listener", "files")


def test_a_redacted_key_cannot_be_applied(lab):
    text, epoch = good(lab, "get", "listener", "https"), lab.status()["epoch"]
    p = ctl(lab, "apply", "-f", "-", stdin=text)
    assert p.returncode == REFUSED
    for words in ("<stdin>:", "private_key.inline_string", '"[redacted]"', "filename"):
        assert words in p.stderr
    assert lab.status()["epoch"] == epoch
    assert lab.curl_status("https://10.77.1.1:8443/", "-k") == 200


def test_a_changed_key_is_told_but_not_shown(lab):
    crt, key = lab.make_certificate("renewed", ["shop.test"])
    listener = as_json(lab, "get", "listener", "https")
    certificate = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0]
    certificate["private_key"], certificate["certificate_chain"] = {"inline_string": open(key).read()}, {"filename": crt}
    for output in ("table", "json"):
        p = ctl(lab, "diff", "-f", "-", "-o", output, stdin=json.dumps(listener))
        assert p.returncode == DONE and "private_key" in p.stdout and "renewed.crt" in p.stdout
        for pem in (lab.key, open(key).read()):
            assert pem.splitlines()[1] not in p.stdout + p.stderr


def test_stats_and_drops(lab):
    assert lab.curl_status("http://10.77.1.1:8080/") == 200
    text = good(lab, "stats")
    assert "listener http" in text and "downstream_rq_2xx" in text and "downstream_rq_time" in text
    counters = as_json(lab, "stats", "http")["counters"]
    assert any(c["counter"] == "downstream_rq_2xx" and int(c["value"]) > 0 for c in counters)
    assert not any(c["scope"] == "cluster" for c in counters)
    assert len(as_json(lab, "stats", "--all")["counters"]) > len(as_json(lab, "stats")["counters"])
    assert "no counter has that text" in good(lab, "stats", "nothing-is-called-so")
    assert "packets" in good(lab, "drops") and "requests" in good(lab, "drops")
    everything = as_json(lab, "drops", "--all")
    assert {"tcp_bad_checksum", "ip_fragment"} <= {d["name"] for d in everything["drops"]}
    assert {"NR", "UF", "UH"} <= {f["flag"] for f in everything["flags"]}


EXPLAIN = [
    (["http://shop.test:8080/x"], {"cluster": "web"}, ["listener", "http", "shop", "all"]),
    (["POST", "https://shop.test:8443/x"], {"cluster": "web"}, ["https", "secure"]),
    (["http://shop.test:9999/x"], {}, ["9999"]),
    (["http://shop.test/split/a", "--port", "8080"], {}, ["split", "canary"]),
]


@pytest.mark.parametrize("words,expected,fragments", EXPLAIN, ids=[" ".join(w) for w, _, _ in EXPLAIN])
def test_explain(lab, words, expected, fragments):
    text = good(lab, "explain", *words)
    for f in fragments:
        assert f in text, text
    reply = as_json(lab, "explain", *words)
    assert reply["steps"] and all(s["what"] and s["why"] is not None for s in reply["steps"])
    for k, v in expected.items():
        assert reply[k] == v


# --- changing ---------------------------------------------------------------------------------------------------------
def test_check_needs_no_control(lab, tmp_path):
    f = tmp_path / "good.yaml"
    f.write_text(open(lab.path).read())
    p = ctl(lab, "--run-dir", "/nowhere", "check", "-f", str(f))
    assert p.returncode == DONE and "good: 3 listeners, 3 routes, 3 clusters" in p.stdout
    f.write_text("static_resources:\n  clusters:\n  - name: web\n    connect_timeuot: 1s\n")
    p = ctl(lab, "check", "-f", str(f))
    assert p.returncode == REFUSED and f"{f}:4:" in p.stderr and "connect_timeuot" in p.stderr and "connect_timeout" in p.stderr
    p = ctl(lab, "-o", "json", "check", "-f", str(f))
    assert p.returncode == REFUSED and json.loads(p.stdout)[0]["line"] == 4


def test_check_warns_of_routes_that_nothing_reaches(lab, tmp_path):
    f = tmp_path / "shadow.yaml"
    table = {"name": "shadow", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
        {"name": "late", "match": {"path": "/late"}, "direct_response": {"status": 201}}]}]}
    f.write_text(json.dumps({"resources": [dict({"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"}, **table)]}, indent=1))
    said = "\"late\" is never reached: routes[0] (prefix /) before it takes every request that it matches"
    line = f.read_text().splitlines().index('       "name": "late",')  # one line up its brace
    p = ctl(lab, "check", "-f", str(f))
    assert p.returncode == DONE and f"warning: {f}:{line}:" in p.stderr and said in p.stderr, p.stderr
    assert json.loads(good(lab, "-o", "json", "check", "-f", str(f))) == []  # no error
    # What a running gateway is asked to take is looked at in the same way; it is warned of, and taken.
    p = ctl(lab, "diff", "-f", str(f))
    assert p.returncode == DONE and said in p.stderr, p.stderr
    reply = as_json(lab, "apply", "-f", str(f))
    assert reply["ok"] and said in reply["warnings"][0]["message"]
    p = ctl(lab, "route", "add", "--route-config", "shadow", "--path", "/later", "--direct", "200")
    assert p.returncode == DONE and "routes[2] (path /later) is never reached: routes[0] (prefix /)" in p.stderr, p.stderr
    p = ctl(lab, "route", "add", "--route-config", "shadow", "--prefix", "/la", "--direct", "200", "--before", "late")
    assert p.returncode == DONE and "routes[1] (prefix /la) is never reached" in p.stderr, p.stderr
    good(lab, "delete", "route", "shadow")


def test_check_of_a_bootstrap_that_asks_servers(lab, tmp_path):
    """Objects that a management server brings may be named by those of the file."""
    f = tmp_path / "xds.yaml"
    f.write_text(json.dumps({"node": {"id": "a"}, "dynamic_resources": {
        "cds_config": {"ads": {}}, "ads_config": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}},
        "static_resources": {"clusters": [{"name": "web", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}},
                                          {"name": "xds", "type": "STATIC", "load_assignment": {"cluster_name": "xds"}}]}}))
    p = ctl(lab, "check", "-f", str(f))
    assert p.returncode == DONE, p.stderr


def test_diff_then_apply_then_back(lab):
    before = as_json(lab, "get", "cluster", "unused")
    changed = dict(before, connect_timeout="1.500s")
    text = good(lab, "diff", "-f", "-", stdin=json.dumps(changed))
    assert "cluster unused" in text and "connect_timeout" in text and "1.500s" in text
    epoch = int(lab.status()["epoch"])
    reply = as_json(lab, "apply", "-f", "-", stdin=json.dumps(changed))
    assert reply["ok"] and int(reply["epoch"]) == epoch + 1 and reply["acknowledgement"] == "IN_FORCE"
    assert reply["changes"] == [{"kind": "cluster", "name": "unused", "change": "changed",
                                 "fields": [{"path": "connect_timeout", "before": '"2s"', "after": '"1.500s"'}]}]
    assert as_json(lab, "get", "cluster", "unused") == changed
    assert f"epoch {epoch + 2}, in force on every worker" in good(lab, "apply", "-f", "-", stdin=json.dumps(before))
    assert lab.status()["epoch"] == str(epoch + 2)


def test_apply_takes_files_and_says_when_there_is_none(lab):
    assert "no difference" in good(lab, "apply", "-f", lab.path)
    p = ctl(lab, "apply", "-f", "/nowhere/x.yaml")
    assert p.returncode == REFUSED and "/nowhere/x.yaml: No such file or directory" in p.stderr


def test_delete(lab):
    p = ctl(lab, "delete", "cluster", "web")
    assert p.returncode == REFUSED and "web" in p.stderr
    saved = good(lab, "get", "cluster", "unused")
    assert "- cluster unused" in good(lab, "delete", "cluster", "unused")
    p = ctl(lab, "delete", "cluster", "unused")
    assert p.returncode == REFUSED and 'no cluster "unused"' in p.stderr
    assert "+ cluster unused" in good(lab, "apply", "-f", "-", stdin=saved)


def test_route_verbs(lab):
    where = ["--route-config", "routes"]
    assert "in force" in good(lab, "route", "add", *where, "--name", "tea", "--path", "/tea", "--direct", "418:short and stout",
                              "--first")
    assert lab.curl("-w", "%{http_code}", "http://10.77.1.1:8080/tea").stdout == b"short and stout418"
    for name, to, reason in (("tea", "web", "has a route named 'tea' already"), ("x", "nosuch", "nosuch")):
        p = ctl(lab, "route", "add", *where, "--name", name, "--path", "/x", "--cluster", to, "--before", "all")
        assert p.returncode == REFUSED and reason in p.stderr
    assert "route" in good(lab, "route", "add", *where, "--name", "dry", "--prefix", "/dry", "--cluster", "web", "--dry-run")
    assert "dry" not in good(lab, "get", "route", "routes")
    good(lab, "route", "add", *where, "--name", "old", "--prefix", "/old", "--redirect", "https://shop.test:8443/new", "--before",
         "all")
    p = lab.curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "http://10.77.1.1:8080/old")
    assert p.stdout == b"301 https://shop.test:8443/new"
    good(lab, "route", "weight", *where, "split", "web=0,canary=100")
    assert {lab.curl("http://10.77.1.1:8080/split").stdout for _ in range(10)} == {b"2\n"}
    good(lab, "route", "weight", *where, "split", "web=90,canary=10")
    p = ctl(lab, "route", "weight", *where, "all", "web=1,canary=1")
    assert p.returncode == REFUSED and p.stderr
    for name in ("tea", "old"):
        good(lab, "route", "remove", *where, name)
    p = ctl(lab, "route", "remove", *where, "tea")
    assert p.returncode == REFUSED and "tea" in p.stderr
    p = ctl(lab, "route", "remove", "tea")
    assert p.returncode == REFUSED and "--route-config" in p.stderr


def test_endpoint_verbs(lab):
    new = f"{lab.upstream4(3)}:8001"
    assert "in force" in good(lab, "endpoint", "add", "web", new, "--weight", "5")
    assert new in good(lab, "list", "endpoints")
    for word in ("drain", "undrain", "drain"):
        assert "in force" in good(lab, "endpoint", word, "web", new)
    assert "DRAINING" in good(lab, "list", "endpoints")
    assert {lab.curl("http://10.77.1.1:8080/").stdout for _ in range(12)} == {b"0\n", b"1\n"}
    good(lab, "endpoint", "remove", "web", new)
    for word in ("remove", "drain"):
        p = ctl(lab, "endpoint", word, "web", new)
        assert p.returncode == REFUSED and new in p.stderr
    p = ctl(lab, "endpoint", "add", "wbe", new)
    assert p.returncode == REFUSED and "did you mean web" in p.stderr
    p = ctl(lab, "endpoint", "add", "web", "nonsense")
    assert p.returncode == REFUSED and "nonsense" in p.stderr


def test_no_wait(lab):
    assert re.search(r"epoch \d+", good(lab, "--no-wait", "endpoint", "add", "unused", "10.77.2.99:81"))
    assert "in force" in good(lab, "endpoint", "remove", "unused", "10.77.2.99:81")


# --- batch ------------------------------------------------------------------------------------------------------------
BATCH = """# morning
endpoint add unused 10.77.2.98:81

millctl route add --route-config routes --name b1 --path "/b 1" --direct '200:it is \\n here' --first
route remove --route-config routes b1   # and away
endpoint remove unused 10.77.2.98:81
"""


def test_batch(lab):
    epoch = int(lab.status()["epoch"])
    text = good(lab, "batch", stdin=BATCH)
    assert text.count("in force on every worker") == 4 and int(lab.status()["epoch"]) == epoch + 4
    lines = [json.loads(line) for line in good(lab, "-o", "json", "batch", "-f", "-", stdin=BATCH).splitlines()]
    assert [(r["line"], r["exit"], int(r["result"]["epoch"])) for r in lines] == [(2, 0, epoch + 5), (4, 0, epoch + 6),
                                                            (5, 0, epoch + 7), (6, 0, epoch + 8)]


def test_batch_stops_at_the_first_failure_or_goes_on(lab, tmp_path):
    f = tmp_path / "lines"
    f.write_text("status\nendpoint add nosuch 1.2.3.4:5\nget cluster 'web\nlist clusters --names\n")
    p = ctl(lab, "batch", "-f", str(f))
    assert p.returncode == REFUSED and "canary" not in p.stdout
    assert 'no endpoint "nosuch"' in p.stderr and "stopped at line 2" in p.stderr
    p = ctl(lab, "-o", "json", "batch", "--keep-going", "-f", str(f))
    assert p.returncode == REFUSED and "2 of 4 lines failed" in p.stderr and "line 3: the quote ' is not closed" in p.stderr
    lines = [json.loads(line) for line in p.stdout.splitlines()]
    assert [(r["line"], r["exit"]) for r in lines] == [(1, 0), (2, 1), (3, 2), (4, 0)]
    assert not lines[1]["result"]["ok"] and 'no endpoint "nosuch"' in lines[1]["result"]["errors"][0]["message"]
    assert "is not closed" in lines[2]["error"] and lines[3]["result"].split() == ["canary", "unused", "web"]
    assert ctl(lab, "batch", "-f", "/nowhere/x").returncode == REFUSED
    assert ctl(lab, "batch", stdin="batch -f -\n").returncode == USAGE


# --- YAML -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", [["list"], ["list", "routes"], ["explain", "http://shop.test/split"], ["drops", "--all"], ["get", "cluster", "web"],
                                   ["diff", "-f", "FILE"], ["check", "-f", "FILE"], ["check", "-f", "BAD"], ["endpoint", "remove", "web", "1.2.3.4:5"]],
                         ids="-".join)
def test_yaml_says_what_json_says(lab, tmp_path, words):
    """Block YAML, no JSON in disguise: same keys, same types, same exit code."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("static_resources: {clusters: [{name: ''}, {name: 7, nonsense: true}]}\n")
    words = [{"FILE": lab.path, "BAD": str(bad)}.get(w, w) for w in words]
    j, y = ctl(lab, "-o", "json", *words), ctl(lab, "-o", "yaml", *words)
    assert j.returncode == y.returncode
    told = [json.loads(j.stdout), yaml.safe_load(y.stdout)]
    for reply in told:
        if isinstance(reply, dict):
            reply.pop("live_us", None)  # how long it took differs from call to call
            for drop in reply.get("drops", []):  # and so may what was dropped meanwhile
                drop["count"] = type(drop["count"])
    assert told[0] == told[1]
    assert not y.stdout.startswith("{") and (y.stdout.count("\n") > 2 or y.stdout in ("[]\n", "{}\n"))


def test_batch_in_yaml_is_a_document_a_line(lab):
    text = good(lab, "-o", "yaml", "batch", stdin="list clusters\nlist clusters --names\n")
    documents = list(yaml.safe_load_all(text))
    assert [(d["line"], d["exit"]) for d in documents] == [(1, 0), (2, 0)]
    assert documents[0]["result"]["objects"][0]["kind"] == "cluster" and documents[1]["result"].split() == ["canary", "unused", "web"]


# --- completion, colours ----------------------------------------------------------------------------------------------
def test_completion_in_bash(lab):
    folder = os.path.dirname(L.program("millctl"))
    script = f"""set -eu; PATH={folder}:$PATH; export MILLRACE_RUN_DIR={lab.run_dir}
source <(millctl completion bash)
try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _millctl || true; echo "${{COMPREPLY[*]}}"; }}
try millctl st; try millctl route ''; try millctl get cl; try millctl get clusters c; try millctl endpoint d; try millctl ba
try millctl top --st; try millctl top --stages o; try millctl to"""
    p = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 0, p.stderr
    assert p.stdout.splitlines() == ["status stats", "add remove weight", "clusters", "canary", "drain", "batch", "--stages", "on off", "top"]
    assert "bashcompinit" in good(lab, "completion", "zsh")


def test_no_colour_in_a_pipe(lab):
    for words in (["status"], ["list"], ["stats"], ["drops", "--all"]):
        assert "\033" not in good(lab, *words)


# --- nobody there -----------------------------------------------------------------------------------------------------
ANSWERED = [["status"], ["list"], ["get", "cluster", "web"], ["delete", "cluster", "web"], ["stats"], ["nstat"], ["top"], ["drops"], ["conn", "list"],
            ["capture", "-w", "/dev/null"],
            ["explain", "http://x/"],
            ["apply", "-f", "/dev/null"], ["diff", "-f", "/dev/null"], ["route", "remove", "x"],
            ["endpoint", "drain", "web", "1.2.3.4:5"]]


@pytest.mark.parametrize("words", ANSWERED, ids=[w[0] for w in ANSWERED])
def test_a_clear_line_when_control_is_not_there(tmp_path, words):
    p = subprocess.run([L.program("millctl"), "--run-dir", str(tmp_path), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, timeout=30)
    assert p.returncode == NO_CONTROL and p.stdout == ""
    assert p.stderr == (f"millctl: millrace-control does not answer on {tmp_path}/control.sock (no such socket); start it with "
                        f"millrace-control --config FILE --run-dir {tmp_path}, or name another --run-dir\n")


def test_batch_ends_when_control_is_not_there(tmp_path):
    p = subprocess.run([L.program("millctl"), "--run-dir", str(tmp_path), "batch", "--keep-going"], input="status\nlist\n",
                       stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=30)
    assert p.returncode == NO_CONTROL and "stopped at line 1" in p.stderr


def test_without_a_data_plane(tmp_path, lab):
    """Control alone: edits are taken and kept, and it is said that they are not in force."""
    config = tmp_path / "c.json"
    config.write_text(json.dumps(L.bootstrap([], [L.cluster("web", [("10.0.0.1", 80)])])))
    run_dir = tmp_path / "run"
    control = subprocess.Popen([L.program("millrace-control"), "--config", str(config), "--run-dir", str(run_dir)],
                               stderr=subprocess.DEVNULL)
    try:
        there = ["--run-dir", str(run_dir)]
        # millctl is started before control listens: --wait also waits for that.
        p = ctl(lab, *there, "status", "--wait", "5")
        assert p.returncode == NOT_IN_FORCE and "no data plane" in p.stdout and "was not in force" in p.stderr
        assert ctl(lab, *there, "status").returncode == DONE
        p = ctl(lab, *there, "endpoint", "add", "web", "10.0.0.2:80")
        assert p.returncode == NOT_IN_FORCE and "no data plane is connected" in p.stdout
        assert ctl(lab, *there, "--no-wait", "endpoint", "drain", "web", "10.0.0.2:80").returncode == DONE
        for verb in ("stats", "drops"):
            p = ctl(lab, *there, verb)
            assert p.returncode == NOT_IN_FORCE and "no data plane is connected" in p.stderr
        # Killed and started again, it goes on with what was edited.
        control.kill()
        control.wait()
        control = subprocess.Popen([L.program("millrace-control"), "--config", str(config), "--run-dir", str(run_dir)],
                                   stderr=subprocess.DEVNULL)
        ctl(lab, *there, "status", "--wait", "1")
        assert "10.0.0.2:80" in ctl(lab, *there, "list", "endpoints").stdout
        assert json.loads(ctl(lab, *there, "-o", "json", "status").stdout)["has_edits"]
    finally:
        control.terminate()
        assert control.wait(10) == 0


def revisions(lab):
    return json.loads(ctl(lab, "history", "-o", "json").stdout)["revisions"]


def test_history_and_rollback(lab):
    """Two edits, undone one by one, over a restart of control; what is answered says that each is in force."""
    def answer():
        return lab.curl("-H", "Host: shop.test", f"http://{lab.INGRESS4}:8080/history").stdout.decode()

    servers, start = ("0\n", "1\n", "2\n"), ctl(lab, "dump").stdout
    assert answer() in servers
    assert ctl(lab, "route", "add", "--route-config", "routes", "--name", "h1", "--path", "/history", "--direct", "418:one",
               "--first").returncode == DONE
    assert ctl(lab, "route", "add", "--route-config", "routes", "--name", "h2", "--path", "/history", "--direct", "418:two",
               "--first").returncode == DONE
    newest = revisions(lab)[0]
    assert newest["what"] == "route add" and newest["author"] and "h2" in newest["changes"][0]
    table = ctl(lab, "history").stdout
    assert table.splitlines()[0].split() == ["REVISION", "TIME", "AUTHOR", "WHAT", "CHANGES"]
    assert answer() == "two"
    lab.control.stop()
    lab.start_control(lab.path)
    p = ctl(lab, "rollback", "--dry-run")
    assert p.returncode == DONE and "h2" in p.stdout and answer() == "two"
    p = ctl(lab, "rollback")
    assert p.returncode == DONE and "in force on every worker" in p.stdout, p.stderr
    assert answer() == "one"
    assert revisions(lab)[0]["what"] == f"rollback to {int(newest['revision']) - 1}"
    p = ctl(lab, "rollback", str(int(newest["revision"]) - 2))
    assert p.returncode == DONE and answer() in servers, p.stderr
    assert ctl(lab, "dump").stdout == start
    shown = ctl(lab, "history", newest["revision"]).stdout
    assert "route add" in shown and "h2" in shown
    for words, code, text in ((["rollback", "99999"], REFUSED, "there is no revision 99999"), (["rollback", "x"], USAGE, "is no revision"),
                              (["history", "99999"], REFUSED, "no revision 99999")):
        p = ctl(lab, *words)
        assert p.returncode == code and text in p.stderr


def test_dump_can_be_applied(lab):
    p = ctl(lab, "dump")
    document = yaml.safe_load(p.stdout)
    kinds = {o["@type"].rsplit(".", 1)[1] for o in document["resources"]}
    assert p.returncode == DONE and kinds >= {"Listener", "Cluster"} and "PRIVATE KEY" not in p.stdout
    # Only what has an inline key cannot go back in: it says so.
    document["resources"] = [o for o in document["resources"] if "[redacted]" not in json.dumps(o)]
    p = ctl(lab, "apply", "-f", "-", stdin=yaml.safe_dump(document))
    assert p.returncode == DONE and "no difference" in p.stdout, p.stderr
    path = os.path.join(lab.dir, "report.json")
    assert ctl(lab, "dump", "--all", "-w", path).returncode == DONE
    with open(path) as f:
        report = json.load(f)
    assert set(report) == {"status", "history", "stats", "drops", "log", "resources"} and report["resources"] and report["log"]
    assert lab.key.splitlines()[1] not in json.dumps(report)
    p = ctl(lab, "dump", "-w", "/nowhere/x")
    assert p.returncode == REFUSED and "cannot be written" in p.stderr


def test_log_follows(lab):
    p = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "log", "-n", "0", "--follow", "-o", "json"],
                         stdout=subprocess.PIPE, text=True)
    try:
        assert ctl(lab, "route", "add", "--route-config", "routes", "--name", "logged", "--path", "/logged", "--direct", "418").returncode == DONE
        line = json.loads(p.stdout.readline())
        assert "route add" in line["text"] and int(line["time_ms"]) > 0
    finally:
        p.terminate()
        p.wait()
    assert ctl(lab, "route", "remove", "--route-config", "routes", "logged").returncode == DONE
    assert "route remove logged" in ctl(lab, "log", "-n", "1").stdout
