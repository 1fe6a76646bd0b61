from case import one

PORT = 8109
LOGS = ["rewrites"]
CASES = [one(p, p) for p in ("/old", "/old/x?q=1", "/older", "/root", "/root/x", "/slash/", "/slash/x", "/exact", "/exact?q", "/sep", "/sep/x", "/re/abc", "/re/abc?q", "/CASE/x", "/host", "/xfh", "/both/x",
                             "/auto", "/noauto", "/headers/x", "/old%20x", "/old?/old")]
CASES += [one("xfh there already", "/xfh", headers=["x-forwarded-host: first.test"]), one("xfh same", "/xfh", headers=["x-forwarded-host: a.test"]), one("xfh two", "/xfh", headers=["x-forwarded-host: b, a.test"]),
          one("given original path", "/old/x", headers=["x-envoy-original-path: /lie"]), one("given original host", "/host", headers=["x-envoy-original-host: lie"]),
          one("host with port", "/host", host="a.test:80"), one("same host", "/host", host="inner.test"), one("suppressed", "/old/x", port=8110),
          one("absolute", "http://abs.test/old/x")]
