from case import one

PORT = 8261
LOGS = ["client_cert"]
PORTS = {"sanitize": 8261, "forward": 8262, "append": 8263, "set": 8264, "always": 8265, "required": 8266, "untrusted": 8267, "san": 8268}
SENT = ["x-forwarded-client-cert: By=spiffe://evil;Hash=00;URI=spiffe://evil"]
CASES = []
for mode, port in PORTS.items():
    for cert in (None, "ca-client", "ca-nameless", "stranger-up", "ca-expired"):
        for version in ("1.2", "1.3"):
            tls = {"sni": "edge.test", "max": version, "cert": cert}
            name = f"{mode} {cert} {version}"
            CASES += [one(name + " sent", "/up", port=port, tls=tls, headers=SENT), one(name + " routes", "/tls", port=port, tls=tls)]
            if version == "1.3":
                CASES.append(one(name + " twice", "/up", port=port, tls=tls, headers=SENT * 2))
                CASES.append(one(name + " none", "/up", port=port, tls=tls))
