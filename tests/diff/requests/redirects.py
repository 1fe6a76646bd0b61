from case import one, raw

PORT = 8107
LOGS = ["redirects"]
NAMES = ["https", "host", "path", "path_query", "prefix", "strip", "strip_only", "port", "port80", "port443", "scheme", "all", "c302", "c303", "c307", "c308", "hostport", "empty"]
CASES = [one(n, f"/{n}/rest?q=1") for n in NAMES]
CASES += [one(n + " host with port", f"/{n}/", host="a.test:8107") for n in ("https", "host", "path", "prefix", "port", "port80", "scheme", "hostport", "all")]
CASES += [one(n + " default ports", f"/{n}/", host=h) for n, h in (("https", "a.test:80"), ("scheme", "a.test:443"))] + [one("https default port 443", "/https/", host="a.test:443")]
CASES += [one(n + " v6", f"/{n}/", host="[::1]:99") for n in ("https", "port")]
CASES += [one("headers", "/headers/"), one("sep", "/sep/x"), one("sep alone", "/sep"), one("root", "/root/x"), one("root alone", "/root"), one("exact", "/exact?q"),
          one("head", "/host/", method="HEAD"), one("post", "/host/", method="POST", body=b"12345"), one("proto https", "/path/", headers=["x-forwarded-proto: https"]),
          one("grpc", "/host/", method="POST", headers=["content-type: application/grpc"], body=b"12345"),
          one("same place", "/https/", headers=["x-forwarded-proto: https"]), one("odd bytes", "/host/%20%0d\xe9?a b".replace(" ", "%20")), one("chunked", "/host/", method="POST", headers=["transfer-encoding: chunked"], body=b""),
          raw("post chunked", "POST /host/ HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n")]
