import struct
from case import Case, CloseWrite, Response, Wait

PORT = 8175
LOGS = ["passthrough_refused"]


def hello(name):
    """A ClientHello with that server name and nothing else of use."""
    n = name.encode()
    sni = struct.pack("!HHHBH", 0, len(n) + 5, len(n) + 3, 0, len(n)) + n
    body = b"\x03\x03" + b"r" * 32 + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + struct.pack("!H", len(sni)) + sni
    return b"\x16\x03\x01" + struct.pack("!H", len(body) + 4) + b"\x01" + struct.pack("!I", len(body))[1:] + body


CASES = [Case("echo", [b"hello", Wait(0.1)]), Case("half close", [b"hello", Wait(0.1), CloseWrite(), Wait(0.1)]), Case("refused", [b"hello", Wait(0.2)], port=8176),
         Case("sni", [hello("b.test"), Wait(0.2)], port=8177), Case("sni in pieces", [hello("b.test")[:9], Wait(0.05), hello("b.test")[9:], Wait(0.2)], port=8177), Case("sni unknown", [hello("c.test"), Wait(0.2)], port=8177),
         Case("no tls", [b"hello, this is no TLS", Wait(0.2)], port=8177)]
