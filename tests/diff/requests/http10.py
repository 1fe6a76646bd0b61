from case import Case, Response, one, raw, request

PORT = 8155
LOGS = ["http10_off", "http10_on", "http10_host"]
CASES = [c for port in (8155, 8156, 8157) for c in (
    one(f"{port} get", version="HTTP/1.0", port=port), raw(f"{port} no host", "GET / HTTP/1.0\n\n", port=port), one(f"{port} keep-alive", version="HTTP/1.0", headers=["Connection: keep-alive"], port=port),
    one(f"{port} post", method="POST", version="HTTP/1.0", body=b"abc", port=port), one(f"{port} chunked answer", version="HTTP/1.0", headers=["x-do: chunked"], port=port),
    one(f"{port} until close", version="HTTP/1.0", headers=["x-do: until-close", "Connection: keep-alive"], port=port), one(f"{port} http/1.1", port=port), one(f"{port} 1.1 close", headers=["Connection: Close"], port=port),
    one(f"{port} upstream 1.0", headers=["x-do: http10"], port=port), one(f"{port} upstream 1.0 until close", headers=["x-do: http10-until-close"], port=port),
    one(f"{port} head", method="HEAD", version="HTTP/1.0", port=port), raw(f"{port} chunked", "POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n", port=port))]
