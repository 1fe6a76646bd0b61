"""TLS towards endpoints: what is spoken (versions, SNI, ALPN, client certificate, sessions), what is refused (chains, names, hashes, revoked,
silent and plain endpoints) and what the client is told; against nginx and openssl s_server."""
import json
import os
import re
import subprocess
import threading
import time

import pytest

import lab as laboratory
from conftest import Gateway, end_gateway, tcp_proxy, until
from lab import bootstrap, cluster, hcm, listener
from pki import Authority, certificate_hash, spki_hash

UPSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP, TUNNEL, TUNNEL_BAD = 80, 90, 91
PLAIN, GOOD, EXPIRED, STRANGER, WANTS, WANTS13, OLD, SILENT, H2, CLOSES, ONE_TICKET = 8080, 8441, 8442, 8443, 8444, 8445, 8446, 8447, 8448, 8449, 8450


def socket_to(context=None, common=None, **upstream):
    """A cluster's transport_socket. `context`: its validation_context."""
    common = dict(common or {})
    if context is not None:
        common["validation_context"] = context
    return {"transport_socket": {"name": "envoy.transport_sockets.tls",
                                 "typed_config": {"@type": UPSTREAM_TLS, "common_tls_context": common, **upstream}}}


def named(options, context):
    """Of the request's host. `options`: UpstreamHttpProtocolOptions beside auto_sni."""
    return {**socket_to(context), "typed_extension_protocol_options": {HTTP_OPTIONS: {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {"http_protocol_options": {}},
        "upstream_http_protocol_options": {"auto_sni": True, **options}}}}


class Pki:
    def __init__(self, folder):
        self.ca, self.other = Authority(folder, "ca"), Authority(folder, "stranger")
        self.good = self.ca.issue("good", ["DNS:good.test", "DNS:*.wild.test", "URI:spiffe://td/ns/a/sa/b", "IP:10.77.2.10"])
        self.expired = self.ca.issue("expired", ["DNS:good.test"], days=-1)
        self.stranger = self.other.issue("leaf", ["DNS:good.test"])
        self.client = self.ca.issue("client", ["URI:spiffe://td/ns/a/sa/gateway"])
        self.client_rsa = self.ca.issue("client-rsa", key="rsa")
        self.revoked = self.ca.issue("revoked", ["DNS:good.test"])
        self.crl = self.ca.revoke("revoked", "good")


