"""Scripts for other generators (perf/trex, perf/pktgen): they load, and they do what they say, against stand-ins of those programs' APIs."""
import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import json
import os
import py_compile
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TREX, PKTGEN = os.path.join(ROOT, "perf", "trex"), os.path.join(ROOT, "perf", "pktgen")
LUA = shutil.which("lua5.4") or shutil.which("lua5.3") or shutil.which("lua")

sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(HERE, "trex_stand_in"), TREX]


def load(name, **tunables):
    """As TRex does: `-t a=b,c=d` arrives as ["--a", "b", "--c", "d"]."""
    module = importlib.import_module(name)
    words = [w for k, v in tunables.items() for w in ("--" + k, str(v))]
    return module.register().get_profile(tunables=words)


class Flow:
    """One end of a connection that runs a program: `arrives` bytes come in, sizes of messages go out (an item for each send command)."""

    def __init__(self, program):
        self.program, self.at, self.received, self.variables, self.waits = program, 0, 0, {}, 0

    def arrives(self, n):
        self.received += n
        return self.run()

    def run(self):
        out = []
        while self.at < len(self.program.commands):
            command = self.program.commands[self.at]
            if command[0] == "send":
                out.append(command[2])
            elif command[0] == "recv":
                if self.received < command[1]:
                    break
                self.received = 0 if command[2] else self.received - command[1]
                self.waits += 1
            elif command[0] == "set":
                self.variables[command[1]] = command[2]
            elif command[0] == "jump":
                self.variables[command[1]] -= 1
                if self.variables[command[1]] > 0:
                    self.at = command[2]
                    continue
            self.at += 1
        return out

    @property
    def ended(self):
        return self.at == len(self.program.commands)


def play(client_program, server_program, added, limit):
    """Client and server through a gateway that makes each message `added()` bytes longer; returns how many turns they took and whether the client ended."""
    client, server = Flow(client_program), Flow(server_program)
    to_server, turns = client.run(), 0
    server.run()
    while to_server and turns < limit:
        turns += 1
        to_client = server.arrives(sum(to_server) + added())
        to_server = client.arrives(sum(to_client) + added()) if to_client else []
    return turns, client.ended


