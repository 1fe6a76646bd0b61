"""Requests on connections that stay open: millrace-load --connections C --response-body B (cases keepalive-64B, keepalive-1KB, keepalive-16KB, bulk-1MB).

    ./t-rex-64 --astf -f keepalive.py -d 60 -t connections=256,response_body=64

The rate is what the gateway gives, as in a closed loop: --think pauses between requests for a rate below it.
"""
from millrace_astf import FOR_EVER, arguments, check, http_client, http_server, profile, request


class Profile:
    def get_profile(self, tunables, **kwargs):
        p = arguments(__doc__)
        p.add_argument("--connections", type=int, default=64, help="open at a time")
        p.add_argument("--requests", type=int, default=0, help="on each connection, then it is opened anew; 0: for ever")
        p.add_argument("--response_body", type=int, default=64, help="bytes")
        p.add_argument("--request_body", type=int, default=0, help="bytes")
        p.add_argument("--host", default="load.example")
        p.add_argument("--path", default="/")
        p.add_argument("--think", type=int, default=0, help="pause after each answer, microseconds")
        args = p.parse_args(tunables)
        check(args.connections > 0, "connections: above 0")
        check(args.response_body >= 0 and args.request_body >= 0, "bodies: 0 bytes and up")
        check(args.think == 0 or 50 <= args.think <= 700_000, "think: 0, or TRex's range of 50 to 700000 microseconds")
        one = request(args.host, args.path, "POST" if args.request_body else "GET", args.request_body)
        client = http_client([one], args.response_body, args.requests or FOR_EVER, args.think, args.request_body)
        return profile(args, [(client, http_server(len(one) + args.request_body, args.response_body))], limit=args.connections)


def register():
    return Profile()
