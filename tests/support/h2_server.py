"""An HTTP/2 server for tests (prior knowledge), written to be asked for trouble as upstream_server.py is: the same paths, the same answers,
where both make sense. One thread a connection. Needs Debian's python3-h2. Run as a program: `h2_server.py ADDRESS:PORT...`.

    /who  /request  /sha256  /bytes/N  /trailers  /status/NNN  /early   as in upstream_server.py
    /chunked?n=&size=     n DATA frames of size bytes, no content-length
    /grpc?n=&status=      a gRPC response of n messages, status in the trailers; n=0: trailers only
    /interim              103 with a link field, then 200
    /reset?code=&at=      RST_STREAM, `before` the response or in its `body`
    /goaway               200, and GOAWAY behind it: the connection ends with this response
    /close                the connection ends in the middle of the response's body
    /hold                 never answers

CONNECT is a connection to its authority. Extended CONNECT (RFC 8441, allowed in the SETTINGS) with protocol websocket is one to the WebSocket
server of HTTP/1.1 that --websockets ADDRESS:PORT names, which sees the handshake as RFC 8441 5 has it; any other protocol is refused with 501.
"""
import json
import hashlib
import os
import socket
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ConnectionTerminated, RequestReceived, StreamEnded, StreamReset, TrailersReceived, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from upstream_server import pattern  # noqa: E402

_connections = [0]
_websockets = [None]
_lock = threading.Lock()


class Stream:
    def __init__(self, fields):
        pseudo = {n: v for n, v in fields if n.startswith(":")}
        self.method, self.target, self.authority, self.scheme = (pseudo.get(n, "") for n in (":method", ":path", ":authority", ":scheme"))
        self.headers = [(n, v) for n, v in fields if not n.startswith(":")]
        self.trailers, self.bytes, self.digest = [], 0, hashlib.sha256()
        self.out, self.end, self.out_trailers = b"", False, None
        self.protocol, self.tunnel = pseudo.get(":protocol"), None
        parts = urlsplit(self.target)
        self.path, self.query = parts.path, {k: v[-1] for k, v in parse_qs(parts.query).items()}


