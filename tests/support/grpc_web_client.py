"""A gRPC-Web client for tests: over HTTP/1.1 or HTTP/2, binary or base64, as a browser's library does it. `grpc_web_client.py ADDRESS:PORT WAY PATH MESSAGE…`;
WAY: h1, h1-text, h2 or h2-text. Writes what it saw as JSON: {"http", "messages", "trailers", "status", "message", "pieces"}; pieces: how many times
something of the body arrived. HTTP/2 needs Debian's python3-h2."""
import base64
import http.client
import json
import socket
import sys

WEB, TEXT = "application/grpc-web+proto", "application/grpc-web-text"


def framed(messages):
    return b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in messages)


def unframed(data):
    """Messages and the fields of the last frame."""
    messages, trailers = [], None
    while data:
        flags, n = data[0], int.from_bytes(data[1:5], "big")
        body, data = data[5:5 + n], data[5 + n:]
        assert len(body) == n and trailers is None, "whole frames, and none behind the trailers"
        if flags & 0x80:
            trailers = dict(line.split(":", 1) for line in body.decode().split("\r\n") if line)
        else:
            messages.append(body)
    return messages, trailers


def decoded(text):
    """Encodings one behind the other."""
    out = b""
    for i in range(0, len(text), 4):
        out += base64.b64decode(text[i:i + 4], validate=True)
    return out


def over_http1(where, path, fields, body, piece):
    c = http.client.HTTPConnection(where, timeout=30)
    c.request("POST", path, iter([body[i:i + piece] for i in range(0, len(body), piece)]), {**fields, "Transfer-Encoding": "chunked"}, encode_chunked=True)
    r = c.getresponse()
    data, pieces = b"", 0
    while chunk := r.read1():
        data += chunk
        pieces += 1
    return r.status, {k.lower(): v for k, v in r.getheaders()}, data, pieces


def over_http2(where, path, fields, body, piece):
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
    host, port = where.rsplit(":", 1)
    s = socket.create_connection((host, int(port)), timeout=30)
    c = H2Connection()
    c.initiate_connection()
    c.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a.test"), *[(k.lower(), v) for k, v in fields.items()]])
    for i in range(0, len(body), piece):
        c.send_data(1, body[i:i + piece])
    c.end_stream(1)
    head, data, pieces, over = {}, b"", 0, False
    while not over:
        s.sendall(c.data_to_send())
        for e in c.receive_data(s.recv(65536)):
            if isinstance(e, ResponseReceived):
                head = {k if isinstance(k, str) else k.decode(): v if isinstance(v, str) else v.decode() for k, v in e.headers}
            elif isinstance(e, DataReceived):
                data += e.data
                pieces += 1
                c.acknowledge_received_data(e.flow_controlled_length, 1)
            elif isinstance(e, (StreamEnded, StreamReset)):
                over = True
    return int(head[":status"]), head, data, pieces


def main(where, way, path, *messages):
    text = way.endswith("text")
    body = framed([m.encode() for m in messages])
    fields = {"Content-Type": TEXT if text else WEB, "Accept": TEXT if text else WEB, "X-Grpc-Web": "1", "X-Send": "metadata"}
    status, head, data, pieces = (over_http1 if way.startswith("h1") else over_http2)(where, path, fields, base64.b64encode(body) if text else body, 5)
    assert head["content-type"] == ("application/grpc-web-text+proto" if text else "application/grpc-web+proto"), head
    answers, trailers = unframed(decoded(data) if text else data)
    said = head if trailers is None else trailers
    json.dump({"http": status, "messages": [a.decode() for a in answers], "trailers": trailers, "status": said.get("grpc-status"), "message": said.get("grpc-message"),
               "pieces": pieces}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
