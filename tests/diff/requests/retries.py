from case import one

PORT = 8390
LOGS = ["retries"]
ANSWERS = ["500", "grpc-503", "text-404", "echo", "close-before", "reset-before", "partial-head", "partial-body", "slow-body"]
CASES = [one(f"{p} {d}", p, headers=["x-do: " + d]) for p in ("/5xx", "/one", "/gateway", "/reset", "/codes") for d in ANSWERS]
CASES += [one(f"/try {d}", "/try", headers=["x-do: " + d]) for d in ("slow-head", "500", "echo")]
CASES += [one("refused", "/connect"), one("refused post", "/connect", method="POST", body=b"x" * 100)]
CASES += [one(f"body {n}", "/5xx", method="POST", headers=["x-do: 500"], body=b"x" * n) for n in (1, 600, 3000)]
CASES += [one("asked", "/", headers=["x-do: 500", "x-envoy-retry-on: 5xx"]), one("asked thrice", "/", headers=["x-do: 500", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 3"]),
          one("asked for a code", "/", headers=["x-do: text-404", "x-envoy-retry-on: retriable-status-codes", "x-envoy-retriable-status-codes: 404"]),
          one("asked 4xx", "/", headers=["x-do: text-404", "x-envoy-retry-on: retriable-4xx"]),
          one("asked for less", "/5xx", headers=["x-do: 500", "x-envoy-max-retries: 0"]),
          one("asked per try", "/", headers=["x-do: slow-head", "x-envoy-retry-on: 5xx", "x-envoy-upstream-rq-per-try-timeout-ms: 150"]),
          one("count told by the client", "/5xx", headers=["x-do: echo", "x-envoy-attempt-count: 7"])]
