"""An HTTP/2 client for tests (prior knowledge) that sends what it is told, also what is malformed, and reports what it saw. Needs Debian's
python3-h2. A program: `h2_client.py ADDRESS PORT < requests.json`; the requests go out one after the other on one connection, each as
{"headers": [[name, value]…], "body": "…" or null, "pieces": n, "trailers": [[name, value]…]}. Writes a JSON list: {"status", "headers", "body" (latin-1),
"sha256", "trailers", "interim": [status…], "reset": code or null, "goaway": code or null}."""
import hashlib
import json
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, InformationalResponseReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError


class Client:
    def __init__(self, host, port, timeout=15):
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1", validate_outbound_headers=False,
                                               normalize_outbound_headers=False))
        self.h2.initiate_connection()
        self.goaway, self.seen = None, {}

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def read(self):
        data = self.sock.recv(1 << 16)
        if not data:
            return False
        for e in self.h2.receive_data(data):
            r = self.seen.get(getattr(e, "stream_id", None))
            if isinstance(e, ConnectionTerminated):
                self.goaway = int(e.error_code)
            elif r is None:
                continue
            elif isinstance(e, InformationalResponseReceived):
                r["interim"].append(int(dict(e.headers)[":status"]))
            elif isinstance(e, ResponseReceived):
                r["status"] = int(dict(e.headers)[":status"])
                r["headers"] = [list(x) for x in e.headers if not x[0].startswith(":")]
            elif isinstance(e, DataReceived):
                r["bytes"] += e.data
                self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, TrailersReceived):
                r["trailers"] = [list(x) for x in e.headers]
            elif isinstance(e, StreamEnded):
                r["over"] = True
            elif isinstance(e, StreamReset):
                r["reset"], r["over"] = int(e.error_code), True
        self.flush()
        return True

    def request(self, q):
        i = self.h2.get_next_available_stream_id()
        r = self.seen[i] = {"status": None, "headers": [], "bytes": b"", "trailers": [], "interim": [], "reset": None, "over": False}
        body, trailers = q.get("body"), q.get("trailers")
        try:
            self.h2.send_headers(i, [tuple(h) for h in q["headers"]], end_stream=body is None and not trailers)
            self.flush()
            body = (body or "").encode("latin-1")
            while body and not r["over"]:
                n = min(len(body), self.h2.local_flow_control_window(i), self.h2.max_outbound_frame_size)
                if n <= 0:
                    if not self.read():
                        break
                    continue
                last = n == len(body) and not trailers
                self.h2.send_data(i, body[:n], end_stream=last)
                body = body[n:]
                self.flush()
            if q.get("body") == "" and not trailers:
                self.h2.end_stream(i)
            if trailers:
                self.h2.send_headers(i, [tuple(h) for h in trailers], end_stream=True)
            self.flush()
            while not r["over"] and self.goaway is None and self.read():
                pass
        except (OSError, ProtocolError) as e:
            r["error"] = str(e)
        r["goaway"] = self.goaway
        r["sha256"] = hashlib.sha256(r["bytes"]).hexdigest()
        r["body"] = r.pop("bytes")[:100_000].decode("latin-1")
        return r


def main(host, port):
    client, out = None, []
    for q in json.load(sys.stdin):
        if client is None or client.goaway is not None:
            client = Client(host, int(port))
        out.append(client.request(q))
        if "error" in out[-1]:
            client = None
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:3])