def clusters(lab, pki):
    u = lab.upstream4(0)
    ca = {"trusted_ca": {"filename": pki.ca.crt}}
    names = lambda **m: {**ca, "match_typed_subject_alt_names": [{"san_type": k, "matcher": v} for k, v in m.items()]}
    certificate = lambda pair: {"tls_certificates": [{"certificate_chain": {"filename": pair[0]}, "private_key": {"filename": pair[1]}}]}
    version = lambda least, most: {"tls_params": {"tls_minimum_protocol_version": least, "tls_maximum_protocol_version": most}}
    to = {
        # what works
        "unverified": (STRANGER, socket_to()),
        "verified": (GOOD, socket_to(ca, sni="good.test")),
        "v13": (GOOD, socket_to(ca, version("TLSv1_3", "TLSv1_3"), sni="good.test")),
        "v12": (GOOD, socket_to(ca, version("TLSv1_2", "TLSv1_2"), sni="good.test")),
        "cipher": (GOOD, socket_to(ca, {"tls_params": {"cipher_suites": ["ECDHE-ECDSA-AES256-GCM-SHA384"], "ecdh_curves": ["P-256"]}})),
        "alpn": (GOOD, socket_to(ca, {"alpn_protocols": ["http/1.1"]})),
        "dns": (GOOD, socket_to(names(DNS={"exact": "x.wild.test"}))),
        "uri": (GOOD, socket_to(names(URI={"prefix": "spiffe://td/ns/a/"}))),
        "ip": (GOOD, socket_to(names(IP_ADDRESS={"exact": "10.77.2.10"}))),
        "auto-san": (GOOD, socket_to(ca, sni="y.wild.test", auto_sni_san_validation=True)),
        "host-sni": (GOOD, socket_to(ca, auto_host_sni=True, auto_sni_san_validation=True)),
        "hash": (STRANGER, socket_to({"verify_certificate_hash": [certificate_hash(pki.stranger[0])]})),
        "spki": (STRANGER, socket_to({"verify_certificate_spki": [spki_hash(pki.stranger[0])]})),
        "untrusted-accepted": (STRANGER, socket_to({**ca, "trust_chain_verification": "ACCEPT_UNTRUSTED"})),
        "expired-allowed": (EXPIRED, socket_to({**ca, "allow_expired_certificate": True})),
        "client": (WANTS, socket_to(ca, certificate(pki.client))),
        "client13": (WANTS13, socket_to(ca, {**certificate(pki.client_rsa), **version("TLSv1_3", "TLSv1_3")})),
        "no-sessions": (GOOD, socket_to(ca, max_session_keys=0)),
        "sds": (GOOD, socket_to(common={"validation_context_sds_secret_config": {"name": "ca"}})),
        "combined": (GOOD, socket_to(common={"combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "good.test"}}]},
            "validation_context_sds_secret_config": {"name": "ca"}}})),
        "auto-sni": (GOOD, named({}, ca)),
        "auto-sni-checked": (GOOD, named({"auto_san_validation": True}, ca)),
        "auto-sni-header": (GOOD, named({"auto_san_validation": True, "override_auto_sni_header": "X-Name"}, ca)),
        # what does not
        "system-roots": (GOOD, socket_to({"system_root_certs": {}}, sni="good.test")),
        "wrong-ca": (STRANGER, socket_to(ca)),
        "expired": (EXPIRED, socket_to(ca)),
        "wrong-name": (GOOD, socket_to(names(DNS={"exact": "other.test"}))),
        "combined-wrong": (GOOD, socket_to(common={"combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "other.test"}}]},
            "validation_context_sds_secret_config": {"name": "ca"}}})),
        "wrong-sni": (GOOD, socket_to(ca, sni="other.test", auto_sni_san_validation=True)),
        "wrong-hash": (GOOD, socket_to({"verify_certificate_hash": [certificate_hash(pki.stranger[0])]})),
        "revoked": (GOOD, socket_to({**ca, "crl": {"filename": pki.crl}})),
        "no-client": (WANTS, socket_to(ca)),
        "too-old": (OLD, socket_to()),
        "not-tls": (PLAIN, socket_to()),
        "closes": (CLOSES, socket_to()),
        "silent": (SILENT, {**socket_to(), "connect_timeout": "0.6s"}),
        "plain": (PLAIN, {}),
    }
    out = [cluster(name, [(u, port)], **extra) for name, (port, extra) in to.items()]
    for c in out:
        if c["name"] == "host-sni":
            c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] = "good.test"
    return out


LINE = '%REQ(USER-AGENT)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n'


def configuration(lab, pki, change=lambda config: config):
    log = os.path.join(lab.dir, "access.log")
    all_clusters = clusters(lab, pki)
    routes = [{"match": {"prefix": f"/{c['name']}/"}, "route": {"cluster": c["name"], "prefix_rewrite": "/", "timeout": "20s"}} for c in all_clusters]
    h = hcm([{"name": "v", "domains": ["*"], "routes": routes}])
    h["typed_config"]["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": {
        "@type": laboratory.TYPES["file_log"], "path": log, "log_format": {"text_format_source": {"inline_string": LINE}}}}]
    config = bootstrap([listener("plain", HTTP, h), listener("tunnel", TUNNEL, tcp_proxy("tunnel", "verified", log)),
                        listener("tunnel_bad", TUNNEL_BAD, tcp_proxy("tunnel_bad", "wrong-ca", log))], all_clusters)
    config["static_resources"]["secrets"] = [{"name": "ca", "validation_context": {"trusted_ca": {"filename": pki.ca.crt}}}]
    return change(config)


