"""Client certificates on listeners: optional, required, judged by chain, revocation list, names and hashes; what upstreams are told of them
(x-forwarded-client-cert, all modes), routes that ask for them, alerts and counters; several certificates, OCSP staples, ticket keys.
With openssl s_client, curl and Python's ssl."""
import json
import os
import re
import ssl
import urllib.parse

import pytest

import lab as laboratory
from conftest import PY, Gateway, end_gateway, until
from lab import bootstrap, cluster, hcm, listener
from pki import Authority, certificate_hash, openssl, spki_hash
from raw_http import RawHttp

DOWN = laboratory.TYPES["tls"]
OPTIONAL, REQUIRED, REVOKED, SPIFFE, HASH, UNTRUSTED = 443, 444, 445, 446, 447, 448
FORWARD_ONLY, APPEND, SET, ALWAYS, SANITIZE = 451, 452, 453, 454, 455
BOTH, STAPLE, MUST_STAPLE, KEYS = 461, 462, 463, 464
ALL_DETAILS = {"subject": True, "cert": True, "chain": True, "dns": True, "uri": True}


class Pki:
    def __init__(self, folder):
        self.ca, self.other = Authority(folder, "ca"), Authority(folder, "stranger")
        self.server = self.ca.issue("server", ["DNS:gateway.test", "URI:spiffe://td/ns/edge/sa/gateway"])
        self.server_rsa = self.ca.issue("server-rsa", ["DNS:gateway.test"], key="rsa")
        self.good = self.ca.issue("good", ["URI:spiffe://td/ns/a/sa/b", "DNS:client.test", "DNS:more.test"])
        self.elsewhere = self.ca.issue("elsewhere", ["URI:spiffe://other/ns/a/sa/b"])
        self.expired = self.ca.issue("expired", ["URI:spiffe://td/ns/a/sa/old"], days=-1)
        self.stranger = self.other.issue("leaf", ["URI:spiffe://td/ns/a/sa/b"])
        self.revoked = self.ca.issue("revoked", ["URI:spiffe://td/ns/a/sa/r"])
        self.crl = self.ca.revoke("revoked")
        self.staple, self.old_staple = self.ocsp(folder, "staple", 7), self.ocsp(folder, "old", -1)
        self.keys = [self.random(folder, f"key{i}") for i in range(3)]

    @staticmethod
    def random(folder, name):
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(os.urandom(80))
        return path

    def ocsp(self, folder, name, days):
        """A response of the CA for the server's certificate, good for so many days."""
        out = os.path.join(folder, name + ".ocsp")
        serial = openssl("x509", "-in", self.server[0], "-noout", "-serial").decode().split("=")[1].strip()
        index = os.path.join(folder, name + ".index")
        with open(index, "w") as f:
            f.write(f"V\t400101000000Z\t\t{serial}\tunknown\t/O=Millrace/CN=server\n")
        request = os.path.join(folder, name + ".req")
        openssl("ocsp", "-issuer", self.ca.crt, "-cert", self.server[0], "-reqout", request, "-no_nonce")
        openssl("ocsp", "-index", index, "-CA", self.ca.crt, "-rsigner", self.ca.crt, "-rkey", self.ca.key, "-reqin", request, "-respout", out,
                "-ndays", str(max(days, 1)))
        if days <= 0:
            # openssl makes none that is over: the times of the response are moved into the past. That its signature no longer fits is for clients to
            # see; who staples looks at times only.
            with open(out, "rb") as f:
                der = f.read()
            times = list(re.finditer(rb"\x18\x0f(\d{4})(?=\d{10}Z)", der))
            for m in times:
                der = der[:m.start(1)] + b"%04d" % (int(m[1]) - 10) + der[m.end(1):]
            with open(out, "wb") as f:
                f.write(der)
        return out


def tls(pki, context=None, require=None, certificates=None, common=None, **extra):
    c = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": certificates or [pair(pki.server)], **(common or {})}
    if context is not None:
        c["validation_context"] = context
    if require is not None:
        extra["require_client_certificate"] = require
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": DOWN, "common_tls_context": c, **extra}}


def pair(files, **extra):
    return {"certificate_chain": {"filename": files[0]}, "private_key": {"filename": files[1]}, **extra}


