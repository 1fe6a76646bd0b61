from case import one, over_http2

PORT = 8500
LOGS = ["cors"]
NEEDS_HTTP2 = True
ORIGINS = ["https://exact.test", "https://EXACT.test", "http://pre.fix", "http://www.pre.fix", "a.suffix", "a.suffix.b", "x-part-y", "https://folded.TEST", "https://a.re.test", "https://a.re.test.b", "null", "*"]
PATHS = ["/x", "/stars", "/strict", "/shadow", "/disabled", "/wrapped", "/weighted", "/direct", "/moved", "/refused"]


def preflight(name, path, origin, *more, method="PUT"):
    return one(name, path, method="OPTIONS", headers=[f"Origin: {origin}", f"Access-Control-Request-Method: {method}", *more])


CASES = [one(f"from {o}", "/x", headers=["Origin: " + o]) for o in ORIGINS] + [preflight(f"preflight {o}", "/x", o) for o in ORIGINS]
for p in PATHS:
    for o in ("https://exact.test", "https://bad.test"):
        CASES += [one(f"{p} from {o}", p, headers=["Origin: " + o]),
                  preflight(f"{p} preflight {o}", p, o, "Access-Control-Request-Headers: x-q, x-r", "Access-Control-Request-Private-Network: true")]
CASES += [one("no origin", "/x"), one("empty origin", "/x", headers=["Origin: "]), one("options", "/x", method="OPTIONS", headers=["Origin: https://exact.test"]),
          one("options, no origin", "/x", method="OPTIONS", headers=["Access-Control-Request-Method: PUT"]), preflight("asks for nothing", "/x", "https://exact.test", method=""),
          preflight("stars, no fields", "/stars", "https://exact.test"), preflight("private network, false", "/stars", "https://exact.test", "Access-Control-Request-Private-Network: false"),
          one("two origins", "/x", headers=["Origin: https://exact.test", "Origin: https://a.re.test"]), one("500", "/x", headers=["Origin: https://exact.test", "x-do: 500"]),
          one("head", "/x", method="HEAD", headers=["Origin: https://exact.test"]), one("post", "/x", method="POST", body=b"12345", headers=["Origin: https://exact.test"]),
          one("preflight with a body", "/x", method="OPTIONS", body=b"12345", headers=["Origin: https://exact.test", "Access-Control-Request-Method: PUT"]),
          one("preflight, grpc", "/x", method="OPTIONS", headers=["Origin: https://exact.test", "Access-Control-Request-Method: PUT", "Content-Type: application/grpc"])]
CASES += [over_http2("2 preflight", "/x", "OPTIONS", [("origin", "https://exact.test"), ("access-control-request-method", "PUT")]),
          over_http2("2 from", "/x", "GET", [("origin", "https://exact.test")])]
