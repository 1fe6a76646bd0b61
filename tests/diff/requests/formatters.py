from case import one, raw

PORT = 8300
LOGS = ["formatters", "commands_text", "commands_omit", "commands_json", "commands_json_deep", "commands_json_all", "commands_json_none"]
ID = "x-request-id: 11111111-2222-4333-8444-555555555555"
GRPC = ["content-type: application/grpc", "te: trailers"]
CASES = [one("everything", "/everything/x?a=1&b=2", headers=["x-one: first", "x-over: old", "x-exist: old", "user-agent: curl/8"]),
         one("everything absent", "/everything", headers=["x-two: second"]),
         one("everything posted", "/everything", method="POST", body=b"12345", headers=["x-absent: given", "x-one: \xe9\xff", "X-Forwarded-For: 1.2.3.4"]),
         one("two values", "/everything", headers=["x-one: a", "x-one: b"]),
         one("no length", "/everything", headers=["x-do: empty-chunked"]), one("404 above", "/everything", headers=["x-do: 404"]),
         one("closed above", "/everything", headers=["x-do: close-before"]),
         one("weighted", "/weighted", headers=["x-one: w"]), one("direct", "/direct?x=1"), one("redirect", "/redirect?x=1"), one("refused", "/refused"),
         one("rest", "/rest", headers=["x-one: abcdef"]), one("head", "/everything", method="HEAD"),
         *(one(f"log {path}", path, headers=["x-one: 1", ID, "user-agent: diff"], port=8301) for path in ("/up?a=1&b=2", "/up", "/direct", "/refused", "/none?a=%20")),
         one("log grpc", "/up", method="POST", headers=[*GRPC, ID], body=b"x", port=8301), one("log grpc refused", "/refused", method="POST", headers=[*GRPC, ID], body=b"x", port=8301),
         one("log grpc none", "/none", method="POST", headers=[*GRPC, ID], body=b"x", port=8301), raw("log bad", "bad\n\n", port=8301),
         one("log closed", "/up", headers=["x-do: close-before", ID], port=8301), one("log partial", "/up", headers=["x-do: partial-body", ID], port=8301)]
