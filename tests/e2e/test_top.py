"""millctl top with real traffic: figures that agree with the clients', stages that add up, a terminal that is left as it was."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

DONE, REFUSED, USAGE, NO_CONTROL, NOT_IN_FORCE = 0, 1, 2, 3, 4
HTTP = 8080
STAGES = ["loop", "tables", "rx_burst", "packet_parse", "tcp_input", "session", "tls_handshake", "tls_records", "http_parse", "route_match",
          "upstream", "http_write", "relay", "finish", "tcp_output", "tx_burst", "timers"]


def configuration(lab):
    hosts = [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
                                                        {"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
    return L.bootstrap([L.listener("http", HTTP, L.hcm(hosts, access_log=os.path.join(lab.dir, "access.log")))],
                       [L.cluster("web", [(lab.upstream4(0), 8001)])])


@pytest.fixture(scope="module")
def lab():
    with L.Lab(memory_mb=256) as lab:
        lab.start_nginx("web", f'server {{ listen {lab.upstream4(0)}:8001; location / {{ return 200 "ok\\n"; }} }}')
        lab.start_gateway(configuration(lab))
        yield lab
        assert lab.stop_gateway() == 0


def requests(lab):
    """Since the data plane's start, as millctl stats has it."""
    counters = json.loads(lab.millctl("stats", "http_total", "-o", "json"))["counters"]
    return sum(int(c["value"]) for c in counters if c["counter"] == "downstream_rq_total")


