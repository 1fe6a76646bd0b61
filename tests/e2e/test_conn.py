"""millctl conn with real connections: what list, show and kill say agrees with the clients, and what kill does is felt by them."""
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

DONE, REFUSED, USAGE, NO_CONTROL, NOT_IN_FORCE = 0, 1, 2, 3, 4
HTTP, RAW, TLS = 8080, 9090, 8443


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "ok\\n"; }} }}')
        hosts = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
        certificate, key = lab.make_certificate("server", ["secure.test"])
        proxy = {"name": "tcp", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                                                 "stat_prefix": "raw", "cluster": "web"}}
        config = L.bootstrap([L.listener("http", HTTP, L.hcm(hosts)), L.listener("raw", RAW, proxy),
                              L.listener("secure", TLS, [{"filters": [L.hcm(hosts, route_name="r2")],
                                                          "transport_socket": L.tls_socket(certificate, key)}])],
                             [L.cluster("web", [(lab.upstream4(0), 8001)])])
        lab.start_gateway(config)
        yield lab
        assert lab.stop_gateway() == 0


def conn(lab, *words, code=DONE):
    p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, "conn", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60, text=True)
    assert p.returncode == code, (words, p.stdout, p.stderr)
    return p.stdout if code == DONE else p.stderr


def listed(lab, *words):
    return json.loads(conn(lab, "list", "-o", "json", *words))


def ask(s, path="/"):
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    got = b""
    while b"ok\n" not in got:
        piece = s.recv(4096)
        assert piece, got
        got += piece


def wait_until(what, timeout=20):
    end = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_list_has_both_sides(lab):
    with lab.connect(HTTP) as s:
        ask(s)
        ask(s)
        address = "%s:%d" % s.getsockname()[:2]
        r = listed(lab, "--listener", "http")
        mine = [c for c in r["connections"] if c["remote"] == address]
        assert len(mine) == 1 and r["complete"] and int(r["matched"]) == len(r["connections"])
        c = mine[0]
        assert (c["state"], c["role"], c["session"], c["listener"], c["requests"]) == ("ESTABLISHED", "downstream", "http", "http", 2)
        assert c["local"] == f"{lab.INGRESS4}:{HTTP}" and c["mss"] >= 536 and c["cwnd"] >= 1 and c["rtt_ms"] > 0
        assert c["snd_wnd"] > 1000 and "ts" in c["options"] and "sack" in c["options"]
        up = [c for c in listed(lab, "--cluster", "web")["connections"] if c["role"] == "upstream"]
        assert up and all(c["remote"] == f"{lab.upstream4(0)}:8001" and c["cluster"] == "web" for c in up)
        # Filters agree with each other.
        port = s.getsockname()[1]
        for words in (["--peer", address], ["--peer", f":{port}"], ["--peer", f"{s.getsockname()[0]}/32", "--local", f":{HTTP}"],
                      ["--state", "estab", "--role", "downstream", "--peer", f":{port}"], ["--worker", "0", "--peer", f":{port}"]):
            assert [x["id"] for x in listed(lab, *words)["connections"]] == [c["id"]], words
        assert listed(lab, "--state", "syn-sent")["connections"] == []
        assert c["id"] in conn(lab, "list", "--ids").split()
        table = conn(lab, "list", "--listener", "http")
        assert table.startswith("ID") and c["id"] in table and address in table


