"""Kubernetes manifests with a real gateway: the examples of the Gateway API's guides, in our words, with real servers and curl."""
import collections
import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import base64  # noqa: E402

import lab as L  # noqa: E402

SERVERS = ["web", "canary", "api", "back"]


def service(name, ip, namespace="default", port=80, **extra):
    return [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
             "spec": {"ports": [{"port": port, "targetPort": 8001, **extra}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
             "metadata": {"name": name + "-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
             "endpoints": [{"addresses": [ip], "conditions": {"ready": True}}], "ports": [{"port": 8001}]}]


GATEWAY = [
    {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "edge"},
     "spec": {"controllerName": "millrace.io/gateway-controller"}},
    {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
     "spec": {"gatewayClassName": "edge", "listeners": [
         {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
         {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "secure.test",
          "tls": {"certificateRefs": [{"name": "secure"}]}}]}}]


def route(name, rules, hostnames=(), section="http", namespace="default"):
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": namespace},
            "spec": {"parentRefs": [{"name": "edge", "namespace": "default", "sectionName": section}], "hostnames": list(hostnames), "rules": rules}}


def to(*backends):
    return [{"name": b[0], "port": 80, **({"weight": b[1]} if len(b) > 1 else {})} for b in backends]


def matching(*matches, backends=(), **extra):
    return {"matches": list(matches), **({"backendRefs": to(*backends)} if backends else {}), **extra}


def path(value, kind="PathPrefix", **extra):
    return {"path": {"type": kind, "value": value}, **extra}


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.servers = {name: lab.upstream4(i) for i, name in enumerate(SERVERS)}
        program = os.path.join(L.ROOT, "tests/support/upstream_server.py")
        lab.start("upstreams", [sys.executable, program, *(ip + ":8001" for ip in lab.servers.values())], namespace=lab.upstream).wait_log("listening")
        lab.path = lab.start_gateway(L.bootstrap([], []))
        yield lab
        assert lab.stop_gateway() == 0


def ctl(lab, *words, manifests=None, check=True):
    text = None if manifests is None else "---\n".join(json.dumps(m) + "\n" for m in manifests)
    text = text and "---\n" + text
    p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, *words], input=text, capture_output=True, text=True, timeout=60)
    assert not check or p.returncode == 0, p.stdout + p.stderr
    return p


def conditions(reply, name):
    return {c["type"]: (c["status"], c.get("reason")) for m in reply.get("manifests", []) if m["object"] == name for c in m["conditions"]}


def apply(lab, *manifests):
    """Everything there is, and these besides; what was applied before goes."""
    backends = [m for name, ip in lab.servers.items() for m in service(name, ip, "other" if name == "back" else "default")]
    crt, key = lab.make_certificate("secure", ["secure.test"])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secure"}, "type": "kubernetes.io/tls",
              "data": {"tls.crt": base64.b64encode(open(crt, "rb").read()).decode(), "tls.key": base64.b64encode(open(key, "rb").read()).decode()}}
    return json.loads(ctl(lab, "-o", "json", "apply", "--replace", "-f", "-", manifests=[*GATEWAY, secret, *backends, *manifests]).stdout)


def curl(lab, url, *more, host="shop.test"):
    """Status, headers and body of one request."""
    port = 443 if url.startswith("https") else 80
    name = url.split("/")[2] if "//" in url else host
    target = url if "//" in url else f"http://{host}{url}"
    p = lab.client.run(["curl", "-s", "-i", "-m", "10", "--resolve", f"{name}:{port}:{lab.INGRESS4}", *more, target])
    head, _, body = p.stdout.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    return int(lines[0].split()[1]), {k.lower(): v for k, _, v in (x.partition(": ") for x in lines[1:])}, body


def who(lab, *words, **extra):
    """Which server answered, or the status."""
    status, _, body = curl(lab, *words, **extra)
    names = {ip: name for name, ip in lab.servers.items()}
    return names.get(body.strip().split(":")[0], status)


def test_simple(lab):
    reply = apply(lab, route("simple", [matching(backends=[("web",)])], ["shop.test"]))
    assert conditions(reply, "HTTPRoute/default/simple") == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert who(lab, "/who") == "web"
    assert who(lab, "/who", host="other.test") == 404
    assert who(lab, "/who", "-H", "Host: shop.test:8080") == "web"


