"""An HTTP/1.x client that sees everything: bytes as they are sent, responses as they come, and how the connection ends."""
import socket
import struct


class Response:
    def __init__(self, version, status, headers):
        self.version, self.status, self.headers = version, status, headers
        self.body, self.trailers = b"", []
        self.complete = False

    def header(self, name):
        """The value, None when absent; repeated ones joined by a comma."""
        found = [v for n, v in self.headers if n.lower() == name.lower()]
        return ",".join(found) if found else None


class RawHttp:
    """Over a connected socket (plain or ssl). Reads raise TimeoutError when nothing comes within the socket's timeout."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""
        self.ended = None  # "fin" or "rst" once seen

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def _more(self):
        if self.ended:
            return False
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            self.ended = "rst"
            return False
        if not data:
            self.ended = "fin"
            return False
        self.buffer += data
        return True

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self._more():
                return None
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _headers(self):
        out = []
        while True:
            line = self._line()
            if line is None:
                return out, False
            if not line:
                return out, True
            name, _, value = line.partition(":")
            out.append((name, value.strip()))

    def _take(self, n):
        pieces, have = [self.buffer], len(self.buffer)
        while have < n:
            self.buffer = b""
            if not self._more():
                break
            pieces.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(pieces)
        self.buffer = data[n:]
        return data[:n]

    def response(self, method="GET"):
        """The next response (1xx included), with what came of its body; None when the connection ended before its status line was whole."""
        line = self._line()
        if line is None:
            return None
        version, status, *_ = line.split(" ", 2)
        headers, whole = self._headers()
        r = Response(version, int(status), headers)
        if not whole:
            return r
        if method == "HEAD" or r.status < 200 or r.status in (204, 304):
            r.complete = True
        elif "chunked" in (r.header("transfer-encoding") or ""):
            self._chunked(r)
        elif r.header("content-length") is not None:
            n = int(r.header("content-length"))
            r.body = self._take(n)
            r.complete = len(r.body) == n
        else:
            r.body = self._take(1 << 62)
            r.complete = self.ended == "fin"
        return r

    def _chunked(self, r):
        while True:
            line = self._line()
            if line is None:
                return
            size = int(line.split(";")[0], 16)
            if size == 0:
                r.trailers, r.complete = self._headers()
                return
            data = self._take(size)
            r.body += data
            if len(data) < size or self._line() is None:
                return

    def request(self, target="/", method="GET", host="test", headers=(), body=b"", version="HTTP/1.1"):
        lines = [f"{method} {target} {version}"] + ([f"host: {host}"] if host else []) + [f"{n}: {v}" for n, v in headers]
        if body and not any(n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
            lines.append(f"content-length: {len(body)}")
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def wait_end(self):
        """"fin" or "rst": how the other side ended; what still comes is kept in .buffer."""
        while self._more():
            pass
        return self.ended

    def at_end(self):
        return self.wait_end() is not None and not self.buffer

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()
