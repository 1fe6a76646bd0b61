from case import one

PORT = 8370
LOGS = ["filter_status", "filter_status_le", "filter_slow", "filter_and", "filter_flags", "filter_absent", "filter_grpc", "filter_grpc_not", "filter_type", "filter_runtime"]
GRPC = ["content-type: application/grpc", "te: trailers"]
CASES = [one("up", "/up/1"), one("direct", "/direct"), one("none", "/none"), one("refused", "/refused"), one("slow", "/up/slow", headers=["x-do: slow-head"]),
         one("404 above", "/up/404", headers=["x-do: 404"]), one("logged", "/up/logged", headers=["x-log: Yes"]), one("logged none", "/none/logged", headers=["x-log: yes"]),
         one("logged no", "/up/no", headers=["x-log: no"]), one("logged two", "/up/two", headers=["x-log: no", "x-log: yes"]), one("logged 404", "/up/404", headers=["x-log: yes", "x-do: 404"]),
         one("grpc", "/up/grpc", method="POST", headers=GRPC, body=b"x"), one("grpc none", "/none", method="POST", headers=GRPC, body=b"x"),
         one("grpc refused", "/refused", method="POST", headers=GRPC, body=b"x"), one("closed", "/up/closed", headers=["x-do: close-before"]),
         *(one(f"id {i}", f"/up/id/{i}", headers=["x-sampled: 1", f"x-request-id: {i * 7919 % 65536:08x}-2222-4333-8444-555555555555"]) for i in range(16))]