class Connection:
    def __init__(self, sock):
        self.sock = sock
        with _lock:
            self.number = _connections[0]
            _connections[0] += 1
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False))
        self.h2.local_settings = Settings(client=False, initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: 200, SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.streams, self.open, self.lock = {}, True, threading.RLock()

    def run(self):
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.h2.initiate_connection()
        try:
            while self.open:
                with self.lock:
                    self.sock.sendall(self.h2.data_to_send())
                data = self.sock.recv(1 << 16)
                if not data:
                    break
                with self.lock:
                    for event in self.h2.receive_data(data):
                        self.on(event)
                    self.pump()
            self.sock.sendall(self.h2.data_to_send())
        except (OSError, ProtocolError) as e:
            print("connection", self.number, "ended:", e, flush=True)
        finally:
            self.sock.close()

    def on(self, event):
        if isinstance(event, RequestReceived):
            s = self.streams[event.stream_id] = Stream(event.headers)
            if s.method == "CONNECT":
                self.connect(event.stream_id, s)
            elif s.path in ("/early",):
                self.answer(event.stream_id, s)
        elif isinstance(event, DataReceived):
            s = self.streams.get(event.stream_id)
            if s is not None:
                s.bytes += len(event.data)
                s.digest.update(event.data)
                if s.tunnel is not None:
                    s.tunnel.sendall(event.data)
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.streams[event.stream_id].trailers = [list(x) for x in event.headers]
        elif isinstance(event, StreamEnded):
            s = self.streams.get(event.stream_id)
            if s is not None and s.tunnel is not None:
                s.tunnel.shutdown(socket.SHUT_WR)
            elif s is not None and s.path != "/early":
                self.answer(event.stream_id, s)
        elif isinstance(event, StreamReset):
            s = self.streams.pop(event.stream_id, None)
            if s is not None and s.tunnel is not None:
                s.tunnel.close()
        elif isinstance(event, ConnectionTerminated):
            self.open = False
        elif isinstance(event, WindowUpdated):
            pass

    def head(self, i, status, headers=(), end=False):
        self.h2.send_headers(i, [(":status", str(status))] + [(n, str(v)) for n, v in headers], end_stream=end)

    def whole(self, i, s, status, body, headers=()):
        bodiless = s.method == "HEAD" or status in (204, 304)
        fields = list(headers) if status in (204, 304) else [("content-length", len(body))] + list(headers)
        self.head(i, status, fields, end=bodiless)
        if not bodiless:
            s.out, s.end = body, True

    def answer(self, i, s):
        noun = s.path.strip("/").split("/")[0] or "who"
        if noun == "who":
            self.whole(i, s, 200, b"h2 connection %d\n" % self.number, [("content-type", "text/plain")])
        elif noun == "request":
            self.whole(i, s, 200, json.dumps({"method": s.method, "target": s.target, "version": "HTTP/2", "authority": s.authority, "scheme": s.scheme,
                                              "headers": s.headers, "body": s.bytes, "trailers": s.trailers}).encode())
        elif noun == "sha256":
            self.whole(i, s, 200, s.digest.hexdigest().encode())
        elif noun == "bytes":
            self.whole(i, s, 200, bytes(pattern(0, int(s.path.rsplit("/", 1)[1]))))
        elif noun == "chunked":
            self.head(i, 200, end=s.method == "HEAD")
            if s.method != "HEAD":
                s.out, s.end = bytes(pattern(0, int(s.query.get("n", 10)) * int(s.query.get("size", 1000)))), True
        elif noun == "grpc":
            n, status = int(s.query.get("n", 1)), s.query.get("status", "0")
            fields, last = [("content-type", "application/grpc")], [("grpc-status", status), ("grpc-message", "said %25"), ("x-seen", str(s.bytes))]
            if n == 0:
                self.head(i, 200, fields + last, end=True)
            else:
                self.head(i, 200, fields)
                s.out = b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in (bytes(pattern(0, 7 * k + 1)) for k in range(n)))
                s.end, s.out_trailers = True, last
        elif noun == "status":
            self.whole(i, s, int(s.path.rsplit("/", 1)[1]), b"status\n")
        elif noun == "early":
            self.whole(i, s, int(s.query.get("status", 413)), b"early\n")
        elif noun == "trailers":
            self.head(i, 200, [("trailer", "x-checksum")])
            s.out, s.end, s.out_trailers = b"hello", True, [("x-checksum", "12345"), ("x-other", "yes")]
        elif noun == "interim":
            self.h2.send_headers(i, [(":status", "103"), ("link", "</style.css>; rel=preload")])
            self.whole(i, s, 200, b"done\n")
        elif noun == "reset":
            if s.query.get("at") == "body":
                self.head(i, 200, [("content-length", "100")])
                self.h2.send_data(i, b"half of it")
                self.sock.sendall(self.h2.data_to_send())
                time.sleep(0.2)  # so that the reset is read behind it
            self.h2.reset_stream(i, error_code=int(s.query.get("code", 8)))
            self.streams.pop(i, None)
        elif noun == "goaway":
            self.whole(i, s, 200, b"goodbye\n")
            self.pump()
            self.h2.close_connection(last_stream_id=i)
            self.open = False
        elif noun == "close":
            self.head(i, 200, [("content-length", "100")])
            self.h2.send_data(i, b"half of it")
            self.open = False
        elif noun != "hold":
            self.whole(i, s, 404, b"no such path\n")

    def connect(self, i, s):
        """The stream is a tunnel from here on: what the other end sends goes out as windows allow."""
        fields = []
        if s.protocol is None:
            host, _, port = s.authority.rpartition(":")
            s.tunnel = socket.create_connection((host, int(port)))
            rest = b""
        elif s.protocol == "websocket" and _websockets[0] is not None:
            s.tunnel = socket.create_connection(_websockets[0])
            lines = [f"GET {s.target} HTTP/1.1", f"host: {s.authority}", "connection: upgrade", "upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
            s.tunnel.sendall("\r\n".join(lines + [f"{n}: {v}" for n, v in s.headers if n != "sec-websocket-key"] + ["", ""]).encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += s.tunnel.recv(1)
            pairs = [line.partition(": ")[::2] for line in answer.decode().split("\r\n")[1:] if line]
            fields = [(n.lower(), v) for n, v in pairs if n.lower() in ("sec-websocket-protocol", "sec-websocket-extensions")]
        else:
            return self.head(i, 501, end=True)
        self.head(i, 200, fields)
        threading.Thread(target=self.relay, args=(i, s), daemon=True).start()

    def relay(self, i, s):
        try:
            while not s.end:
                data = s.tunnel.recv(1 << 16)
                with self.lock:
                    s.out, s.end = s.out + data, not data
                    if i in self.streams:
                        self.pump()
                        self.sock.sendall(self.h2.data_to_send())
        except (OSError, ProtocolError) as e:
            print("tunnel", i, "ended:", e, flush=True)

    def pump(self):
        """Sends what the windows allow of every body."""
        for i, s in list(self.streams.items()):
            while s.out:
                n = min(len(s.out), self.h2.local_flow_control_window(i), self.h2.max_outbound_frame_size)
                if n <= 0:
                    break
                last = n == len(s.out) and s.end and not s.out_trailers
                self.h2.send_data(i, s.out[:n], end_stream=last)
                s.out = s.out[n:]
                if last:
                    self.streams.pop(i, None)
            if not s.out and s.end and i in self.streams:
                if s.out_trailers:
                    self.h2.send_headers(i, s.out_trailers, end_stream=True)
                else:
                    self.h2.send_data(i, b"", end_stream=True)
                self.streams.pop(i, None)


def main(argv):
    if argv[:1] == ["--websockets"]:
        host, _, port = argv[1].rpartition(":")
        _websockets[0], argv = (host, int(port)), argv[2:]
    for where in argv:
        host, _, port = where.rpartition(":")
        listener = socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256)

        def accept(listener=listener):
            while True:
                c, _ = listener.accept()
                threading.Thread(target=Connection(c).run, daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
