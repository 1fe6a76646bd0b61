"""Malformed and hostile byte streams: the answer Envoy would give or a closed connection, a counted reason, and the next
good request works.

Three tables: bytes on a plain HTTP listener, bytes on a TLS listener, and raw segments from the client's interface.
The upstream keeps every byte that it gets: whatever was sent, only whole, well-formed requests may arrive there, and
none that was smuggled.
"""
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

HTTP, TLS = 8080, 8443
CLOSED = "closed"   # how a connection ended: FIN or RST came
NO_PREFIX = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


class Recorder(threading.Thread):
    """An upstream that reads as strictly as anybody could: it keeps what came, and answers each whole request with 200."""

    REQUEST_LINE = re.compile(rb"(GET|POST|PUT|HEAD|OPTIONS|DELETE|PATCH|TRACE|[A-Z]+) (/[!-~]*|\*) HTTP/1\.1")
    FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[^\r\n\0]*")

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.listener = lab.upstream.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((lab.upstream4(0), 8001))
        self.listener.listen(128)
        self.requests, self.faults, self.lock = [], [], threading.Lock()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def fault(self, what, data):
        with self.lock:
            self.faults.append((what, data[:300]))

    def serve(self, s):
        buffer = b""
        with s:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = self.read(s)
                    if not data:
                        if buffer:
                            self.fault("connection ended in a head", buffer)
                        return
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                lines = head.split(b"\r\n")
                if not self.REQUEST_LINE.fullmatch(lines[0]):
                    return self.fault("request line", lines[0])
                for line in lines[1:]:
                    if not self.FIELD.fullmatch(line):
                        return self.fault("header line", line)
                names = [x.split(b":")[0].lower() for x in lines[1:]]
                framing = [x for x in lines[1:] if x.split(b":")[0].lower() in (b"content-length", b"transfer-encoding")]
                if len(framing) > 1 or names.count(b"host") != 1:
                    return self.fault("framing or host", head)
                body = b""
                if framing and framing[0].lower().startswith(b"content-length"):
                    n = int(framing[0].split(b":")[1])
                    while len(buffer) < n:
                        data = self.read(s)
                        if not data:  # a request that was given up; what is left over goes nowhere
                            return
                        buffer += data
                    body, buffer = buffer[:n], buffer[n:]
                elif framing:
                    while not (m := re.match(rb"((?:[0-9a-f]+\r\n.*?\r\n)*?)0\r\n(?:[^\r\n]+\r\n)*\r\n", buffer, re.S)):
                        data = self.read(s)
                        if not data:
                            return
                        buffer += data
                    body, buffer = m[1], buffer[m.end():]
                with self.lock:
                    self.requests.append((lines[0], body))
                try:
                    s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" +
                              (b"" if lines[0].startswith(b"HEAD") else b"ok\n"))
                except OSError:
                    return

    @staticmethod
    def read(s):
        try:
            return s.recv(65536)
        except OSError:
            return b""


def get(extra=b"", target=b"/", line=b"\r\n", version=b"HTTP/1.1", host=b"host: x"):
    return b"GET " + target + b" " + version + line + host + line + extra + line


def post(headers, body=b"", path=b"/"):
    return b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n" + body


