"""What of two views must be equal, and how a difference is shown. Only what cannot be equal is made equal: dates, fresh ids, ephemeral ports,
durations."""
import collections
import difflib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
from decode import decode  # noqa: E402

UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
GIVEN_UUID = "11111111-2222-4333-8444-555555555555"  # one that cases send: kept
DATE = re.compile(r"(?im)^(date: )(?!Sun, 06 Nov 1994)[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$")
SERVICE_TIME = re.compile(r"(?im)^(x-envoy-upstream-service-time: )\d+$")
TIME_LEFT = re.compile(r"(?i)(x-envoy-expected-rq-timeout-ms: )(?:14\d{3}|15000)(?=\r?\nx-envoy-attempt-count: [2-9])")  # of 15 s, in later tries
EPHEMERAL = re.compile(r"(10\.77\.\d\.\d+|\]):([1-6]\d{4})\b")
LOG_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOG_NUMBER = re.compile(r"\b(n=)\d+")
JSON_NUMBER = re.compile(r'("n_[a-z_]+":)"?\d+"?')
JSON_PORT = re.compile(r'("port_[a-z_]+":)"?[1-6]\d{4}"?')
# Envoy's default format: … bytes bytes DURATION SERVICE_TIME "x-forwarded-for"
DEFAULT_LOG = re.compile(r'^(\[.*?\] ".*?" \d+ \S+ (?:\S+ (?:".*?"|-) "[^"]*" )?\d+ \d+ )\d+ (-|\d+) ')


def normal(text):
    text = UUID.sub(lambda m: m.group(0) if m.group(0) == GIVEN_UUID else "UUID", text)
    text = DATE.sub(r"\1DATE", text)
    text = SERVICE_TIME.sub(r"\1N", text)
    text = TIME_LEFT.sub(r"\1LEFT", text)
    return EPHEMERAL.sub(r"\1:PORT", text)


def _ending(end):
    """Whether a close arrives as FIN or RST is a matter of timing in Envoy (it closes with unread data): both are an end. What must be a
    reset is tested in tests/e2e/test_closes.py."""
    return "closed" if end == "reset" else end or ""


def normal_log(line):
    line = normal(LOG_TIME.sub("TIME", line))
    line = JSON_PORT.sub(r"\1PORT", JSON_NUMBER.sub(r"\1N", LOG_NUMBER.sub(r"\1N", line)))
    return DEFAULT_LOG.sub(lambda m: f"{m.group(1)}N {'-' if m.group(2) == '-' else 'N'} ", line)


def body_text(body):
    """Bodies as lines; long ones by length and ends."""
    if len(body) > 4000:
        import hashlib
        return f"<{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}>"
    return normal(body.decode("latin-1")).replace("\r", "\\r")


def body_of(response):
    """What a body means: two libraries do not make the same bytes of it, and each chunks them as it likes."""
    for line in response["headers"]:
        name, _, coding = line.partition(": ")
        if name.lower() == "content-encoding" and coding in ("gzip", "br", "zstd") and response["body"]:
            plain, whole = decode(coding, response["body"])
            return plain + (b"" if whole else b" (the coding does not end)")
    return response["body"]


def aspects(seen):
    """The parts of a view that are compared (and may be excused) one by one: name -> text."""
    tls = dict(seen["tls"]) if isinstance(seen["tls"], dict) else seen["tls"]
    cipher = tls.pop("cipher", "") if isinstance(tls, dict) else ""
    out = {"tls": str(tls), "cipher": cipher, "end": _ending(seen["end"])}
    lines, headers, bodies = [], [], []
    for i, r in enumerate(seen["responses"]):
        lines.append(f"{r['line']}")
        headers += [f"-- response {i}"] + [normal(h) for h in r["headers"]] + [f"trailer {normal(t)}" for t in r["trailers"]]
        bodies.append(f"-- response {i}\n{body_text(body_of(r))}" + (f"\n(cut: {_ending(r['cut'])})" if r["cut"] else ""))
    out["status"], out["headers"], out["body"] = "\n".join(lines), "\n".join(headers), "\n".join(bodies)
    up = []
    for r in seen["upstream"]:
        up.append(f"-- to {r['port']}\n" + normal(r["head"].replace("\r\n", "\n")))
        if r["body"] or r["trailers"]:
            up.append("body " + body_text(r["body"]))
            up += [f"trailer {t}" for t in r["trailers"]]
        if r.get("cut"):
            up.append("(cut)")
    out["upstream"] = "\n".join(up)
    return out


def shares(envoy, millrace):
    """Random choices: the answers are counted, and no count may differ by more than chance does (five standard deviations of the difference)."""
    a, b = (collections.Counter((r["line"], body_text(r["body"])) for r in seen["responses"]) for seen in (envoy, millrace))
    n = max(len(envoy["responses"]), 1)
    out = []
    for key in sorted({*a, *b}, key=str):
        p = (a[key] + b[key]) / (2 * n)
        if abs(a[key] - b[key]) > 5 * (2 * n * p * (1 - p)) ** 0.5 + 1:
            out.append(("shares", f"  shares: {key}: envoy {a[key]}, millrace {b[key]} of {n}"))
    return out


def differences(envoy, millrace):
    """[(aspect, readable diff)] of two views."""
    a, b = aspects(envoy), aspects(millrace)
    return [(k, diff(a[k], b[k], k)) for k in a if a[k] != b[k]]


def diff(a, b, what):
    return "\n".join([f"  {what}:"] + ["    " + line for line in difflib.unified_diff(a.splitlines(), b.splitlines(), "envoy", "millrace", lineterm="", n=2)])
