from case import Case, Response, one, request

PORT = 8195
LOGS = ["limit_count", "limit_kb", "limit_requests", "limit_default"]
CASES = [one(f"{n} headers", headers=[f"x-{i}: {i}" for i in range(n)], port=8195) for n in (5, 8, 9, 10, 11)]
CASES += [one(f"{n} bytes", headers=["x: " + "y" * n], port=8196) for n in (1500, 1990, 2010, 2050, 3000)]
CASES += [Case("requests", [request(), Response(), request(), Response(), request(), Response()], port=8197), one("99 headers", headers=[f"x-{i}: {i}" for i in range(98)], port=8198),
          one("100 headers", headers=[f"x-{i}: {i}" for i in range(99)], port=8198), one("101 headers", headers=[f"x-{i}: {i}" for i in range(100)], port=8198), one("58 KB", headers=["x: " + "y" * 58000], port=8198)]
