from case import one, raw

PORT = 8180
LOGS = ["log_default", "log_text", "log_json"]
CASES = [c for port in (8180, 8181, 8182) for c in (
    one(f"{port} up", "/up/long/path?q=\"x\"", headers=["User-Agent: diff/1", "X-One: first", "X-Forwarded-For: 1.2.3.4"], port=port), one(f"{port} post", "/up", method="POST", body=b"12345", headers=["x-two: second"], port=port),
    one(f"{port} direct", "/direct", port=port), one(f"{port} refused", "/refused", port=port), one(f"{port} not found", "/none", port=port), one(f"{port} closed", "/up", headers=["x-do: close-before"], port=port),
    one(f"{port} quotes", "/up", headers=["User-Agent: a\"b\\c\td", "X-One: \xe9"], port=port), raw(f"{port} bad", "bad\n\n", port=port), one(f"{port} trace id", "/up", headers=["x-request-id: 11111111-2222-4333-8444-555555555555"], port=port))]