def configuration(lab, pki):
    ca = {"trusted_ca": {"filename": pki.ca.crt}}
    u = lab.upstream4(0)
    routes = [
        {"match": {"prefix": "/presented", "tls_context": {"presented": True}}, "direct_response": {"status": 200, "body": {"inline_string": "presented\n"}}},
        {"match": {"prefix": "/presented"}, "direct_response": {"status": 200, "body": {"inline_string": "none\n"}}},
        {"match": {"prefix": "/validated", "tls_context": {"validated": True}}, "direct_response": {"status": 200, "body": {"inline_string": "validated\n"}}},
        {"match": {"prefix": "/validated", "tls_context": {"validated": False}}, "direct_response": {"status": 200, "body": {"inline_string": "not validated\n"}}},
        {"match": {"prefix": "/hello"}, "direct_response": {"status": 200, "body": {"inline_string": "hello\n"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "py"}},
    ]

    def on(name, port, socket, **hcm_extra):
        h = hcm([{"name": "v", "domains": ["*"], "routes": routes}], route_name=name, stat_prefix=name, **hcm_extra)
        return listener(name, port, [{"filters": [h], "transport_socket": socket}])
    spiffe = {**ca, "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}]}
    mode = lambda m, **d: {"forward_client_cert_details": m, **({"set_current_client_cert_details": d} if d else {})}
    listeners = [
        on("optional", OPTIONAL, tls(pki, ca)), on("required", REQUIRED, tls(pki, ca, True)),
        on("revoked", REVOKED, tls(pki, {**ca, "crl": {"filename": pki.crl}}, True)), on("spiffe", SPIFFE, tls(pki, spiffe)),
        on("hash", HASH, tls(pki, {"verify_certificate_hash": [certificate_hash(pki.good[0])], "verify_certificate_spki": [spki_hash(pki.stranger[0])]})),
        on("untrusted", UNTRUSTED, tls(pki, {**ca, "trust_chain_verification": "ACCEPT_UNTRUSTED"})),
        on("forward_only", FORWARD_ONLY, tls(pki, ca), **mode("FORWARD_ONLY")),
        on("append", APPEND, tls(pki, ca), **mode("APPEND_FORWARD", subject=True, uri=True, dns=True)),
        on("set", SET, tls(pki, ca), **mode("SANITIZE_SET", **ALL_DETAILS)),
        on("always", ALWAYS, tls(pki, ca), **mode("ALWAYS_FORWARD_ONLY")), on("sanitize", SANITIZE, tls(pki, ca), **mode("SANITIZE")),
        on("both", BOTH, tls(pki, certificates=[pair(pki.server_rsa), pair(pki.server)])),
        on("staple", STAPLE, tls(pki, certificates=[pair(pki.server, ocsp_staple={"filename": pki.staple})])),
        on("must_staple", MUST_STAPLE, tls(pki, certificates=[pair(pki.server, ocsp_staple={"filename": pki.old_staple})], ocsp_staple_policy="MUST_STAPLE")),
        on("keys", KEYS, tls(pki, session_ticket_keys={"keys": [{"filename": pki.keys[0]}]})),
    ]
    return bootstrap(listeners, [cluster("py", [(u, PY)])])


@pytest.fixture(scope="module")
def gateway():
    import sys
    lab = laboratory.Lab(device="af_packet", upstreams=1)
    try:
        lab.pki = Pki(lab.dir)
        python = lab.start("upstream", [sys.executable, os.path.join(laboratory.ROOT, "tests/support/upstream_server.py"), f"0.0.0.0:{PY}", f"[::]:{PY}"],
                           lab.upstream)
        python.wait_log("listening")
        lab.start_gateway(configuration(lab, lab.pki))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    yield g
    end_gateway(g)


def context(gateway, shown=None, version=None, **limits):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(gateway.lab.pki.ca.crt)
    if shown is not None:
        c.load_cert_chain(*shown)
    if version is not None:
        c.minimum_version = c.maximum_version = version
    return c


def connect(gateway, port, shown=None, version=None):
    return RawHttp(context(gateway, shown, version).wrap_socket(gateway.lab.connect(port), server_hostname="gateway.test"))


def ask(gateway, port, target, shown=None, version=None, **request):
    with connect(gateway, port, shown, version) as c:
        return c.request(target, **request).response(request.get("method", "GET"))


def counter(gateway, name, what):
    return gateway.counters().get(("listener", name, what), 0)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
IDS = ["1.2", "1.3"]


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@pytest.mark.parametrize("name,port,shown", [
    ("optional", OPTIONAL, None), ("optional", OPTIONAL, "good"), ("required", REQUIRED, "good"), ("revoked", REVOKED, "good"), ("spiffe", SPIFFE, "good"),
    ("hash", HASH, "good"), ("hash", HASH, "stranger"), ("untrusted", UNTRUSTED, None), ("untrusted", UNTRUSTED, "stranger"), ("untrusted", UNTRUSTED, "good")])
def test_accepted(gateway, name, port, shown, version):
    before = counter(gateway, name, "ssl.no_certificate")
    assert ask(gateway, port, "/hello", shown and getattr(gateway.lab.pki, shown), version).body == b"hello\n"
    assert counter(gateway, name, "ssl.no_certificate") == before + (shown is None)


@pytest.mark.parametrize("version", VERSIONS, ids=IDS)
@pytest.mark.parametrize("name,port,shown,reason,alerts", [
    ("optional", OPTIONAL, "stranger", "fail_verify_error", "UNKNOWN_CA"), ("required", REQUIRED, None, "fail_verify_no_cert", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
    ("required", REQUIRED, "expired", "fail_verify_error", "CERTIFICATE_EXPIRED"), ("revoked", REVOKED, "revoked", "fail_verify_error", "CERTIFICATE_REVOKED"),
    ("spiffe", SPIFFE, "elsewhere", "fail_verify_san", "BAD_CERTIFICATE"), ("spiffe", SPIFFE, None, "fail_verify_no_cert", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
    ("hash", HASH, "elsewhere", "fail_verify_cert_hash", "BAD_CERTIFICATE|UNKNOWN_CA")])
def test_refused(gateway, name, port, shown, reason, alerts, version):
    before = counter(gateway, name, "ssl." + reason)
    with pytest.raises(ssl.SSLError) as e:
        ask(gateway, port, "/hello", shown and getattr(gateway.lab.pki, shown), version)
    assert re.search(alerts, str(e.value).upper().replace(" ", "_")), e.value
    until(lambda: counter(gateway, name, "ssl." + reason) == before + 1, what=f"ssl.{reason}")
    assert counter(gateway, name, "ssl.connection_error") == 0


def test_plain_bytes_are_a_connection_error(gateway):
    before = counter(gateway, "keys", "ssl.connection_error")
    with RawHttp(gateway.lab.connect(KEYS)) as c:
        c.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert c.wait_end() is not None
    until(lambda: counter(gateway, "keys", "ssl.connection_error") == before + 1)


# ---- routes -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("port,shown,presented,validated", [
    (OPTIONAL, None, b"none\n", b"not validated\n"), (OPTIONAL, "good", b"presented\n", b"validated\n"),
    (UNTRUSTED, "stranger", b"presented\n", b"not validated\n"), (UNTRUSTED, "good", b"presented\n", b"validated\n")])
def test_routes_by_certificate(gateway, port, shown, presented, validated):
    shown = shown and getattr(gateway.lab.pki, shown)
    assert ask(gateway, port, "/presented", shown).body == presented
    assert ask(gateway, port, "/validated", shown).body == validated


# ---- x-forwarded-client-cert -----------------------------------------------------------------------------------------------------------
def seen(gateway, port, shown=None, sent=("By=evil;Hash=0",)):
    """The values of the field that the endpoint got, in order."""
    r = ask(gateway, port, "/request", shown and getattr(gateway.lab.pki, shown), headers=[("x-forwarded-client-cert", v) for v in sent])
    assert r.status == 200
    return [v for n, v in json.loads(r.body)["headers"] if n.lower() == "x-forwarded-client-cert"]


def fingerprint(gateway, shown):
    return certificate_hash(getattr(gateway.lab.pki, shown)[0]).replace(":", "").lower()


def test_xfcc_sanitize(gateway):
    assert seen(gateway, SANITIZE, "good") == [] and seen(gateway, SANITIZE) == []


def test_xfcc_forward_only(gateway):
    assert seen(gateway, FORWARD_ONLY, "good") == ["By=evil;Hash=0"]
    assert seen(gateway, FORWARD_ONLY) == []


def test_xfcc_always_forward_only(gateway):
    assert seen(gateway, ALWAYS, "good") == ["By=evil;Hash=0"] and seen(gateway, ALWAYS) == ["By=evil;Hash=0"]


def test_xfcc_append(gateway):
    own = ("By=spiffe://td/ns/edge/sa/gateway;Hash=" + fingerprint(gateway, "good") +
           ';Subject="CN=good,O=Millrace";URI=spiffe://td/ns/a/sa/b;DNS=client.test;DNS=more.test')
    assert seen(gateway, APPEND, "good") == ["By=evil;Hash=0," + own]
    assert seen(gateway, APPEND, "good", sent=()) == [own]
    assert seen(gateway, APPEND) == []


def test_xfcc_set(gateway):
    value, = seen(gateway, SET, "good")
    parts = dict(p.split("=", 1) for p in value.split(";"))
    assert list(parts) == ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"]
    assert parts["Hash"] == fingerprint(gateway, "good") and parts["Subject"] == '"CN=good,O=Millrace"'
    pem = urllib.parse.unquote(parts["Cert"].strip('"'))
    with open(gateway.lab.pki.good[0]) as f:
        assert pem.split() == f.read().split() and parts["Chain"].startswith(parts["Cert"][:-1])  # the CA too, where the client sends it


# ---- several certificates, staples, tickets ------------------------------------------------------------------------------------------
def s_client(gateway, port, *args, text=b""):
    p = gateway.lab.client.run(["openssl", "s_client", "-connect", f"{gateway.lab.INGRESS4}:{port}", "-servername", "gateway.test", *args], input=text,
                               check=False)
    return p.returncode, (p.stdout + p.stderr).decode(errors="replace")


@pytest.mark.parametrize("args,kind", [
    (["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256"], "server"), (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "server-rsa"),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "server"), (["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "server-rsa")])
def test_rsa_and_ecdsa_side_by_side(gateway, args, kind):
    code, out = s_client(gateway, BOTH, *args)
    assert re.search(r"subject=.*CN = " + kind + "$", out, re.M), out[:2000]


def test_ocsp_staple(gateway):
    code, out = s_client(gateway, STAPLE, "-status", "-CAfile", gateway.lab.pki.ca.crt)
    assert "OCSP Response Status: successful" in out and "Cert Status: good" in out
    assert counter(gateway, "staple", "ssl.ocsp_staple_responses") >= 1
    code, out = s_client(gateway, OPTIONAL, "-status")
    assert "OCSP response: no response sent" in out
    assert counter(gateway, "optional", "ssl.ocsp_staple_omitted") >= 1


def test_must_staple_with_an_expired_response_refuses(gateway):
    code, out = s_client(gateway, MUST_STAPLE, "-status")
    assert "no peer certificate available" in out
    assert counter(gateway, "must_staple", "ssl.ocsp_staple_failed") >= 1
    # Who does not ask for a staple is served (Envoy: the policy binds clients that can take one).
    assert ask(gateway, MUST_STAPLE, "/hello").body == b"hello\n"


def resumes(gateway, session, write=False):
    code, out = s_client(gateway, KEYS, "-tls1_2", "-sess_out" if write else "-sess_in", session, "-ign_eof",
                         text=b"GET /hello HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
    assert "hello" in out
    return "Reused, TLSv1.2" in out


def with_keys(gateway, *keys):
    lab = gateway.lab
    for one in configuration(lab, lab.pki)["static_resources"]["listeners"]:
        if one["name"] == "keys":
            changed = one
    changed["filter_chains"][0]["transport_socket"]["typed_config"]["session_ticket_keys"] = {"keys": [{"filename": k} for k in keys]}
    path = lab.write("keys.json", {"resources": [{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **changed}]})
    lab.millctl("apply", "-f", path)
    lab.wait_in_force()


def test_ticket_keys_rotate(gateway):
    """A ticket lives as long as its key is in the list, wherever it stands there; over restarts of the data plane as well."""
    lab = gateway.lab
    one, two, three = lab.pki.keys
    session = os.path.join(lab.dir, "session")
    assert not resumes(gateway, session, write=True)
    assert resumes(gateway, session)
    with_keys(gateway, two, one)
    assert resumes(gateway, session)
    with_keys(gateway, two, three)
    assert not resumes(gateway, session)
    with_keys(gateway, three, two, one)
    assert resumes(gateway, session)


# ---- what nobody may do -------------------------------------------------------------------------------------------------------------------
def typed(gateway, version, *lines):
    """What s_client shows when these lines are typed into it one after the other ("R" renegotiates, "K" updates keys)."""
    typing = "; ".join(f"sleep 0.4; printf '{line}'" for line in lines)
    p = gateway.lab.client.run(["sh", "-c", f"({typing}; sleep 1) | openssl s_client -connect {gateway.lab.INGRESS4}:{OPTIONAL} -servername gateway.test {version}"],
                               check=False)
    return (p.stdout + p.stderr).decode(errors="replace")


REQUEST = "GET /hello HTTP/1.1\\r\\nhost: t\\r\\nconnection: close\\r\\n\\r\\n"


def test_renegotiation_is_refused(gateway):
    out = typed(gateway, "-tls1_2", "R\\n", REQUEST)
    assert "RENEGOTIATING" in out and "no renegotiation" in out and "hello" not in out, out[-1500:]
    gateway_serves(gateway)


@pytest.mark.parametrize("command", ["k", "K"], ids=["update", "update and asked for one"])
def test_key_update_is_answered(gateway, command):
    out = typed(gateway, "-tls1_3", command + "\\n", REQUEST)
    assert "KEYUPDATE" in out and "hello" in out, out[-1500:]


def gateway_serves(gateway):
    assert ask(gateway, OPTIONAL, "/hello").body == b"hello\n"
