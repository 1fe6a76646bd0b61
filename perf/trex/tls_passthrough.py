"""TLS that a gateway passes through by its server name: a real ClientHello, a first flight of a server's size, then application records both ways. TRex
does no cryptography, so this loads the path of packets and the look at the ClientHello, not the terminating of TLS: for that millrace-load --tls-clients.

    ./t-rex-64 --astf -f tls_passthrough.py -d 60 -t sni=a.example,response_bytes=16384,requests=10,cps=5000
"""
from millrace_astf import (ASTFProgram, FOR_EVER, arguments, check, client_hello, opaque_records, profile, send_filled, server_flight, tls_record)

CLIENT_FINISHED = 5 + 36 + 17  # record of the client's Finished with SHA-256, and what encryption adds


def send_records(program, plain_bytes):
    heads, sizes = opaque_records(plain_bytes)
    for head, size in zip(heads, sizes):
        send_filled(program, head, size)
    return sum(sizes)


class Profile:
    def get_profile(self, tunables, **kwargs):
        p = arguments(__doc__, cps=500.0)
        p.add_argument("--sni", default="passthrough.example", help="server name; the gateway's filter chain for it must not terminate TLS")
        p.add_argument("--requests", type=int, default=1, help="on each connection")
        p.add_argument("--request_bytes", type=int, default=100, help="plaintext of a request")
        p.add_argument("--response_bytes", type=int, default=1024, help="plaintext of a response")
        p.add_argument("--certificate_bytes", type=int, default=900, help="of the server's chain")
        p.set_defaults(port=8443, server_port=443)
        args = p.parse_args(tunables)
        check(args.requests > 0 and args.request_bytes > 0 and args.response_bytes > 0, "requests and their sizes: above 0")
        check(0 < len(args.sni) <= 255 and args.sni.isascii(), "sni: 1 to 255 letters")
        check(0 < args.certificate_bytes <= 16000, "certificate_bytes: 1 to 16000")
        hello, flight, finished = client_hello(args.sni), server_flight(args.certificate_bytes), tls_record(23, bytes(CLIENT_FINISHED - 5))
        request_size = sum(opaque_records(args.request_bytes)[1])
        response_size = sum(opaque_records(args.response_bytes)[1])
        client, server = ASTFProgram(), ASTFProgram()
        client.send(hello)
        client.recv(len(flight), True)
        client.send(finished)
        # Nothing is added on the way here, so counts are exact: the Finished belongs to the first request's wait.
        server.recv(len(hello), True)
        server.send(flight)
        server.recv(len(finished) + request_size, True)
        send_records(server, args.response_bytes)
        if args.requests > 1:
            client.set_var("left", args.requests)
            client.set_label("again:")
        send_records(client, args.request_bytes)
        client.recv(response_size, True)
        if args.requests > 1:
            client.jmp_nz("left", "again:")
        server.set_var("left", FOR_EVER)
        server.set_label("again:")
        server.recv(request_size, True)
        send_records(server, args.response_bytes)
        server.jmp_nz("left", "again:")
        return profile(args, [(client, server)])


def register():
    return Profile()
