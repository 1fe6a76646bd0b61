"""The two gateways under comparison: the same addresses, the same upstreams, the same bootstrap, in two laboratories side by side."""
import json
import os
import re
import ssl
import subprocess
import threading
import time

import yaml
from case import Ended, Wire
from lab import TYPES, Lab, LabError
from pki import Authority, certificate_hash, spki_hash
from upstream import PROXY_PORTS, Upstreams

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.environ.get("MILLRACE_PEERS", os.path.expanduser("~/.cache/millrace-peers"))
ENVOY = os.path.join(PEERS, "envoy-1.40.0", "bin", "envoy")
HTTP_PORTS = range(9001, 9007)
TCP_PORTS = range(9900, 9903)
HTTP2_PORT = 9010    # tests/support/h2_server.py
REFUSED_PORT = 9999  # nobody listens there
SUPPORT = os.path.join(os.path.dirname(HERE), "support")
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-h2 is for
HAS_HTTP2 = subprocess.run([SYSTEM_PYTHON, "-c", "import h2"], capture_output=True).returncode == 0
# The format most configurations use: everything that must be equal, and no time.
LOG_FORMAT = ("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS% "
              "rx=%BYTES_RECEIVED% tx=%BYTES_SENT% up=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER% route=%ROUTE_NAME% host=%REQ(:AUTHORITY)% "
              "xff=%REQ(X-FORWARDED-FOR)% id=%REQ(X-REQUEST-ID)%\\n")


def expand(text, variables):
    """Template variables of the configurations. @HCM@, @ROUTER@, @LOG:name@, @BIND:port@, @CLUSTER:name:port@ are pieces that stand in nearly every
    file; the others are plain values."""
    def piece(m):
        word, *args = m.group(1).split(":")
        if word == "HCM":
            return f'"@type": {TYPES["hcm"]}'
        if word == "ROUTER":
            return f'[{{name: envoy.filters.http.router, typed_config: {{"@type": {TYPES["router"]}}}}}]'
        if word == "LOG":
            return ('[{name: envoy.access_loggers.file, typed_config: {"@type": ' + TYPES["file_log"] + f', path: {variables["LOGS"]}/{args[0]}.log, '
                    'log_format: {text_format_source: {inline_string: "' + LOG_FORMAT + '"}}}}]')
        if word == "BIND":
            return "{socket_address: {address: 0.0.0.0, port_value: " + args[0] + "}}"
        if word == "CLUSTER":
            return (f"{{name: {args[0]}, connect_timeout: 1s, type: STATIC, load_assignment: {{cluster_name: {args[0]}, endpoints: [{{lb_endpoints: ["
                    f"{{endpoint: {{address: {{socket_address: {{address: {variables['UPSTREAM']}, port_value: {args[1]}}}}}}}}}]}}]}}}}")
        if word in variables:
            return variables[word]
        raise LabError(f"unknown template variable @{m.group(1)}@")
    return re.sub(r"@([A-Z][A-Z0-9_]*(?::[^@\s]*)?)@", piece, text)


def load(names, variables):
    """The configurations as one bootstrap. Every name in it must be of one file only."""
    merged = {"static_resources": {"listeners": [], "clusters": []}}
    for name in names:
        with open(os.path.join(HERE, "configs", name + ".yaml")) as f:
            part = yaml.safe_load(expand(f.read(), variables))["static_resources"]
        for kind in ("listeners", "clusters"):
            known = {x["name"] for x in merged["static_resources"][kind]}
            for item in part.get(kind, []):
                if item["name"] in known:
                    raise LabError(f"{name}: {kind} {item['name']} exists in another configuration")
                merged["static_resources"][kind].append(item)
    return merged


def make_pki(folder):
    """Certificates that both sides use: of a CA, of one that nobody trusts, expired; template variables for hashes."""
    ca, stranger = Authority(folder, "ca"), Authority(folder, "stranger")
    ca.issue("up", ["DNS:up.test", "DNS:*.wild.test", "URI:spiffe://td/ns/up/sa/a"])
    ca.issue("expired", ["DNS:up.test"], days=-1)
    ca.issue("edge", ["DNS:edge.test", "URI:spiffe://td/ns/edge/sa/gateway"])
    ca.issue("client", ["URI:spiffe://td/ns/a/sa/b", "DNS:client.test", "DNS:more.test"])
    ca.issue("nameless")
    stranger.issue("up", ["DNS:up.test"])
    ca.revoke("up")
    return {"UPHASH": certificate_hash(ca.issued["up"][0]), "STRANGERSPKI": spki_hash(stranger.issued["up"][0])}


def upstream_contexts(folder):
    """{port: context} of the upstream servers that speak TLS."""
    def context(name, wants=False, most=None, alpn=True):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(os.path.join(folder, name + ".crt"), os.path.join(folder, name + ".key"))
        c.sni_callback = lambda s, sni, _: setattr(s, "said_sni", sni)
        if alpn:
            c.set_alpn_protocols(["http/1.1"])
        if wants:
            c.load_verify_locations(os.path.join(folder, "ca.crt"))
            c.verify_mode = ssl.CERT_REQUIRED
        if most:
            c.maximum_version = most
        return c
    return {9101: context("ca-up"), 9102: context("ca-expired"), 9103: context("stranger-up"), 9104: context("ca-up", wants=True),
            9105: context("ca-up", alpn=False)}