def start_endpoints(lab, pki):
    u = lab.upstream4(0)
    facts = '"$ssl_protocol|$ssl_cipher|$ssl_server_name|$ssl_alpn_protocol|$ssl_client_s_dn|$ssl_session_reused|$connection\\n"'
    root = os.path.join(lab.dir, "www")
    os.makedirs(root)
    with open(os.path.join(root, "big"), "wb") as f:
        f.write(os.urandom(8 << 20))
    tls = lambda port, pair, more="": f"""
  server {{ listen {u}:{port} ssl; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]}; ssl_protocols TLSv1.2 TLSv1.3;
            root {root}; ssl_session_cache shared:s{port}:1m; keepalive_timeout 60; location = /facts {{ return 200 {facts}; }} {more} }}"""
    wants = f"ssl_client_certificate {pki.ca.crt}; ssl_verify_client on;"
    lab.start_nginx("nginx", tls(GOOD, pki.good) + tls(EXPIRED, pki.expired) + tls(STRANGER, pki.stranger) + tls(WANTS, pki.good, wants)
                    + tls(WANTS13, pki.good, wants) + f"""
  server {{ listen {u}:{PLAIN}; return 200 "plain\\n"; }}""")
    server = lambda name, port, *args: lab.start(name, ["openssl", "s_server", "-accept", f"{u}:{port}", "-cert", pki.good[0], "-key", pki.good[1],
                                                        "-www", *args], lab.upstream)
    server("old", OLD, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    # Accepts and says nothing; accepts and hangs up.
    lab.silent = lab.upstream.socket()
    lab.silent.bind((u, SILENT))
    lab.silent.listen(8)
    lab.closer = lab.upstream.socket()
    lab.closer.bind((u, CLOSES))
    lab.closer.listen(8)

    def close_all():
        while True:
            try:
                c, _ = lab.closer.accept()
            except OSError:
                return
            c.recv(4096)
            c.close()
    threading.Thread(target=close_all, daemon=True).start()


@pytest.fixture(scope="module")
def gateway():
    lab = laboratory.Lab(device="af_packet", upstreams=1)
    try:
        lab.pki = Pki(lab.dir)
        start_endpoints(lab, lab.pki)
        lab.start_gateway(configuration(lab, lab.pki))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    g.tls_upstreams = True
    yield g
    lab.silent.close()
    lab.closer.close()
    end_gateway(g)


def facts(gateway, name):
    """What nginx says of the connection: protocol, cipher, SNI, ALPN, client's subject, session reused, connection number."""
    r = gateway.ask(f"/{name}/facts")
    assert r.status == 200, (r.status, r.body)
    return dict(zip(("protocol", "cipher", "sni", "alpn", "client", "reused", "connection"), r.body.decode().strip().split("|")))


def log_of(gateway, tag):
    def found():
        return [x for x in gateway.lab.access_log() if x.startswith(tag + " ")]
    return dict(zip(("tag", "code", "flags", "details", "reason"), until(found, what="the access log's line")[0].split(" ")))


def cluster_counter(gateway, name, counter):
    return gateway.counters().get(("cluster", name, counter), 0)


# ---- what works -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name,protocol", [("unverified", "TLSv1.2"), ("verified", "TLSv1.2"), ("v12", "TLSv1.2"), ("v13", "TLSv1.3")])
def test_versions_and_the_default_is_1_2(gateway, name, protocol):
    assert facts(gateway, name)["protocol"] == protocol


@pytest.mark.parametrize("name", ["dns", "uri", "ip", "auto-san", "host-sni", "hash", "spki", "untrusted-accepted", "expired-allowed", "sds", "combined",
                                  "no-sessions"])
def test_certificates_that_pass(gateway, name):
    assert facts(gateway, name)["protocol"].startswith("TLSv1.")


def test_plain_clusters_stay_plain(gateway):
    assert gateway.ask("/plain/").body == b"plain\n"


@pytest.mark.parametrize("name,sni", [("verified", "good.test"), ("auto-san", "y.wild.test"), ("host-sni", "good.test"), ("unverified", "")])
def test_server_name(gateway, name, sni):
    assert facts(gateway, name)["sni"] == sni


def test_every_host_has_connections_of_its_own(gateway):
    """auto_sni: what one host's connection agreed on with the endpoint is never another's."""
    before = cluster_counter(gateway, "auto-sni", "upstream_cx_total")
    with gateway.connect() as c:
        seen = {}
        for host in ("good.test", "other.test:80", "good.test", "10.77.2.10", "other.test", "good.test:8080", "[::1]", "10.77.2.10:80"):
            r = c.request("/auto-sni/facts", host=host).response()
            fields = r.body.decode().strip().split("|")
            seen.setdefault(fields[2], set()).add(fields[-1])
    assert set(seen) == {"good.test", "other.test", ""} and all(len(s) == 1 for s in seen.values()), seen
    assert cluster_counter(gateway, "auto-sni", "upstream_cx_total") - before <= 3


@pytest.mark.parametrize("name,host,header,status", [
    ("auto-sni-checked", "good.test", None, 200), ("auto-sni-checked", "a.wild.test:443", None, 200), ("auto-sni-checked", "other.test", None, 503),
    ("auto-sni-checked", "10.77.2.10", None, 503), ("auto-sni-checked", "[::1]:80", None, 503), ("auto-sni-header", "other.test", "good.test", 200),
    ("auto-sni-header", "good.test", "other.test", 503), ("auto-sni-header", "good.test", "", 200), ("auto-sni-header", "good.test", None, 200)])
def test_the_certificate_must_name_the_host(gateway, name, host, header, status):
    with gateway.connect() as c:
        more = [] if header is None else [("x-name", header)]
        for _ in range(2):
            assert c.request(f"/{name}/facts", host=host, headers=more).response().status == status


def test_roots_of_the_machine_do_not_know_our_authority(gateway):
    r = gateway.ask("/system-roots/facts")
    assert r.status == 503 and cluster_counter(gateway, "system-roots", "ssl.fail_verify_error") > 0


def test_cipher_and_curve(gateway):
    assert facts(gateway, "cipher")["cipher"] == "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.mark.parametrize("name,alpn", [("alpn", "http/1.1"), ("verified", "http/1.1")])
def test_alpn(gateway, name, alpn):
    assert facts(gateway, name)["alpn"] == alpn


@pytest.mark.parametrize("name,subject", [("client", "CN=client,O=Millrace"), ("client13", "CN=client-rsa,O=Millrace")])
def test_client_certificate(gateway, name, subject):
    assert facts(gateway, name)["client"] == subject


@pytest.mark.parametrize("name", ["v12", "v13"])
def test_bodies_both_ways(gateway, name):
    with open(os.path.join(gateway.lab.dir, "www", "big"), "rb") as f:
        want = f.read()
    with gateway.connect() as c:
        for _ in range(2):
            r = c.request(f"/{name}/big").response()
            assert r.status == 200 and r.body == want


def test_connections_are_kept(gateway):
    before = cluster_counter(gateway, "v13", "ssl.handshake")
    with gateway.connect() as c:
        seen = {c.request("/v13/facts").response().body.split(b"|")[-1] for _ in range(20)}
    assert len(seen) == 1 and cluster_counter(gateway, "v13", "ssl.handshake") <= before + 1


@pytest.mark.parametrize("name,reused", [("v12", True), ("v13", True), ("no-sessions", False)])
def test_sessions_are_resumed(gateway, name, reused):
    facts(gateway, name)
    before = cluster_counter(gateway, name, "ssl.session_reused")
    new = []
    for _ in range(3):  # an endpoint that drains loses its idle connections: the next request needs a new one
        gateway.lab.millctl("endpoint", "drain", name, f"{gateway.lab.upstream4(0)}:{GOOD}")
        gateway.lab.millctl("endpoint", "undrain", name, f"{gateway.lab.upstream4(0)}:{GOOD}")
        new.append(facts(gateway, name)["reused"])
    assert new == (["r"] * 3 if reused else ["."] * 3)
    assert (cluster_counter(gateway, name, "ssl.session_reused") >= before + 3) == reused


def test_tcp_proxy_speaks_tls_too(gateway):
    with gateway.connect(TUNNEL) as c:
        r = c.request("/facts").response()
        assert r.status == 200 and b"good.test" in r.body


# ---- what does not ------------------------------------------------------------------------------------------------------------------------
VERIFY = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_"
X509 = VERIFY + "X509_verify_cert:_certificate_verification_error_at_depth_"
SANS = "SAN_matcher,_certificate_SANs_are_[good.test,_*.wild.test,_spiffe://td/ns/a/sa/b,_10.77.2.10]:TLS_error_end"


@pytest.mark.parametrize("name,counter,reason", [
    ("wrong-ca", "fail_verify_error", X509 + "0:_unable_to_get_local_issuer_certificate:TLS_error_end"),
    ("expired", "fail_verify_error", X509 + "0:_certificate_has_expired:TLS_error_end"),
    ("revoked", "fail_verify_error", X509 + "0:_certificate_revocation_check_against_provided_CRLs_failed:_certificate_revoked:TLS_error_end"),
    ("wrong-name", "fail_verify_san", VERIFY + SANS), ("combined-wrong", "fail_verify_san", VERIFY + SANS),
    ("wrong-sni", "fail_verify_san", VERIFY + SANS),
    ("wrong-hash", "fail_verify_cert_hash", VERIFY + "cert_hash_and_spki:TLS_error_end"),
    ("too-old", "connection_error", "TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"),
    ("not-tls", "connection_error", "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"),
    ("closes", None, ""),
])
def test_failed_handshakes(gateway, name, counter, reason):
    before = cluster_counter(gateway, name, "ssl." + str(counter))
    failed = cluster_counter(gateway, name, "upstream_cx_connect_fail")
    tag = gateway.tag()
    r = gateway.ask(f"/{name}/", headers=[("user-agent", tag)])
    assert (r.status, r.body) == (503, b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure")
    line = log_of(gateway, tag)
    middle = "remote_connection_failure" + ("|" + reason if reason else "")
    assert line["details"] == "upstream_reset_before_response_started{" + middle + "}"
    assert (line["code"], line["flags"], line["reason"]) == ("503", "UF", reason or "-")
    if counter:
        assert cluster_counter(gateway, name, "ssl." + counter) == before + 1
    assert cluster_counter(gateway, name, "upstream_cx_connect_fail") == failed + 1
    assert cluster_counter(gateway, name, "upstream_cx_active") == 0


def test_a_client_certificate_that_is_missing(gateway):
    """TLS 1.2: nginx finishes the handshake and answers 400; the gateway passes it on."""
    assert gateway.ask("/no-client/").status == 400


def test_the_handshake_is_part_of_the_connect_timeout(gateway):
    began = time.monotonic()
    tag = gateway.tag()
    r = gateway.ask("/silent/", headers=[("user-agent", tag)])
    assert r.status == 503 and 0.5 < time.monotonic() - began < 5
    assert r.body == b"upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
    assert log_of(gateway, tag)["flags"] == "UF" and cluster_counter(gateway, "silent", "upstream_cx_connect_timeout") >= 1


def test_tcp_proxy_resets_when_the_handshake_fails(gateway):
    with gateway.connect(TUNNEL_BAD) as c:
        c.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert c.wait_end() is not None and c.buffer == b""


# ---- changes while traffic flows --------------------------------------------------------------------------------------------------------------
def test_a_change_of_the_context_takes_new_connections(gateway):
    lab = gateway.lab
    one = facts(gateway, "v12")["connection"]
    assert facts(gateway, "v12")["connection"] == one
    for c in clusters(lab, lab.pki):
        if c["name"] == "v12":
            changed = dict(c)
    changed["transport_socket"]["typed_config"]["sni"] = "changed.wild.test"
    path = lab.write("changed.json", {"resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", **changed}]})
    lab.millctl("apply", "-f", path)
    lab.wait_in_force()
    after = facts(gateway, "v12")
    assert after["sni"] == "changed.wild.test" and after["connection"] != one


