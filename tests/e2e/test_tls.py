"""TLS: versions, certificate and chain by SNI, passthrough, ALPN, resumption, a ClientHello in many segments, large bodies; against OpenSSL's
s_client, curl and Python's ssl."""
import hashlib
import os
import re
import socket
import ssl

import pytest

from conftest import HTTP, MIB, TLS, TLS_ONLY, RawHttp
from upstream_server import pattern, pattern_sha256

GATEWAY4, GATEWAY6 = "10.77.1.1", "fd77:1::1"


def s_client(gateway, *args, port=TLS, text=b"", v6=False):
    """openssl s_client with `text` on its input; its output."""
    address = f"[{GATEWAY6}]:{port}" if v6 else f"{GATEWAY4}:{port}"
    p = gateway.lab.client.run(["openssl", "s_client", "-connect", address, "-ign_eof" if text else "-no_ign_eof", *args], input=text, check=False)
    return p.returncode, (p.stdout + p.stderr).decode(errors="replace")


REQUEST = b"GET /chain HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"


def context(verify=None, **limits):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = verify is not None
    c.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if verify:
        c.load_verify_locations(verify)
    for name, value in limits.items():
        setattr(c, name, value)
    return c


def connect_tls(gateway, name, port=TLS, v6=False, ctx=None, **kwargs):
    return RawHttp((ctx or context()).wrap_socket(gateway.lab.connect(port, v6, 15), server_hostname=name, **kwargs))


def certificate_name(output):
    return re.search(r"subject=CN = (\S+)", output)[1]


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions(gateway, version, v6):
    flag = "-tls" + version.replace(".", "_")
    code, out = s_client(gateway, flag, "-servername", "exact.test", text=REQUEST, v6=v6)
    assert f"TLSv{version}" in out and "chain_exact" in out and "Verify return code" in out


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_verifies_the_certificate(gateway, version):
    crt = gateway.lab.certificates["exact"][0]
    p = gateway.lab.curl("--cacert", crt, "--tls-max", version, "--tlsv" + version, "--resolve", f"exact.test:443:{GATEWAY4}",
                         "-w", "%{ssl_verify_result} %{http_version}", "https://exact.test/chain")
    assert p.stdout == b"chain_exact\n0 1.1"


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(gateway, flag):
    code, out = s_client(gateway, flag, "-cipher", "ALL:@SECLEVEL=0", "-servername", "exact.test")
    assert code != 0 and "BEGIN CERTIFICATE" not in out
    gateway.still_serves()


@pytest.mark.parametrize("name,certificate,chain", [
    ("exact.test", "exact.test", "chain_exact"), ("EXACT.test", "exact.test", "chain_exact"), ("a.wild.test", "*.wild.test", "chain_wildcard"),
    ("a.b.wild.test", "*.wild.test", "chain_wildcard"), ("other.test", "default.test", "chain_default"),
    ("wild.test", "default.test", "chain_default"), (None, "default.test", "chain_default")])
def test_chain_by_server_name(gateway, name, certificate, chain):
    code, out = s_client(gateway, *(["-servername", name] if name else ["-noservername"]), text=REQUEST)
    assert certificate_name(out) == certificate and chain in out


@pytest.mark.parametrize("name", ["other.test", None])
def test_no_chain_closes(gateway, name):
    key = ("listener", "tls_only", "no_filter_chain_match")
    before = gateway.counters().get(key, 0)
    code, out = s_client(gateway, *(["-servername", name] if name else ["-noservername"]), port=TLS_ONLY)
    assert code != 0 and "no peer certificate available" in out
    assert gateway.counters()[key] == before + 1


def test_plain_text_to_a_tls_listener_is_closed(gateway):
    with gateway.connect(TLS_ONLY) as c:
        c.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n")
        assert c.wait_end() is not None and c.buffer == b""


def test_passthrough_shows_the_upstreams_certificate(gateway):
    theirs = open(gateway.lab.certificates["upstream"][0]).read()
    code, out = s_client(gateway, "-servername", "pass.test", "-alpn", "http/1.1", text=REQUEST)
    assert "the upstream itself" in out and certificate_name(out) == "pass.test"
    assert "".join(theirs.split()) in "".join(out.split())


def test_passthrough_with_curl(gateway):
    p = gateway.lab.curl("--cacert", gateway.lab.certificates["upstream"][0], "--resolve", f"pass.test:443:{GATEWAY4}", "https://pass.test/")
    assert p.stdout == b"the upstream itself\n"


