from case import Case, Response, one, request

PORT = 8350
LOGS = ["strip_matching"]
HOSTS = ("one.test", "one.test:{port}", "one.test:80", "one.test.", "one.test.:{port}", "one.test:", "one.test:x", "one.test:99999", "[::1]:{port}", "[::1]", "ONE.test:{port}", "one.test..", ".")
CASES = [Case("connect", [request("CONNECT", "a.test:443", host="a.test:443", headers=["x-do: 500"]), Response()], port=8361),
         Case("connect other port", [request("CONNECT", "a.test:1", host="a.test:1", headers=["x-do: 500"]), Response()], port=8361),
         *(one(f"{port} {host}", "/", host=host.format(port=port), port=port) for port in (8350, 8351, 8352, 8353) for host in HOSTS),
         *(one(f"{port} {name}", "/", headers=headers, port=port) for port in (8354, 8355, 8356) for name, headers in (
             ("no port", []), ("port", ["x-forwarded-port: 1234"]), ("xff", ["x-forwarded-for: 1.2.3.4"]), ("both", ["x-forwarded-for: 1.2.3.4", "x-forwarded-port: 1", "x-forwarded-proto: https"]))),
         *(one(f"scheme {name}", path, headers=headers, port=8357) for name, path, headers in (
             ("plain", "/", []), ("redirect", "/redirect", []), ("proto", "/", ["x-forwarded-proto: http"]), ("absolute", "http://a.test/", []))),
         *(one(f"{port} {name}", "/", headers=headers, port=port) for port in (8358, 8359, 8360) for name, headers in (
             ("alone", []), ("xff outside", ["x-forwarded-for: 1.2.3.4"]), ("xff inside", ["x-forwarded-for: 192.168.1.1"]), ("xff two", ["x-forwarded-for: 192.168.1.1, 192.168.1.2"]),
             ("timeout", ["x-envoy-upstream-rq-timeout-ms: 7000"]), ("expected", ["x-envoy-expected-rq-timeout-ms: 8000"]),
             ("timeouts", ["x-envoy-expected-rq-timeout-ms: 8000", "x-envoy-upstream-rq-timeout-ms: 7000"]), ("bad expected", ["x-envoy-expected-rq-timeout-ms: x"]),
             ("claims", ["x-envoy-internal: true", "x-envoy-retry-on: 5xx", "x-envoy-external-address: 9.9.9.9"]), ("id", ["x-request-id: 11111111-2222-4333-8444-555555555555"])))]
