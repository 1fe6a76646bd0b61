"""The upstream servers of both gateways: raw sockets, so that what the gateway sends is kept byte by byte, and what it gets is exactly what a
case asked for (header `x-do`)."""
import socket
import struct
import threading
import time

# Answers of an upstream as they are on the wire, by the value of `x-do`. A list is sent piece by piece; a number in it is a pause in seconds;
# "close" and "reset" end the connection.
SCRIPTS = {
    "204": ["HTTP/1.1 204 No Content\r\nX-From: upstream\r\n\r\n"],
    "304": ["HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n"],
    "404": ["HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone"],
    "500": ["HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"],
    "299": ["HTTP/1.1 299 Odd But Fine\r\ncontent-length: 2\r\n\r\nok"],
    "no-reason": ["HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok"],
    "mixed-case": ["HTTP/1.1 200 OK\r\nX-MiXeD: One\r\nContent-TYPE: text/Plain\r\nSet-Cookie: a=1\r\nSET-COOKIE: b=2\r\nContent-Length: 2\r\n\r\nok"],
    "spaces": ["HTTP/1.1 200 OK\r\nx-space:    padded value \t\r\nx-empty:\r\ncontent-length: 2\r\n\r\nok"],
    "dated": ["HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: upstream/1\r\nVia: 1.0 fred\r\nContent-Length: 2\r\n\r\nok"],
    "hop": ["HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: gone?\r\nProxy-Connection: x\r\ncontent-length: 2\r\n\r\nok"],
    "envoy-headers": ["HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 7\r\nx-envoy-decorator-operation: op\r\nx-request-id: from-upstream\r\ncontent-length: 2\r\n\r\nok"],
    "chunked": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", "6\r\n world\r\n", "0\r\n\r\n"],
    "trailers": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 99\r\n\r\n"],
    "empty-chunked": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    "until-close": ["HTTP/1.1 200 OK\r\nX-Body: to the end\r\n\r\nhello", 0.05, " world", "close"],
    "http10": ["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "close"],
    "http10-until-close": ["HTTP/1.0 200 OK\r\n\r\nhello", "close"],
    "close-after": ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "close"],
    "103": ["HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", 0.05, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
    "100": ["HTTP/1.1 100 Continue\r\n\r\n", 0.05, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
    "102": ["HTTP/1.1 102 Processing\r\n\r\n", 0.05, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
    "close-before": ["close"],
    "reset-before": ["reset"],
    "partial-head": ["HTTP/1.1 200 OK\r\nX-Par", 0.05, "close"],
    "partial-body": ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0.05, "close"],
    "partial-body-reset": ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0.05, "reset"],
    "partial-chunk": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0.05, "close"],
    "bad-status": ["HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok"],
    "garbage": ["this is no HTTP at all\r\n\r\n"],
    "bad-length": ["HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\nok"],
    "two-lengths": ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"],
    "bad-header": ["HTTP/1.1 200 OK\r\nbad header: 1\r\nContent-Length: 2\r\n\r\nok"],
    "length-and-chunked": ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    "101": ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
    "slow-head": [0.9, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"],
    "slow-body": ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0.9, "world"],
    "big-headers": ["HTTP/1.1 200 OK\r\nX-Big: " + "b" * 20000 + "\r\nContent-Length: 2\r\n\r\nok"],
    "many-headers": ["HTTP/1.1 200 OK\r\n" + "".join(f"x-{i}: {i}\r\n" for i in range(120)) + "Content-Length: 2\r\n\r\nok"],
    "extra-bytes": ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA"],
    "204-with-body": ["HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"],
    "location": ["HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"],
    "remove-me": ["HTTP/1.1 200 OK\r\nx-remove: 1\r\nX-Keep: 1\r\nx-over: old\r\nx-over: old2\r\nx-app: old\r\ncontent-length: 2\r\n\r\nok"],
}

TEXT = "".join(f"line {i} of a text that is read twice; " for i in range(20))


def _text(fields="Content-Type: text/plain", body=TEXT, status="200 OK"):
    return [f"HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n{body}"]


