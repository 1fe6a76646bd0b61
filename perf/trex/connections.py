"""Connections of one request each: millrace-load --requests-per-connection 1 (case connections).

    ./t-rex-64 --astf -f connections.py -d 60 -m 100 -t cps=1000          (-m multiplies cps: 100,000 connections/s)

The gateway's upstream connections are its own affair: pooled, as a gateway should, TRex's servers see few of them.
"""
from millrace_astf import arguments, check, http_client, http_server, profile, request


class Profile:
    def get_profile(self, tunables, **kwargs):
        p = arguments(__doc__, cps=1000.0)
        p.add_argument("--response_body", type=int, default=64, help="bytes")
        p.add_argument("--host", default="load.example")
        p.add_argument("--path", default="/")
        args = p.parse_args(tunables)
        check(args.response_body >= 0, "response_body: 0 bytes and up")
        one = request(args.host, args.path)
        return profile(args, [(http_client([one], args.response_body, 1), http_server(len(one), args.response_body))])


def register():
    return Profile()
