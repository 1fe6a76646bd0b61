from case import one, raw

PORT = 8320
LOGS = ["local_reply_json"]
GRPC = ["content-type: application/grpc", "te: trailers"]
CASES = [c for port in (8320, 8321, 8322, 8323) for c in (
    one(f"{port} direct", "/direct", host="all.test", port=port), one(f"{port} empty", "/empty", host="all.test", port=port), one(f"{port} typed", "/typed", host="all.test", port=port),
    one(f"{port} typed plain", "/typed", host="all.test", headers=["x-plain: 1"], port=port), one(f"{port} redirect", "/redirect", host="all.test", port=port),
    one(f"{port} none", "/none?\"q\"", host="all.test", port=port), one(f"{port} no host", "/", host="other.test", port=port), one(f"{port} refused", "/refused", host="all.test", port=port),
    one(f"{port} refused plain", "/refused", host="all.test", headers=["x-plain: 1"], port=port), one(f"{port} timeout", "/up", host="all.test", headers=["x-do: slow-head"], port=port),
    one(f"{port} closed", "/up", host="all.test", headers=["x-do: close-before"], port=port), one(f"{port} 500 above", "/up", host="all.test", headers=["x-do: 500"], port=port),
    one(f"{port} head", "/direct", method="HEAD", host="all.test", port=port), one(f"{port} grpc", "/none", method="POST", host="all.test", headers=GRPC, body=b"x", port=port),
    one(f"{port} grpc refused", "/refused", method="POST", host="all.test", headers=GRPC, body=b"x", port=port), raw(f"{port} bad", "bad\n\n", port=port))]