def test_a_secret_changes_live(gateway):
    """The CA of `sds` is exchanged by another: its next connection fails; back again, it works."""
    lab = gateway.lab
    facts(gateway, "sds")
    for crt, status in ((lab.pki.other.crt, 503), (lab.pki.ca.crt, 200)):
        path = lab.write("secret.json", {"resources": [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "ca",
                                                        "validation_context": {"trusted_ca": {"filename": crt}}}]})
        lab.millctl("apply", "-f", path)
        lab.wait_in_force()
        assert gateway.ask("/sds/facts").status == status


def test_what_get_shows_can_be_applied(gateway):
    lab = gateway.lab
    text = lab.millctl("get", "cluster", "client", "-o", "json")
    assert "UpstreamTlsContext" in text
    names = lab.millctl("list", "secrets")
    assert "cluster client/tls_certificates[0]" in names and "cluster client/validation_context" in names


@pytest.mark.parametrize("count", [50])
def test_many_connections_at_once(gateway, count):
    """Each on a connection of its own, all handshakes at the same time."""
    lab = gateway.lab
    url = f"http://{lab.INGRESS4}/v13/facts"
    p = lab.client.run(["curl", "-sS", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", str(count), "-w", "%{http_code}\n",
                        *["-o", "/dev/null", url] * count], timeout=60)
    assert p.stdout.decode().split() == ["200"] * count
