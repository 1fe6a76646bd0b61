from case import Case, Response, one, raw, request

PORT = 8108
LOGS = ["direct_responses"]
PATHS = ["/plain", "/nobody", "/204", "/304", "/404", "/503", "/599", "/301", "/302b", "/418", "/bytes", "/typed", "/any?x"]
CASES = [one(f"{m} {p}", p, method=m) for p in PATHS for m in ("GET", "HEAD")]
CASES += [one("POST " + p, p, method="POST", body=b"x" * 100) for p in ("/plain", "/204", "/404")]
CASES += [Case("two posts", [request("POST", "/plain", body=b"abc") + request("POST", "/nobody", body=b"def"), Response(), Response()]),
          raw("chunked post", "POST /plain HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"),
          Case("post in two pieces", [b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345", Response(), b"67890"]),
          Case("large post", [request("POST", "/plain", body=b"z" * 300000), Response()]),
          one("expect", "/plain", method="POST", headers=["Expect: 100-continue"], body=b"abc"),
          one("grpc", "/404", method="POST", headers=["content-type: application/grpc"], body=b"abc"),
          one("grpc get", "/plain", headers=["content-type: application/grpc"])]