CHUNKED = b"transfer-encoding: chunked\r\n"
# name, bytes (a list: with pauses of seconds between), the answers in their order, where it is counted (None: anywhere).
# The answers are those of Envoy 1.40, except where lib/http/README.md says that Millrace is stricter: bare CR, folded lines,
# what stands behind chunk data, chunk extensions without end, two hosts (Envoy repairs these and passes them on), garbage that
# fills the head (431 there).
STREAMS = [
    # smuggling shapes
    ("CL and TE", post(b"content-length: 6\r\n" + CHUNKED, b"0\r\n\r\n" + NO_PREFIX), [400], "bad_framing"),
    ("TE and CL", post(CHUNKED + b"content-length: 4\r\n", b"5c\r\n" + NO_PREFIX + b"\r\n0\r\n\r\n"), [400], "bad_framing"),
    ("CL and CL that differ", post(b"content-length: 0\r\ncontent-length: 37\r\n", NO_PREFIX), [400], "bad_framing"),
    ("CL with a list", post(b"content-length: 3, 5\r\n", b"abcde"), [400], "bad_framing"),
    ("CL with a sign", post(b"content-length: +5\r\n", b"abcde"), [400], "bad_framing"),
    ("CL negative", post(b"content-length: -1\r\n", NO_PREFIX), [400], "bad_framing"),
    ("CL in hex", post(b"content-length: 0x25\r\n", NO_PREFIX), [400], "bad_framing"),
    ("CL with text", post(b"content-length: 5 five\r\n", b"abcde"), [400], "bad_framing"),
    ("CL empty", post(b"content-length:\r\n", NO_PREFIX), [400], "bad_framing"),
    ("CL beyond 64 bits", post(b"content-length: 99999999999999999999999\r\n", b"x"), [400], "bad_framing"),
    ("TE twice", post(CHUNKED + CHUNKED, b"0\r\n\r\n" + NO_PREFIX), [501], "bad_framing"),
    ("TE chunked and identity", post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n" + NO_PREFIX), [501],
     "bad_framing"),
    ("TE identity", post(b"transfer-encoding: identity\r\n", NO_PREFIX), [501], "bad_framing"),
    ("TE gzip, chunked", post(b"transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), [501], "bad_framing"),
    ("TE xchunked", post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n" + NO_PREFIX), [501], "bad_framing"),
    ("TE with a space before the colon", post(b"transfer-encoding : chunked\r\ncontent-length: 5\r\n", b"0\r\n\r\n" + NO_PREFIX),
     [400], "bad_header"),
    ("TE behind a fold", post(b"x: y\r\n transfer-encoding: chunked\r\n", b"0\r\n\r\n"), [400], "bad_header"),
    ("TE with a vertical tab", post(b"transfer-encoding: \x0bchunked\r\n", b"0\r\n\r\n" + NO_PREFIX), [400], None),
    ("TE behind a bare CR", post(b"x: y\rtransfer-encoding: chunked\r\n", b""), [400], "bad_header"),
    ("TE in HTTP/1.0", b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + NO_PREFIX, [426],
     "bad_version"),
    ("GET with a body that looks like a request", get(b"content-length: %d\r\n" % len(NO_PREFIX)) + NO_PREFIX, [200], None),
    # chunks
    ("chunk size of letters", post(CHUNKED, b"xyz\r\nabc\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk size empty", post(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk size negative", post(CHUNKED, b"-1\r\nabc\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk size with 0x", post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk size that overflows", post(CHUNKED, b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk longer than it says", post(CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk without its end", post(CHUNKED, b"3\r\nabc0\r\n\r\n"), [400], "bad_chunk"),
    ("chunk with bare LF", post(CHUNKED, b"3\nabc\n0\n\n"), [400], "bad_chunk"),
    ("chunk with bare CR", post(CHUNKED, b"3\rabc\r0\r\r"), [400], "bad_chunk"),
    ("chunk extension without end", post(CHUNKED, b"3;" + b"x" * 200_000), [400], "bad_chunk"),
    ("unfinished chunk", [post(CHUNKED, b"a\r\nabc"), 2.5], [408], "downstream_rq_idle_timeout"),
    ("trailer with NUL", post(CHUNKED, b"0\r\nx: a\0b\r\n\r\n"), [400], "bad_chunk"),
    ("trailers without end", post(CHUNKED, b"0\r\n" + b"x: y\r\n" * 30_000), [400, 431], None),
    # lines and characters
    ("bare LF everywhere", get(line=b"\n"), [200], None),
    ("bare LF behind the request line", b"GET / HTTP/1.1\nhost: x\r\n\r\n", [200], None),
    ("bare LF behind a header", b"GET / HTTP/1.1\r\nhost: x\n\r\n", [200], None),
    ("bare CR behind the request line", b"GET / HTTP/1.1\rhost: x\r\n\r\n", [400], "bad_header"),
    ("CR CR LF", b"GET / HTTP/1.1\r\r\nhost: x\r\n\r\n", [400], "bad_header"),
    ("NUL in a header's value", get(b"x-y: a\0b\r\n"), [400], "bad_header"),
    ("NUL in a header's name", get(b"x\0y: ab\r\n"), [400], "bad_header"),
    ("NUL in the target", get(target=b"/a\0b"), [400], "bad_header"),
    ("control character in a value", get(b"x-y: a\x01b\r\n"), [400], "bad_header"),
    ("DEL in a value", get(b"x-y: a\x7fb\r\n"), [400], "bad_header"),
    ("obs-fold", get(b"x-y: a\r\n b\r\n"), [400], "bad_header"),
    ("obs-fold with a tab", get(b"x-y: a\r\n\tb\r\n"), [400], "bad_header"),
    ("fold as the first header", b"GET / HTTP/1.1\r\n host: x\r\n\r\n", [400], "bad_header"),
    ("header without a colon", get(b"nonsense\r\n"), [400], "bad_header"),
    ("header with an empty name", get(b": value\r\n"), [400], "bad_header"),
    ("header name with a space", get(b"x y: value\r\n"), [400], "bad_header"),
    ("header name with a slash", get(b"x/y: value\r\n"), [400], "bad_header"),
    ("header name in UTF-8", get("x-ü: value\r\n".encode()), [400], "bad_header"),
    # request lines
    ("garbage", bytes(range(256)) * 4 + b"\r\n\r\n", [400], "bad_request_line"),
    ("garbage without an end", b"\xff" * 100_000, [400], "bad_request_line"),
    ("one word", b"GET\r\n\r\n", [400], "bad_request_line"),
    ("HTTP/0.9", b"GET /\r\n\r\n", [426], "bad_version"),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\nhost: x\r\n\r\n", [426], "bad_version"),
    ("HTTP/2.0 in the request line", get(version=b"HTTP/2.0"), [426], "bad_version"),
    ("HTTP/9.9", get(version=b"HTTP/9.9"), [426], "bad_version"),
    ("http in lower case", get(version=b"http/1.1"), [400], "bad_version"),
    ("version with words behind", get(version=b"HTTP/1.1 x"), [400], "bad_version"),
    ("two spaces", b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", [200], None),
    ("method with a bracket", b"G[T / HTTP/1.1\r\nhost: x\r\n\r\n", [400], "bad_request_line"),
    ("method of 70,000 letters", b"G" * 70_000 + b" / HTTP/1.1\r\nhost: x\r\n\r\n", [431], "headers_too_large"),
    ("not quite the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n\0\0\0\4\0\0\0\0\0", [400], "bad_request_line"),
    ("TLS on the plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), [400], "bad_request_line"),
    ("response instead of a request", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", [400], "bad_request_line"),
    ("empty lines, then a request", b"\r\n\r\n\r\n" + get(), [200], None),
    ("target that is no path", get(target=b"nowhere"), [400], None),
    ("asterisk with GET", get(target=b"*"), [400], None),
    ("empty fragment and bytes", get(target=b"/a#frag"), [400], None),
    ("high bytes in the target", get(target=b"/\xc3\xbc"), [400], None),
    ("absolute form", get(target=b"http://other.test/x"), [200], None),
    ("absolute form of another scheme", get(target=b"ftp://other.test/x"), [400], None),
    ("absolute form without host", get(target=b"http:///x"), [400], None),
    ("absolute form with user", get(target=b"http://user:pw@other.test/x"), [200], None),
    ("CONNECT", b"CONNECT other.test:443 HTTP/1.1\r\nhost: other.test:443\r\n\r\n", [404], None),
    ("CONNECT with a path", b"CONNECT /x HTTP/1.1\r\nhost: x\r\n\r\n", [400], None),
    ("upgrade that is not allowed", get(b"connection: upgrade\r\nupgrade: websocket\r\n"), [403], "upgrade_denied"),
    ("upgrade to h2c", get(b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"), [200],
     None),
    # hosts
    ("no host", b"GET / HTTP/1.1\r\n\r\n", [400], None),
    ("two hosts", get(b"host: y\r\n"), [400], None),
    ("host with a space", get(host=b"host: a b"), [400], None),
    ("host with a comma", get(host=b"host: a,b"), [200], None),
    ("host with a slash", get(host=b"host: a/b"), [400], None),
    # sizes
    ("head of 100 kB", get(b"x: " + b"y" * 100_000 + b"\r\n"), [431], "headers_too_large"),
    ("path of 100 kB", get(target=b"/" + b"y" * 100_000), [431], "headers_too_large"),
    ("101 headers", get(b"".join(b"x-%d: y\r\n" % i for i in range(101))), [431], "headers_too_large"),
    ("thousand headers in one packet", get(b"a:b\r\n" * 1000), [431], "headers_too_large"),
    ("head of 1 MB in small steps", [get(b"x: y")[:-2]] + [b"z" * 16_384] * 60, [431], "headers_too_large"),
    # time
    ("slow head", [b"GET / HTTP/1.1\r\nhost: x\r\n", 1.6], [408], "downstream_rq_header_timeout"),
    ("head letter by letter", [x for c in b"GET / HTTP/1.1\r\nhost: " for x in (bytes([c]), 0.1)], [408],
     "downstream_rq_header_timeout"),
    ("slow body", [post(b"content-length: 10\r\n", b"abc"), 2.5], [408], "downstream_rq_idle_timeout"),
    # pipelines: a good request in front gets its answer, what follows its own
    ("good, then garbage", get() + b"\0\1\2\3\r\n\r\n", [200, 400], "bad_request_line"),
    ("good, then smuggling", get() + post(b"content-length: 6\r\n" + CHUNKED, b"0\r\n\r\n" + NO_PREFIX), [200, 400],
     "bad_framing"),
]


def hello(sni=b"one.test", versions=b"\x03\x04\x03\x03", extensions=None, record=b"\x03\x01", session=32,
          ciphers=b"\x13\x01\x13\x02\xc0\x2b\xc0\x2f"):
    """A ClientHello in one record."""
    if extensions is None:
        name = struct.pack("!BH", 0, len(sni)) + sni
        extensions = struct.pack("!HHH", 0, len(name) + 2, len(name)) + name
        extensions += struct.pack("!HHB", 43, len(versions) + 1, len(versions)) + versions
        extensions += bytes.fromhex("000a00040002001d") + bytes.fromhex("000d00060004040308 04".replace(" ", ""))
        extensions += bytes.fromhex("003300260024001d0020") + bytes(range(1, 33))
    body = b"\x03\x03" + bytes(32) + bytes([session]) + bytes(session) + struct.pack("!H", len(ciphers)) + ciphers + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16" + record + struct.pack("!H", len(handshake)) + handshake


def records(handshake_bytes, size):
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(handshake_bytes[i:i + size])) + handshake_bytes[i:i + size]
                    for i in range(0, len(handshake_bytes), size))


# name, bytes, what must be counted (one of). Every one of these connections must end by itself, with an alert or without.
TLS_STREAMS = [
    ("empty connection that waits", [b"", 2.5]),
    ("one byte that waits", [b"\x16", 2.5]),
    ("hello cut in the record header", [hello()[:3], 2.5]),
    ("hello cut in the middle", [hello()[:60], 2.5]),
    ("hello byte by byte, never whole", [x for b in hello()[:12] for x in (bytes([b]), 0.2)]),
    ("plain HTTP on the TLS port", [get()]),
    ("garbage", [b"\xde\xad\xbe\xef" * 100]),
    ("record of an unknown type", [b"\x63" + hello()[1:]]),
    ("record of version 9.9", [hello(record=b"\x09\x09")]),
    ("empty record", [b"\x16\x03\x01\x00\x00" + b"\x17\x03\x03\x00\x00"]),
    ("record longer than allowed", [b"\x16\x03\x01\xff\xff" + bytes(70_000)]),
    ("hello of 1 MB", [records(b"\x01\x0f\xff\xff" + bytes(200_000), 16_384), 2.5]),
    ("hello that says more than its record", [b"\x16\x03\x01\x00\x40\x01\x00\x10\x00" + bytes(60), 2.5]),
    ("session id longer than 32", [hello(session=200)]),
    ("extensions that overrun", [hello(extensions=b"\0\0\xff\xff\0\0")]),
    ("name that overruns", [hello(extensions=struct.pack("!HHHBH", 0, 5, 3, 0, 900))]),
    ("no cipher suites", [hello(ciphers=b"")]),
    ("odd cipher suites", [hello(ciphers=b"\x13\x01\x13")]),
    ("versions nobody speaks", [hello(versions=b"\x03\x00\x02\x00")]),
    ("name that no chain has", [hello(sni=b"nobody.test")]),
    ("name of 300 letters", [hello(sni=b"a" * 300)]),
    ("name with NUL", [hello(sni=b"one\0.test")]),
    ("alert as the first record", [b"\x15\x03\x01\x00\x02\x02\x28"]),
    ("application data as the first record", [b"\x17\x03\x03\x00\x10" + bytes(16)]),
    ("good hello, then garbage", [hello(), 0.2, b"\x17\x03\x03\x00\x20" + b"\xaa" * 32]),
    ("good hello, then silence", [hello(), 2.5]),
    ("good hello twice", [hello() + hello()]),
    ("SSL 2 hello", [b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37)]),
]


def configuration(lab):
    crt, key = lab.make_certificate("one", ["one.test"])
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
    limits = {"request_headers_timeout": "1s", "stream_idle_timeout": "1.500s"}
    log = os.path.join(lab.dir, "access.log")
    return L.bootstrap(
        [L.listener("plain", HTTP, L.hcm(hosts, access_log=log, **limits)),
         L.listener("tls", TLS, [{
             "name": "one", "filter_chain_match": {"server_names": ["one.test"]}, "transport_socket": L.tls_socket(crt, key),
             "transport_socket_connect_timeout": "1s",
             "filters": [L.hcm(hosts, access_log=log, route_name="tls", stat_prefix="tls", **limits)]}], inspector=True,
                    listener_filters_timeout="1s")],
        [L.cluster("web", [(lab.upstream4(0), 8001)])])


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.recorder = Recorder(lab)
        lab.recorder.start()
        # Reassembly is off: a fragment is then dropped at once, with a reason of its own.
        lab.start_gateway(dict(configuration(lab), dataplane=lab.dataplane_section(limits={"fragments": 0})))
        lab.talk = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "-o", "json", "batch", "--keep-going"],
                                    stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, text=True)
        yield lab
        lab.talk.stdin.close()
        lab.talk.wait(20)
        assert not lab.recorder.faults
        assert lab.stop_gateway() == 0, lab.dataplane.log()[-3000:]


def ask(lab, line):
    lab.talk.stdin.write(line + "\n")
    lab.talk.stdin.flush()
    return json.loads(lab.talk.stdout.readline())["result"]


def counted(lab):
    """Every reason there is, by name: HTTP and TLS counters and packet drops."""
    out = {}
    for c in ask(lab, "stats --all")["counters"]:
        if c["scope"] not in ("cluster", "endpoint", "virtual_host", "port", "loader"):
            out[c["counter"]] = out.get(c["counter"], 0) + int(c["value"])
    for d in ask(lab, "drops --all")["drops"]:
        out[d["name"]] = int(d["count"])
    return out


REASONS = re.compile(r"bad_|too_large|denied|timeout|protocol_error|connection_error|fail_|no_filter_chain|non_relative|"
                     r"no_route|4xx|5xx|^tcp_|^ip_|^eth_|^icmp_")


def wait_counted(lab, before, name):
    end = time.monotonic() + 5
    while True:
        delta = {k: v - before.get(k, 0) for k, v in counted(lab).items()
                 if v > before.get(k, 0) and REASONS.search(k) and k != "eth_not_ours"}
        if (name in delta) if name else delta:
            return delta
        assert time.monotonic() < end, f"nothing was counted{' under ' + name if name else ''}: {delta}"
        time.sleep(0.05)


def play(s, steps):
    """Sends, and returns everything that came until the connection ended or was quiet for a second; and how it ended."""
    received, end = b"", None
    for step in steps:
        if not isinstance(step, bytes):
            quiet = time.monotonic() + step
            while end is None and time.monotonic() < quiet:
                if select.select([s], [], [], max(0, quiet - time.monotonic()))[0]:
                    data, end = read(s)
                    received += data
            continue
        try:
            s.sendall(step)
        except OSError:
            break
    while end is None:
        if not select.select([s], [], [], 1.0)[0]:
            return received, "open"
        data, end = read(s)
        received += data
    return received, end


def read(s):
    try:
        data = s.recv(65536)
        return data, None if data else CLOSED
    except OSError:
        return b"", CLOSED


def next_good_request_works(lab):
    with lab.connect(HTTP) as s:
        s.sendall(get(b"connection: close\r\n", target=b"/good"))
        answer = b""
        while data := s.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok\n"), answer


def nothing_smuggled(lab):
    with lab.recorder.lock:
        assert not lab.recorder.faults, lab.recorder.faults
        assert not [r for r in lab.recorder.requests if b"smuggled" in r[0]]


@pytest.mark.parametrize("case", STREAMS, ids=[c[0] for c in STREAMS])
def test_http_stream(lab, case):
    name, steps, expected, counter = case
    before = counted(lab)
    with lab.connect(HTTP) as s:
        received, end = play(s, steps if isinstance(steps, list) else [steps])
    statuses = [int(x) for x in re.findall(rb"(?:^|\n)HTTP/1\.1 (\d\d\d) [^\r\n]*\r\n", received)]
    if name == "trailers without end":
        assert statuses and statuses[-1] in expected
    else:
        assert statuses == expected, (received[:600], end)
    if expected[-1] != 200:
        wait_counted(lab, before, counter)
        if expected[-1] not in (403, 404, 431) or counter == "bad_framing":
            assert end == CLOSED, "the connection stayed open"
    nothing_smuggled(lab)
    next_good_request_works(lab)


@pytest.mark.parametrize("case", TLS_STREAMS, ids=[c[0] for c in TLS_STREAMS])
def test_tls_stream(lab, case):
    name, steps = case
    before = counted(lab)
    with lab.connect(TLS) as s:
        received, end = play(s, steps + [1.5])
    assert end == CLOSED, f"still open after {received[:100]}"
    wait_counted(lab, before, None)
    assert b"HTTP/1.1 200" not in received
    next_good_request_works(lab)
    p = lab.curl("-k", "--resolve", f"one.test:{TLS}:{lab.INGRESS4}", f"https://one.test:{TLS}/good")
    assert p.stdout == b"ok\n"


# --- segments no kernel would send ------------------------------------------------------------------------------------
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Wire:
    """The client's interface: sees every frame of one connection, and sends what it is told."""

    def __init__(self, lab):
        self.lab = lab
        self.sock = lab.client.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sock.bind(("c0", 3))
        self.sock.settimeout(2)
        next_good_request_works(lab)  # so that both sides know each other's address
        self.source = lab.client.run(["cat", "/sys/class/net/c0/address"]).stdout.decode().strip()
        neighbor = lab.client.run(["ip", "neigh", "show", lab.INGRESS4]).stdout.decode()
        gateway = re.search(r"lladdr (\S+)", neighbor)[1]
        self.ethernet = bytes.fromhex((gateway + self.source).replace(":", "")) + b"\x08\x00"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def ip(self, payload, protocol=6, length=None, header_length=5, version=4, fragment=0, bad_sum=False, source=None, ttl=64):
        total = 20 + len(payload) if length is None else length
        head = struct.pack("!BBHHHBBH4s4s", version << 4 | header_length, 0, total, 7, fragment, ttl, protocol, 0,
                           socket.inet_aton(source or self.lab.CLIENT4), socket.inet_aton(self.lab.INGRESS4))
        head = head[:10] + struct.pack("!H", checksum(head) ^ (0x5555 if bad_sum else 0)) + head[12:]
        return self.ethernet + head + payload

    def fragment6(self, offset, more, inner=6):
        payload = struct.pack("!BBHI", inner, 0, offset << 3 | more, 4711) + bytes(64)
        head = struct.pack("!IHBB", 6 << 28, len(payload), 44, 64) + socket.inet_pton(socket.AF_INET6, self.lab.CLIENT6)
        return self.ethernet[:12] + b"\x86\xdd" + head + socket.inet_pton(socket.AF_INET6, self.lab.INGRESS6) + payload

    def tcp(self, flags, port=HTTP, sport=33333, seq=1, ack=0, data=b"", offset=None, bad_sum=False, options=b"", **ip):
        words = 5 + len(options) // 4
        segment = struct.pack("!HHIIBBHHH", sport, port, seq % (1 << 32), ack % (1 << 32),
                              (words if offset is None else offset) << 4, flags, 4096, 0, 0) + options + data
        source = socket.inet_aton(ip.get("source") or self.lab.CLIENT4)
        pseudo = source + socket.inet_aton(self.lab.INGRESS4) + struct.pack("!BBH", 0, 6, len(segment))
        value = checksum(pseudo + segment) ^ (0x5555 if bad_sum else 0)
        return self.ip(segment[:16] + struct.pack("!H", value) + segment[18:], **ip)

    def send(self, frame):
        self.sock.send(frame.ljust(60, b"\0"))


def tcp_options(frame):
    """Of a TCP frame: (flags, seq, ack, payload length, timestamp value or None)."""
    ihl = (frame[14] & 15) * 4
    t = 14 + ihl
    total = struct.unpack("!H", frame[16:18])[0]
    seq, ack, offset, flags = struct.unpack("!IIBB", frame[t + 4:t + 14])
    size = (offset >> 4) * 4
    at, stamp = t + 20, None
    while at < t + size and frame[at] != 0:
        if frame[at] == 1:
            at += 1
            continue
        if frame[at] == 8:
            stamp = struct.unpack("!II", frame[at + 2:at + 10])
        at += max(2, frame[at + 1])
    return flags, seq, ack, total - ihl - size, stamp


class Established:
    """A kernel connection with one request answered, and where its sequence numbers are."""

    def __init__(self, wire):
        self.wire = wire
        self.sock = wire.lab.connect(HTTP)
        self.sport = self.sock.getsockname()[1]
        self.request()
        self.seq = self.ack = self.stamp = None
        end = time.monotonic() + 2
        quiet = 0
        while time.monotonic() < end and quiet < 3:
            if not select.select([wire.sock], [], [], 0.1)[0]:
                quiet += 1
                continue
            frame = wire.sock.recv(65536)
            if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            if struct.unpack("!H", frame[34:36])[0] != self.sport:
                continue
            _, seq, self.ack, size, self.stamp = tcp_options(frame)  # what the client sent last
            self.seq = seq + size
        assert self.seq is not None and self.ack is not None

    def request(self):
        self.sock.sendall(get(target=b"/good"))
        answer = b""
        while not answer.endswith(b"ok\n"):
            data = self.sock.recv(65536)
            assert data, "the connection was closed"
            answer += data

    def inject(self, flags, seq=0, ack=0, data=b"", stamp=0, **kw):
        options = b""
        if self.stamp:
            options = b"\x01\x01\x08\x0a" + struct.pack("!II", (self.stamp[0] + stamp) % (1 << 32), self.stamp[1])
        self.wire.send(self.wire.tcp(flags, sport=self.sport, seq=self.seq + seq, ack=self.ack + ack, data=data, options=options,
                                     **kw))


# name, frame, drop reason
FRAMES = [
    ("SYN and FIN", lambda w: w.tcp(SYN | FIN), "tcp_bad_flags"),
    ("SYN and RST", lambda w: w.tcp(SYN | RST), "tcp_bad_flags"),
    ("no flags", lambda w: w.tcp(0), "tcp_bad_flags"),
    ("all flags", lambda w: w.tcp(63), "tcp_bad_flags"),
    ("FIN alone", lambda w: w.tcp(FIN), ("tcp_no_ack", "tcp_no_connection")),
    ("ACK of nothing", lambda w: w.tcp(ACK, ack=12345), ("tcp_cookie_invalid", "tcp_no_connection")),
    ("RST of nothing", lambda w: w.tcp(RST), "tcp_no_connection"),
    ("SYN to a closed port", lambda w: w.tcp(SYN, port=4), "tcp_no_listener"),
    ("bad TCP checksum", lambda w: w.tcp(SYN, bad_sum=True), "tcp_bad_checksum"),
    ("TCP header shorter than 20", lambda w: w.tcp(SYN, offset=4), "tcp_truncated"),
    ("TCP options beyond the packet", lambda w: w.tcp(SYN, offset=15), "tcp_truncated"),
    ("TCP header cut", lambda w: w.ip(b"\0" * 8), "tcp_truncated"),
    ("bad IP checksum", lambda w: w.ip(b"\0" * 20, bad_sum=True), "ip_bad_checksum"),
    ("IP version 5", lambda w: w.ip(b"\0" * 20, version=5), "ip_bad_header"),
    ("IP header of 4 bytes", lambda w: w.ip(b"\0" * 20, header_length=1), "ip_bad_header"),
    ("IP length beyond the frame", lambda w: w.ip(b"\0" * 20, length=1400), "ip_truncated"),
    # Of IPv4 the kernel's fan-out puts fragments together before af_packet sees them.
    ("first fragment", lambda w: w.fragment6(0, True), "ip_fragment"),
    ("last fragment", lambda w: w.fragment6(1480 // 8, False), "ip_fragment"),
    ("fragment within fragment", lambda w: w.fragment6(0, True, inner=44), "ip_fragment"),
    ("from a group", lambda w: w.tcp(SYN, source="224.0.0.5"), "ip_bad_source"),
    ("from the gateway itself", lambda w: w.tcp(SYN, source="10.77.1.1"), "ip_bad_source"),
    ("from loopback", lambda w: w.tcp(SYN, source="127.0.0.1"), "ip_bad_source"),
    ("unknown protocol", lambda w: w.ip(b"\0" * 20, protocol=253), "ip_unknown_protocol"),
    ("unknown EtherType", lambda w: w.ethernet[:12] + b"\x88\xb5" + bytes(46), "eth_unknown_type"),
    ("ICMP cut short", lambda w: w.ip(b"\x08", protocol=1), "icmp_malformed"),
    ("ICMP with a bad checksum", lambda w: w.ip(b"\x08\x00\x00\x00" + bytes(12), protocol=1), "icmp_malformed"),
]


@pytest.mark.parametrize("case", FRAMES, ids=[c[0] for c in FRAMES])
def test_frame(lab, case):
    name, frame, reason = case
    with Wire(lab) as w:
        before = counted(lab)
        w.send(frame(w))
        if isinstance(reason, tuple):
            assert set(wait_counted(lab, before, None)) & set(reason)
        else:
            wait_counted(lab, before, reason)
    next_good_request_works(lab)


# name, segments into an established connection, drop reason, whether the connection lives on
INJECTED = [
    ("data far outside the window", lambda c: c.inject(ACK | PSH, seq=10_000_000, data=NO_PREFIX), "tcp_out_of_window", True),
    ("data of long ago", lambda c: c.inject(ACK | PSH, seq=-30, data=b"x" * 20), ("tcp_old_duplicate", "tcp_out_of_window"),
     True),
    ("RST outside the window", lambda c: c.inject(RST, seq=10_000_000), "tcp_reset_out_of_window", True),
    ("RST inside the window", lambda c: c.inject(RST, seq=100), "tcp_challenged", True),
    ("SYN into the connection", lambda c: c.inject(SYN, seq=5), "tcp_challenged", True),
    ("acknowledges what was not sent", lambda c: c.inject(ACK, ack=1_000_000), "tcp_ack_unacceptable", True),
    ("data without ACK", lambda c: c.inject(PSH, data=NO_PREFIX), "tcp_no_ack", True),
    ("data with a bad checksum", lambda c: c.inject(ACK | PSH, data=NO_PREFIX, bad_sum=True), "tcp_bad_checksum", True),
    ("a timestamp of last week", lambda c: c.inject(ACK | PSH, data=NO_PREFIX, stamp=-600_000_000), "tcp_paws", True),
    ("storm of a thousand RST", lambda c: [c.inject(RST, seq=1 + i * 7) for i in range(1000)], "tcp_challenged", True),
    ("thousand holes", lambda c: [c.inject(ACK | PSH, seq=10 + i * 20, data=b"y") for i in range(1000)], None, None),
]


@pytest.mark.parametrize("case", INJECTED, ids=[c[0] for c in INJECTED])
def test_injected_segment(lab, case):
    name, segments, reason, lives = case
    with Wire(lab) as w:
        c = Established(w)
        with c.sock:
            before = counted(lab)
            segments(c)
            if reason is None:
                time.sleep(0.3)
            elif isinstance(reason, tuple):
                assert set(wait_counted(lab, before, None)) & set(reason)
            else:
                wait_counted(lab, before, reason)
            if lives:
                c.request()
    nothing_smuggled(lab)
    next_good_request_works(lab)


def test_ten_thousand_connections_that_say_nothing(lab):
    """SYNs from addresses that never answer: the half-open table fills, cookies are sent, and clients are served."""
    with Wire(lab) as w:
        frames = [w.tcp(SYN, sport=1024 + i % 60_000, seq=i, source=f"10.77.1.{100 + i % 100}") for i in range(2000)]
        for f in frames:
            w.send(f)
        for _ in range(20):
            next_good_request_works(lab)


def test_clients_that_reset(lab):
    """A thousand connections, each with half a request, reset at once: nothing is left of them."""
    for _ in range(20):
        sockets = [lab.connect(HTTP) for _ in range(50)]
        for s in sockets:
            s.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for s in sockets:
            s.close()
    end = time.monotonic() + 10
    while True:
        pools = {p["name"]: int(p["in_use"]) for p in lab.status()["workers"][0]["pools"]}
        if pools["connections"] == 0 and pools["exchanges"] == 0:
            break
        assert time.monotonic() < end, pools
        time.sleep(0.1)
    next_good_request_works(lab)


def test_good_tls_still_works(lab):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(lab.connect(TLS), server_hostname="one.test") as s:
        s.sendall(get(b"connection: close\r\n"))
        answer = b""
        while data := s.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")
