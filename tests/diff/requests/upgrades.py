from case import Bytes, Case, CloseWrite, Response, Wait, one, request

PORT = 8330
LOGS = ["upgrades", "connect"]
WS = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]


def upgrade(kind="websocket", path="/ws", do="switch", extra=(), **kwargs):
    return request("GET", path, headers=["Connection: Upgrade", "Upgrade: " + kind, "x-do: " + do, *extra], **kwargs)


def connect(to="a.test:443", do="switch", extra=()):
    return request("CONNECT", to, host=to, headers=["x-do: " + do, *extra])


CASES = [
    Case("websocket", [request("GET", "/ws?a=b", headers=WS + ["x-do: switch"]), Response(), b"ping", Bytes(11), b"more", Bytes(11)]),
    Case("type in capitals", [upgrade("WebSocket"), Response(), b"ping", Bytes(11)]),
    Case("another type", [upgrade("foo"), Response(), b"ping", Bytes(11)]),
    Case("bytes at once", [upgrade("foo") + b"early", Response(), Bytes(12)]),
    Case("the endpoint ends", [upgrade("foo", do="switch-close"), Response(), b"ping", Bytes(11), Wait(0.2)]),
    Case("rewritten", [upgrade("foo", path="/old/x"), Response(), b"ping", Bytes(11)]),
    one("refused with 500", "/ws", headers=WS + ["x-do: 500"]),
    one("another type answered with 200", "/ws", headers=["Connection: Upgrade", "Upgrade: foo"]),
    one("no type that is known", "/ws", headers=["Connection: Upgrade", "Upgrade: baz"]),
    one("disabled", "/ws", headers=["Connection: Upgrade", "Upgrade: bar"]),
    Case("enabled by the route", [upgrade("bar", path="/bar"), Response(), b"ping", Bytes(11)]),
    one("disabled by the route", "/off", headers=WS),
    one("a list", "/ws", headers=["Connection: Upgrade", "Upgrade: foo, websocket"]),
    one("no route", "/nowhere", headers=WS),
    one("no route, not allowed", "/nowhere", headers=["Connection: Upgrade", "Upgrade: baz"]),
    one("direct response", "/direct", headers=WS),
    one("redirect", "/away", headers=WS),
    one("upgrade without connection", "/ws", headers=["Upgrade: websocket"]),
    one("connection without upgrade", "/ws", headers=["Connection: upgrade"]),
    one("the endpoint closes", "/ws", headers=WS + ["x-do: close-before"]),
    Case("connect, passed on", [connect(), Response("CONNECT"), b"ping", Bytes(11), b"more", Bytes(11)], port=8331),
    Case("connect, bytes at once", [connect() + b"early", Response("CONNECT"), Bytes(12)], port=8331),
    Case("connect, refused with 500", [connect(do="500"), Response()], port=8331),
    Case("connect, not enabled", [connect(extra=["x-not: 1"]), Response()], port=8331),
    Case("connect, terminated", [connect("tcp.test:443"), Response("CONNECT"), b"ping", Bytes(9), b"more", Bytes(4)], port=8331),
    Case("connect, nobody listens", [Wait(0.2), connect(extra=["x-refused: 1"]), Response()], port=8331),  # once the tunnel before has ended
    Case("connect without port", [request("CONNECT", "a.test", host="a.test"), Response()], port=8331),
    Case("connect with a length", [request("CONNECT", "a.test:443", host="a.test:443", length=5) + b"abcde", Response()], port=8331),
    Case("connect where no route wants it", [connect(), Response()]),
    Case("get beside it", [request("GET", "/"), Response()], port=8331),
    Case("terminated, the client ends", [connect("tcp.test:80"), Response("CONNECT"), b"ping", Bytes(9), CloseWrite(), Wait(0.2)], port=8331),
]
