from case import Case, Response, one, over_http2, request

PORT = 8310
LOGS = ["http2"]
NEEDS_HTTP2 = True
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
PSEUDO = [(":method", "POST"), (":scheme", "http"), (":path", "/1/x"), (":authority", "a.test")]

# Clients of HTTP/1.1, endpoints of HTTP/2.
CASES = [one(f"1to2 {m}", "/2/request?a=b", method=m, body=b"abc" if m in ("POST", "PUT", "PATCH") else b"", headers=["X-One: 1", "TE: trailers"])
         for m in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")]
CASES += [one(f"1to2 status {s}", f"/2/status/{s}") for s in (200, 204, 304, 404, 500)]
CASES += [one(f"1to2 head {s}", f"/2/status/{s}", method="HEAD") for s in (200, 204, 304)]
CASES += [one(f"1to2 {p}", "/2/" + p) for p in ("bytes/0", "bytes/100", "bytes/70000", "chunked?n=3&size=1000", "trailers", "interim", "reset?code=8", "reset?code=2",
                                              "reset?code=7", "reset?code=1", "reset?at=body", "short")]
CASES += [
    Case("1to2 chunked", [request("POST", "/2/request", headers=["Transfer-Encoding: chunked"]) + b"3\r\nabc\r\n0\r\n\r\n", Response()]),
    Case("1to2 trailers of the request", [request("POST", "/2/request", headers=["Transfer-Encoding: chunked"]) + b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n", Response()]),
    Case("1to2 expect", [request("POST", "/2/request", headers=["Expect: 100-continue"], length=3), b"abc", Response()]),
    one("1to2 connection fields", "/2/request", headers=["Connection: keep-alive, x-named", "Keep-Alive: timeout=5", "X-Named: 1", "Proxy-Connection: keep-alive"]),
    one("1to2 te", "/2/request", headers=["TE: gzip, trailers;q=0.5"]),
    one("1to2 http10 is refused", "/2/request", version="HTTP/1.0"),
    one("1to2 refused", "/refused"),
    one("1to2 grpc refused", "/refused", method="POST", headers=["content-type: application/grpc"], body=b"x"),
    one("1to2 cookies", "/2/request", headers=["Cookie: a=1", "Cookie: b=2"]),
]
# Clients of HTTP/2, endpoints of HTTP/1.1.
CASES += [over_http2(f"2to1 {m}", "/1/x?a=b", m, [("x-one", "1")], "abc" if m in ("POST", "PUT", "PATCH") else None) for m in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")]
CASES += [
    over_http2("2to1 length", "/1/x", "POST", [("content-length", "3")], "abc"),
    over_http2("2to1 empty body", "/1/x", "POST", [], ""),
    over_http2("2to1 cookies", "/1/x", headers=[("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2")]),
    over_http2("2to1 no route", "/nowhere"),
    over_http2("2to1 denied", "/denied"),
    over_http2("2to1 expect", "/1/x", "POST", [("expect", "100-continue")], "abc"),
]
CASES += [over_http2("2to1 do " + d, "/1/x", headers=[("x-do", d)]) for d in ("close-before", "reset-before", "partial-head", "partial-body", "partial-chunk", "garbage", "204-with-body")]
# HTTP/2 on both sides.
CASES += [over_http2(f"2to2 {m}", "/2/request?a=b", m, [("x-one", "1"), ("te", "trailers")], "abc" if m in ("POST", "PUT", "PATCH") else None)
          for m in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")]
CASES += [over_http2(f"2to2 {p}", "/2/" + p) for p in ("status/204", "status/304", "status/404", "bytes/0", "bytes/70000", "chunked?n=3&size=1000", "trailers", "interim", "reset?code=8",
                                                      "reset?code=7", "reset?at=body", "short")]
CASES += [over_http2("2to2 trailers of the request", "/2/request", "POST", [], "abc", [("x-t", "1")]), over_http2("2to2 as downstream", "/same/request")]
# gRPC: our own answers.
CASES += [over_http2(f"grpc {n}", p, "POST", GRPC, "\0\0\0\0\0") for n, p in (("refused", "/refused"), ("denied", "/denied"), ("timeout", "/2/short"), ("reset", "/2/reset?code=8"), ("only", "/some.Service/Method"))]
CASES += [over_http2("grpc matches grpc", "/some.Service/Method", "POST", [("content-type", "text/plain")], "x")]
# Malformed.
MALFORMED = {
    "upper case": PSEUDO + [("X-A", "b")], "crlf in value": PSEUDO + [("x-a", "b\r\nc: d")], "nul in value": PSEUDO + [("x-a", "b\0c")],
    "transfer-encoding": PSEUDO + [("transfer-encoding", "chunked")], "connection": PSEUDO + [("connection", "close")], "keep-alive": PSEUDO + [("keep-alive", "x")],
    "upgrade": PSEUDO + [("upgrade", "websocket")], "te": PSEUDO + [("te", "gzip")], "two lengths": PSEUDO + [("content-length", "1"), ("content-length", "2")],
    "lying length": PSEUDO + [("content-length", "5")], "two paths": PSEUDO + [(":path", "/y")], "no path": PSEUDO[:2] + PSEUDO[3:],
    "late pseudo": PSEUDO[:3] + [("x-a", "b"), PSEUDO[3]], "unknown pseudo": PSEUDO + [(":x", "y")], "status": PSEUDO + [(":status", "200")],
    "blank in path": [(n, "/1/x y" if n == ":path" else v) for n, v in PSEUDO],
}
CASES += [over_http2("malformed " + n, pseudo=f, body="abc") for n, f in MALFORMED.items()]
