from case import one

PORT = 8190
LOGS = []
CASES = [one(f"{port} {d}", port=port, headers=["Via: 1.0 before", "x-do: " + d]) for port in range(8190, 8195) for d in ("echo", "dated", "204", "close-before")]