def test_canary_by_weight(lab):
    apply(lab, route("canary", [matching(backends=[("web", 80), ("canary", 20)])]))
    seen = collections.Counter(who(lab, "/who") for _ in range(200))
    assert set(seen) == {"web", "canary"} and 10 <= seen["canary"] <= 80, seen


def test_canary_by_header_path_and_query(lab):
    apply(lab, route("split", [
        matching(backends=[("web",)]),
        matching({"headers": [{"name": "Traffic", "value": "test"}]}, backends=[("canary",)]),
        matching(path("/who/", "Exact"), backends=[("api",)]),
        matching({"queryParams": [{"name": "v", "type": "RegularExpression", "value": "[23]"}]}, backends=[("api",)])]))
    assert who(lab, "/who") == "web"
    assert who(lab, "/who", "-H", "traffic: test") == "canary"
    assert who(lab, "/who", "-H", "traffic: tests") == "web"
    assert who(lab, "/who?v=2") == "api" and who(lab, "/who?v=4") == "web"


def test_headers_and_rewrites(lab):
    rewrite = {"type": "URLRewrite", "urlRewrite": {"hostname": "in.test", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
    modify = {"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "a", "value": "100%"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]}}
    answer = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x-gate", "value": "yes"}]}}
    apply(lab, route("headers", [matching(path("/strip"), backends=[("web",)], filters=[rewrite, modify, answer])]))
    status, headers, body = curl(lab, "/strip/request?q=1", "-H", "A: 1", "-H", "B: 1", "-H", "C: 1")
    seen = json.loads(body)
    sent = [(k.lower(), v) for k, v in seen["headers"]]
    assert status == 200 and headers["x-gate"] == "yes" and seen["target"] == "/request?q=1"
    assert ("host", "in.test") in sent and ("a", "100%") in sent and ("a", "1") not in sent and not [v for k, v in sent if k == "c"]
    assert [v for k, v in sent if k == "b"] in (["1", "2"], ["1,2"])
    assert curl(lab, "/strip")[0] in (200, 404) and curl(lab, "/stripes")[0] == 404


def redirect(**fields):
    return [{"type": "RequestRedirect", "requestRedirect": fields}]


def test_redirects(lab):
    apply(lab, route("redirects", [
        matching(path("/https"), filters=redirect(scheme="https", statusCode=301)),
        matching(path("/host"), filters=redirect(hostname="new.test")),
        matching(path("/port"), filters=redirect(port=8443, statusCode=307)),
        matching(path("/full"), filters=redirect(path={"type": "ReplaceFullPath", "replaceFullPath": "/all"}, statusCode=308)),
        matching(path("/prefix"), filters=redirect(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}, statusCode=303))]))

    def location(url):
        status, headers, _ = curl(lab, url)
        return status, headers["location"]
    assert location("/https/a?b") == (301, "https://shop.test/https/a?b")
    assert location("/host/a") == (302, "http://new.test/host/a")
    assert location("/port") == (307, "http://shop.test:8443/port")
    assert location("/full/a") == (308, "http://shop.test/all")
    assert location("/prefix/a") == (303, "http://shop.test/a") and location("/prefix") == (303, "http://shop.test/")


def test_tls_terminates(lab):
    reply = apply(lab, route("secure", [matching(backends=[("web",)])], section="https"))
    assert conditions(reply, "Gateway/default/edge")["Programmed"][0] == "True"
    ca = os.path.join(lab.dir, "secure.crt")
    assert who(lab, "https://secure.test/who", "--cacert", ca) == "web"
    assert who(lab, "https://secure.test/who", "--cacert", ca, "--http1.1") == "web"


def test_cross_namespace_needs_a_grant(lab):
    there = route("back", [{"backendRefs": [{"name": "back", "namespace": "other", "port": 80}]}])
    reply = apply(lab, there)
    assert conditions(reply, "HTTPRoute/default/back")["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert who(lab, "/who") == 500
    grant = {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "other"},
             "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
                      "to": [{"group": "", "kind": "Service"}]}}
    reply = json.loads(ctl(lab, "-o", "json", "apply", "-f", "-", manifests=[grant]).stdout)
    assert conditions(reply, "HTTPRoute/default/back")["ResolvedRefs"] == ("True", "ResolvedRefs")
    assert who(lab, "/who") == "back"
    ctl(lab, "delete", "-f", "-", manifests=[grant])
    assert who(lab, "/who") == 500


def test_a_share_that_is_not_there_is_500(lab):
    apply(lab, route("half", [matching(backends=[("web", 1), ("nobody", 1)])]))
    seen = collections.Counter(who(lab, "/who") for _ in range(100))
    assert set(seen) == {"web", 500} and min(seen.values()) >= 20, seen
    apply(lab, route("none", [matching(backends=[("nobody",)])]))
    assert who(lab, "/who") == 500


def test_no_endpoint_is_503(lab):
    apply(lab, *service("empty", "127.0.0.1")[:1], route("empty", [matching(backends=[("empty",)])]))
    assert who(lab, "/who") == 503


def test_timeouts(lab):
    apply(lab, route("slow", [matching(path("/sleep"), backends=[("web",)], timeouts={"request": "300ms"})]))
    assert curl(lab, "/sleep?ms=5000")[0] == 504
    assert curl(lab, "/sleep?ms=0")[0] == 200


def test_ingress(lab):
    def backend(name):
        return {"service": {"name": name, "port": {"number": 80}}}
    rules = [{"host": "shop.test", "http": {"paths": [{"path": "/who", "pathType": "Exact", "backend": backend("api")}]}},
             {"host": "*.wild.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend("canary")}]}}]
    reply = apply(lab, {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
                        "spec": {"rules": rules, "defaultBackend": backend("web"), "tls": [{"hosts": ["shop.test"], "secretName": "secure"}]}})
    assert conditions(reply, "Ingress/default/i") == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert who(lab, "/who") == "api" and who(lab, "/who?x") == "api"
    assert curl(lab, "/request")[0] == 200 and who(lab, "/who", host="any.test") == "web"
    assert who(lab, "/who", host="a.wild.test") == "canary" and who(lab, "/who", host="a.b.wild.test") == "web"
    assert who(lab, "https://shop.test/who", "-k") == "api"


def test_history_and_rollback(lab):
    apply(lab, route("one", [matching(backends=[("web",)])]))
    ctl(lab, "apply", "-f", "-", manifests=[route("one", [matching(backends=[("canary",)])])])
    assert who(lab, "/who") == "canary"
    newest = json.loads(ctl(lab, "-o", "json", "history", "--limit", "1").stdout)["revisions"][0]
    assert any('manifest HTTPRoute/default/one: spec.rules[0].backendRefs[0].name: "web" -> "canary"' in c for c in newest["changes"]), newest
    ctl(lab, "rollback")
    assert who(lab, "/who") == "web"
    assert '"web"' in ctl(lab, "-o", "json", "get", "manifest", "httproute/default/one").stdout


def test_they_survive_a_restart(lab):
    apply(lab, route("stays", [matching(backends=[("api",)])]))
    before = ctl(lab, "list", "manifests").stdout
    lab.control.kill()
    lab.start_control(lab.path)
    lab.wait_in_force()
    assert ctl(lab, "list", "manifests").stdout == before and "HTTPRoute/default/stays" in before
    assert who(lab, "/who") == "api"
    ctl(lab, "apply", "-f", "-", manifests=[route("stays", [matching(backends=[("web",)])])])
    assert who(lab, "/who") == "web"


def test_what_is_wrong_changes_nothing(lab):
    apply(lab, route("good", [matching(backends=[("web",)])]))
    p = ctl(lab, "apply", "-f", "-", manifests=[route("good", [{"backendrefs": []}])], check=False)
    assert p.returncode == 1 and 'spec.rules[0].backendrefs: unknown field; did you mean "backendRefs"?' in p.stderr and p.stderr.startswith("<stdin>:2:")
    p = ctl(lab, "delete", "-f", "-", manifests=[route("nobody", [])], check=False)
    assert p.returncode == 1 and "there is no HTTPRoute/default/nobody" in p.stderr
    assert who(lab, "/who") == "web"


def test_nothing_shows_a_private_key(lab):
    apply(lab)
    key = base64.b64encode(open(os.path.join(lab.dir, "secure.key"), "rb").read()).decode()[40:100]
    for words in (["get", "manifest", "Secret/default/secure"], ["dump"], ["dump", "--all"], ["history", "--limit", "1"]):
        out = ctl(lab, *words).stdout
        assert key not in out and "PRIVATE KEY" not in out, words
