"""What scanners think of the gateway's TLS: sslscan and testssl.sh, no finding above low. Part of `--peers`: skipped without them."""
import json
import os
import shutil

import pytest

import lab as laboratory
from conftest import Gateway, end_gateway, host_route
from lab import bootstrap, hcm, listener, tls_socket
from pki import Authority

PORT = 443


@pytest.fixture(scope="module")
def gateway():
    lab = laboratory.Lab(device="af_packet", upstreams=1)
    try:
        ca = Authority(lab.dir, "ca")
        ec, rsa = ca.issue("scan.test", ["DNS:scan.test"]), ca.issue("scan-rsa", ["DNS:scan.test"], key="rsa")
        lab.ca = ca.crt
        socket = tls_socket(*ec, alpn=["h2", "http/1.1"])
        socket["typed_config"]["common_tls_context"]["tls_certificates"].append(
            {"certificate_chain": {"filename": rsa[0]}, "private_key": {"filename": rsa[1]}})
        h = hcm([{"name": "v", "domains": ["*"], "routes": [host_route("scanned")]}])
        lab.start_gateway(bootstrap([listener("scan", PORT, [{"filters": [h], "transport_socket": socket}])], []))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    yield g
    end_gateway(g)


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"NO {program}: nothing is scanned; run scripts/setup --peers")


def test_sslscan(gateway):
    need("sslscan")
    p = gateway.lab.client.run(["sslscan", "--no-colour", "--sni-name=scan.test", f"{gateway.lab.INGRESS4}:{PORT}"], timeout=300)
    out = p.stdout.decode()
    for protocol, state in (("SSLv2", "disabled"), ("SSLv3", "disabled"), ("TLSv1.0", "disabled"), ("TLSv1.1", "disabled"), ("TLSv1.2", "enabled"),
                            ("TLSv1.3", "enabled")):
        assert any(line.split() == [protocol, state] for line in out.splitlines()), (protocol, out)
    # Debian's sslscan cannot speak compression itself; testssl.sh below looks for it.
    assert "Session renegotiation not supported" in out and "Compression enabled" not in out, out
    assert "vulnerable to heartbleed" not in out.replace("not vulnerable to heartbleed", "")
    accepted = [line.split() for line in out.splitlines() if line.startswith(("Preferred", "Accepted"))]
    assert accepted and all(int(w[2]) >= 128 for w in accepted)
    names = " ".join(w[4] for w in accepted)
    for weak in ("RC4", "3DES", "CBC", "NULL", "EXP", "MD5", "ADH"):
        assert weak not in names, names


def test_testssl(gateway):
    """Every check of protocols, ciphers, forward secrecy and known holes; what it says of the certificate of a test CA is left out."""
    need("testssl")
    out = os.path.join(gateway.lab.dir, "testssl.json")
    gateway.lab.client.run(["testssl", "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none", "--add-ca", gateway.lab.ca, "--ip", gateway.lab.INGRESS4,
                            "-p", "-s", "-f", "-U", "-P", "--jsonfile", out, f"scan.test:{PORT}"], check=False, timeout=900,
                           env={**os.environ, "TERM": "dumb", "OPENSSL_TIMEOUT": "10", "CONNECT_TIMEOUT": "10"})
    with open(out) as f:
        findings = json.load(f)
    assert len(findings) > 40, findings
    bad = [f"{x['id']}: {x['severity']}: {x['finding']}" for x in findings if x["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert not bad, "\n".join(bad)
