"""What the profiles of this folder share: addresses, HTTP messages, TLS records, and the way a gateway is put between TRex's clients and servers.

    TRex port 0: clients 10.64.100.100-255 ──▶ gateway's listener (--vip, --port) ──▶ TRex port 1: servers (--server_port)

TRex counts bytes; it does not parse HTTP. A gateway adds headers to what passes (x-forwarded-for, x-request-id, …), so nobody knows beforehand
how long a message will be at the other end. Every wait is therefore for as many bytes as were *sent*, and clears the count when it is over:
`recv(n, clear=True)` waits until n bytes are there and then forgets all that came (TRex: CEmulApp::check_rx_condition). A message may grow on its way,
never shrink, and each request and each response starts at zero again. What that cannot see, and millrace-load does, is a wrong status or body: run
millrace-load with the same case first.

Clients have addresses of equal length in text, so that headers which quote them are, too.
"""
import argparse
import hashlib
import random
import struct

from trex.astf.api import (ASTFAssociationRule, ASTFGlobalInfo, ASTFIPGen, ASTFIPGenDist, ASTFIPGenGlobal, ASTFProfile, ASTFProgram,
                           ASTFTCPClientTemplate, ASTFTCPServerTemplate, ASTFTemplate)

CLIENTS = ["10.64.100.100", "10.64.100.255"]
FOR_EVER = 4_000_000_000  # requests on a connection, as good as for ever


def arguments(doc, **defaults):
    """The tunables that every profile has (`-t name=value,…` of TRex), to be added to."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--vip", default="10.63.0.2", help="address of the gateway's listener")
    p.add_argument("--port", type=int, default=8080, help="port of the gateway's listener")
    p.add_argument("--server_port", type=int, default=80, help="port on which TRex's servers answer; the port of the gateway's endpoints")
    p.add_argument("--cps", type=float, default=defaults.get("cps", 1000.0), help="connections opened a second")
    p.add_argument("--mss", type=int, default=1460, help="of TRex's TCP")
    p.add_argument("--window", type=int, default=256, help="receive and send buffers of a connection, KB")
    return p


def check(condition, sentence):
    if not condition:
        raise ValueError(sentence)


def request(host, path, method="GET", body=0, headers=()):
    """Bytes of a request as millrace-load sends it: no header that the case does not need."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {body}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def response_head(body):
    return f"HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n".encode("ascii")


def send_filled(program, head, total):
    """`head`, then filling up to `total` bytes; the filling is not part of the profile's size."""
    if total > len(head):
        program.send(head, size=total, fill="m")
    else:
        program.send(head)


def http_client(requests, body, repeat, think_us=0, request_body=0):
    """Sends each of `requests` (bytes) and awaits its response, `repeat` times over; then closes."""
    answer = len(response_head(body)) + body
    p = ASTFProgram()
    if repeat > 1:
        p.set_var("left", repeat)
        p.set_label("again:")
    for r in requests:
        send_filled(p, r, len(r) + request_body)
        p.recv(answer, True)
        if think_us:
            p.delay(think_us)
    if repeat > 1:
        p.jmp_nz("left", "again:")
    return p


def http_server(shortest_request, body):
    """Answers whatever is at least as long as the shortest request, for as long as the gateway keeps the connection."""
    head = response_head(body)
    p = ASTFProgram()
    p.set_var("left", FOR_EVER)
    p.set_label("again:")
    p.recv(shortest_request, True)
    send_filled(p, head, len(head) + body)
    p.jmp_nz("left", "again:")
    return p


# --- TLS as bytes on the wire ------------------------------------------------------------------------------------------------------

def tls_record(kind, payload):
    return struct.pack("!BHH", kind, 0x0303, len(payload)) + payload


