from case import Case, Response, one, request

PORT = 8460
LOGS = ["hashing"]
_CLUSTERS = ("ring", "maglev", "ring-even", "murmur", "small", "names", "ring-names")


def _many(name, requests):
    return Case(name, [step for r in requests for step in (r, Response())], timeout=20.0)


CASES = [
    # Which endpoint a request gets is what the upstream saw, and the log.
    *[_many(f"/{c}", [request(path=f"/{c}", headers=[f"x-user: user-{i}-{i * i * 7919}"]) for i in range(60)]) for c in _CLUSTERS],
    _many("query", [request(path=f"/query?a=b&user=u{i}&user=x") for i in range(20)] + [request(path="/query?user=&z"), request(path="/query?user=%41")]),
    _many("cookie", [request(path="/cookie", headers=[f"cookie: a=b; sid=s{i}; sid=t"]) for i in range(20)]
          + [request(path="/cookie", headers=['cookie: sid="quoted"']), request(path="/cookie", headers=["cookie: a=1;sid=tight"])]),
    _many("ip", [request(path="/ip", headers=[f"x-forwarded-for: 10.9.8.{i}"]) for i in range(20)] + [request(path="/ip", headers=["x-forwarded-for: 2001:db8::1:2"])]),
    _many("no ip", [request(path="/no-ip", headers=[f"x-user: {i}"]) for i in range(10)]),
    _many("path", [request(path=f"/path?{i}") for i in range(10)]),
    _many("authority", [request(path="/authority", host=f"h{i}.test") for i in range(10)]),
    _many("method", [request(m, path="/method", headers=[f"x-user: {i}"]) for i in range(5) for m in ("GET", "DELETE")]),
    _many("several values", [request(path="/maglev", headers=h) for h in (["x-user: foo", "x-user: bar"], ["x-user: bar", "x-user: foo"], ["x-user:"])]),
    _many("two", [request(path=f"/two?user={i}", headers=[f"x-user: {i}"]) for i in range(10)]),
    _many("one of two", [request(path=f"/two?user={i}") for i in range(5)]),
    _many("terminal", [request(path=f"/terminal?user={i}", headers=["x-user: same"]) for i in range(5)] + [request(path=f"/terminal?user={i}") for i in range(5)]),
    _many("cookie that is there", [request(path="/made", headers=[f"cookie: made=m{i}"]) for i in range(10)]),
    _many("rewritten", [request(path=f"/rewritten/{i}") for i in range(10)]),
    _many("retried", [request(path="/retried", headers=[f"x-user: {i}", "x-do: 500"]) for i in range(3)]),
]