class Trex(unittest.TestCase):
    def test_every_profile_compiles_and_registers(self):
        names = sorted(n[:-3] for n in os.listdir(TREX) if n.endswith(".py"))
        self.assertEqual(names, ["connections", "keepalive", "millrace_astf", "targets", "tls_passthrough"])
        for n in names:
            with tempfile.NamedTemporaryFile() as out:
                py_compile.compile(os.path.join(TREX, n + ".py"), cfile=out.name, doraise=True)
            if n != "millrace_astf":
                self.assertTrue(hasattr(importlib.import_module(n).register(), "get_profile"), n)

    def test_keepalive_asks_so_often_and_closes(self):
        for requests, body in ((1, 64), (7, 0), (100, 16384)):
            t = load("keepalive", requests=requests, response_body=body, connections=10).templates[0]
            for added in (0, 1, 150):
                self.assertEqual(play(t.client.program, t.server.program, lambda: added, 1000), (requests, True), (requests, body, added))
            self.assertEqual((t.client.limit, t.client.cont, t.client.port, t.server.assoc.port), (10, True, 8080, 80))

    def test_keepalive_for_ever(self):
        t = load("keepalive").templates[0]
        self.assertEqual(play(t.client.program, t.server.program, lambda: 90, 5000), (5000, False))

    def test_what_is_sent_is_http(self):
        t = load("keepalive", response_body=1000, request_body=300, host="a.example", path="/x").templates[0]
        _, head, size = next(c for c in t.client.program.commands if c[0] == "send")
        self.assertEqual(head, b"POST /x HTTP/1.1\r\nhost: a.example\r\ncontent-length: 300\r\n\r\n")
        self.assertEqual(size, len(head) + 300)
        _, head, size = next(c for c in t.server.program.commands if c[0] == "send")
        self.assertEqual(head, b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        self.assertEqual(size, len(head) + 1000)

    def test_a_wait_longer_than_what_is_sent_is_seen_by_this_test(self):
        t = load("keepalive", requests=5).templates[0]
        self.assertNotEqual(play(t.client.program, t.server.program, lambda: -1, 1000), (5, True))

    def test_connections_are_of_one_request(self):
        t = load("connections", cps=2500).templates[0]
        self.assertEqual(play(t.client.program, t.server.program, lambda: 120, 1000), (1, True))
        self.assertEqual((t.client.cps, t.client.limit), (2500, None))

    def test_targets_are_drawn_and_shared_out(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("# comment\n\n" + "".join(f"h{i % 7}.example /p/{'x' * (i % 40)}{i}\n" for i in range(1000)))
            f.flush()
            p = load("targets", file=f.name, programs=4, requests=50, rounds=3, connections=10, zipf=1.0)
            again = load("targets", file=f.name, programs=4, requests=50, rounds=3, connections=10, zipf=1.0)
            uniform = load("targets", file=f.name, programs=4, requests=50, connections=10)
        self.assertEqual([t.client.limit for t in p.templates], [3, 3, 2, 2])
        self.assertEqual([t.server.assoc.port for t in p.templates], [80, 81, 82, 83])
        self.assertEqual({t.client.port for t in p.templates}, {8080})
        self.assertAlmostEqual(sum(t.client.cps for t in p.templates), 1000)
        for t in p.templates:
            self.assertEqual(play(t.client.program, p.templates[0].server.program, lambda: 100, 1000), (150, True))

        def sent(profile):
            return [c[1] for t in profile.templates for c in t.client.program.commands if c[0] == "send"]
        self.assertEqual(sent(p), sent(again))
        self.assertGreater(sum(b"/p/0 " in r for r in sent(p)), 5)  # 200 draws of Zipf: 27 are expected of the first line
        self.assertLess(sum(b"/p/0 " in r for r in sent(uniform)), 5)

    def test_tls_passes_through_byte_for_byte(self):
        for requests, response in ((1, 1), (1, 1024), (5, 16384), (3, 100_000)):
            t = load("tls_passthrough", requests=requests, response_bytes=response, sni="a.example").templates[0]
            self.assertEqual(play(t.client.program, t.server.program, lambda: 0, 1000), (1 + requests, True), (requests, response))
            self.assertEqual((t.client.port, t.server.assoc.port), (8443, 443))

    def test_client_hello_is_one(self):
        hello = importlib.import_module("millrace_astf").client_hello("www.example.com")
        self.assertEqual(len(hello), 517)
        kind, version, length = struct.unpack("!BHH", hello[:5])
        self.assertEqual((kind, version, length), (22, 0x0303, 512))
        self.assertEqual(hello[5], 1)
        self.assertEqual(int.from_bytes(hello[6:9], "big"), 508)
        at = 9 + 2 + 32
        at += 1 + hello[at]  # session id
        at += 2 + int.from_bytes(hello[at:at + 2], "big")  # cipher suites
        at += 1 + hello[at]  # compression
        end = at + 2 + int.from_bytes(hello[at:at + 2], "big")
        self.assertEqual(end, 517)
        at += 2
        found = {}
        while at < end:
            number, n = struct.unpack("!HH", hello[at:at + 4])
            found[number] = hello[at + 4:at + 4 + n]
            at += 4 + n
        self.assertEqual(at, end)
        self.assertEqual(found[0], struct.pack("!HBH", 18, 0, 15) + b"www.example.com")
        self.assertIn(b"http/1.1", found[16])

    def test_mistakes_are_named(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("a /\nb\n")
            f.flush()
            for name, tunables, want in (
                    ("keepalive", {"connections": 0}, "connections: above 0"),
                    ("keepalive", {"think": 3}, "think: 0, or"),
                    ("keepalive", {"response_body": -1}, "bodies: 0 bytes and up"),
                    ("keepalive", {"port": 0}, "ports are 1 to 65535"),
                    ("connections", {"cps": 0}, "cps: above 0"),
                    ("tls_passthrough", {"sni": "ä"}, "sni: 1 to 255 letters"),
                    ("targets", {"file": f.name}, ":2: a line is `host path`"),
                    ("targets", {"file": "/dev/null"}, "/dev/null: no line"),
                    ("targets", {"file": f.name, "connections": 1}, "connections: at least one for each program")):
                with self.assertRaises(ValueError) as e:
                    load(name, **tunables)
                self.assertIn(want, str(e.exception))
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                load("keepalive", conections=5)


class Validate(unittest.TestCase):
    """perf/load/validate, as far as it goes without root."""

    @classmethod
    def setUpClass(cls):
        path = os.path.join(ROOT, "perf", "load", "validate")
        loader = importlib.machinery.SourceFileLoader("validate", path)
        cls.module = importlib.util.module_from_spec(importlib.util.spec_from_loader("validate", loader))
        loader.exec_module(cls.module)

    def runs(self, wrk, load, **more):
        def of(rates):
            return [{"requests_per_s": r, "p50_us": 10, "p99_us": 20, "nginx_cpu": 0.99, "errors": ""} | more for r in rates]
        return {"wrk": of(wrk), "millrace-load": of(load)}

    def test_medians_must_agree(self):
        judge = self.module.judge
        for wrk, load, ratio, agree in (([100, 101, 500], [100, 103, 1], 100 / 101, True), ([100], [105.1], 1.051, False), ([100], [94.9], 0.949, False),
                                        ([100, 100], [95, 105], 1, True)):
            v = judge("compressed", self.runs(wrk, load), 0.05)
            self.assertAlmostEqual(v["ratio"], ratio)
            self.assertEqual(v["agree"], agree, v)
            self.assertEqual("THEY DO NOT AGREE" in self.module.table(v), not agree)
            self.assertEqual([s["n"] for s in v["systems"]], [len(wrk), len(load)])

    def test_what_neighbours_took_from_nginx_does_not_count(self):
        runs = self.runs([100], [80])
        runs["wrk"][0]["nginx_cpu"], runs["millrace-load"][0]["nginx_cpu"] = 1.0, 0.8
        v = self.module.judge("compressed", runs, 0.05)
        self.assertAlmostEqual(v["ratio"], 1)
        self.assertAlmostEqual(v["rate_ratio"], 0.8)
        self.assertTrue(v["agree"])

    def test_cases_for_information_need_not_agree_but_must_be_clean(self):
        v = self.module.judge("keepalive-64B", self.runs([100], [200]), 0.05)
        self.assertTrue(v["agree"])
        self.assertIn("(for information)", self.module.table(v))
        v = self.module.judge("keepalive-64B", self.runs([100], [200], errors="reset 1"), 0.05)
        self.assertFalse(v["agree"])
        self.assertIn("ERRORS wrk: reset 1", self.module.table(v))

    def test_wrk_is_read(self):
        text = """  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.50ms    2.10ms  41.00ms   50.50%
  Latency Distribution
     50%  940.00us
     75%    1.20ms
     99%    1.02s
Requests/sec:  29385.12
"""
        self.assertEqual(self.module.wrk_percentile(text, 50), 940)
        self.assertEqual(self.module.wrk_percentile(text, 99), 1.02e6)
        with self.assertRaises(self.module.LabError):
            self.module.wrk_percentile("no latency here", 50)

    def test_usage(self):
        path = os.path.join(ROOT, "perf", "load", "validate")
        for words, want in ((["--cases", "nonsense"], "--cases: 'nonsense' is none of"), (["--seconds", "0"], "--seconds: 1 or more"),
                            (["--tool-core", "4000"], "--tool-core: core 4000 is not there"), (["--nginx-core", "0", "--tool-core", "0"], "a core each"),
                            (["--steering"], "--steering: does not reach af_xdp")):
            p = subprocess.run(["/usr/bin/python3", path, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(p.returncode, 2, p.stderr)
            self.assertIn(want, p.stderr)


@unittest.skipUnless(LUA, "no lua on this machine")
class Pktgen(unittest.TestCase):
    def play(self, script, release, capacity=5e6, line_rate=14_880_952, code=0, **settings):
        env = dict(PATH=os.environ["PATH"], **({"PKTGEN_DUT_MAC": "02:00:00:00:00:01"} | settings))
        p = subprocess.run([LUA, os.path.join(HERE, "pktgen_stand_in.lua"), os.path.join(PKTGEN, script), release, str(capacity), str(line_rate)],
                           env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(p.returncode, code, p.stdout)
        return p.stdout.splitlines()

    def value(self, lines, case, field):
        words = next(line for line in lines if line.startswith(case + " ")).split()
        return float(words[words.index(field) + 1])

    def test_packet_rate_finds_what_comes_back(self):
        for release in ("old", "new"):
            for capacity, percent in ((5e6, 33.6), (14_000_000, 94.08), (20e6, 100)):
                out = self.play("packet_rate.lua", release, capacity)
                for size in (64, 512, 1500):
                    self.assertEqual(self.value(out, f"packet-rate-{size}B", "received_pps"), min(capacity, 14_880_952))
                    self.assertAlmostEqual(self.value(out, f"no-drop-rate-{size}B", "percent"), percent, delta=0.5)
                    self.assertLessEqual(self.value(out, f"no-drop-rate-{size}B", "received_pps"), capacity)
                self.assertEqual({line.split()[3] for line in out if line.startswith("START")}, {"64", "512", "1500"})

    def test_nothing_comes_back(self):
        out = self.play("packet_rate.lua", "new", capacity=0)
        self.assertEqual(self.value(out, "no-drop-rate-64B", "received_pps"), 0)
        self.assertEqual(self.value(out, "packet-rate-64B", "lost"), 1)

    def test_syns_are_syns_of_so_many_flows(self):
        with tempfile.TemporaryDirectory() as folder:
            result = os.path.join(folder, "r.json")
            out = self.play("syn.lua", "new", PKTGEN_TARGET="10.1.2.3", PKTGEN_RESULT=result)
            with open(result) as f:
                lines = [json.loads(line) for line in f]
        starts = [line for line in out if line.startswith("START")]
        self.assertEqual(len(starts), 12)
        for line in starts:
            self.assertIn("START tcp 10.1.2.3 64 flags=clr,syn", line)
        self.assertIn("src=10.64.0.1-10.64.0.1 ports=1024-1024", starts[0])
        self.assertIn("src=10.64.0.1-10.64.0.1 ports=1024-2023", starts[3])
        self.assertIn("src=10.64.0.1-10.64.0.16 ports=1024-65534", starts[9])
        self.assertEqual([x["flows"] for x in lines][::3], [1, 1000, 64000, 16 * 64511])
        self.assertEqual(lines[0]["case"], "syn-1")

    def test_flows_are_different_ones(self):
        # Address and port step together; the script says how many different pairs that makes.
        out = self.play("flows.lua", "new")
        for line in (x for x in out if x.startswith("START")):
            words = dict(w.split("=") for w in line.split() if "=" in w)
            low, high = (sum(int(b) << s for b, s in zip(a.split("."), (24, 16, 8, 0))) for a in words["src"].split("-"))
            first, last = map(int, words["ports"].split("-"))
            addresses, ports = high - low + 1, last - first + 1
            self.assertEqual(addresses & (addresses - 1), 0)
            self.assertTrue(addresses == 1 or ports % 2 == 1)
            self.assertLess(last, 65536)

    def test_mistakes_are_named(self):
        for settings, want in (({"PKTGEN_DUT_MAC": ""}, "PKTGEN_DUT_MAC: say"), ({"PKTGEN_DUT_MAC": "x"}, "'x' is not a MAC address"),
                               ({"PKTGEN_CLIENTS": "nonsense"}, "'nonsense' is not an IPv4 address"), ({"PKTGEN_SECONDS": "0"}, "above 0")):
            self.assertIn(want, "\n".join(self.play("flows.lua", "new", code=1, **settings)))


if __name__ == "__main__":
    unittest.main(verbosity=1)