# What compressor filters look at.
SCRIPTS.update({
    "text": _text(), "text-29": _text(body=TEXT[:29]), "text-30": _text(body=TEXT[:30]), "text-html": _text("Content-Type: Text/HTML; charset=utf-8"),
    "text-png": _text("Content-Type: image/png"), "text-no-type": _text("x-type: none"), "text-empty-type": _text("Content-Type:"),
    "text-own": _text("Content-Type: application/x-own"), "text-etag": _text("Content-Type: text/plain\r\nETag: \"strong\""),
    "text-weak": _text("Content-Type: text/plain\r\nETag: W/\"weak\""), "text-no-transform": _text("Content-Type: text/plain\r\nCache-Control: public, No-Transform"),
    "text-cached": _text("Content-Type: text/plain\r\nCache-Control: max-age=5\r\nCache-Control: no-transform"),
    "text-encoded": _text("Content-Type: text/plain\r\nContent-Encoding: deflate"),
    "text-vary": _text("Content-Type: text/plain\r\nVary: Origin"), "text-varies": _text("Content-Type: text/plain\r\nVary: Origin, Accept-Encoding"),
    "text-vary-lower": _text("Content-Type: text/plain\r\nVary: accept-encoding"), "text-vary-twice": _text("Content-Type: text/plain\r\nVary: Origin\r\nVary: Cookie"),
    "text-404": _text(status="404 Not Found"), "text-206": _text("Content-Type: text/plain\r\nContent-Range: bytes 0-779/5000", status="206 Partial Content"),
    "text-ranges": _text("Content-Type: text/plain\r\nAccept-Ranges: bytes"),
    "text-chunked": ["HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", 0.05, "6\r\n world\r\n", "0\r\n\r\n"],
    "text-trailers": ["HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 99\r\n\r\n"],
    "text-until-close": ["HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + TEXT, 0.05, "close"],
    "text-large": _text(body=TEXT * 300),
})


def _grpc(body="", fields="Content-Type: application/grpc", trailers="grpc-status: 0\r\n", status="200 OK", pieces=0):
    """A gRPC response over HTTP/1.1, chunked; `pieces`: bytes a chunk, each sent by itself."""
    n = pieces or max(len(body), 1)
    chunks = [f"{len(body[i:i + n]):x}\r\n{body[i:i + n]}\r\n" for i in range(0, len(body), n)]
    head = f"HTTP/1.1 {status}\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [x for c in [head, *chunks, f"0\r\n{trailers}\r\n"] for x in ((c, 0.01) if pieces else (c,))]


MESSAGES = "\0\0\0\0\5hello" + "\0\0\0\0\0" + "\1\0\0\0\7another" + "\0\0\0\1\0" + "x" * 256

# What the gRPC-Web filter looks at.
SCRIPTS.update({
    "grpc": _grpc(MESSAGES), "grpc-one": _grpc(MESSAGES[:10]), "grpc-none": _grpc(), "grpc-pieces": _grpc(MESSAGES, pieces=7),
    "grpc-proto": _grpc(MESSAGES, "Content-Type: application/grpc+proto"),
    "grpc-fails": _grpc(MESSAGES, trailers="grpc-status: 5\r\ngrpc-message: not found\r\nX-More: a: b\r\n"), "grpc-no-status": _grpc(MESSAGES, trailers=""),
    "grpc-length": [f"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 10\r\n\r\n{MESSAGES[:10]}"],
    "grpc-only": ["HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 7\r\ngrpc-message: no\r\ncontent-length: 0\r\n\r\n"],
    "grpc-web": _grpc(MESSAGES, "Content-Type: application/grpc-web+proto; charset=x", trailers=""), "grpc-503": _grpc("oops", status="503 Service Unavailable"),
    "grpc-tilde": _text("Content-Type: text/html", "100 %, ~tilde~\n\x7f\xe9"), "grpc-long": _text("Content-Type: text/html", "a % of text; " * 200),
    "grpc-trailers": _grpc("plain", "Content-Type: text/plain"), "grpc-cut": _grpc(MESSAGES)[:2] + [0.05, "close"],
})


PROXY_PORTS = (9201, 9202)  # connections to these begin with a PROXY protocol header


class Upstreams:
    """Servers on `ports` of one lab's upstream namespace. `seen`: what the gateway sent, in order, a list of dicts."""

    def __init__(self, lab, ports, contexts=None):
        """`contexts`: {port: ssl.SSLContext} of those that speak TLS; what was agreed on is kept with each request."""
        self.contexts = contexts or {}
        self.seen, self.lock, self.listeners, self.serial = [], threading.Lock(), [], 0
        for port in [*ports, *self.contexts]:
            s = lab.upstream.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((lab.upstream4(0), port))
            s.listen(128)
            self.listeners.append(s)
            threading.Thread(target=self._accept, args=(s, port), daemon=True).start()

    def take(self):
        with self.lock:
            out, self.seen = self.seen, []
            return out

    def close(self):
        for s in self.listeners:
            s.close()

    def _accept(self, listener, port):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s, port), daemon=True).start()

    def _serve(self, s, port):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if port in self.contexts:
                s = self._tls(s, port)
            if port >= 9900:  # plain TCP: a greeting with what came first, then an echo
                greeting = f"{port}:".encode()
                while data := s.recv(65536):
                    s.sendall(greeting + data)
                    greeting = b""
                return
            buffer = self._told(s, port) if port in PROXY_PORTS else b""
            while True:
                buffer = self._exchange(s, port, buffer)
                if buffer is None:
                    return
        except OSError:
            pass
        finally:
            s.close()

    def _told(self, s, port):
        """The PROXY protocol header that a connection begins with is kept; returns what came behind it."""
        data = b""
        while len(data) < 16 or (data.startswith(b"PROXY ") and b"\r\n" not in data):
            data += s.recv(65536)
        size = data.index(b"\r\n") + 2 if data.startswith(b"PROXY ") else 16 + int.from_bytes(data[14:16], "big")
        while len(data) < size:
            data += s.recv(65536)
        with self.lock:
            self.seen.append({"port": port, "head": "PROXY " + data[:size].hex(), "body": b"", "trailers": []})
        return data[size:]

    def _tls(self, s, port):
        context = self.contexts[port]
        s.settimeout(10)
        s = context.wrap_socket(s, server_side=True)
        s.settimeout(None)
        peer = s.getpeercert() or {}
        said = [v for rdn in peer.get("subject", ()) for k, v in rdn if k == "commonName"]
        with self.lock:
            self.seen.append({"port": port, "head": f"TLS {s.version()} {s.cipher()[0]} alpn={s.selected_alpn_protocol()} sni={getattr(s, 'said_sni', None)} "
                                                    f"client={said}", "body": b"", "trailers": []})
        return s

    def _exchange(self, s, port, buffer):
        def fill():
            data = s.recv(65536)
            if not data:
                raise EOFError
            return data

        record = {"port": port, "head": "", "body": b"", "trailers": []}
        try:
            while b"\r\n\r\n" not in buffer:
                buffer += fill()
            head, buffer = buffer.split(b"\r\n\r\n", 1)
            record["head"] = head.decode("latin-1")
            with self.lock:
                self.seen.append(record)
            fields = {}
            for line in record["head"].split("\r\n")[1:]:
                k, _, v = line.partition(":")
                fields[k.lower()] = v.strip()
            do = fields.get("x-do", "echo")
            if do.startswith("early-"):  # answers before it has read the body
                do = do[6:]
                self._play(s, SCRIPTS[do])
                time.sleep(0.2)
                return None
            if fields.get("expect", "").lower() == "100-continue":
                s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if fields.get("transfer-encoding", "").lower() == "chunked":
                while True:
                    while b"\r\n" not in buffer:
                        buffer += fill()
                    size, buffer = buffer.split(b"\r\n", 1)
                    n = int(size.split(b";")[0], 16)
                    if n == 0:
                        while True:
                            while b"\r\n" not in buffer:
                                buffer += fill()
                            line, buffer = buffer.split(b"\r\n", 1)
                            if not line:
                                break
                            record["trailers"].append(line.decode("latin-1"))
                        break
                    while len(buffer) < n + 2:
                        buffer += fill()
                    record["body"] += buffer[:n]
                    buffer = buffer[n + 2:]
            else:
                n = int(fields.get("content-length", 0))
                while len(buffer) < n:
                    buffer += fill()
                record["body"], buffer = buffer[:n], buffer[n:]
        except (EOFError, ConnectionError):  # the gateway gave the request up, by FIN or reset
            if record["head"]:
                record["cut"] = True
            return None
        if do.startswith("switch"):  # agrees to an upgrade or CONNECT, then echoes; "switch-close" ends after the first bytes
            connect = record["head"].startswith("CONNECT")
            agreed = "HTTP/1.1 200 OK\r\nX-Tunnel: yes\r\n\r\n" if connect else \
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {fields.get('upgrade')}\r\nConnection: Upgrade\r\nX-Tunnel: yes\r\n\r\n"
            s.sendall(agreed.encode())
            while data := buffer or s.recv(65536):
                buffer = b""
                s.sendall(b"tunnel:" + data)
                if do == "switch-close":
                    break
            return None
        if do == "echo":
            method = record["head"].split(" ")[0]
            body = f"upstream {port}\n".encode() + record["body"][:64]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Upstream: {port}\r\nContent-Length: {len(body)}\r\n\r\n"
            s.sendall(head.encode() + (b"" if method == "HEAD" else body))
            return buffer
        return buffer if self._play(s, SCRIPTS[do]) else None

    @staticmethod
    def _play(s, script):
        for piece in script:
            if piece == "close":
                return False
            if piece == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                s.sendall(piece.encode("latin-1"))
        return True
