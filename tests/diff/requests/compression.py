from case import Case, Response, one, over_http2, request
from upstream import SCRIPTS

PORT = 8380
ALL, TOLD = 8381, 8382
LOGS = []  # bytes sent differ with the library: the records' other fields are compared elsewhere
TEXTS = sorted(s for s in SCRIPTS if s.startswith("text"))
ACCEPTS = ["gzip", "br", "zstd", "gzip, br, zstd", "zstd, br, gzip", "br;q=0.5, gzip;q=0.4, zstd;q=0.6", "gzip;q=0, *", "*", "*;q=0", "identity", "identity, gzip",
           "gzip, identity", "identity;q=0.5, gzip;q=0.2", "deflate", "GZIP", "gzip;q=x", "gzip;Q=0.3, br", "gzip;level=1;q=0", "", ",", "gzip;q=0.0, br;q=0", "gzip;q=1, br;q=1.0, zstd;q=1e0",
           "br;q=-1, gzip;q=+.5", " gzip ; q = 0.5 , br ; q = 0.4"]
ENCODED = ["Accept-Encoding: gzip, br, zstd"]
CASES = [one(f"{port} {do} {method}", method=method, headers=["x-do: " + do, *ENCODED], port=port) for port in (PORT, ALL, TOLD) for do in TEXTS + ["204", "304", "404", "chunked", "trailers"]
         for method in ("GET", "HEAD") if method == "GET" or port == PORT]
CASES += [one(f"{port} accept {a!r}", headers=["x-do: text", "Accept-Encoding: " + a], port=port) for port in (PORT, ALL, TOLD) for a in ACCEPTS]
CASES += [one(f"{port} no accept-encoding", headers=["x-do: text"], port=port) for port in (PORT, ALL, TOLD)]
CASES += [one(f"{port} two accept-encodings", headers=["x-do: text", "Accept-Encoding: zstd;q=0.5", "accept-encoding: gzip"], port=port) for port in (PORT, ALL, TOLD)]
CASES += [one(f"own {path} {method}", path=path, method=method, headers=ENCODED) for path in ("/direct", "/short", "/empty", "/moved") for method in ("GET", "HEAD")]
CASES += [one("late fields of the route", path="/late", headers=["x-do: text", *ENCODED]),
          one("1.0", version="HTTP/1.0", headers=["x-do: text", *ENCODED]), one("1.0 keep-alive", version="HTTP/1.0", headers=["x-do: text", "Connection: keep-alive", *ENCODED]),
          one("1.0 direct", path="/direct", version="HTTP/1.0", headers=["Connection: keep-alive", *ENCODED]),
          one("range", headers=["x-do: text-206", "Range: bytes=0-779", *ENCODED]),
          Case("one connection", [step for do in ("text", "204", "text-chunked", "text-29", "text-large", "text") for step in (request(headers=["x-do: " + do, *ENCODED]), Response())]),
          one("post", method="POST", headers=["x-do: text", *ENCODED], body=b"abc"), one("failure", headers=["x-do: close-before", *ENCODED]),
          one("cut", headers=["x-do: partial-body", *ENCODED])]
CASES += [over_http2(f"HTTP/2 {do}", headers=[("x-do", do), ("accept-encoding", "gzip")]) for do in ("text", "text-chunked", "text-29", "204", "text-trailers")]
