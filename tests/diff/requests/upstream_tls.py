from case import one

PORT = 8260
LOGS = ["upstream_tls"]
GOOD = ["none", "none13", "only13", "ca", "alpn", "cipher", "dns", "uri", "hash", "spki", "expiredok", "untrusted", "client", "sni"]
BAD = ["wrongdns", "wronguri", "wronghash", "expired", "stranger", "revoked", "plain", "wrongsni"]
CASES = [one(name, f"/utls_{name}/") for name in GOOD + BAD]
CASES += [one("again " + name, f"/utls_{name}/") for name in ("none", "only13", "stranger")]
CASES += [one("post to a stranger", "/utls_stranger/", method="POST", body=b"x" * 100), one("a stranger's head", "/utls_stranger/", method="HEAD"),
          one("grpc to a stranger", "/utls_stranger/", method="POST", headers=["content-type: application/grpc"], body=b"x")]
