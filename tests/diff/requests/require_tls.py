from case import one

PORT = 8185
LOGS = ["require_tls"]
CASES = [one(f"{h} {n}", "/p?q", host=h, headers=headers, method=m) for h in ("all.test", "all.test:8185", "external.test", "none.test") for n, headers, m in (
    ("plain", [], "GET"), ("head", [], "HEAD"), ("proto", ["x-forwarded-proto: https"], "GET"), ("xff private", ["x-forwarded-for: 10.0.0.1"], "GET"), ("post", [], "POST"))]
CASES.sort(key=lambda c: c.name)