class Traffic:
    """wrk while the block lasts, or for `seconds`; then `rate()` is what it counted of requests a second."""

    def __init__(self, lab, path="/", seconds=120):
        before = requests(lab)
        self.wrk = lab.start("wrk", ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://{lab.INGRESS4}:{HTTP}{path}"], lab.client)
        end = time.monotonic() + 30
        while requests(lab) < before + 100:
            assert time.monotonic() < end, f"no traffic: {self.wrk.log()}"
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.wrk.kill()

    def rate(self):
        assert self.wrk.popen.wait(60) == 0
        assert "Non-2xx" not in self.wrk.log() and "Socket errors" not in self.wrk.log(), self.wrk.log()
        return float(re.search(r"Requests/sec:\s+([\d.]+)", self.wrk.log()).group(1))


def top(lab, *words, code=DONE, timeout=60):
    p = subprocess.run([L.program("millctl"), "--run-dir", lab.run_dir, "top", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=timeout, text=True)
    assert p.returncode == code, p.stdout + p.stderr
    return p.stdout if code == DONE else p.stderr


def frame(lab, *words):
    return json.loads(top(lab, "--once", "-o", "json", *words))


def shares(f):
    return {s["name"]: s["share"] for s in f["total"]["stages"]}


# --- figures ----------------------------------------------------------------------------------------------------------
def test_rates_are_those_of_the_client(lab):
    """Requests a second as wrk and the counters of millctl stats have them; packets and bytes that belong to so many requests."""
    with Traffic(lab, seconds=5) as wrk:
        before, begun = requests(lab), time.monotonic()
        f = frame(lab, "--interval", "3")
        after, ended = requests(lab), time.monotonic()
        wrk_rate = wrk.rate()
    t = f["total"]
    assert 2.9 < f["seconds"] < 3.5 and f["note"] == ""
    # The looks of millctl stats lie around those of top: what is counted between them is a little more, over a little longer.
    assert t["requests"] * f["seconds"] <= after - before
    assert t["requests"] == pytest.approx((after - before) / (ended - begun), rel=0.2)
    assert t["requests"] == pytest.approx(wrk_rate, rel=0.3)
    # At least a packet each way on both sides for each request, and not many more.
    assert 1.5 * t["requests"] < t["rx_packets"] < 8 * t["requests"]
    assert 1.5 * t["requests"] < t["tx_packets"] < 8 * t["requests"]
    assert t["rx_gbit"] * 1e9 / 8 > 60 * t["rx_packets"] and t["rx_gbit"] < 10
    assert 0 < t["load"] <= 1 and t["burst"] >= 1
    # Cycles of busy turns, over requests: load x frequency is what there is to share out.
    assert int(f["tsc_hz"]) > 5e8
    assert t["cycles_per_request"] * t["requests"] == pytest.approx(t["load"] * int(f["tsc_hz"]), rel=0.1)
    assert t["cycles_per_packet"] * t["rx_packets"] == pytest.approx(t["cycles_per_request"] * t["requests"], rel=0.01)
    assert int(t["connections"]) >= 16 and int(f["uptime_ms"]) > 0
    assert {p["name"]: int(p["capacity"]) for p in t["pools"]}["exchanges"] > 0
    assert [w["worker"] for w in f["workers"]] == [0]


def test_an_idle_gateway_is_idle(lab):
    time.sleep(0.5)
    t = frame(lab, "--interval", "0.5")["total"]
    assert t["requests"] == 0 and t["load"] < 0.2


# --- stages -----------------------------------------------------------------------------------------------------------
def test_stages_on_add_up_and_off_again(lab):
    assert frame(lab, "--interval", "0.2")["total"]["stages"] == [], "off unless the configuration says so"
    with Traffic(lab):
        f = frame(lab, "--stages", "on", "--interval", "3")
        assert f["stage_period"] == 16
        assert [s["name"] for s in f["total"]["stages"]] == STAGES
        assert sum(shares(f).values()) == pytest.approx(1, abs=1e-6)
        assert shares(f)["tls_records"] == shares(f)["tls_handshake"] == 0
        assert sum(s["cycles_per_request"] for s in f["total"]["stages"]) == pytest.approx(f["total"]["cycles_per_request"], rel=1e-6)
        # One turn in 16, and what they say of all of them: each request is routed once, its head and its response's parsed. (A machine
        # so busy that few turns were accounted says nothing of the average.)
        entries = {s["name"]: s["entries_per_request"] for s in f["total"]["stages"]}
        if f["total"]["requests"] * f["seconds"] > 10_000:
            assert f["total"]["accounted"] == pytest.approx(1 / 16, rel=0.3)
            for name, expected in (("route_match", 1), ("finish", 1), ("http_parse", 2), ("http_write", 2)):
                assert entries[name] == pytest.approx(expected, rel=0.25), (name, entries)
        # Every turn: exactly counted. (Shares are not compared: a worker that shares its core is interrupted in any stage.)
        every = frame(lab, "--stages", "1", "--interval", "2")
        assert every["total"]["accounted"] == pytest.approx(1, abs=0.01)
        assert {s["name"]: s["entries_per_request"] for s in every["total"]["stages"]}["route_match"] == pytest.approx(1, rel=0.02)
        assert {"rx_burst", "packet_parse", "tcp_input", "http_parse", "route_match", "upstream", "http_write", "relay", "finish", "tcp_output",
                "tx_burst"} <= {name for name, share in shares(every).items() if share > 0}, every
        off = frame(lab, "--stages", "off", "--interval", "1")
        assert off["stage_period"] == 0 and off["total"]["stages"] == []
    assert frame(lab, "--interval", "0.2")["stage_period"] == 0


def test_stages_follow_the_work(lab):
    """The gateway's own answers need neither upstream nor relay."""
    with Traffic(lab, "/direct"):
        entries = {s["name"]: s["entries_per_request"] for s in frame(lab, "--stages", "1", "--interval", "2")["total"]["stages"]}
    top(lab, "--once", "--interval", "0.1", "--stages", "off")
    assert entries["upstream"] == entries["relay"] == 0
    assert entries["http_parse"] == pytest.approx(1, rel=0.05) and entries["http_write"] == pytest.approx(1, rel=0.05)


# --- forms ------------------------------------------------------------------------------------------------------------
def test_a_table_for_people(lab):
    with Traffic(lab):
        text = top(lab, "--once", "--stages", "on")
        top(lab, "--once", "--interval", "0.1", "--stages", "off")
    assert "\033" not in text
    for words in ("WORKER", "LOAD", "REQ/S", "CYC/REQ", "BURST", "STAGE", "tcp_input", "POOL", "exchanges", "requests under way"):
        assert words in text, text
    row = re.search(r"^ +0 +([\d.]+) %", text, re.M)
    assert row and 0 < float(row.group(1)) <= 100, text


def test_json_and_yaml_say_the_same_things(lab):
    j, y = frame(lab, "--interval", "0.2"), yaml.safe_load(top(lab, "--once", "-o", "yaml", "--interval", "0.2"))
    assert set(j) == set(y) and set(j["total"]) == set(y["total"]) and y["connected"] is True


def test_into_a_pipe_one_frame_follows_another(lab):
    argv = [L.program("millctl"), "--run-dir", lab.run_dir, "top", "--interval", "0.2"]
    for form, parse in (("json", json.loads), ("table", None)):
        p = subprocess.Popen([*argv, "-o", form], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = []
        while len(lines) < (3 if form == "json" else 60):
            lines.append(p.stdout.readline())
            assert lines[-1], p.stderr.read()
        p.stdout.close()  # the reader has enough: top ends without a word
        assert p.wait(10) in (0, -signal.SIGPIPE)
        assert p.stderr.read() == ""
        if parse:
            assert all(parse(x)["connected"] for x in lines)
        else:
            assert "\033" not in "".join(lines) and sum(x.startswith("millrace") for x in lines) >= 2


def test_chosen_workers_and_wrong_usage(lab):
    assert len(frame(lab, "--interval", "0.1", "--workers", "0")["workers"]) == 1
    assert "no worker 7" in top(lab, "--workers", "7", code=REFUSED)
    for words, said in ((["--workers", "x"], '"x" is no list of workers like 0,2-3'), (["--stages", "maybe"], '"maybe" is neither on, off nor'),
                        (["--interval", "0"], "--interval"), (["--stages", "9999999"], "at most")):
        assert said in top(lab, "--once", *words, code=USAGE), words


# --- a terminal -------------------------------------------------------------------------------------------------------
class Terminal:
    def __init__(self, lab, *words, size=(40, 100)):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.slave, self.before, self.text = slave, termios.tcgetattr(slave), b""
        self.popen = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "top", "--interval", "0.2", *words], stdin=slave,
                                      stdout=slave, stderr=slave, start_new_session=True,
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def read(self, until, timeout=15):
        end = time.monotonic() + timeout
        begin = len(self.text)
        while until.encode() not in self.text[begin:]:
            left = end - time.monotonic()
            assert left > 0, f"{until!r} did not come: {self.text[-2000:]!r}"
            if select.select([self.master], [], [], left)[0]:
                self.text += os.read(self.master, 65536)
        return self.text[begin:].decode(errors="replace")

    def key(self, key):
        os.write(self.master, key.encode())

    def end(self, code=0):
        """The program has ended; the terminal is as it was before."""
        self.read("\033[?1049l")
        assert self.popen.wait(10) == code
        assert termios.tcgetattr(self.slave) == self.before
        assert b"\033[?1049h\033[?25l" in self.text and self.text.rindex(b"\033[?25h") > self.text.rindex(b"\033[?25l")
        for fd in (self.master, self.slave):
            os.close(fd)


def plain(text):
    """The lines of a screen, or of several, without escape sequences."""
    return re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", text.replace("\033[H", "\r\n"))


@pytest.mark.parametrize("how", ["q", "ctrl-c", "SIGTERM", "SIGHUP"])
def test_a_terminal_is_left_as_it_was(lab, how):
    t = Terminal(lab)
    t.read("WORKER")
    assert termios.tcgetattr(t.slave)[3] & termios.ICANON == 0, "keys come without Enter"
    if how == "q":
        t.key("q")
    elif how == "ctrl-c":
        t.key("\x03")
    else:
        t.popen.send_signal(getattr(signal, how))
    t.end()


def test_keys_width_and_height(lab):
    with Traffic(lab):
        t = Terminal(lab, size=(30, 70))
        t.read("switches it on")
        t.read("POOL")
        screen = plain(t.text.decode(errors="replace"))
        assert all(len(x) <= 70 for x in screen.split("\r\n")), screen
        assert "not being accounted; s switches it on" in screen
        t.key("s")
        t.read("STAGE")
        t.read("a taller terminal shows more")
        assert frame(lab, "--interval", "0.1")["stage_period"] == 16
        t.key("s")
        t.read("s switches it on")
        assert frame(lab, "--interval", "0.1")["stage_period"] == 0
        fcntl.ioctl(t.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 25, 0, 0))
        t.popen.send_signal(signal.SIGWINCH)
        t.read("WORKER")
        t.read("WORKER")  # now surely a frame that began at the new width
        narrow = plain(t.read("POOL"))
        assert max(len(x) for x in narrow.split("\r\n")[1:-1]) <= 25
        t.key("q")
        t.end()


# --- what may go away -------------------------------------------------------------------------------------------------
def test_the_data_plane_goes_and_comes_back_with_what_it_is_configured_for(lab):
    p = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "-o", "json", "top", "--interval", "0.2", "--stages", "on"],
                         stdout=subprocess.PIPE, text=True)

    def until(condition):
        for _ in range(200):
            f = json.loads(p.stdout.readline())
            if condition(f):
                return f
        raise AssertionError(f)
    try:
        until(lambda f: f["connected"] and f["seconds"] > 0 and f["stage_period"] == 16)
        os.kill(lab.dataplane.popen.pid, signal.SIGKILL)
        lab.dataplane.popen.wait(10)
        gone = until(lambda f: not f["connected"])
        assert "no data plane" in gone["note"] and gone["workers"] == []
        assert "no data plane is connected" in top(lab, "--once", code=NOT_IN_FORCE)
        assert "no data plane is connected" in top(lab, "--once", "--stages", "on", code=NOT_IN_FORCE)
        path = lab.write("accounted.json", json.dumps(with_accounting(configuration(lab), lab)))
        lab.start_dataplane(path)
        lab.wait_in_force()
        back = until(lambda f: f["connected"] and f["seconds"] > 0)
        assert back["stage_period"] == 16, "dataplane.stage_accounting"
        top(lab, "--once", "--interval", "0.1", "--stages", "off")
        until(lambda f: f["stage_period"] == 0)
    finally:
        p.kill()
        p.wait()


def with_accounting(config, lab):
    return {**config, "dataplane": {**lab.dataplane_section(), "stage_accounting": True}}


def test_control_goes_and_comes_back(lab):
    p = subprocess.Popen([L.program("millctl"), "--run-dir", lab.run_dir, "-o", "json", "top", "--interval", "0.2"], stdout=subprocess.PIPE,
                         text=True)
    try:
        assert json.loads(p.stdout.readline())["connected"]
        lab.control.kill()
        while (f := json.loads(p.stdout.readline()))["connected"]:
            pass
        assert "does not answer" in f["note"]
        assert "millrace-control does not answer" in top(lab, "--once", code=NO_CONTROL)
        lab.start_control(os.path.join(lab.dir, "bootstrap.json"))
        lab.wait_in_force()
        while not ((f := json.loads(p.stdout.readline()))["connected"] and f["seconds"] > 0):
            pass
    finally:
        p.kill()
        p.wait()
