"""HTTP/2 from clients, by prior knowledge and by ALPN, to upstreams of HTTP/1.1: curl, nghttp and h2load against the gateway."""
import hashlib
import os
import re
import shutil

import pytest

from conftest import H2C, HTTP, MIB, TLS
from upstream_server import pattern, pattern_sha256

GATEWAY4, GATEWAY6 = "10.77.1.1", "fd77:1::1"
PRIOR = "--http2-prior-knowledge"
needs = lambda tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed (Debian: nghttp2-client)")


def curl(gateway, *args, url="/who", **kwargs):
    return gateway.lab.curl(*args, url if url.startswith("http") else f"http://{GATEWAY4}:{HTTP}{url}", **kwargs)


def h2load(gateway, *args, timeout=120):
    out = gateway.lab.client.run(["h2load", *args], timeout=timeout).stdout.decode()
    done = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    assert done, out
    return [int(x) for x in done.groups()], out


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_prior_knowledge(gateway, v6):
    tag = gateway.tag()
    url = f"http://[{GATEWAY6}]:{HTTP}/who" if v6 else f"http://{GATEWAY4}:{HTTP}/who"
    p = curl(gateway, PRIOR, "-A", tag, "-w", "\n%{http_version} %{http_code}", url=url)
    assert p.stdout.decode().endswith("2 200")
    line = gateway.log(tag)
    assert (line["protocol"], line["code"], line["flags"]) == ("HTTP/2", "200", "-")


def test_alpn(gateway):
    for args, version in (([], "2"), (["--http1.1"], "1.1")):
        p = curl(gateway, "-k", "--resolve", f"h2.test:{TLS}:{GATEWAY4}", "-w", "%{http_version}", *args, url="https://h2.test/chain")
        assert p.stdout.decode() == f"chain_h2\n{version}"


def test_one_port_speaks_both(gateway):
    assert curl(gateway, "--http1.1", "-w", "%{http_version}", "-o", os.devnull).stdout == b"1.1"
    assert curl(gateway, PRIOR, "-w", "%{http_version}", "-o", os.devnull).stdout == b"2"
    gateway.still_serves()


@pytest.mark.parametrize("path, status, flags", [("/direct", 418, "-"), ("/unknown-cluster", 503, "NC"), ("/refused", 503, "UF"),
                                                 ("/empty", 503, "UH"), ("/unanswered", 503, "UF"), ("/old", 302, "-")])
def test_answers_of_our_own(gateway, path, status, flags):
    tag = gateway.tag()
    p = curl(gateway, PRIOR, "-A", tag, "-o", os.devnull, "-w", "%{http_version} %{http_code}", url=path)
    assert p.stdout.decode() == f"2 {status}"
    line = gateway.log(tag)
    assert (line["code"], line["flags"]) == (str(status), flags)


def test_large_bodies(gateway, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(pattern(0, 8 * MIB))
    got = curl(gateway, PRIOR, "--data-binary", f"@{body}", "-H", "content-type: application/octet-stream", url="/sha256", timeout=120)
    assert hashlib.sha256(body.read_bytes()).hexdigest() in got.stdout.decode()
    down = curl(gateway, PRIOR, url=f"/bytes/{8 * MIB}", timeout=120)
    assert hashlib.sha256(down.stdout).hexdigest() == pattern_sha256(8 * MIB)


@needs("nghttp")
def test_nghttp_sees_a_clean_connection(gateway):
    out = gateway.lab.client.run(["nghttp", "-nv", "--no-dep", f"http://{GATEWAY4}:{HTTP}/who", f"http://{GATEWAY4}:{HTTP}/direct"]).stdout.decode()
    assert ":status: 200" in out and ":status: 418" in out
    assert "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):1024" in out and "SETTINGS_INITIAL_WINDOW_SIZE(0x04):16777216" in out
    assert "RST_STREAM" not in out and not re.search(r"recv GOAWAY", out)


@needs("h2load")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_h2load(gateway, tls):
    where = ["--connect-to", f"{GATEWAY4}:{TLS}", "https://h2.test/chain"] if tls else [f"http://{GATEWAY4}:{HTTP}/who"]
    counts, out = h2load(gateway, "-n", "5000", "-c", "8", "-m", "32", *where)
    assert counts == [5000, 5000, 5000, 5000, 0, 0, 0], out
    assert "status codes: 5000 2xx" in out
    gateway.wait_idle()


def test_nothing_is_left(gateway):
    gateway.wait_idle()
    assert gateway.pools()["exchanges"]["in_use"] == 0


H2SPEC = os.path.join(os.environ.get("MILLRACE_PEERS", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "millrace-peers")),
                      "h2spec-2.2.1", "h2spec")


@pytest.mark.skipif(not os.path.exists(H2SPEC), reason="no h2spec: scripts/setup --peers builds it from its Go module")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_h2spec(gateway, tls):
    where = ["-p", str(TLS), "-t", "-k"] if tls else ["-p", str(H2C)]
    out = gateway.lab.client.run([H2SPEC, "-h", GATEWAY4, "-P", "/who", "-o", "5", *where], check=False, timeout=300).stdout.decode()
    counts = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", out)
    assert counts and int(counts[1]) > 140 and int(counts[4]) == 0, out[-6000:]
    gateway.still_serves()
