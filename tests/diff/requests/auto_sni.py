from case import Case, Response, one, request

PORT = 8410
LOGS = ["auto_sni"]
HOSTS = ["up.test", "up.test:8443", "y.wild.test", "other.test", "UP.test"]
CASES = [one(f"{name} {host}", f"/{name}/", host=host) for name in ("asni", "asni_fixed", "asni_san") for host in HOSTS]
CASES += [one(f"{name} {host}", f"/{name}/", host=host) for name in ("asni", "asni_fixed") for host in ("192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80")]
CASES += [one(f"header {value or 'empty'}", "/asni_header/", host="up.test", headers=[f"x-name: {value}"]) for value in ("z.wild.test", "other.test", "")]
CASES += [one("header absent", "/asni_header/", host="up.test"), one("rewritten", "/rewritten/", host="other.test")]
# Each name has a connection of its own: which of them are new is in what the endpoint saw.
CASES += [Case("taking turns", [x for host in ("t1.wild.test", "t2.wild.test", "t1.wild.test", "t2.wild.test:1") for x in (request(path="/asni/", host=host), Response())])]
# Port 8412, where the server prefers, is not asked: between AES128-GCM and CHACHA20 Envoy's default list has a tie, and how it falls differs by run.
CASES += [one("ciphers 8411", port=8411, tls={"sni": "one.test", "max": "1.2"})]
