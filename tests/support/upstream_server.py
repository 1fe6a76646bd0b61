"""An HTTP/1.1 server for tests, written to be asked for trouble: it answers well, slowly, in pieces, half, or not at all, as the path says.
One thread a connection, keep-alive, bodies streamed (200 MB cost no memory). Run as a program: `upstream_server.py ADDRESS:PORT...`.

    /who                      the address that was connected to
    /request                  what arrived, as JSON: method, target, version, headers (in order), body length, trailers
    /echo                     the request's body, framed as it came, while it comes;   ?whole=1: once all of it is there
    /sha256                   digest of the request's body, in hex
    /bytes/N                  N bytes of pattern(), with content-length          ?close=1: then closes   ?pause=N: waits for /release at N bytes
    /chunked?n=&size=         n chunks of size bytes of pattern()
    /until-close?n=           n bytes, no framing: the close ends them
    /trailers                 a chunked body with trailers
    /status/NNN               that status; no body where it may have none
    /early?status=            answers before it reads the body, then closes
    /continue                 100 before the body is read, then its digest;   ?refuse=1: 417 instead
    /sleep?ms=                answers after that time
    /hold?id=                 answers once somebody asks for /release?id=;  /held?id= answers once the request is held
    /close?at=                ends the connection: `before` the response, in the `head`, in the `body` (content-length), in a `chunk`, `after` a good
                              response, `between` head and body;   ?how=rst: with a reset;   ?read=0: before it reads the request's body
    /half-close               a good response, then the sending direction is closed, the receiving one stays open
    /extra                    a good response with bytes behind it that nobody asked for
    /raw?hex=                 exactly these bytes, then close
    /counts                   requests by path (query excluded) and connections so far, as JSON
"""
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

