"""Responses compressed by gzip, brotli and zstd: curl --compressed, streams that are read while they come, wrk and h2load, counters."""
import hashlib
import os
import socket
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import Gateway, end_gateway, until  # noqa: E402
from decode import decode  # noqa: E402
from raw_http import RawHttp  # noqa: E402

HOST, ALL, GZIP, TLS, TEXT = "10.77.1.1", 80, 81, 443, 8005
COMPRESSION = "type.googleapis.com/envoy.extensions.compression"
CODINGS = {"gzip": "gzip.compressor.v3.Gzip", "br": "brotli.compressor.v3.Brotli", "zstd": "zstd.compressor.v3.Zstd"}


def text(size):
    """Lines that differ, so that a piece that is missing shows."""
    lines, n, i = [], 0, 0
    while n < size:
        lines.append(f'{{"line": {i}, "of": "a document", "sum": {i * 2654435761 % 1000003}}}\n')
        n += len(lines[-1])
        i += 1
    return "".join(lines)[:size].encode()


class Origin:
    """Documents by size, as text/plain; /chunked?SIZE in chunks, /part?SIZE as 206, /events one event for each post() of the test."""

    def __init__(self, lab):
        self.go, self.listener = threading.Semaphore(0), lab.upstream.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((lab.upstream4(0), TEXT))
        self.listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        try:
            with s, s.makefile("rb") as f:
                while line := f.readline():
                    method, target, _ = line.decode().split()
                    fields = []
                    while (field := f.readline().strip()):
                        fields.append(field.decode())
                    path, _, size = target.partition("?")
                    body = text(int(size or 1000))
                    head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                    if path == "/events":
                        s.sendall(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
                        for i in range(int(size)):
                            self.go.acquire()
                            event = b"data: %d\n\n" % i
                            s.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                        s.sendall(b"0\r\n\r\n")
                    elif path == "/chunked":
                        s.sendall(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
                        for at in range(0, len(body), 5000):
                            piece = body[at:at + 5000]
                            s.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                        s.sendall(b"0\r\n\r\n")
                    elif path == "/cut":
                        s.sendall(head.encode() + b"content-length: %d\r\n\r\n" % (2 * len(body)) + body)
                        return
                    elif path == "/fields":
                        body = "\n".join(fields).encode()
                        s.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                    else:
                        if path == "/part":
                            head = f"HTTP/1.1 206 Partial Content\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-{len(body) - 1}/99999\r\n"
                        s.sendall(f"{head}etag: \"v1\"\r\ncontent-length: {len(body)}\r\n\r\n".encode() + (b"" if method == "HEAD" else body))
        except OSError:
            pass


def compressor(coding, **direction):
    return {"name": coding, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor", "response_direction_config": direction,
        "compressor_library": {"name": "text", "typed_config": {"@type": f"{COMPRESSION}.{CODINGS[coding]}"}}}}


def configuration(lab, crt):
    def hcm(name, *filters):
        h = L.hcm([{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "text", "timeout": "60s"}}]}],
                  access_log=os.path.join(lab.dir, "access.log"), route_name=name, stat_prefix=name)
        h["typed_config"]["http_filters"][:0] = filters
        return h
    every = [compressor(c) for c in CODINGS]
    return L.bootstrap([
        L.listener("all", ALL, hcm("all", *every)),
        L.listener("gzip", GZIP, hcm("gzip", compressor("gzip", remove_accept_encoding_header=True))),
        L.listener("tls", TLS, [{"filters": [hcm("tls", *every)], "transport_socket": L.tls_socket(*crt, alpn=["h2", "http/1.1"])}]),
    ], [L.cluster("text", [(lab.upstream4(0), TEXT)])])


@pytest.fixture(scope="module")
def gateway():
    lab = L.Lab(device="af_packet")
    try:
        origin = Origin(lab)
        lab.start_gateway(dict(configuration(lab, lab.make_certificate("c", ["c.test"])), dataplane=lab.dataplane_section()))
    except BaseException:
        lab.close()
        raise
    g = Gateway(lab)
    g.origin = origin
    yield g
    origin.listener.close()
    end_gateway(g)


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge", "tls"])
@pytest.mark.parametrize("coding", list(CODINGS))
def test_curl_reads_it(gateway, coding, version):
    """curl decodes what it gets; the size on the wire is the smaller one."""
    where = ["-k", f"https://{HOST}:{TLS}"] if version == "tls" else [version, f"http://{HOST}:{ALL}"]
    for path, size in (("/d", 100), ("/d", 70_000), ("/chunked", 70_000), ("/d", 3_000_000)):
        p = gateway.lab.curl(*where[:-1], "--compressed", "-H", f"accept-encoding: {coding}", "-D", "/dev/stderr", "-w", "%{stderr}wire=%{size_download}",
                             f"{where[-1]}{path}?{size}")
        assert p.stdout == text(size)
        head = p.stderr.decode().lower()
        assert f"content-encoding: {coding}\r\n" in head and "vary: accept-encoding\r\n" in head and "etag" not in head and "content-length" not in head, head
        if size > 1000:
            assert int(head.rsplit("wire=", 1)[1]) * 2 < size


def test_curl_without_decoding_sees_the_same_document(gateway):
    p = gateway.lab.curl("-H", "accept-encoding: zstd", f"http://{HOST}:{ALL}/d?50000")
    assert decode("zstd", p.stdout) == (text(50_000), True)