@pytest.mark.parametrize("offer,chosen", [("http/1.1", "http/1.1"), ("h2,http/1.1", "http/1.1"), (None, None)])
def test_alpn(gateway, offer, chosen):
    code, out = s_client(gateway, "-servername", "exact.test", *(["-alpn", offer] if offer else []), text=REQUEST)
    assert (f"ALPN protocol: {chosen}" if chosen else "No ALPN negotiated") in out and "chain_exact" in out


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_resumption_with_tickets(gateway, version):
    session = os.path.join(gateway.lab.dir, "session" + version)
    flag = "-tls" + version.replace(".", "_")
    before = gateway.counters().get(("listener", "tls", "ssl.session_reused"), 0)
    code, out = s_client(gateway, flag, "-servername", "exact.test", "-sess_out", session, text=REQUEST)
    assert "New, TLSv" in out and "chain_exact" in out
    for _ in range(2):
        code, out = s_client(gateway, flag, "-servername", "exact.test", "-sess_in", session, text=REQUEST)
        assert "Reused, TLSv" in out and "chain_exact" in out
    assert gateway.counters()[("listener", "tls", "ssl.session_reused")] == before + 2


def test_a_session_of_another_name_is_not_resumed_there(gateway):
    ctx = context(maximum_version=ssl.TLSVersion.TLSv1_2)
    with connect_tls(gateway, "exact.test", ctx=ctx) as c:
        assert c.request("/chain").response().body == b"chain_exact\n"
        session = c.sock.session
    with connect_tls(gateway, "other.test", ctx=ctx, session=session) as c:
        assert c.request("/chain").response().body == b"chain_default\n"  # whatever happens to the session: the chain is the name's


@pytest.mark.parametrize("piece", [1, 7, 100, 5000])
@pytest.mark.parametrize("name,expected", [("exact.test", b"chain_exact\n"), ("pass.test", b"the upstream itself\n")])
def test_client_hello_in_many_segments(gateway, name, expected, piece):
    """The hello (with 4 KB of ALPN names in the last case) comes byte by byte; the rest of the handshake as it likes."""
    ctx = context()
    if piece == 5000:
        ctx.set_alpn_protocols(["http/1.1"] + ["x" * 250 + str(i) for i in range(16)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ctx.wrap_bio(incoming, outgoing, server_hostname=name)
    sock = gateway.lab.connect(TLS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                flush()
                data = sock.recv(65536)
                assert data, "closed"
                incoming.write(data)

    def flush():
        data = outgoing.read()
        for i in range(0, len(data), piece):
            sock.sendall(data[i:i + piece])
    with sock:
        exchange(tls.do_handshake)
        tls.write(REQUEST)
        flush()
        answer = b""
        while expected not in answer:
            answer += exchange(lambda: tls.read(65536))
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_200_mb_up_and_down(gateway, version):
    path = gateway.lab.big_file
    with open(path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    limit = ["-k", "--tls-max", version, "--resolve", f"exact.test:443:{GATEWAY4}"]
    if version == "1.3":
        p = gateway.lab.curl(*limit, "-T", path, "-X", "POST", "-H", "expect:", "https://exact.test/sha256")
        assert p.stdout.decode() == digest
    out = os.path.join(gateway.lab.dir, "tls-down")
    size = (200 if version == "1.3" else 20) * MIB
    gateway.lab.curl(*limit, "-o", out, f"https://exact.test/bytes/{size}")
    with open(out, "rb") as f:
        assert hashlib.file_digest(f, "sha256").hexdigest() == pattern_sha256(size)
    os.unlink(out)


def test_keep_alive_pipelining_and_close_notify(gateway):
    with connect_tls(gateway, "exact.test") as c:
        c.send("".join(f"GET /bytes/{n} HTTP/1.1\r\nhost: t\r\n\r\n" for n in (1, 20000, 3)))
        assert [len(c.response().body) for _ in range(3)] == [1, 20000, 3]
        r = c.request("/who", headers=[("connection", "close")]).response()
        assert r.status == 200 and c.at_end() and c.ended == "fin"  # an end without close_notify would raise SSLEOFError


def test_client_that_leaves_in_the_handshake(gateway):
    for cut in (1, 5, 50, 200):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context().wrap_bio(incoming, outgoing, server_hostname="exact.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        for end in (lambda s: s.close(), lambda s: RawHttp(s).reset()):
            s = gateway.lab.connect(TLS)
            s.sendall(hello[:cut])
            end(s)
            s = gateway.lab.connect(TLS)
            s.sendall(hello)
            s.recv(100)
            end(s)
    gateway.wait_idle()


def test_response_cut_behind_tls_does_not_look_whole(gateway):
    with connect_tls(gateway, "exact.test") as c:
        try:
            r = c.request("/close?at=body").response()
            assert not r.complete and r.body == pattern(0, 500)
        except ssl.SSLError:
            pass


def test_access_log_and_headers_of_a_tls_request(gateway):
    tag = gateway.tag()
    with connect_tls(gateway, "exact.test") as c:
        r = c.request("/request", headers=[("user-agent", tag)]).response()
        assert b'["x-forwarded-proto", "https"]' in r.body
    assert gateway.log(tag)["code"] == "200"
    counters = gateway.counters()
    assert counters[("listener", "tls", "ssl.handshake")] > 0
