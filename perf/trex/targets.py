"""Many hosts and paths: millrace-load --targets FILE --zipf S (cases routes-10 … routes-100000).

    ./t-rex-64 --astf -f targets.py -d 60 -t file=/root/targets-100000,connections=256,zipf=1.0

The file has a `host path` on each line. TRex runs fixed programs, so what is asked for is drawn once: --programs connections' worth of --requests lines
each, and every connection runs one of these programs over and over. 32 × 200 draws visit at most 6,400 lines; more programs, more lines.
"""
from millrace_astf import FOR_EVER, arguments, check, draw_lines, http_client, http_server, profile, read_targets, request


class Profile:
    def get_profile(self, tunables, **kwargs):
        p = arguments(__doc__)
        p.add_argument("--file", required=True, help="lines `host path`")
        p.add_argument("--zipf", type=float, default=0.0, help="exponent of Zipf's law over the lines in their order; 0: uniform")
        p.add_argument("--connections", type=int, default=64, help="open at a time")
        p.add_argument("--programs", type=int, default=32, help="different sequences of requests")
        p.add_argument("--requests", type=int, default=200, help="in a sequence")
        p.add_argument("--rounds", type=int, default=0, help="sequences on a connection, then it is opened anew; 0: for ever")
        p.add_argument("--response_body", type=int, default=64, help="bytes")
        p.add_argument("--seed", type=int, default=1)
        args = p.parse_args(tunables)
        check(args.programs > 0 and args.requests > 0, "programs, requests: above 0")
        check(args.connections >= args.programs, "connections: at least one for each program")
        check(args.zipf >= 0, "zipf: 0 and up")
        drawn = draw_lines(read_targets(args.file), args.programs * args.requests, args.zipf, args.seed)
        requests = [request(host, path) for host, path in drawn]
        # One server program answers all: it waits for the shortest, and each request comes alone.
        server = http_server(min(map(len, requests)), args.response_body)
        pairs = [(http_client(requests[i:i + args.requests], args.response_body, args.rounds or FOR_EVER), server)
                 for i in range(0, len(requests), args.requests)]
        return profile(args, pairs, limit=args.connections)


def register():
    return Profile()
