from case import Case, Response, Wait, one, request

PORT = 8150
LOGS = ["failures"]
CASES = [one(p, p) for p in ("/refused", "/empty", "/unhealthy", "/missing", "/404missing", "/500missing", "/overflow")]
CASES += [one(d, "/x", headers=["x-do: " + d]) for d in ("close-before", "reset-before", "partial-head", "partial-body", "partial-body-reset", "partial-chunk", "bad-status", "garbage", "bad-length", "two-lengths",
                                                         "bad-header", "length-and-chunked", "101", "extra-bytes", "204-with-body", "big-headers", "many-headers", "slow-head", "slow-body")]
CASES += [one(f"{p} {d}", p, headers=["x-do: " + d]) for p in ("/short", "/notimeout", "/idle") for d in ("slow-head", "slow-body")]
CASES += [one("refused head", "/refused", method="HEAD"), one("refused post", "/refused", method="POST", body=b"x" * 100), one("refused grpc", "/refused", method="POST", headers=["content-type: application/grpc"], body=b"x"),
          one("missing grpc", "/missing", method="POST", headers=["content-type: application/grpc"], body=b"x"), one("timeout grpc", "/short", method="POST", headers=["content-type: application/grpc", "x-do: slow-head"], body=b"x"),
          one("timeout asked", "/x", headers=["x-envoy-upstream-rq-timeout-ms: 200", "x-do: slow-head"]),
          Case("early answer", [request("POST", "/x", headers=["x-do: early-404"], length=1000) + b"x" * 10, Response(), Wait(0.1)]),
          Case("client leaves", [request(path="/x", headers=["x-do: slow-head"]), Wait(0.1)])]
