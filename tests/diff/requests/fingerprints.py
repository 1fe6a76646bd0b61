from case import one

PORT = 8405
LOGS = ["fingerprints", "fingerprints_ja3", "fingerprints_ja4", "fingerprints_off"]
TLS = {"sni": {"sni": "one.test"}, "no sni": {}, "alpn": {"sni": "one.test", "alpn": ["h2", "http/1.1"]}, "http1": {"sni": "one.test", "alpn": ["http/1.1"]},
       "tls 1.2": {"sni": "one.test", "max": "1.2"}, "plain": None}
CASES = [one(f"{port} {name}", f"/{port}", port=port, tls=tls) for port in (8405, 8406, 8407, 8408) for name, tls in TLS.items() if name != "alpn"]
