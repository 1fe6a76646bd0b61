from case import one

PORT = 8130
LOGS = ["rid", "rid_off", "rid_edge", "rid_edge_keep", "rid_always"]
CASES = [one(f"{log} {name}", port=port, headers=headers) for log, port in zip(LOGS, range(8130, 8135)) for name, headers in (
    ("none", []), ("given", ["x-request-id: 11111111-2222-4333-8444-555555555555"]), ("odd", ["x-request-id: mine"]), ("empty", ["x-request-id:"]), ("twice", ["x-request-id: a", "x-request-id: b"]),
    ("answered", ["x-do: envoy-headers", "x-request-id: mine"]))]
