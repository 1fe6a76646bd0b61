"""millctl capture with real traffic: what tshark reads in the file is what went over the wire, filters and bounds hold, and TLS can be read
where it may be."""
import os
import re
import shutil
import ssl
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

DONE, REFUSED, USAGE = 0, 1, 2
HTTP, TLS = 8080, 8443

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def configuration(lab):
    hosts = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
    certificate, key = lab.make_certificate("server", ["secure.test"])
    return L.bootstrap([L.listener("http", HTTP, L.hcm(hosts)),
                        L.listener("secure", TLS, [{"filters": [L.hcm(hosts, route_name="r2")],
                                                    "transport_socket": L.tls_socket(certificate, key)}])],
                       [L.cluster("web", [(lab.upstream4(0), 8001)])])


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "ok\\n"; }} }}')
        config = configuration(lab)
        config["dataplane"] = {**lab.dataplane_section(), "tls_key_capture": True}
        lab.start_gateway(config)
        yield lab
        assert lab.stop_gateway() == 0


class Capture:
    """A capture beside the block; afterwards `packets(fields…)` is what tshark finds in it."""

    def __init__(self, lab, *words, name="c.pcapng"):
        self.lab, self.path = lab, os.path.join(lab.dir, name)
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.popen = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "capture", "-w", self.path, *words],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        # The section and its interfaces are written as soon as the capture is on its way to the workers.
        end = time.monotonic() + 10
        while not os.path.exists(self.path) or os.path.getsize(self.path) < 100:
            assert time.monotonic() < end and self.popen.poll() is None, "the capture did not begin"
            time.sleep(0.02)
        time.sleep(0.3)
        return self

    def __exit__(self, *exc):
        if exc[0] is not None:
            self.popen.kill()
        self.out, self.err = self.popen.communicate(timeout=60)
        assert exc[0] is not None or self.popen.returncode == DONE, self.err

    def packets(self, *fields, display=None, options=()):
        argv = ["tshark", "-n", "-r", self.path, *options, *(["-Y", display] if display else []), "-T", "fields"]
        for f in fields:
            argv += ["-e", f]
        p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        assert p.returncode == 0 and "malformed" not in p.stderr.lower() and "corrupt" not in p.stderr.lower(), p.stderr
        return [line.split("\t") for line in p.stdout.splitlines()]


def refused(lab, *words, code=REFUSED):
    p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, "capture", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, timeout=60)
    assert p.returncode == code, (p.stdout, p.stderr)
    return p.stderr


def test_a_request_on_both_ports(lab):
    with Capture(lab, "--seconds", "3", "tcp") as c:
        lab.curl(f"http://{lab.INGRESS4}:{HTTP}/find-me")
    assert re.search(r"\d+ packets in .*c\.pcapng: its time is up", c.err), c.err
    requests = c.packets("frame.interface_name", "frame.p2p_dir", "http.request.uri", "tcp.dstport", display="http.request")
    assert {(r[0], r[3]) for r in requests} == {("ingress", str(HTTP)), ("egress", "8001")}, requests
    assert all(r[2] == "/find-me" for r in requests)
    assert len(c.packets("http.response.code", display="http.response.code == 200")) == 2
    # A whole handshake on the client's side, in order, with times that go on.
    syn = c.packets("frame.time_epoch", "tcp.flags.str", display=f"tcp.port == {HTTP} && tcp.flags.syn == 1")
    assert len(syn) == 2
    times = [float(t[0]) for t in c.packets("frame.time_epoch")]
    assert times == sorted(times) and abs(times[0] - time.time()) < 120
    assert c.packets("frame.number", display="tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment") == []
    info = subprocess.run(["capinfos", c.path], stdout=subprocess.PIPE, text=True).stdout if shutil.which("capinfos") else ""
    if info:
        assert "pcapng" in info and info.count("Time precision = nanoseconds (9)") == 2 and "Name = egress" in info, info


def test_directions_are_told(lab):
    with Capture(lab, "--seconds", "2", "tcp", "port", str(HTTP)) as c:
        lab.curl(f"http://{lab.INGRESS4}:{HTTP}/")
    # 1: inbound, 2: outbound (epb_flags).
    for flags, port in (("1", "tcp.dstport"), ("2", "tcp.srcport")):
        assert {f[0] for f in c.packets("frame.packet_flags_direction", display=f"{port} == {HTTP}")} <= {flags, "0x" + flags.zfill(8),
                                                                                                        "0x0000000" + flags}


def test_filters(lab):
    with Capture(lab, "--seconds", "2", "listener http and tcp-syn and inbound") as c:
        for _ in range(3):
            lab.curl(f"http://{lab.INGRESS4}:{HTTP}/")
            lab.curl("-k", f"https://{lab.INGRESS4}:{TLS}/")
    rows = c.packets("frame.interface_name", "tcp.dstport", "tcp.flags.syn", "tcp.flags.ack")
    assert len(rows) == 3 and all(r[0] == "ingress" and r[1] == str(HTTP) and r[2] in ("1", "True") and r[3] in ("0", "False") for r in rows), rows