def test_show_tells_facts_and_history(lab):
    with lab.connect(HTTP) as s:
        ask(s)
        c = [c for c in listed(lab)["connections"] if c["remote"] == "%s:%d" % s.getsockname()[:2]][0]
        r = json.loads(conn(lab, "show", c["id"], "-o", "json"))
        assert [x["id"] for x in r["connections"]] == [c["id"]]
        shown = r["connections"][0]
        # The trace still has the opening, so the bytes are known.
        assert shown["bytes_known"] and int(shown["bytes_received"]) == len("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert int(shown["bytes_sent"]) > 50
        events = [(e["event"], e["text"]) for e in r["trace"]]
        assert events[0][0] == "opened" and "its SYN came" in events[0][1]
        assert ("state", "SYN-RECEIVED -> ESTABLISHED") in events
        ago = [e["ago_s"] for e in r["trace"]]
        assert ago == sorted(ago, reverse=True)
        text = conn(lab, "show", c["id"])
        assert re.search(r"cubic.* rto:\d+.* rtt:[\d.]+/[\d.]+ mss:\d+ .*cwnd:\d+", text), text
        assert "ESTABLISHED" in text and "trace" in text and "listener" in text
    # It is over: the trace remains, and tells how it ended.
    gone = wait_until(lambda: [x for x in [conn(lab, "show", c["id"])] if "is over" in x])[0]
    assert "ESTABLISHED -> CLOSE-WAIT" in gone and "LAST-ACK -> CLOSED" in gone


def test_tls_and_its_server_name(lab):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with lab.connect(TLS) as s, context.wrap_socket(s, server_hostname="secure.test") as t:
        ask(t)
        c = listed(lab, "--listener", "secure")["connections"]
        assert len(c) == 1 and c[0]["sni"] == "secure.test" and c[0]["tls_version"] == "TLSv1.3"
        assert c[0]["tls_cipher"] in (0x1301, 0x1302, 0x1303)

def test_tunnels_name_their_other_side(lab):
    with lab.connect(RAW) as s:
        ask(s)
        down = listed(lab, "--listener", "raw", "--role", "downstream")["connections"]
        assert len(down) == 1 and down[0]["session"] == "tunnel" and down[0]["cluster"] == "web"
        up = [c for c in listed(lab, "--role", "upstream")["connections"] if c["id"] == down[0]["peer_id"]]
        assert len(up) == 1 and up[0]["peer_id"] == down[0]["id"]
        assert down[0]["bytes_known"] and int(down[0]["bytes_received"]) == int(up[0]["bytes_sent"]) > 0


def test_top_is_sorted_and_bounded(lab):
    sockets = [lab.connect(HTTP) for _ in range(12)]
    try:
        for i, s in enumerate(sockets):
            ask(s)
            time.sleep(0.01)
        r = listed(lab, "--top", "5", "--sort", "age", "--listener", "http")
        ages = [c["age_s"] for c in r["connections"]]
        assert len(ages) == 5 and ages == sorted(ages, reverse=True) and int(r["matched"]) >= 12
        everyone = [c["age_s"] for c in listed(lab, "--limit", "0", "--listener", "http")["connections"]]
        assert min(ages) >= sorted(everyone, reverse=True)[4] - 2
        assert len(listed(lab, "--limit", "3")["connections"]) == 3
    finally:
        for s in sockets:
            s.close()


def test_kill_one_and_by_filter(lab):
    keep, one = lab.connect(HTTP), lab.connect(HTTP)
    others = [lab.connect(RAW) for _ in range(3)]
    try:
        for s in [keep, one, *others]:
            ask(s)
        c = [c for c in listed(lab)["connections"] if c["remote"] == "%s:%d" % one.getsockname()[:2]][0]
        assert conn(lab, "kill", c["id"]).strip() == "1 connection reset"
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        trace = json.loads(conn(lab, "show", c["id"], "-o", "json"))["trace"]
        assert any("an operator: millctl conn kill" in e["text"] for e in trace)
        assert conn(lab, "kill", "--listener", "raw", "--role", "downstream", "--dry-run").strip() == "3 connections would be reset"
        assert conn(lab, "kill", "--listener", "raw", "--role", "downstream").strip() == "3 connections reset"
        for s in others:
            with pytest.raises(ConnectionResetError):
                s.recv(1)
        ask(keep)  # untouched
        wait_until(lambda: not listed(lab, "--listener", "raw")["connections"])
        stats = json.loads(lab.millctl("stats", "tcp", "-o", "json"))["counters"]
        assert {s["counter"]: int(s["value"]) for s in stats if s["scope"] == "tcp"}["killed"] >= 4
    finally:
        for s in [keep, one, *others]:
            s.close()


def test_the_request_after_a_killed_upstream_goes_through(lab):
    with lab.connect(HTTP) as s:
        ask(s)
        assert "reset" in conn(lab, "kill", "--cluster", "web", "--role", "upstream")
        ask(s)


def test_under_load_nothing_is_held_up(lab):
    """Lists while wrk runs: all complete, no error of wrk."""
    wrk = lab.start("wrk", ["wrk", "-t1", "-c64", "-d4s", f"http://{lab.INGRESS4}:{HTTP}/"], lab.client)
    answers = []
    end = time.monotonic() + 3
    wait_until(lambda: int(listed(lab, "--listener", "http")["matched"]) >= 64)
    while time.monotonic() < end:
        answers.append(listed(lab, "--limit", "0"))
    assert wrk.popen.wait(30) == 0
    assert "Socket errors" not in wrk.log() and "Non-2xx" not in wrk.log(), wrk.log()
    assert len(answers) >= 3 and all(a["complete"] for a in answers)
    assert all(int(a["matched"]) == len(a["connections"]) for a in answers)


def test_several_at_once(lab):
    """Four may be under way in a worker; all get an answer of some kind, and a good one in the end."""
    codes = []

    def one():
        p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, "conn", "list"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True, timeout=60)
        codes.append(p.returncode if p.returncode == 0 or "at once" not in p.stderr else 0)
    threads = [threading.Thread(target=one) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert codes == [0] * 8


@pytest.mark.parametrize("words, code, message", [
    (["show", "nonsense"], REFUSED, '"nonsense" is no connection: an id looks like 0-17-3fa90c21'),
    (["show", "0-99999-00000000"], REFUSED, "there is no connection 0-99999-00000000"),
    (["show", "7-1-00000000"], REFUSED, "there is no worker 7; there are 1"),
    (["kill", "0-99999-00000000"], REFUSED, "there is no connection"),
    (["kill"], USAGE, "which connections?"),
    (["kill", "--all", "--peer", "10.0.0.1"], USAGE, "--all goes with neither"),
    (["list", "--listener", "htp"], REFUSED, "did you mean http?"),
    (["list", "--cluster", "nobody"], REFUSED, 'no cluster "nobody"'),
    (["list", "--state", "establishd"], REFUSED, "did you mean established?"),
    (["list", "--peer", "example.org"], REFUSED, '--peer: "example.org" is none of ADDRESS'),
    (["list", "--peer", "10.0.0.0/33"], REFUSED, "is none of ADDRESS"),
    (["list", "--worker", "9"], REFUSED, "no worker 9"),
    (["list", "--sort", "size"], USAGE, "--sort"),
    (["lst"], USAGE, "did you mean list?"),
])
def test_errors_say_what_to_do(lab, words, code, message):
    assert message in conn(lab, *words, code=code)


def nstat(lab, *words):
    p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, "nstat", "--all", "-o", "json", *words], stdout=subprocess.PIPE,
                       check=True, timeout=60)
    return {c["counter"]: int(c["value"]) for c in json.loads(p.stdout)["counters"]}


