from case import Case, Response, Wait, one, raw, request

PORT = 8160
LOGS = ["bodies", "bodies_trailers"]
ANSWERS = ["204", "304", "chunked", "trailers", "empty-chunked", "until-close", "103", "100", "102", "mixed-case"]
CHUNKED = "POST /c HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n"
CASES = [c for port in (8160, 8161) for c in (
    [one(f"{port} {m} {a}", method=m, headers=["x-do: " + a], port=port) for a in ANSWERS for m in ("GET", "HEAD")] +
    [raw(f"{port} chunked", CHUNKED + "\n5\nhello\n6;ext=1\n world\n0\n\n", port=port), raw(f"{port} chunked trailers", CHUNKED + "Trailer: x-t\n\n5\nhello\n0\nX-T: 1\nx-u: 2\n\n", port=port),
     raw(f"{port} chunked empty", CHUNKED + "\n0\n\n", port=port), raw(f"{port} chunked upper hex", CHUNKED + "\nA\n0123456789\n000\n\n", port=port), raw(f"{port} te case", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n0\n\n", port=port),
     raw(f"{port} get with body", "GET / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", port=port), raw(f"{port} get chunked", "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n", port=port),
     Case(f"{port} expect", [request("POST", "/", headers=["Expect: 100-continue"], length=3), Wait(0.1), b"abc", Response()], port=port),
     Case(f"{port} expect body at once", [request("POST", "/", headers=["Expect: 100-continue"], body=b"abc"), Response()], port=port), one(f"{port} expect else", headers=["Expect: tea"], port=port),
     Case(f"{port} big post", [request("POST", "/", body=b"0123456789" * 30000), Response()], port=port), Case(f"{port} slow post", [request("POST", "/", length=6), b"abc", Wait(0.05), b"def", Response()], port=port),
     Case(f"{port} chunked then next", [(CHUNKED + "\n3\nabc\n0\n\n").replace("\n", "\r\n").encode() + request(path="/next"), Response(), Response()], port=port),
     Case(f"{port} head then get", [request("HEAD", "/", headers=["x-do: mixed-case"]), Response("HEAD"), request(), Response()], port=port)])]
