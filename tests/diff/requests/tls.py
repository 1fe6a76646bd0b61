from case import one

PORT = 8170
LOGS = ["tls"]
CASES = [one(f"{n} {v}", tls={"sni": n, "max": v, "alpn": ["http/1.1"]}, host="a.test") for n in ("one.test", "x.two.test", "two.test", "a.b.two.test", "ONE.test", "unknown.test", None) for v in ("1.2", "1.3")]
CASES += [one("no alpn", tls={"sni": "one.test"}), one("other alpn", tls={"sni": "one.test", "alpn": ["h3"]}), one("upstream", "/up", tls={"sni": "one.test"}), one("too old", tls={"sni": "one.test", "max": "1.1"}),
          one("plain", timeout=2.0)]
