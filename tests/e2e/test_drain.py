"""Out of service and back, under load, as an operator does it: no request fails, clients are told, then nobody is accepted."""
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

HTTP = 8080
DONE, USAGE, NOT_IN_FORCE = 0, 2, 4


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "web\\n"; }} }}')
        routes = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
        lab.start_gateway(L.bootstrap([L.listener("http", HTTP, L.hcm(routes))], [L.cluster("web", [(lab.upstream4(0), 8001)])]))
        yield lab
        assert lab.stop_gateway() == 0


@pytest.fixture(autouse=True)
def in_service(lab):
    yield
    lab.millctl("undrain")


def millctl(lab, *words):
    return subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, *words], capture_output=True, text=True, timeout=120)


def admin(lab, path, method="GET"):
    c = http.client.HTTPConnection("admin", timeout=30)
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.connect(lab.run_dir + "/admin.sock")
    c.request(method, path)
    r = c.getresponse()
    return r.status, r.read().decode()


def head(lab):
    """Of one answer, or None when nobody accepts."""
    p = subprocess.run(lab.client.argv(["curl", "-s", "-i", "--max-time", "20", f"http://{lab.INGRESS4}:{HTTP}/"]), capture_output=True, text=True)
    return p.stdout.lower() if p.returncode == 0 else None


def state(lab):
    return json.loads(millctl(lab, "drain", "--show", "-o", "json").stdout)


def test_a_drain_under_load_loses_no_request(lab):
    wrk = lab.start("wrk", ["wrk", "-t1", "-c16", "-d8s", f"http://{lab.INGRESS4}:{HTTP}/"], lab.client)
    end = time.monotonic() + 30
    while int(state(lab).get("connections", 0)) < 16:
        assert time.monotonic() < end, wrk.log()
        time.sleep(0.05)
    p = millctl(lab, "drain", "--time", "3600")
    assert p.returncode == DONE and re.match(r"draining: .* of (1 h|60 min|3600)", p.stdout), p.stdout + p.stderr
    assert state(lab)["draining"] and state(lab)["accepting"]
    assert "draining" in millctl(lab, "status").stdout
    assert head(lab).startswith("http/1.1 200"), "accepted for the drain time"
    assert admin(lab, "/ready") == (503, "DRAINING\n")
    assert json.loads(admin(lab, "/server_info")[1])["state"] == "DRAINING"
    wrk.popen.wait(60)
    log = wrk.log()
    assert "Non-2xx" not in log and "Socket errors" not in log, log
    p = millctl(lab, "undrain")
    assert (p.returncode, p.stdout) == (DONE, "in service\n")
    assert admin(lab, "/ready") == (200, "LIVE\n")


def test_what_is_drained_accepts_nobody_and_waits_for_those_it_has(lab):
    # A client that keeps its connection, in its namespace, as a program that asks when it is told to.
    asker = subprocess.Popen(lab.client.argv([sys.executable, "-c", f"""
import http.client, sys
c = http.client.HTTPConnection("{lab.INGRESS4}", {HTTP}, timeout=60)
for line in sys.stdin:
    c.request("GET", "/")
    r = c.getresponse()
    r.read()
    print(r.status, r.getheader("connection"), flush=True)
"""]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask():
        asker.stdin.write("\n")
        asker.stdin.flush()
        return asker.stdout.readline().split()

    assert ask() == ["200", "None"]
    p = millctl(lab, "drain", "--now", "--wait", "1")
    assert p.returncode == NOT_IN_FORCE and "clients are connected yet" in p.stderr, p.stdout + p.stderr
    assert p.stdout == "drained: nothing new is accepted; 1 connection and 0 requests left\n"
    assert head(lab) is None
    assert ask() == ["200", "close"], "who is there is served, and told"
    p = millctl(lab, "drain", "--now", "--wait", "30")
    assert (p.returncode, p.stdout) == (DONE, "drained: nothing new is accepted; 0 connections and 0 requests left\n")
    asker.stdin.close()
    assert asker.wait(30) == 0
    assert millctl(lab, "undrain").returncode == DONE
    assert head(lab).startswith("http/1.1 200")


def test_a_control_that_is_killed_does_not_put_it_back_into_service(lab):
    assert millctl(lab, "drain", "--now").returncode == DONE
    lab.control.popen.kill()
    lab.control.popen.wait()
    lab.start_control(os.path.join(lab.dir, "bootstrap.json"))
    assert head(lab) is None
    s = state(lab)
    assert s["draining"] and not s.get("accepting"), s


def test_envoys_pages(lab):
    assert admin(lab, "/healthcheck/fail")[0] == 405
    assert admin(lab, "/healthcheck/fail", "POST") == (200, "OK\n")
    end = time.monotonic() + 20
    while admin(lab, "/ready") != (503, "DRAINING\n"):
        assert time.monotonic() < end
    answer = head(lab)
    assert answer.startswith("http/1.1 200") and "connection: close" in answer, "accepted, and told"
    assert "health failed" in millctl(lab, "status").stdout
    assert admin(lab, "/healthcheck/ok", "POST") == (200, "OK\n")
    while admin(lab, "/ready") != (200, "LIVE\n"):
        assert time.monotonic() < end
    assert "connection: close" not in head(lab)
    assert admin(lab, "/drain_listeners?inboundonly", "POST")[0] == 400
    assert admin(lab, "/drain_listeners?graceful", "POST") == (200, "OK\n")
    while not state(lab)["draining"]:
        assert time.monotonic() < end
    assert state(lab)["time_s"] == 600 and state(lab)["accepting"]
    assert admin(lab, "/drain_listeners", "POST") == (200, "OK\n")
    while state(lab).get("accepting"):
        assert time.monotonic() < end
    assert head(lab) is None


def test_wrong_words(lab):
    p = millctl(lab, "drain", "--time", "4000001")
    assert p.returncode == USAGE and "4000000" in p.stderr
    for words in ("--time", "5", "--now"), ("--show", "--now"), ("--wait", "-1"):
        p = millctl(lab, "drain", *words)
        assert p.returncode == USAGE and words[0] in p.stderr, (words, p.stderr)
    assert "in service" in millctl(lab, "drain", "--show").stdout
    p = millctl(lab, "drain", "--time", "60", "--wait", "0.5")
    assert p.returncode == NOT_IN_FORCE and "--wait should be longer than --time" in p.stderr, p.stderr