class Side:
    """A gateway with its laboratory, its upstream servers and its logs."""

    def __init__(self, name, lab, pki, hashes):
        self.hashes = hashes
        lab.pki = pki
        self.name, self.lab = name, lab
        self.logs = os.path.join(lab.dir, "logs")
        os.makedirs(self.logs)
        self.offsets = {}
        self.upstreams = Upstreams(lab, [*HTTP_PORTS, *PROXY_PORTS, *TCP_PORTS], upstream_contexts(pki))
        if HAS_HTTP2:
            lab.start("http2", [SYSTEM_PYTHON, os.path.join(SUPPORT, "h2_server.py"), f"0.0.0.0:{HTTP2_PORT}"], lab.upstream).wait_log("listening")

    def variables(self, certificates):
        return {"LOGS": self.logs, "UPSTREAM": Lab.upstream4(0), "CERTS": certificates, **self.hashes}

    def log(self, name):
        try:
            with open(os.path.join(self.logs, name + ".log"), errors="replace") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def play(self, case, port):
        self.upstreams.take()
        if case.http2 is not None:
            return None, self.play_http2(case, port)
        wire = None
        try:
            wire = Wire(self.lab, case.port or port, case)
        except Ended as e:
            return None, {"responses": [], "end": e.how, "tls": "no handshake"}
        except OSError as e:
            return None, {"responses": [], "end": f"no connection: {e}", "tls": None}
        wire.play(case.steps)
        return wire, wire.seen


    def play_http2(self, case, port):
        """What the client saw, in the words of a Wire."""
        p = self.lab.client.run([SYSTEM_PYTHON, os.path.join(SUPPORT, "h2_client.py"), "10.77.1.1", str(case.port or port)],
                                input=json.dumps(case.http2).encode(), timeout=60)
        seen = {"responses": [], "end": None, "tls": None}
        for r in json.loads(p.stdout):
            ends = [f"{k} {r[k]}" for k in ("reset", "goaway") if r[k] is not None]
            seen["responses"].append({"line": f"HTTP/2 {r['status']}" + "".join(f" after {i}" for i in r["interim"]), "headers": [f"{n}: {v}" for n, v in r["headers"]],
                                      "body": r["body"].encode("latin-1"), "trailers": [f"{n}: {v}" for n, v in r["trailers"]], "cut": None})
            seen["end"] = " ".join(ends) or "open"
        return seen


class Gateways:
    def __init__(self, names):
        self.sides = []
        certificates = None
        try:
            envoy = Lab(hugepages=False, upstreams=1)
            for interface, v4 in (("ingress", Lab.INGRESS4), ("egress", Lab.EGRESS4)):
                envoy.gateway.ip("addr", "add", v4 + "/24", "dev", interface)
            hashes = make_pki(envoy.dir)
            self.envoy = Side("envoy", envoy, envoy.dir, hashes)
            self.sides.append(self.envoy)
            certificates = envoy.dir
            for name, dns in (("one", ["one.test"]), ("two", ["*.two.test"]), ("other", ["other.test"])):
                envoy.make_certificate(name, dns)
            path = envoy.write("envoy.json", load(names, self.envoy.variables(certificates)))
            p = envoy.start("envoy", [ENVOY, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "20",
                                      "-l", "info"], envoy.gateway)
            millrace = Lab(memory_mb=256, upstreams=1)
            self.millrace = Side("millrace", millrace, envoy.dir, hashes)
            self.sides.append(self.millrace)
            millrace.start_gateway(load(names, self.millrace.variables(certificates)))
            p.wait_log("starting main dispatch loop")
            p.wait_log("all dependencies initialized. starting workers")
        except BaseException:
            self.close()
            raise

    def close(self):
        for side in self.sides:
            side.upstreams.close()
            side.lab.close()

    def compare(self, cases, port):
        """Plays the cases on both sides at once, each side in order; yields (case, envoy's view, millrace's view)."""
        for case in cases:
            views = [None, None]

            def work(i):
                views[i] = self.sides[i].play(case, port)
            threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self._settle([w for w, _ in views])
            out = []
            for side, (wire, seen) in zip(self.sides, views):
                if wire is not None:
                    wire.close()
                seen["upstream"] = side.upstreams.take()
                out.append(seen)
            yield case, out[0], out[1]

    @staticmethod
    def _settle(wires):
        """Whether the connections stay open: when one side closes, the other one has time to do so too; a close is not always announced."""
        if any(w is None for w in wires):
            for w in wires:
                if w is not None:
                    w.settle(0.3)
            return
        said = any(line.lower().replace(" ", "") == "connection:close" for w in wires for r in w.seen["responses"] for line in r["headers"])
        ends = [w.settle(2.0 if said else 0.04) for w in wires]
        if ends[0] != ends[1]:
            for w, end in zip(wires, ends):
                if end.startswith("open"):
                    w.settle(2.0)

    def logs(self, name, timeout=3.0):
        """Both logs, once both have as many lines or time is up."""
        end = time.monotonic() + timeout
        while True:
            a, b = (s.log(name) for s in self.sides)
            if (len(a) == len(b) and time.monotonic() > end - timeout + 0.3) or time.monotonic() > end:
                return a, b
            time.sleep(0.05)
