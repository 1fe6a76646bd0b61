"""Request smuggling, as a differential test: the same hostile bytes go through Millrace to real servers (nginx, HAProxy, Apache, Node, Go's
net/http), each behind a listener of its own. What the server believes it was asked must be what Millrace believes it has passed on (its
access log), request by request; and nothing that stood inside another request may ever be one.

The corpus is that of test_hostile.py, and what stands below: shapes whose danger lies in what the next server makes of them.
"""
import os
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402
from conftest import LOG, until  # noqa: E402
from test_hostile import CHUNKED, NO_PREFIX, STREAMS, get, post  # noqa: E402

GO = shutil.which("go") or "/usr/local/go/bin/go"
APACHE = shutil.which("apache2") or "/usr/sbin/apache2"
FIRST_LISTENER, FIRST_UPSTREAM = 8100, 9100

UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
# name, bytes. Where Millrace passes something on, it is at most one request of these.
MORE = [
    ("CL.0: a body to a path that takes none", post(b"content-length: %d\r\n" % len(NO_PREFIX), NO_PREFIX, path=b"/no-body")),
    ("GET with a length", get(b"content-length: %d\r\n" % len(NO_PREFIX)) + NO_PREFIX),
    ("HEAD with a length", get(b"content-length: %d\r\n" % len(NO_PREFIX)).replace(b"GET", b"HEAD", 1) + NO_PREFIX),
    ("DELETE with chunks", get(CHUNKED).replace(b"GET", b"DELETE", 1) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(NO_PREFIX), NO_PREFIX)),
    ("OPTIONS with a length", get(b"content-length: %d\r\n" % len(NO_PREFIX)).replace(b"GET", b"OPTIONS", 1) + NO_PREFIX),
    ("TE.TE: two spellings", post(b"transfer-encoding: chunked\r\nTransfer-Encoding: cow\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: a tab in front", post(b"transfer-encoding:\tchunked\r\n", b"0\r\n\r\n")),
    ("TE.TE: a list in two fields", post(b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: quoted", post(b'transfer-encoding: "chunked"\r\n', b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: chunked, identity", post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: an empty member", post(b"transfer-encoding: ,chunked\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: a parameter", post(b"transfer-encoding: chunked;q=1\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE.TE: a byte of Latin-1 behind it", post(b"transfer-encoding: chunked\xa0\r\n", b"0\r\n\r\n" + NO_PREFIX)),
    ("TE with an underscore", post(b"transfer_encoding: chunked\r\ncontent-length: 5\r\n", b"0\r\n\r\n")),
    ("CL with an underscore", post(b"content_length: 0\r\ncontent-length: %d\r\n" % len(NO_PREFIX), NO_PREFIX)),
    ("CL nominated by connection", post(b"connection: content-length\r\ncontent-length: %d\r\n" % len(NO_PREFIX), NO_PREFIX)),
    ("TE nominated by connection", post(b"connection: transfer-encoding\r\n" + CHUNKED, b"0\r\n\r\n" + NO_PREFIX)),
    ("host nominated by connection", get(b"connection: host\r\n")),
    ("CL with zeros in front", post(b"content-length: 000000003\r\n", b"abc")),
    ("CL with a blank behind", post(b"content-length: 3 \r\n", b"abc")),
    ("CL with a blank inside", post(b"content-length: 3 4\r\n", b"abcd" + NO_PREFIX)),
    ("CL with a decimal point", post(b"content-length: 3.0\r\n", b"abc")),
    ("CL with an exponent", post(b"content-length: 1e2\r\n", b"a" * 100)),
    ("CL in other digits", post("content-length: ٣\r\n".encode(), b"abc")),
    ("CL twice, equal", post(b"content-length: 3\r\ncontent-length: 3\r\n", b"abc")),
    ("chunk size with zeros in front", post(CHUNKED, b"0000000000000003\r\nabc\r\n0\r\n\r\n")),
    ("chunk size of seventeen digits", post(CHUNKED, b"00000000000000003\r\nabc\r\n0\r\n\r\n")),
    ("chunk size in capitals", post(CHUNKED, b"A\r\n0123456789\r\n0\r\n\r\n")),
    ("chunk size with a sign", post(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n" + NO_PREFIX)),
    ("chunk size with an underscore", post(CHUNKED, b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n")),
    ("chunk size with a blank in front", post(CHUNKED, b" 3\r\nabc\r\n0\r\n\r\n" + NO_PREFIX)),
    ("chunk size that wraps to 3", post(CHUNKED, b"10000000000000003\r\nabc\r\n0\r\n\r\n" + NO_PREFIX)),
    ("chunk extension with a quoted CRLF", post(CHUNKED, b'3;a="\r\nabc\r\n0\r\n\r\n' + NO_PREFIX)),
    ("chunk extension with a bare LF", post(CHUNKED, b"3;a\nxx\r\nabc\r\n0\r\n\r\n" + NO_PREFIX)),
    ("chunk extension with a bare CR", post(CHUNKED, b"3;a\rxx\r\nabc\r\n0\r\n\r\n" + NO_PREFIX)),
    ("chunk extension on the last chunk", post(CHUNKED, b"3\r\nabc\r\n0;a=1\r\n\r\n")),
    ("trailers that frame", post(CHUNKED, b"3\r\nabc\r\n0\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\nhost: evil\r\n\r\n")),
    ("trailer with a bare LF", post(CHUNKED, b"3\r\nabc\r\n0\r\nx: 1\n\r\n" + NO_PREFIX)),
    ("trailer without a colon", post(CHUNKED, b"3\r\nabc\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
    ("a last chunk of many zeros", post(CHUNKED, b"3\r\nabc\r\n" + b"0" * 40 + b"\r\n\r\n" + NO_PREFIX)),
    ("absolute form against host", b"GET http://one.test/abs HTTP/1.1\r\nhost: two.test\r\n\r\n"),
    ("absolute form with another port", b"GET http://one.test:81/abs HTTP/1.1\r\nhost: one.test\r\n\r\n"),
    ("absolute form with a query and no path", b"GET http://one.test?x HTTP/1.1\r\nhost: one.test\r\n\r\n"),
    ("absolute form, empty host", b"GET http:///x HTTP/1.1\r\nhost: one.test\r\n\r\n"),
    ("target with a CR", b"GET /a\rb HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("target with a blank", b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("target with a tab", b"GET /a\tHTTP/1.1\r\nhost: x\r\n\r\n"),
    ("target with an encoded CRLF", b"GET /a%0d%0aGET%20/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("target with an encoded NUL", b"GET /a%00b HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("target with a backslash", b"GET /a\\..\\b HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("two slashes", b"GET //evil.test/ HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("a second host in capitals", b"GET / HTTP/1.1\r\nhost: x\r\nHOST: y\r\n\r\n"),
    ("host with an address inside", b"GET / HTTP/1.1\r\nhost: x@y\r\n\r\n"),
    ("expect: 100-continue, body withheld", post(b"expect: 100-continue\r\ncontent-length: 5\r\n", b"abcde")),
    ("expect: 100-continue with chunks", post(b"expect: 100-continue\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")),
    ("expect of something else", post(b"expect: smuggle\r\ncontent-length: 3\r\n", b"abc")),
    ("an upgrade, then a request", get(UPGRADE) + NO_PREFIX),
    ("an upgrade with a length", get(UPGRADE + b"content-length: %d\r\n" % len(NO_PREFIX)) + NO_PREFIX),
    ("an upgrade with chunks", get(UPGRADE + CHUNKED) + b"0\r\n\r\n" + NO_PREFIX),
    ("an upgrade to h2c, then a request", get(b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n")),
    ("CONNECT, then a request", b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n" + NO_PREFIX),
    ("CONNECT with a length", b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\ncontent-length: %d\r\n\r\n" % len(NO_PREFIX) + NO_PREFIX),
    ("TRACE with a body", get(b"content-length: 3\r\n").replace(b"GET", b"TRACE", 1) + b"abc"),
    ("keep-alive in HTTP/1.0", b"GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n"),
    ("x-http-method-override", post(b"x-http-method-override: CONNECT\r\ncontent-length: 0\r\n")),
    # Not x-envoy-original-path: the access log's default format shows it as the path, so that it could not be told from a request.
    ("fields that some servers take for the target", get(b"x-rewrite-url: /smuggled\r\nx-original-url: /smuggled\r\n")),
]
CORPUS = [(c[0], c[1]) for c in STREAMS if isinstance(c[1], bytes) and len(c[1]) < 200_000] + MORE


def h2_frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def h2_head(*fields):
    """HPACK: every field a literal that is not indexed, without Huffman codes (RFC 7541 6.2.2)."""
    text = lambda s: (bytes([len(s)]) if len(s) < 127 else b"\x7f" + bytes([len(s) - 127])) + s
    return b"".join(b"\x00" + text(n) + text(v) for n, v in fields)


def h2_request(fields, body=None, path=b"/h2", method=b"GET"):
    head = h2_head((b":method", method), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path), *fields)
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"") + h2_frame(1, 4 | (1 if body is None else 0), 1, head)
    return out if body is None else out + h2_frame(0, 1, 1, body)


# What HTTP/2 can carry and HTTP/1.1 must not: the bytes of "downgrades".
DOWNGRADES = [
    ("h2: CRLF in a value", h2_request([(b"x", b"1\r\nx-injected: 1")])),
    ("h2: CRLFCRLF in a value", h2_request([(b"x", b"1\r\n\r\n" + NO_PREFIX)])),
    ("h2: LF in a value", h2_request([(b"x", b"1\nx-injected: 1")])),
    ("h2: NUL in a value", h2_request([(b"x", b"1\x002")])),
    ("h2: CRLF in a name", h2_request([(b"x: 1\r\ny", b"2")])),
    ("h2: a colon in a name", h2_request([(b"transfer-encoding: chunked", b"x")])),
    ("h2: a capital in a name", h2_request([(b"X-A", b"1")])),
    ("h2: a blank in a name", h2_request([(b"x y", b"1")])),
    ("h2: transfer-encoding", h2_request([(b"transfer-encoding", b"chunked")], b"0\r\n\r\n" + NO_PREFIX, method=b"POST")),
    ("h2: a length that is too short", h2_request([(b"content-length", b"0")], NO_PREFIX, method=b"POST")),
    ("h2: a length that is too long", h2_request([(b"content-length", b"1000")], b"abc", method=b"POST")),
    ("h2: two lengths", h2_request([(b"content-length", b"3"), (b"content-length", b"4")], b"abc", method=b"POST")),
    ("h2: no length, and a body", h2_request([], NO_PREFIX, method=b"POST")),
    ("h2: GET with a body", h2_request([], NO_PREFIX)),
    ("h2: connection", h2_request([(b"connection", b"upgrade"), (b"upgrade", b"websocket")])),
    ("h2: two hosts", h2_request([(b"host", b"y")])),
    ("h2: a request line in the path", h2_request([], path=b"/ HTTP/1.1\r\nx: 1\r\n\r\nGET /smuggled")),
    ("h2: a blank in the path", h2_request([], path=b"/ HTTP/1.1")),
    ("h2: a request line in the method", h2_request([], method=b"GET /smuggled HTTP/1.1\r\nx:")),
    ("h2: a method with a blank", h2_request([], method=b"GET /smuggled")),
    ("h2: te", h2_request([(b"te", b"gzip")])),
    ("h2: pseudo header at the end", h2_request([(b"x", b"1"), (b":path", b"/smuggled")])),
]


def first_words(request_line):
    """Method and target as they came: what servers make of the target (decoded, empty when it displeases them) is not what was asked."""
    return " ".join(request_line.split(" ")[:2])


class Peer:
    """A real server in the upstream namespace that answers everything and writes a line "METHOD TARGET" for each request it saw."""

    def __init__(self, lab, index):
        self.lab, self.port, self.listener = lab, FIRST_UPSTREAM + index, FIRST_LISTENER + index
        self.folder = os.path.join(lab.dir, type(self).__name__.lower())
        os.makedirs(self.folder)
        self.seen_file, self.taken = os.path.join(self.folder, "seen"), 0
        open(self.seen_file, "w").close()

    def address(self):
        return self.lab.upstream4(0)

    def wait(self):
        def up():
            with self.lab.upstream.socket() as s:
                return s.connect_ex((self.address(), self.port)) == 0
        until(up, 30, f"{type(self).__name__} to listen")

    def lines(self):
        with open(self.seen_file, errors="replace") as f:
            return f.read().splitlines()


class Nginx(Peer):
    needs = "nginx"

    @staticmethod
    def available():
        return shutil.which("nginx") is not None

    def start(self):
        servers = f"""log_format seen escape=none '$request';
  server {{ listen {self.address()}:{self.port}; access_log {self.seen_file} seen; location / {{ return 200 "ok\\n"; }} }}"""
        self.lab.start_nginx("nginx_seen", servers)

    def lines(self):
        return [first_words(x) for x in super().lines()]


class HAProxy(Peer):
    needs = "haproxy (scripts/setup --peers)"

    @staticmethod
    def available():
        return shutil.which("haproxy") is not None

    def start(self):
        path = os.path.join(self.folder, "haproxy.cfg")
        with open(path, "w") as f:
            f.write(f"""global
  log stdout format raw local0
defaults
  mode http
  timeout client 20s
  timeout connect 5s
  timeout server 20s
  log global
  log-format "%HM %HU"
frontend all
  bind {self.address()}:{self.port}
  http-request return status 200 content-type text/plain string "ok"
""")
        self.process = self.lab.start("haproxy_seen", ["haproxy", "-db", "-f", path], self.lab.upstream)
        self.seen_file = os.path.join(self.lab.dir, "haproxy_seen.log")

    def lines(self):
        return [x for x in super().lines() if x and not x.startswith("[") and " /" in " " + x]


class Apache(Peer):
    needs = "apache2 (scripts/setup --peers)"

    @staticmethod
    def available():
        return os.path.exists(APACHE)

    def start(self):
        www, conf = os.path.join(self.folder, "www"), os.path.join(self.folder, "httpd.conf")
        os.makedirs(www)
        modules = "/usr/lib/apache2/modules"
        with open(conf, "w") as f:
            f.write(f"""ServerRoot {self.folder}
ServerName peer
Listen {self.address()}:{self.port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
PidFile {self.folder}/pid
ErrorLog {self.folder}/error.log
LogFormat "%r" seen
CustomLog {self.seen_file} seen
DocumentRoot {www}
User www-data
Group www-data
""")
        os.chmod(self.lab.dir, 0o755)
        os.chmod(self.folder, 0o777)
        self.lab.start("apache_seen", [APACHE, "-X", "-f", conf], self.lab.upstream)

    def lines(self):  # written with \\ for a backslash
        return [first_words(x.replace("\\\\", "\\")) for x in super().lines()]


class Node(Peer):
    needs = "node"

    @staticmethod
    def available():
        return shutil.which("node") is not None

    def start(self):
        path = os.path.join(self.folder, "server.js")
        with open(path, "w") as f:
            f.write("""const http = require('http'), fs = require('fs');
const [,, host, port, seen] = process.argv, file = fs.openSync(seen, 'a');
http.createServer((q, r) => { fs.writeSync(file, q.method + ' ' + q.url + '\\n'); q.resume(); q.on('end', () => r.end('ok\\n')); }).listen(+port, host);
""")
        self.lab.start("node_seen", ["node", path, self.address(), str(self.port), self.seen_file], self.lab.upstream)


class Go(Peer):
    needs = "go"

    @staticmethod
    def available():
        return os.path.exists(GO)

    def start(self):
        with open(os.path.join(self.folder, "main.go"), "w") as f:
            f.write("""package main

import (
    "fmt"
    "io"
    "net/http"
    "os"
    "sync"
)

func main() {
    file, _ := os.OpenFile(os.Args[2], os.O_APPEND|os.O_WRONLY, 0)
    var lock sync.Mutex
    http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
        lock.Lock()
        fmt.Fprintln(file, r.Method, r.RequestURI)
        lock.Unlock()
        io.Copy(io.Discard, r.Body)
        io.WriteString(w, "ok\\n")
    }))
}
""")
        program = os.path.join(self.folder, "server")
        subprocess.run([GO, "build", "-o", program, "main.go"], cwd=self.folder, check=True, capture_output=True, timeout=300,
                       env=dict(os.environ, GOCACHE=os.path.join(self.folder, "cache"), GOFLAGS="-mod=mod", GO111MODULE="off"))
        self.lab.start("go_seen", [program, f"{self.address()}:{self.port}", self.seen_file], self.lab.upstream)


KINDS = [Nginx, HAProxy, Apache, Node, Go]


def configuration(lab, peers):
    listeners, clusters = [], []
    for name, p in peers.items():
        hosts = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "10s"}}]}]
        # The tightest setting for the attacker's purposes: trailers and upgrades pass, paths stay as they are.
        listeners.append(L.listener(name, p.listener, L.hcm(hosts, access_log=os.path.join(lab.dir, name + ".access"), route_name=name, stat_prefix=name,
                                                            http_protocol_options={"enable_trailers": True, "accept_http_10": True},
                                                            upgrade_configs=[{"upgrade_type": "websocket"}], stream_idle_timeout="2s")))
        clusters.append(L.cluster(name, [(p.address(), p.port)]))
    return L.bootstrap(listeners, clusters)


@pytest.fixture(scope="module")
def world():
    lab = L.Lab(device="af_packet")
    try:
        peers = {k.__name__.lower(): k(lab, i) for i, k in enumerate(KINDS) if k.available()}
        for p in peers.values():
            p.start()
        for p in peers.values():
            p.wait()
        lab.start_gateway(dict(configuration(lab, peers), dataplane=lab.dataplane_section()))
        yield lab, peers
        assert lab.stop_gateway() == 0
    finally:
        lab.close()


def passed_on(lab, name):
    """(method, path) of every request that Millrace sent to an endpoint, in order."""
    out = []
    for line in lab.access_log(name + ".access"):
        m = LOG.fullmatch(line)
        assert m, line
        if m["upstream"] != "-":
            out.append(f"{m['method']} {m['path']}")
    return out


def attack(lab, port, data):
    """Sends the bytes, and reads until the connection ends or nothing more comes."""
    answer = b""
    with lab.connect(port, timeout=3) as s:
        try:
            s.sendall(data)
            s.settimeout(0.4)
            while piece := s.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


@pytest.mark.parametrize("kind", KINDS, ids=[k.__name__ for k in KINDS])
def test_every_server_sees_what_was_passed_on(world, kind):
    lab, peers = world
    name = kind.__name__.lower()
    if name not in peers:
        pytest.skip(f"no {kind.needs}")
    p = peers[name]
    for serial, (case, data) in enumerate(CORPUS + DOWNGRADES):
        attack(lab, p.listener, data)
        # Two more requests: on the connection to the endpoint that the attack may have left, and one to mark the end.
        for mark in (f"/next-{serial}", f"/mark-{serial}"):
            s = attack(lab, p.listener, f"GET {mark} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert s.startswith(b"HTTP/1.1 200") or s.startswith(b"HTTP/1.1 404"), (case, s)
        mark = f"GET /mark-{serial}"
        until(lambda: mark in p.lines() and mark in passed_on(lab, name), 20, f"{mark} at {name}")
        # An attack that was cut in its body may be known to one side only: neither has finished it.
        seen, sent = p.lines(), passed_on(lab, name)
        since = lambda lines: lines[lines.index(f"GET /mark-{serial - 1}") + 1 if serial else 0:lines.index(mark)]
        saw, passed = since(seen), since(sent)
        smuggled = [x for x in saw if "/smuggled" in x and x not in passed]
        assert not smuggled, f"{case}: {name} saw {saw}, passed on was {passed}"
        unfinished = [x for x in passed if x not in saw]
        assert [x for x in saw if x in passed] == saw and len(unfinished) <= 1, f"{case}: {name} saw {saw}, passed on was {passed}"


def test_no_downgrade_reaches_anybody(world):
    """Of HTTP/2 heads that HTTP/1.1 cannot carry, nothing is passed on."""
    lab, peers = world
    name, p = next(iter(peers.items()))
    passes = {"h2: no length, and a body", "h2: GET with a body", "h2: te", "h2: connection"}
    for case, data in DOWNGRADES:
        before = len(passed_on(lab, name))
        attack(lab, p.listener, data)
        attack(lab, p.listener, b"GET /after HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        until(lambda: passed_on(lab, name)[before:][-1:] == ["GET /after"], 10, "the mark")
        new = passed_on(lab, name)[before:-1]
        if case not in passes:
            assert [x for x in new if "/h2" in x or "smuggled" in x] in ([], ["POST /h2"]), (case, new)