def test_nstat_counts_as_linux_does(lab):
    before = nstat(lab)
    sockets = [lab.connect(HTTP) for _ in range(5)]
    for s in sockets:
        ask(s)
    during = nstat(lab)
    assert during["TcpPassiveOpens"] - before["TcpPassiveOpens"] == 5
    assert during["TcpCurrEstab"] >= 5 + 1 and during["TcpInSegs"] > before["TcpInSegs"] + 10
    assert during["TcpOutSegs"] > before["TcpOutSegs"] + 10 and during["TcpInCsumErrors"] == 0
    assert during["TcpActiveOpens"] >= 1 and during["TcpEstabResets"] == before["TcpEstabResets"]
    address = "%s:%d" % sockets[0].getsockname()[:2]
    conn(lab, "kill", "--peer", address)
    for s in sockets:
        s.close()
    after = nstat(lab)
    assert after["TcpEstabResets"] - before["TcpEstabResets"] == 1 and after["TcpOutRsts"] > before["TcpOutRsts"]
    wait_until(lambda: nstat(lab)["TcpCurrEstab"] <= during["TcpCurrEstab"] - 5)
    # Nobody there: refused, and counted as that.
    with pytest.raises(ConnectionRefusedError):
        lab.connect(9999)
    assert nstat(lab)["TcpOutRsts"] > after["TcpOutRsts"]
    text = lab.millctl("nstat", "TcpIn")
    assert re.search(r"^TcpInSegs\s+\d+\s+segments received", text, re.M) and "TcpOut" not in text
    assert nstat(lab, "Retrans").keys() == {"TcpRetransSegs", "TcpExtTCPSynRetrans", "TcpExtTCPFastRetrans", "TcpExtTCPSlowStartRetrans",
                                            "TcpExtTCPLostRetransmit"}


def test_drops_have_rates(lab):
    stop = threading.Event()

    def knock():
        while not stop.is_set():
            try:
                lab.connect(9999).close()
            except ConnectionRefusedError:
                pass
            time.sleep(0.005)
    t = threading.Thread(target=knock)
    t.start()
    try:
        reply = json.loads(lab.millctl("drops", "--rate", "1", "-o", "json"))
        drop = {d["name"]: d for d in reply["drops"]}["tcp_no_listener"]
        assert 5 < drop["rate"] < 1000 and int(drop["count"]) >= 5 and "no listener" in drop["text"]
        assert re.search(r"tcp_no_listener", lab.millctl("drops"))
        assert re.search(r"\d/s\s+tcp_no_listener", lab.millctl("drops", "--rate"))
    finally:
        stop.set()
        t.join()


def test_completion_knows_the_verbs(lab):
    script = lab.millctl("completion", "bash")

    def complete(*words):
        run = script + '\nCOMP_WORDS=(%s)\nCOMP_CWORD=%d\n_millctl\necho "${COMPREPLY[@]}"' % (" ".join("'%s'" % w for w in words), len(words) - 1)
        p = subprocess.run(["bash", "-c", run], stdout=subprocess.PIPE, text=True, check=True, timeout=60,
                           env={**os.environ, "MILLRACE_RUN_DIR": lab.run_dir, "PATH": os.path.dirname(L.program("millctl")) + ":" + os.environ["PATH"]})
        return p.stdout.split()
    assert {"conn", "capture", "nstat"} <= set(complete("millctl", ""))
    assert complete("millctl", "conn", "") == ["list", "show", "kill"]
    assert complete("millctl", "conn", "list", "--listener", "se") == ["secure"]
    assert "--dry-run" in complete("millctl", "conn", "kill", "--") and "--top" in complete("millctl", "conn", "list", "--")
    assert "portrange" in complete("millctl", "capture", "-w", "x", "port")
    with lab.connect(HTTP) as s:
        ask(s)
        assert set(conn(lab, "list", "--ids").split()) & set(complete("millctl", "conn", "show", ""))