def client_hello(server_name, padded_to=517):
    """A TLS 1.3 ClientHello (RFC 8446 4.1.2) that offers what browsers offer, with that server name (RFC 6066 3), padded (RFC 7685) to their usual size.
    The same name gives the same bytes. No handshake follows from it: it is for gateways that look at it and pass the connection through."""
    noise = hashlib.sha512(server_name.encode("ascii")).digest()

    def extension(number, data):
        return struct.pack("!HH", number, len(data)) + data

    def sized(data, width="!H"):
        return struct.pack(width, len(data)) + data

    name = server_name.encode("ascii")
    extensions = b"".join([
        extension(0, sized(b"\0" + sized(name))),  # server_name
        extension(10, sized(struct.pack("!HH", 0x001D, 0x0017))),  # supported_groups: x25519, secp256r1
        extension(13, sized(struct.pack("!HHH", 0x0403, 0x0804, 0x0401))),  # signature_algorithms
        extension(16, sized(sized(b"h2", "!B") + sized(b"http/1.1", "!B"))),  # ALPN
        extension(43, sized(struct.pack("!HH", 0x0304, 0x0303), "!B")),  # supported_versions
        extension(45, sized(b"\1", "!B")),  # psk_key_exchange_modes
        extension(51, sized(struct.pack("!H", 0x001D) + sized(noise[:32]))),  # key_share
    ])
    fixed = struct.pack("!H", 0x0303) + noise[32:64] + sized(noise[:32], "!B") + sized(struct.pack("!HHHH", 0x1301, 0x1302, 0x1303, 0xC02F)) + sized(b"\0", "!B")
    # record header 5, handshake header 4, length of the extensions 2, header of the padding extension 4
    missing = padded_to - (5 + 4 + len(fixed) + 2 + len(extensions))
    if missing >= 4:
        extensions += extension(21, bytes(missing - 4))
    body = fixed + sized(extensions)
    return tls_record(22, b"\1" + struct.pack("!I", len(body))[1:] + body)


def server_flight(certificate_bytes=900):
    """As many bytes as a server's first flight of TLS 1.3 has: ServerHello, then its encrypted part as one opaque record."""
    hello = struct.pack("!BB", 2, 0) + struct.pack("!H", 118) + bytes(118)
    return tls_record(22, hello) + tls_record(20, b"\1") + tls_record(23, bytes(certificate_bytes + 250))


def opaque_records(plain_bytes):
    """Sizes of `plain_bytes` of application data as TLS 1.3 records (RFC 8446 5.2: 5 header, 1 type, 16 tag), at most 16 KiB each."""
    sizes = [16384] * (plain_bytes // 16384) + ([plain_bytes % 16384] if plain_bytes % 16384 else [])
    return [tls_record(23, b"") [:3] + struct.pack("!H", n + 17) for n in sizes], [n + 22 for n in sizes]


# --- putting it together -----------------------------------------------------------------------------------------------------------

def draw_lines(lines, count, zipf, seed):
    """`count` lines drawn as millrace-load draws them: uniformly, or line i with weight 1/i^zipf."""
    r = random.Random(seed)
    if not zipf:
        return [r.choice(lines) for _ in range(count)]
    return r.choices(lines, weights=[1 / (i + 1) ** zipf for i in range(len(lines))], k=count)


def read_targets(name):
    """Lines `host path` as millrace-load --targets reads them."""
    out = []
    with open(name, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            check(len(words) == 2, f"{name}:{number}: a line is `host path`")
            check(words[1].startswith("/"), f"{name}:{number}: the path does not begin with /")
            out.append((words[0], words[1]))
    check(out, f"{name}: no line says what to ask for")
    return out


def profile(args, pairs, limit=None):
    """A profile of `pairs` (client program, server program): `args.cps` connections a second shared among them, at most `limit` open at a time. Servers of
    all pairs but the first listen on ports of their own that nobody asks: TRex wants one server a client template, the gateway has one upstream port."""
    check(1 <= args.port <= 65535 and 1 <= args.server_port <= 65535 - len(pairs), "ports are 1 to 65535")
    check(args.cps > 0, "cps: above 0")
    clients = ASTFIPGenDist(ip_range=CLIENTS, distribution="seq")
    gateway = ASTFIPGenDist(ip_range=[args.vip, args.vip], distribution="seq")
    # No offset between port pairs: there is one gateway.
    addresses = ASTFIPGen(glob=ASTFIPGenGlobal(ip_offset="0.0.0.0"), dist_client=clients, dist_server=gateway)
    tcp = ASTFGlobalInfo()
    tcp.tcp.mss = args.mss
    tcp.tcp.rxbufsize = tcp.tcp.txbufsize = args.window * 1024
    tcp.tcp.initwnd = 10  # RFC 6928, as everybody has it
    tcp.tcp.no_delay = 1
    tcp.tcp.do_rfc1323 = 1
    templates = []
    for i, (client, server) in enumerate(pairs):
        share = None if limit is None else limit // len(pairs) + (i < limit % len(pairs))
        if share == 0:
            continue
        templates.append(ASTFTemplate(
            client_template=ASTFTCPClientTemplate(program=client, ip_gen=addresses, port=args.port, cps=args.cps / len(pairs), limit=share,
                                                  cont=True if share else None),
            server_template=ASTFTCPServerTemplate(program=server, assoc=ASTFAssociationRule(port=args.server_port + i))))
    return ASTFProfile(default_ip_gen=addresses, templates=templates, default_c_glob_info=tcp, default_s_glob_info=tcp)