@pytest.mark.parametrize("words, check", [
    (["--packets", "5"], lambda c: len(c.packets("frame.len")) == 5 and "all packets asked for" in c.err),
    (["--snap", "64", "--packets", "30"], lambda c: all(int(r[0]) <= 64 for r in c.packets("frame.cap_len"))
     and any(int(r[0]) > 64 for r in c.packets("frame.len"))),
    (["--bytes", "2k"], lambda c: 0 < sum(int(r[0]) for r in c.packets("frame.cap_len")) <= 2048),
    (["--port", "egress", "--packets", "10"], lambda c: {r[0] for r in c.packets("frame.interface_name")} == {"egress"}),
    (["--direction", "in", "--packets", "10", "port", str(HTTP)], lambda c: {r[0] for r in c.packets("tcp.dstport")} == {str(HTTP)}),
])
def test_bounds(lab, words, check):
    with Capture(lab, "--seconds", "20", *words) as c:
        for _ in range(20):
            lab.curl(f"http://{lab.INGRESS4}:{HTTP}/", check=False)
            if c.popen.poll() is not None:
                break
    assert check(c), c.err


def test_under_load_every_loss_is_counted(lab):
    """A second of wrk: what is in the file and what it says was lost are all that the ports moved meanwhile."""
    with Capture(lab, "--seconds", "2", "--packets", "10000000", "--bytes", "2g", "tcp") as c:
        wrk = lab.start("wrk", ["wrk", "-t1", "-c32", "-d1s", f"http://{lab.INGRESS4}:{HTTP}/"], lab.client)
        assert wrk.popen.wait(30) == 0
    assert "Socket errors" not in wrk.log(), wrk.log()
    n = int(re.match(r"([\d,]+) packets", c.err).group(1).replace(",", ""))
    requests = int(re.search(r"(\d+) requests in", wrk.log()).group(1))
    lost = re.search(r", ([\d,]+) lost", c.err)
    total = n + (int(lost.group(1).replace(",", "")) if lost else 0)
    assert total >= 4 * requests, (n, lost, requests)
    assert len(c.packets("frame.number")) == n


def test_ctrl_c_leaves_a_good_file(lab):
    c = Capture(lab, "tcp")
    with c:
        lab.curl(f"http://{lab.INGRESS4}:{HTTP}/")
        time.sleep(0.5)
        c.popen.send_signal(2)
    assert "interrupted" in c.err and len(c.packets("frame.number", display="http.request")) == 2
    # The next one can begin at once.
    with Capture(lab, "--seconds", "1") as again:
        pass
    assert "another capture" not in again.err


def test_one_at_a_time(lab):
    with Capture(lab, "--seconds", "3"):
        assert "another capture is running" in refused(lab, "-w", os.path.join(lab.dir, "second.pcapng"), "--seconds", "1")


def test_tls_is_readable_with_its_keys(lab):
    def fetch():
        s = lab.connect(TLS)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(s, server_hostname="secure.test") as t:
            t.sendall(b"GET /secret-path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while t.recv(4096):
                pass
    as_http = ("-d", f"tls.port=={TLS},http")
    with Capture(lab, "--seconds", "2", "--tls-keys", "port", str(TLS)) as c:
        fetch()
    assert ["/secret-path"] in c.packets("http.request.uri", display="http.request", options=as_http)
    assert c.packets("http.response.code", display="http.response", options=as_http) == [["200"]]
    with Capture(lab, "--seconds", "2", "port", str(TLS)) as c:
        fetch()
    assert c.packets("http.request.uri", display="http.request", options=as_http) == []
    with open(c.path, "rb") as f:
        assert b"CLIENT_TRAFFIC_SECRET" not in f.read()


@pytest.mark.parametrize("words, code, message", [
    (["hots", "10.0.0.1"], REFUSED, 'filter: column 1: "hots" is no word of the language; did you mean host?'),
    (["listener", "htp"], REFUSED, "did you mean http?"),
    (["cluster", "nobody"], REFUSED, "no cluster of that name"),
    (["--port", "ingres"], REFUSED, "did you mean ingress?"),
    (["--snap", "9999999"], REFUSED, "--snap: at most"),
    (["--direction", "up"], USAGE, "--direction"),
])
def test_errors_say_what_to_do(lab, words, code, message):
    path = os.path.join(lab.dir, "none.pcapng")
    assert message in refused(lab, "-w", path, *words, code=code)
    assert not os.path.exists(path)


def test_keys_need_permission(lab):
    """Last: the data plane is started again without tls_key_capture."""
    assert lab.stop_gateway() == 0
    lab.start_gateway(configuration(lab))
    assert "tls_key_capture: true" in refused(lab, "-w", os.path.join(lab.dir, "none.pcapng"), "--tls-keys")
