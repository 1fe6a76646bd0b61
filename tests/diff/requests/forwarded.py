from case import one

PORT = 8121
LOGS = ["fwd_plain", "fwd_edge", "fwd_edge_hop1", "fwd_edge_hop2", "fwd_hop1", "fwd_skip"]
GIVEN = {"nothing": [], "xff": ["x-forwarded-for: 1.2.3.4"], "xff private": ["x-forwarded-for: 10.1.2.3"], "xff three": ["x-forwarded-for: 1.1.1.1, 2.2.2.2,3.3.3.3"], "xff twice": ["x-forwarded-for: 1.1.1.1", "x-forwarded-for: 2.2.2.2"],
         "xff bad": ["x-forwarded-for: nonsense"], "xff v6": ["x-forwarded-for: 2001:db8::1"], "proto": ["x-forwarded-proto: https"], "proto odd": ["x-forwarded-proto: gopher"], "host port": ["x-forwarded-host: h", "x-forwarded-port: 1"],
         "envoy": ["x-envoy-internal: true", "x-envoy-external-address: 9.9.9.9", "x-envoy-upstream-rq-timeout-ms: 7000", "x-envoy-max-retries: 3", "x-envoy-downstream-service-cluster: c", "x-envoy-force-trace: true"],
         "loopback": ["x-forwarded-for: 127.0.0.1"]}
CASES = [one(f"{log} {name}", port=port, headers=headers) for log, port in zip(LOGS, range(8121, 8127)) for name, headers in GIVEN.items()]
