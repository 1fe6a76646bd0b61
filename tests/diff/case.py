"""What is sent to both gateways, in words: cases of steps over one raw connection, and what was seen of it."""
import dataclasses
import os
import socket
import ssl
import time


@dataclasses.dataclass
class Wait:
    seconds: float


@dataclasses.dataclass
class Response:
    """Reads one final response (and the 1xx before it). `method` says whether a body follows."""
    method: str = "GET"


@dataclasses.dataclass
class Bytes:
    """Reads so many bytes of a tunnel (fewer when it ends)."""
    count: int


@dataclasses.dataclass
class CloseWrite:
    pass


@dataclasses.dataclass
class Case:
    name: str
    steps: list
    port: int = 0            # 0: the PORT of the requests file
    tls: dict = None         # {"sni": …, "alpn": […], "max": "1.2"}
    shares: bool = False     # the answers are counted over the whole group, not compared one by one
    timeout: float = 4.0     # of every read
    http2: list = None       # instead of steps: requests for tests/support/h2_client.py, one after the other on one connection


def request(method="GET", path="/", host="a.test", headers=(), body=b"", version="HTTP/1.1", length=None):
    """The bytes of a request. `headers`: "name: value" lines, as they are."""
    lines = [f"{method} {path} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += list(headers)
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def one(name, path="/", method="GET", port=0, tls=None, timeout=4.0, **kwargs):
    """One request, one response."""
    return Case(name, [request(method, path, **kwargs), Response(method)], port=port, tls=tls, timeout=timeout)


def raw(name, text, method="GET", port=0, responses=1, tls=None, timeout=4.0):
    """These bytes ('\\n' stands for CR LF when given as str) and as many responses."""
    data = text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode("latin-1")
    return Case(name, [data] + [Response(method)] * responses, port=port, tls=tls, timeout=timeout)


def over_http2(name, path="/", method="GET", headers=(), body=None, trailers=(), pseudo=None, port=0, authority="a.test"):
    """One request of a client that speaks HTTP/2; `body` None: END_STREAM comes with the head. `pseudo`: instead of the usual four."""
    fields = pseudo or [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
    return Case(name, [], port=port, http2=[{"headers": [list(h) for h in [*fields, *headers]], "body": body, "trailers": [list(t) for t in trailers]}])


class Ended(Exception):
    def __init__(self, how):
        self.how = how


class Wire:
    """One connection of one case to one gateway; `seen` is what is compared."""

    def __init__(self, lab, port, case):
        self.buffer, self.ended = b"", None
        self.seen = {"responses": [], "end": None, "tls": None}
        self.socket = lab.connect(port, timeout=case.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if case.tls is not None:
            self._tls(lab, case)

    def _tls(self, lab, case):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if case.tls.get("cert"):  # of the laboratory's CAs: "ca-client"
            context.load_cert_chain(os.path.join(lab.pki, case.tls["cert"] + ".crt"), os.path.join(lab.pki, case.tls["cert"] + ".key"))
        if case.tls.get("alpn"):
            context.set_alpn_protocols(case.tls["alpn"])
        if case.tls.get("max") == "1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if case.tls.get("max") == "1.1":
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            context.set_ciphers("DEFAULT@SECLEVEL=0")
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname=case.tls.get("sni"))
        except (ssl.SSLError, OSError) as e:
            reason = getattr(e, "reason", None) or type(e).__name__
            self.seen["tls"] = f"no handshake: {reason}"
            raise Ended("no TLS")
        certificate = self.socket.getpeercert(True)
        names = ssl.DER_cert_to_PEM_cert(certificate)
        self.seen["tls"] = {"version": self.socket.version(), "cipher": self.socket.cipher()[0], "alpn": self.socket.selected_alpn_protocol(),
                            "certificate": names}

    def more(self):
        if self.ended:
            raise Ended(self.ended)
        try:
            data = self.socket.recv(65536)
        except (socket.timeout, TimeoutError):
            raise Ended("silence")
        except (ConnectionError, ssl.SSLError, OSError):
            self.ended = "reset"
            raise Ended(self.ended)
        if not data:
            self.ended = "closed"
            raise Ended(self.ended)
        self.buffer += data

    def until(self, mark):
        while mark not in self.buffer:
            self.more()
        out, self.buffer = self.buffer.split(mark, 1)
        return out

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def response(self, method):
        r = {"line": None, "headers": [], "body": b"", "trailers": [], "cut": None}
        self.seen["responses"].append(r)
        try:
            lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            r["line"], r["headers"] = lines[0], lines[1:]
            status = int(lines[0].split(" ")[1])
            if 100 <= status < 200 and status != 101:
                return self.response(method)
            fields = {}
            for line in lines[1:]:
                k, _, v = line.partition(":")
                fields[k.lower()] = v.strip()
            if method == "HEAD" or status in (101, 204, 304) or (method == "CONNECT" and status < 300):
                return
            if fields.get("transfer-encoding", "").lower() == "chunked":
                while True:
                    size = int(self.until(b"\r\n").split(b";")[0], 16)
                    if size == 0:
                        break
                    r["body"] += self.exactly(size)
                    self.exactly(2)
                while (line := self.until(b"\r\n")):
                    r["trailers"].append(line.decode("latin-1"))
            elif "content-length" in fields:
                wanted = int(fields["content-length"])
                while len(self.buffer) < wanted:
                    self.more()
                r["body"] = self.exactly(wanted)
            else:
                while True:
                    self.more()
        except Ended as e:
            r["body"] += self.buffer
            self.buffer = b""
            if not (r["line"] and e.how == "closed" and "transfer-encoding" not in fields and "content-length" not in fields):
                r["cut"] = e.how
            raise
        except ValueError as e:
            r["cut"] = f"not HTTP: {e}"

    def tunnel(self, count):
        r = {"line": "bytes", "headers": [], "body": b"", "trailers": [], "cut": None}
        self.seen["responses"].append(r)
        try:
            while len(self.buffer) < count:
                self.more()
        except Ended as e:
            r["cut"] = e.how
            raise
        finally:
            r["body"], self.buffer = self.buffer[:count], self.buffer[count:]

    def play(self, steps):
        for step in steps:
            try:
                if isinstance(step, (bytes, bytearray)):
                    self.socket.sendall(step)
                elif isinstance(step, Wait):
                    time.sleep(step.seconds)
                elif isinstance(step, Bytes):
                    self.tunnel(step.count)
                elif isinstance(step, CloseWrite):
                    self.socket.shutdown(socket.SHUT_WR)
                elif isinstance(step, Response):
                    self.response(step.method)
            except Ended:
                if isinstance(step, (Response, Bytes)):
                    continue
            except OSError:
                pass  # the gateway closed first: the next read tells

    def settle(self, seconds):
        """What the gateway does now that the case is over: 'open', 'closed', 'reset', or bytes nobody asked for."""
        self.socket.settimeout(max(seconds, 0.01))
        try:
            while not self.ended:
                self.more()
        except Ended:
            pass
        end = self.ended or "open"
        if self.buffer:
            end += " after " + repr(self.buffer[:400])
        self.seen["end"] = end
        return end

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass
