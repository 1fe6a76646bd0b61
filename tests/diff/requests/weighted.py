from case import Case, Response, one, request

PORT = 8120
LOGS = []
CASES = [one("zero is never", "/only"), one("missing", "/missing"),
         Case("shares", [step for _ in range(200) for step in (request(path="/shares"), Response())], shares=True)]