PIECE = 1 << 16
_block = hashlib.sha512(b"millrace").digest() * (PIECE // 64)
_block = bytes((b + i // 64) & 255 for i, b in enumerate(_block)) * 2
HOLD_SECONDS = 30


def pattern(offset, length):
    """Known bytes: position i of the stream is a function of i only, with a period of 64 KiB."""
    start = offset % PIECE
    return _block[start:start + length] if length <= PIECE - start or length <= len(_block) - start else (_block * (length // PIECE + 2))[start:start + length]


def pattern_sha256(length):
    h = hashlib.sha256()
    whole = _block[:PIECE]
    for _ in range(length // PIECE):
        h.update(whole)
    h.update(whole[:length % PIECE])
    return h.hexdigest()


class Gone(Exception):
    """The other side closed."""


class Server:
    def __init__(self):
        self.lock = threading.Condition()
        self.held, self.released = set(), set()
        self.counts, self.connections = {}, 0

    def listen(self, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        s = socket.socket(family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, port))
        s.listen(512)
        threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def _accept(self, listening):
        while True:
            c, _ = listening.accept()
            with self.lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection = Connection(self, c)
            while connection.one_request():
                pass
        except (Gone, OSError):
            pass
        finally:
            c.close()

    def wait(self, condition):
        with self.lock:
            return self.lock.wait_for(condition, HOLD_SECONDS)


class Connection:
    def __init__(self, server, c):
        self.server, self.c = server, c
        self.file = c.makefile("rb", PIECE)

    def _line(self):
        line = self.file.readline(65536)
        if not line.endswith(b"\n"):
            raise Gone
        return line.rstrip(b"\r\n").decode("latin-1")

    def one_request(self):
        first = self.file.readline(65536)
        if not first.endswith(b"\n"):
            return False
        self.method, target, self.version = first.decode("latin-1").rstrip("\r\n").split(" ")
        self.target = target
        self.headers = []
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers.append((name, value.strip()))
        parts = urlsplit(target)
        self.path, self.query = parts.path, {k: v[-1] for k, v in parse_qs(parts.query).items()}
        with self.server.lock:
            self.server.counts[self.path] = self.server.counts.get(self.path, 0) + 1
        self.trailers, self.body_read = [], False
        self.keep = self.header("connection").lower() != "close"
        noun = self.path.strip("/").split("/")[0] or "who"
        handler = getattr(self, "do_" + noun.replace("-", "_"), None)
        if handler is None:
            self.drain()
            self.answer(404, b"no such path\n")
        else:
            handler()
        return self.keep

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name), "")

    # --- request body ---------------------------------------------------------------------------------------------------------
    def body(self):
        """The request's body, piece by piece."""
        self.body_read = True
        if "chunked" in self.header("transfer-encoding").lower():
            while True:
                size = int(self._line().split(";")[0], 16)
                if size == 0:
                    while line := self._line():
                        name, _, value = line.partition(":")
                        self.trailers.append((name, value.strip()))
                    return
                yield from self._exactly(size)
                self._line()
        else:
            yield from self._exactly(int(self.header("content-length") or 0))

    def _exactly(self, n):
        while n > 0:
            piece = self.file.read1(min(n, PIECE))
            if not piece:
                raise Gone
            n -= len(piece)
            yield piece

    def drain(self):
        n = 0
        if not self.body_read:
            for piece in self.body():
                n += len(piece)
        return n

    def digest(self):
        h = hashlib.sha256()
        for piece in self.body():
            h.update(piece)
        return h.hexdigest().encode()

    # --- response -------------------------------------------------------------------------------------------------------------
    def head(self, status, headers):
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Status'}"] + [f"{n}: {v}" for n, v in headers]
        if not self.keep:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def answer(self, status, body=b"", headers=()):
        bodiless = status in (204, 304) or status < 200
        head = self.head(status, list(headers) + ([] if bodiless else [("content-length", len(body))]))
        self.c.sendall(head if bodiless or self.method == "HEAD" else head + body)

    def answer_json(self, value):
        self.answer(200, json.dumps(value).encode() + b"\n", [("content-type", "application/json")])

    def send_pattern(self, n, pause=None):
        sent = 0
        while sent < n:
            size = min(PIECE, n - sent)
            if pause is not None and sent < pause:
                size = min(size, pause - sent)
            self.c.sendall(pattern(sent, size))
            sent += size
            if sent == pause:
                self.hold()

    def hold(self):
        key = self.query.get("id", "")
        with self.server.lock:
            self.server.held.add(key)
            self.server.lock.notify_all()
        self.server.wait(lambda: key in self.server.released)

    def end(self):
        self.keep = False
        if self.query.get("how") == "rst":
            self.c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.c.close()

    # --- paths ----------------------------------------------------------------------------------------------------------------
    def do_who(self):
        self.drain()
        self.answer(200, self.c.getsockname()[0].encode() + b"\n", [("server", "upstream"), ("content-type", "text/plain")])

    def do_request(self):
        n = self.drain()
        self.answer_json({"method": self.method, "target": self.target, "version": self.version, "headers": self.headers, "body": n,
                          "trailers": self.trailers})

    def do_echo(self):
        length = self.header("content-length")
        pieces = list(self.body()) if self.query.get("whole") else self.body()
        self.c.sendall(self.head(200, [("content-length", length)] if length else [("transfer-encoding", "chunked")]))
        for piece in pieces:
            self.c.sendall(piece if length else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not length:
            self.c.sendall(b"0\r\n\r\n")

    def do_sha256(self):
        self.answer(200, self.digest())

    def do_bytes(self):
        self.drain()
        n = int(self.path.rsplit("/", 1)[1])
        self.keep = self.keep and "close" not in self.query
        self.c.sendall(self.head(200, [("content-length", n), ("content-type", "application/octet-stream")]))
        if self.method != "HEAD":
            self.send_pattern(n, int(self.query["pause"]) if "pause" in self.query else None)

    def do_chunked(self):
        self.drain()
        n, size = int(self.query.get("n", 10)), int(self.query.get("size", 1000))
        self.c.sendall(self.head(200, [("transfer-encoding", "chunked")]))
        if self.method == "HEAD":
            return
        for i in range(n):
            self.c.sendall(b"%x\r\n%s\r\n" % (size, pattern(i * size, size)))
        self.c.sendall(b"0\r\n\r\n")

    def do_until_close(self):
        self.drain()
        self.keep = False
        self.c.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        self.send_pattern(int(self.query.get("n", 1000)))

    def do_trailers(self):
        self.drain()
        self.c.sendall(self.head(200, [("transfer-encoding", "chunked"), ("trailer", "x-checksum")]) +
                       b"5\r\nhello\r\n0\r\nx-checksum: 12345\r\nx-other: yes\r\n\r\n")

    def do_status(self):
        self.drain()
        self.answer(int(self.path.rsplit("/", 1)[1]), b"status\n")

    def do_early(self):
        self.keep = False
        self.answer(int(self.query.get("status", 413)), b"early\n")
        self.c.shutdown(socket.SHUT_WR)
        self.c.settimeout(5)
        try:
            while self.c.recv(PIECE):  # so that the close is not a reset that overtakes the answer
                pass
        except OSError:
            pass

    def do_continue(self):
        if self.query.get("refuse"):
            self.keep = False
            return self.answer(417, b"refused\n")
        if self.header("expect").lower() == "100-continue":
            self.c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.answer(200, self.digest(), [("x-expect", self.header("expect") or "none")])

    def do_sleep(self):
        self.drain()
        time.sleep(int(self.query.get("ms", 1000)) / 1000)
        self.answer(200, b"slept\n")

    def do_hold(self):
        self.drain()
        self.hold()
        self.answer(200, b"released\n")

    def do_release(self):
        self.drain()
        with self.server.lock:
            self.server.released.add(self.query.get("id", ""))
            self.server.lock.notify_all()
        self.answer(200, b"ok\n")

    def do_held(self):
        self.drain()
        ok = self.server.wait(lambda: self.query.get("id", "") in self.server.held)
        self.answer(200 if ok else 504, b"held\n")

    def do_close(self):
        at = self.query.get("at", "before")
        if self.query.get("read") != "0":
            self.drain()
        if at == "head":
            self.c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nx-cut: in the mid")
        elif at == "between":
            self.c.sendall(self.head(200, [("content-length", 1000)]))
        elif at == "body":
            self.c.sendall(self.head(200, [("content-length", 1000)]) + pattern(0, 500))
        elif at == "chunk":
            self.c.sendall(self.head(200, [("transfer-encoding", "chunked")]) + b"3e8\r\n" + pattern(0, 500))
        elif at == "chunk-end":
            self.c.sendall(self.head(200, [("transfer-encoding", "chunked")]) + b"1f4\r\n" + pattern(0, 500) + b"\r\n")
        elif at == "after":
            self.answer(200, b"good\n")
        if at != "before" and self.query.get("how") == "rst":
            time.sleep(0.05)  # the bytes arrive before the reset, which would otherwise take them out of the receiver's hands
        self.end()

    def do_half_close(self):
        self.drain()
        self.answer(200, b"half\n")
        self.c.shutdown(socket.SHUT_WR)
        self.c.settimeout(5)
        try:
            self.c.recv(1)
        except OSError:
            pass
        self.keep = False

    def do_extra(self):
        self.drain()
        self.c.sendall(self.head(200, [("content-length", 5)]) + b"good\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil\n")

    def do_raw(self):
        self.drain()
        self.keep = False
        self.c.sendall(bytes.fromhex(self.query["hex"]))

    def do_counts(self):
        self.drain()
        with self.server.lock:
            counts = dict(self.server.counts, connections=self.server.connections)
        self.answer_json(counts)


def main():
    server = Server()
    for item in sys.argv[1:]:
        address, port = item.rsplit(":", 1)
        server.listen(address.strip("[]"), int(port))
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
