from case import Case, Response, request

PORT = 8334
LOGS = ["proxied", "maybe_proxied"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INET = bytes([192, 0, 2, 1, 198, 51, 100, 1, 0xDC, 4, 1, 0xBB])
INET6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\2\0\1\0\2"


def v2(command, family, rest):
    return SIGNATURE + bytes([0x20 | command, family]) + len(rest).to_bytes(2, "big") + rest


HEADERS = {
    "v1": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "v1 ipv6": b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v2": v2(1, 0x11, INET), "v2 tlvs": v2(1, 0x11, INET + b"\x02\x00\x06a.test"), "v2 local": v2(0, 0, b""), "v2 ipv6": v2(1, 0x21, INET6),
    "none": b"", "v1 bad family": b"PROXY TCP9 192.0.2.1 198.51.100.1 56324 443\r\n", "v1 bad address": b"PROXY TCP4 1.2.3 198.51.100.1 56324 443\r\n",
    "v1 bad port": b"PROXY TCP4 192.0.2.1 198.51.100.1 70000 443\r\n", "v1 short": b"PROXY TCP4 192.0.2.1\r\n", "v2 version 3": SIGNATURE + b"\x31\x11\x00\x0c" + INET,
    "v2 command 2": v2(2, 0x11, INET), "v2 too short": v2(1, 0x11, INET[:8]),
}
CASES = [Case(f"{port} {name}", [h + request("GET", "/who"), Response(), request("GET", "/again"), Response()], port=port) for port in (8334, 8335) for name, h in HEADERS.items()]
