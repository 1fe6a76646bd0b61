from case import Case, Response, one, request

PORT = 8199
LOGS = []
CASES = [
    one("get"),
    one("more than a segment of 512 bytes", method="POST", body=b"x" * 20_000),
    Case("keep-alive", [request(path="/1"), Response(), request(path="/2"), Response()]),
]
