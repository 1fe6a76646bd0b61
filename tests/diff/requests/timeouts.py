from case import Case, Response, Wait, one, request

PORT = 8200
LOGS = ["time_idle", "time_headers", "time_request", "time_stream", "time_max"]
CASES = [Case("idle after request", [request(), Response(), Wait(0.6)], port=8200), Case("idle from the start", [Wait(0.6)], port=8200), Case("headers", [b"GET / HTTP/1.1\r\nHost:", Response()], port=8201),
         Case("headers in time", [b"GET / HTTP/1.1\r\n", Wait(0.1), b"Host: a\r\n\r\n", Response()], port=8201), Case("request", [request("POST", length=10) + b"abc", Response()], port=8202),
         one("request whole", headers=["x-do: slow-head"], port=8202), Case("stream in request", [request("POST", length=10) + b"abc", Response()], port=8203), one("stream in response", headers=["x-do: slow-head"], port=8203),
         one("stream in body", headers=["x-do: slow-body"], port=8203), one("max", headers=["x-do: slow-head"], port=8204), one("max in body", headers=["x-do: slow-body"], port=8204),
         Case("max in request", [request("POST", length=10) + b"abc", Response()], port=8204)]
