import itertools

from case import Bytes, Case, Response, request

PORT = 8400
LOGS = ["proxy_upstream"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
IP4, IP6 = bytes([192, 0, 2, 1, 198, 51, 100, 1]), b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\2"
TLVS = b"\xe1\0\3one" + b"\x02\0\6a.test" + b"\xe3\0\2no" + b"\xe2\0\3two" + b"\x05\0\1i"
TWICE = b"\xe2\0\1a\xe1\0\1b\xe2\0\1c"


def v2(command, family, rest):
    return SIGNATURE + bytes([0x20 | command, family]) + len(rest).to_bytes(2, "big") + rest


# By the port that the client is said to have: each is another client, since Envoy gives one that comes again the connections that he had.
HEADERS = {
    "v1": lambda p: b"PROXY TCP4 192.0.2.1 198.51.100.1 %d 443\r\n" % p, "v1 ipv6": lambda p: b"PROXY TCP6 2001:db8::1 2001:db8::2 %d 443\r\n" % p,
    "v2": lambda p: inet(p), "v2 ipv6": lambda p: inet6(p), "tlvs": lambda p: inet(p, TLVS), "tlvs ipv6": lambda p: inet6(p, TLVS), "tlvs twice": lambda p: inet(p, TWICE),
    "noop": lambda p: inet(p, b"\x04\0\2xx"), "long": lambda p: inet(p, b"\xe1\x04\0" + b"l" * 1024),
}
inet = lambda p, tlvs=b"": v2(1, 0x11, IP4 + p.to_bytes(2, "big") + b"\1\xbb" + tlvs)
inet6 = lambda p, tlvs=b"": v2(1, 0x21, IP6 + p.to_bytes(2, "big") + b"\1\xbb" + tlvs)
port = itertools.count(1000)
CASES = []
for path in ("v1", "v2", "all", "some", "added"):
    for name, header in HEADERS.items():
        CASES.append(Case(f"{path} {name}", [header(next(port)) + request("GET", f"/{path}"), Response(), request("GET", f"/{path}/again"), Response()]))
CASES += [Case("two endpoints of one client", [inet(999) + request("GET", "/v1"), Response(), request("GET", "/v2"), Response(), request("GET", "/v1"), Response()])]
# 5 of the greeting, the header, what the client said.
CASES += [Case(f"tcp {name}", [HEADERS[name](next(port)) + b"bytes", Bytes(5 + 16 + more + 8 + 5)], port=8401)
          for name, more in (("v1", 12), ("v2 ipv6", 36), ("tlvs", 12 + len(TLVS)))]
