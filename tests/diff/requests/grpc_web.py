import base64

from case import Case, Response, Wait, one, over_http2, request
from upstream import SCRIPTS

PORT, GZIP = 8420, 8421
LOGS = ["grpc_web"]
NEEDS_HTTP2 = True
FRAME = b"\0\0\0\0\5hello"
TEXT = base64.b64encode(FRAME)
WEB, WEB_TEXT = "application/grpc-web", "application/grpc-web-text"
GRPC = sorted(s for s in SCRIPTS if s.startswith("grpc")) + ["404", "500", "chunked", "until-close", "close-before", "partial-body"]


def web(name, path="/1/x", type=WEB, body=FRAME, headers=(), accept=None, method="POST", **more):
    return one(name, path, method=method, body=body, headers=["Content-Type: " + type, "X-Grpc-Web: 1", *([f"Accept: {accept}"] if accept else []), *headers], **more)


def pieces(name, parts, end=True, headers=()):
    """A chunked request of text, each chunk by itself."""
    steps = [request("POST", "/1/x", headers=["Content-Type: " + WEB_TEXT, "Transfer-Encoding: chunked", *headers])]
    for p in parts:
        steps += [b"%x\r\n%s\r\n" % (len(p), p), Wait(0.05)]
    return Case(name, [*steps, *([b"0\r\n\r\n"] if end else []), Response()])


CASES = [web(f"{type} {do}", type=type, body=TEXT if "text" in type else FRAME, headers=["x-do: " + do], accept=type) for type in (WEB, WEB_TEXT) for do in GRPC]
CASES += [web(f"type {t}", type=t, body=TEXT) for t in (WEB + "+proto", WEB_TEXT + "+proto", WEB + "+json", WEB_TEXT + "+proto; charset=utf-8", "Application/grpc-web", "application/grpc")]
CASES += [web(f"accept {a}", headers=["x-do: grpc"], accept=a) for a in (WEB, WEB + "+proto", WEB_TEXT, WEB_TEXT + "+proto", "*/*", WEB_TEXT + ", */*")]
CASES += [web(f"own {p} {t}", p, type=t, body=TEXT if "text" in t else FRAME, accept=t) for p in ("/denied", "/empty", "/moved", "/refused", "/elsewhere", "/typed/x") for t in (WEB, WEB_TEXT)]
CASES += [web("slow", "/slow", headers=["x-do: slow-head"]), web("get", method="GET", body=b"", headers=["x-do: grpc"]), web("head", method="HEAD", body=b"", headers=["x-do: grpc"]),
          web("empty body", body=b"", headers=["Content-Length: 0"]), web("empty text", type=WEB_TEXT, body=b"", headers=["Content-Length: 0"]),
          web("fields", headers=["TE: gzip", "Grpc-Accept-Encoding: gzip", "Grpc-Timeout: 2S", "X-User-Agent: grpc-web-javascript/0.1"]),
          web("1.0", headers=["x-do: grpc"], version="HTTP/1.0"), web("1.0 keep-alive", headers=["x-do: grpc", "Connection: keep-alive"], version="HTTP/1.0"),
          web("1.0 page", headers=["x-do: 404", "Connection: keep-alive"], version="HTTP/1.0"),
          Case("one connection", [s for do in ("grpc", "404", "grpc-only", "grpc") for s in (request("POST", "/1/x", headers=["x-do: " + do, "Content-Type: " + WEB], body=FRAME), Response())])]
# Base64 in pieces, whole and broken.
CASES += [pieces(f"text by {n}", [TEXT[i:i + n] for i in range(0, len(TEXT), n)]) for n in (1, 3, 4, 5, 7, 11, 100)]
CASES += [pieces("two encodings", [TEXT, TEXT]), pieces("text one short", [TEXT[:-1]]), pieces("text, a blank", [TEXT[:4] + b" " + TEXT[5:]]), pieces("text, url alphabet", [b"AAAA-_8="]),
          pieces("text, bits left over", [b"AB=="]), pieces("text, no padding at the end", [TEXT[:-1], b"A"]), pieces("text, broken later", [TEXT, b"????"], end=False),
          web("text of a length, broken", type=WEB_TEXT, body=b"!!!!"), web("text of a length, short", type=WEB_TEXT, body=b"AAAAA")]
# HTTP/2 on either side.
for target in ("/2/grpc", "/2/grpc?n=3&status=9", "/2/grpc?n=0&status=5", "/2/grpc?n=40", "/2/status/404", "/2/bytes/50", "/2/bytes/40000", "/2/trailers", "/2/request", "/2/reset?code=8", "/2/reset?at=body"):
    CASES.append(web("1to2 " + target, target, accept=WEB))
    CASES.append(web("1to2 text " + target, target, type=WEB_TEXT, body=TEXT, accept=WEB_TEXT))
    CASES.append(over_http2("2to2 " + target, target, "POST", [("content-type", WEB_TEXT), ("accept", WEB_TEXT)], TEXT.decode()))
CASES += [over_http2(f"2to1 {do}", "/1/x", "POST", [("content-type", WEB), ("content-length", "10"), ("x-do", do)], FRAME.decode()) for do in ("grpc", "grpc-only", "404", "grpc-long")]
CASES += [over_http2(f"2 own {p}", p, "POST", [("content-type", WEB)], FRAME.decode()) for p in ("/denied", "/elsewhere", "/refused")]
CASES += [over_http2("2 broken", "/1/x", "POST", [("content-type", WEB_TEXT)], "?")]
# Behind a compressor.
CASES += [web(f"gzip {type} {do}", type=type, body=TEXT if "text" in type else FRAME, headers=["x-do: " + do, "Accept-Encoding: gzip"], accept=type, port=GZIP)
          for type in (WEB, WEB_TEXT) for do in ("grpc", "404", "grpc-only")]
CASES += [web("gzip own", "/denied", headers=["Accept-Encoding: gzip"], port=GZIP)]