def test_who_does_not_ask_gets_it_as_it_is(gateway):
    p = gateway.lab.curl("-i", f"http://{HOST}:{ALL}/d?2000").stdout.decode()
    head, body = p.split("\r\n\r\n", 1)
    assert body.encode() == text(2000) and "content-length: 2000" in head and "vary: Accept-Encoding" in head and 'etag: "v1"' in head


@pytest.mark.parametrize("coding", list(CODINGS))
def test_events_are_read_as_they_come(gateway, coding):
    with RawHttp(gateway.lab.connect(ALL)) as c:
        c.send(f"GET /events?10 HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n")
        seen = b""
        for i in range(10):
            gateway.origin.go.release()
            expected = b"".join(b"data: %d\n\n" % k for k in range(i + 1))
            end = time.monotonic() + 5
            while True:
                head, _, chunks = seen.partition(b"\r\n\r\n")
                coded = b""
                while b"\r\n" in chunks:
                    size, _, rest = chunks.partition(b"\r\n")
                    n = int(size, 16)
                    if len(rest) < n + 2 or n == 0:
                        break
                    coded, chunks = coded + rest[:n], rest[n + 2:]
                if coded and decode(coding, coded)[0] == expected:
                    break
                assert time.monotonic() < end, f"event {i} is held back: {coded!r}"
                seen += c.sock.recv(65536)
        while not seen.endswith(b"0\r\n\r\n"):
            seen += c.sock.recv(65536)
        assert f"content-encoding: {coding}".encode() in seen


def test_one_connection_of_all_kinds(gateway):
    """HEAD, parts, small and large ones, one after the other; a part is compressed as Envoy does it."""
    with RawHttp(gateway.lab.connect(ALL)) as c:
        for method, path, size in (("GET", "/d", 20_000), ("HEAD", "/d", 20_000), ("GET", "/d", 10), ("GET", "/part", 5_000), ("GET", "/chunked", 9_999), ("GET", "/d", 30)):
            r = c.request(f"{path}?{size}", method=method, headers=[("accept-encoding", "br")]).response(method)
            if method == "HEAD":
                assert (r.status, r.header("content-length"), r.header("content-encoding"), r.header("vary")) == (200, "20000", None, "Accept-Encoding")
            elif size < 30:
                assert (r.body, r.header("content-encoding")) == (text(size), None)
            else:
                assert r.header("content-encoding") == "br" and decode("br", r.body) == (text(size), True)


def test_accept_encoding_is_removed(gateway):
    seen = lambda port: gateway.lab.curl("-H", "accept-encoding: gzip", f"http://{HOST}:{port}/fields").stdout.decode()
    assert "accept-encoding: gzip" in seen(ALL) and "accept-encoding" not in seen(GZIP)


def test_a_cut_body_is_an_error_to_the_client(gateway):
    for version in ("--http1.1", "--http2-prior-knowledge"):
        p = gateway.lab.curl(version, "--compressed", f"http://{HOST}:{ALL}/cut?20000", check=False)
        assert p.returncode != 0 and p.stdout != text(20_000) * 2


def test_many_at_once(gateway):
    """Sixteen large documents at once, with every coding and over both versions, while short requests go on."""
    want, wrong = hashlib.sha256(text(4_000_000)).hexdigest(), []

    def one(i):
        p = gateway.lab.curl(["--http1.1", "--http2-prior-knowledge"][i % 2], "--compressed", "-H", "accept-encoding: " + list(CODINGS)[i % 3], f"http://{HOST}:{ALL}/d?4000000")
        if hashlib.sha256(p.stdout).hexdigest() != want:
            wrong.append(i)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for _ in range(20):
        gateway.lab.curl("--compressed", "-o", "/dev/null", f"http://{HOST}:{GZIP}/d?100", timeout=20)
    for t in threads:
        t.join()
    assert not wrong


def test_load(gateway):
    out = gateway.lab.client.run(["wrk", "-t1", "-c20", "-d2", "-H", "accept-encoding: gzip", f"http://{HOST}:{ALL}/d?3000"], timeout=60).stdout.decode()
    assert "Requests/sec" in out and "Non-2xx" not in out and "Socket errors" not in out, out
    out = gateway.lab.client.run(["h2load", "-n2000", "-c4", "-m10", "-H", "accept-encoding: br", f"http://{HOST}:{ALL}/d?3000"], timeout=120).stdout.decode()
    assert "2000 succeeded, 0 failed, 0 errored" in out, out


def test_nghttp_decodes(gateway):
    out = gateway.lab.client.run(["nghttp", "-v", "-H", "accept-encoding: gzip", f"http://{HOST}:{ALL}/d?5000"], timeout=60).stdout.decode("latin-1")
    assert "content-encoding: gzip" in out and text(5000).decode()[:200] in out.replace("\r", ""), out[:2000]  # nghttp inflates gzip


def test_counters(gateway):
    gateway.lab.curl("--compressed", "-o", "/dev/null", f"http://{HOST}:{GZIP}/d?10000")
    counted = lambda name: gateway.counters().get(("compressor", "text.gzip", name), 0)
    until(lambda: counted("response.compressed") > 0, what="the counter")
    assert counted("response.total_uncompressed_bytes") >= 10_000 > 0
    assert 0 < counted("response.total_compressed_bytes") < counted("response.total_uncompressed_bytes")
    assert counted("header_compressor_used") > 0 and counted("response.content_length_too_small") > 0
    until(lambda: counted("response.active") == 0, what="no response being compressed")


def test_nothing_is_left(gateway):
    gateway.wait_idle()
