from case import one, raw

PORT = 8102
LOGS = ["virtual_hosts"]
HOSTS = ["a.test", "A.Test", "a.test:80", "a.test:8102", "b.test", "b.test:8102", "upper.test", "x.test", "x.y.test", ".test", "test", "x.long.test", "long.test",
         "a-x.test", "-x.test", "b-x.test:80", "pre.com", "pre.", "pre", "pre.fix.com", "pre.a.test", "[::1]", "[::1]:80", "[::2]", "other", "a.test.", "10.0.0.1", "a_b.test"]
CASES = [one(f"host {h}", "/yes", host=h) for h in HOSTS]
CASES += [one("not found", "/no", host="other"), one("not found head", "/no", method="HEAD", host="other"), one("not found post", "/no", method="POST", body=b"x" * 10, host="other"),
          raw("empty host", "GET /yes HTTP/1.1\nHost:\n\n"), one("absolute wins", "http://pre.com/yes", host="a.test")]
CASES += [one(f"no port {h}", "/", host=h, port=8103) for h in ("a.test", "a.test:1", "a.test:99999", "a.test:", "x.test:80", "[::1]", "[::1]:80", "b", "a.test:x")]
