#!/usr/bin/python3
"""perf/comparison without machine and network."""
import json
import os
import re
import sys
import tempfile
import types
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "..", "perf"))
os.environ["MILLRACE_LOAD"] = os.path.join(HERE, "fake_load.py")
from comparison import bench, cases, kernel_load, load, main, measure, memory, plan, report, results, routes, systems, template  # noqa: E402

BENCH = types.SimpleNamespace(dut_core=0, generator_core=1, open_files=20_000, name="mrb1", dir="/nowhere", keep=False)
MATERIAL = types.SimpleNamespace(certificate="/c.pem", key="/k.pem", combined="/b.pem")


def configured(cls, **service):
    """A system as it is before it writes its files."""
    s = cls(BENCH, MATERIAL)
    s.service, s.folder = systems.Service(**service), "/d"
    return s


class Templates(unittest.TestCase):
    def test_conditions_and_words(self):
        text = "a\n#if X\nb @N@\n#if not Y\nc\n#end\n#end\nd # comment"
        for variables, expected in (
                ({"X": True, "Y": False, "N": 5}, "a\nb 5\nc\nd # comment\n"),
                ({"X": True, "Y": True, "N": 5}, "a\nb 5\nd # comment\n"),
                ({"X": False, "Y": False}, "a\nd # comment\n"),
                ({}, "a\nd # comment\n")):
            self.assertEqual(template.expand(text, variables), expected)

    def test_mistakes_are_named(self):
        for text, words in (("x @NO@", "t:1: nothing is known of @NO@"), ("#if A", "#if without #end"), ("#end", "t:1: #end without #if")):
            with self.assertRaisesRegex(template.TemplateError, re.escape(words)):
                template.expand(text, {"A": 1}, "t")

    def test_every_template_renders_for_every_service(self):
        for service in ({}, {"tls": True}, {"log": True}, {"table": routes.RouteTable(10)}, {"table": routes.RouteTable(10, "regex")}, {"connections": 1_000_000}):
            text = configured(systems.Nginx, **service).text([])
            self.assertEqual(text.count("{"), text.count("}"), service)
            self.assertEqual("access_log off" in text, not service.get("log", False))
            config, hcm = systems.mesh(configured(systems.Envoy, **service).variables(), {"name": "routes", "virtual_hosts": []})
            self.assertEqual("access_log" in hcm, service.get("log", False))
            self.assertEqual("transport_socket" in config["static_resources"]["listeners"][0]["filter_chains"][0], service.get("tls", False))
            self.assertEqual(len(config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]), len(systems.ENDPOINTS))


class Routes(unittest.TestCase):
    def test_sizes_and_hosts(self):
        for count, hosts in ((10, 1), (1_000, 1), (10_000, 10), (100_000, 100)):
            table = routes.RouteTable(count)
            self.assertEqual(len(table.hosts()), hosts)
            self.assertEqual(sum(len(p) for _, p in table.hosts()), count)
            lines = table.target_lines()
            self.assertEqual(len(lines), len(set(lines)))
            self.assertEqual(len(lines), min(count, 20_000))

    def test_every_example_matches_its_route_and_no_other(self):
        for kind in ("literal", "regex"):
            table = routes.RouteTable(1_040, kind)
            patterns = {h: [re.compile(p if kind == "literal" else p + "$") for p in ps] for h, ps in table.hosts()}
            for line in table.target_lines(50):
                host, path = line.split()
                hits = [p for p in patterns[host] if p.match(path)]
                self.assertEqual(len(hits), 1, line)

    def test_all_systems_get_the_same_table(self):
        for kind in ("literal", "regex"):
            table = routes.RouteTable(1_500, kind)
            expected = {(h, p) for h, ps in table.hosts() for p in ps}
            mesh = {(v["domains"][0], r["match"].get("prefix") or r["match"]["safe_regex"]["regex"]) for v in routes.mesh_route_config(table)["virtual_hosts"]
                    for r in v["routes"]}
            self.assertEqual(mesh, expected)
            nginx, host = set(), None
            for line in routes.nginx_hosts(table, "0.0.0.0:80").splitlines():
                m = re.match(r"\s*server_name (\S+);", line)
                host = m.group(1) if m else host
                m = re.match(r'\s*location (?:~ "\^)?(/.+?)(?:\$")? \{ proxy_pass', line)
                if m:
                    nginx.add((host, m.group(1)))
            self.assertEqual(nginx, expected)
            rules, files = routes.haproxy_routes(table, "/maps")
            if kind == "literal":
                haproxy = {tuple(re.match(r"([^/]+)(/\S+) web", x).groups()) for x in files["/maps/routes.map"].splitlines()}
            else:
                haproxy = {(os.path.basename(f)[:-4], x.split()[0][1:-1]) for f, text in files.items() for x in text.splitlines()}
            self.assertEqual(haproxy, expected)
            for f in files:
                self.assertIn(f, rules)

    def test_a_change_adds_one_route_to_the_first_host(self):
        table = routes.RouteTable(10)
        before, after = routes.mesh_route_config(table), routes.mesh_route_config(table, [0])
        self.assertEqual(after["virtual_hosts"][0]["routes"][0]["match"], {"prefix": "/change-0/"})
        self.assertEqual(after["virtual_hosts"][0]["routes"][1:], before["virtual_hosts"][0]["routes"])
        self.assertIn("location /change-0/ { proxy_pass", routes.nginx_hosts(table, "x", [0]))


class Judgement(unittest.TestCase):
    def judge(self, **result):
        base = {"requests": 100_000, "busy": 0.5, "errors": {"status": 0, "reset": 0, "retransmissions": 0}}
        errors = dict(base["errors"], **result.pop("errors", {}))
        return load.Outcome(dict(base, **result, errors=errors), {}).judge()

    def test_runs(self):
        for given, usable, flags in (
                ({}, True, []),
                ({"busy": 0.95}, True, ["generator busy 95 %"]),
                ({"errors": {"status": 3}}, False, ["errors: 3 status"]),
                ({"errors": {"retransmissions": 50}}, True, []),
                ({"errors": {"retransmissions": 500}}, True, ["losses: 500 retransmissions"]),
                ({"errors": {"closed_early": 1, "tls": 2}}, False, ["errors: 1 closed_early, 2 tls"])):
            o = self.judge(**given)
            self.assertEqual((o.usable, o.flags), (usable, flags), given)

    def test_lost_counts_requests_not_segments(self):
        self.assertEqual(self.judge(errors={"reset": 4, "timeout": 1, "retransmissions": 9}).lost(), 5)

    def test_options_for_the_generator(self):
        line = " ".join(load.Work(connections=7, rate=1000, requests_per_connection=1, response_body=0, tls=True, resume=True).argv(443))
        for part in ("--target 10.63.0.2:443", "--connections 7", "--rate 1000", "--requests-per-connection 1", "--response-body 0", "--tls-clients",
                     "--sni bench.example", "--tls-resume"):
            self.assertIn(part, line)
        line = " ".join(load.Work(direct=True, targets_file="/t").argv(443))
        self.assertIn("--target 10.65.0.1:80", line)
        self.assertIn("--targets /t", line)
        self.assertNotIn("--tls", line)
        self.assertNotIn("--host", line)

    def test_wrk(self):
        text = "  5000 requests in 2.00s, 4.88GB read\n{}Requests/sec:   2500.00\nTransfer/sec:      2.44GB\n"
        self.assertAlmostEqual(kernel_load.parse(text.format(""), 1 << 20)["response_gbit_per_s"], 20.97152)
        errors = kernel_load.parse(text.format("  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"), 1)["errors"]
        self.assertEqual(errors, {"status": 5, "reset": 6, "timeout": 4})

    def test_live_is_the_first_good_answer_that_stays(self):
        ms = 1_000_000
        for probes, expected in (
                ([(0, 1, 404), (10, 11, 200), (20, 21, 200)], 6),
                ([(0, 1, 404), (10, 11, 200), (12, 13, 404), (20, 21, 200)], 16),   # the old worker answered once more
                ([(0, 1, 404), (10, 11, 0), (20, 21, 200)], 16)):
            scaled = [(a * ms, b * ms, s) for a, b, s in probes]
            self.assertAlmostEqual(measure.live_after_ms(scaled, 5 * ms), expected)
        with self.assertRaises(bench.LabError):
            measure.live_after_ms([(0, 1, 404)], 0)

    def test_workers_where_files_are_few(self):
        self.assertEqual(configured(systems.Nginx).workers, 1)
        n = configured(systems.Nginx, connections=116_384).workers
        self.assertGreaterEqual(n * (BENCH.open_files - 1_000), 116_384)
        self.assertEqual(configured(systems.Millrace, connections=1_016_384).workers, 1)  # its connections are no files


class Time(unittest.TestCase):
    def run_plan(self, settings, slowness):
        """Plays the runner's use of the governor; returns (seconds, repetitions by case)."""
        now = [0.0]
        chosen = cases.CASES if settings.search else [c for c in cases.CASES if c.quick]
        g = plan.Governor(chosen, settings, clock=lambda: now[0])
        made = {}
        for block in plan.blocks(chosen, key=lambda c: c.group):
            g.begin(*block)
            for repetition in range(1, max(plan.wanted_repetitions(c, settings) for c in block) + 1):
                for c, s in [(c, s) for c in block for s in settings.systems if s in c.systems and repetition <= plan.wanted_repetitions(c, settings)]:
                    seconds = slowness * plan.repetition_s(c, s, settings)
                    if repetition == 1 or g.another(c, seconds):
                        now[0] += seconds
                        made[c.name] = repetition
        return now[0], made

    def test_tables_of_routes_take_turns(self):
        names = [[c.name for c in b] for b in plan.blocks(cases.CASES, key=lambda c: c.group)]
        self.assertIn([f"routes-{n}" for n in (10, 1000, 10000, 100000)], names)
        self.assertIn(["keepalive-64B"], names)
        self.assertEqual(sum(names, []), [c.name for c in cases.CASES])

    def test_full_and_quick_keep_their_time(self):
        for settings, limit in ((plan.full(list(main.DEFAULT_SYSTEMS)), 45 * 60), (plan.quick(list(main.QUICK_SYSTEMS)), 3 * 60)):
            for slowness in (0.5, 1.0, 1.3):
                seconds, made = self.run_plan(settings, slowness)
                self.assertLessEqual(seconds, limit, slowness)
                self.assertTrue(all(n >= 1 for n in made.values()))
        _, made = self.run_plan(plan.full(list(main.DEFAULT_SYSTEMS)), 0.8)
        self.assertGreaterEqual(made["keepalive-64B"], 3)


class Output(unittest.TestCase):
    def filled(self):
        r = results.Results()
        for system, values in (("millrace", (900_000, 1_000_000, 1_100_000)), ("nginx", (100_000, 90_000)), ("envoy", (20_000,))):
            for v in values:
                r.add(system, measure.Figure("keepalive-64B", "requests/s", v, ["generator busy 95 %"] if system == "millrace" else []))
        r.add("envoy", measure.Figure("keepalive-64B", "requests/s", 99_999_999, ["errors: 5 status"], usable=False))
        r.skip("keepalive-64B", "haproxy", "it is not there")
        return r

    def test_json_is_exactly_the_list(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.json")
            self.filled().write(path, {"cpu": "c"})
            def load_json(p):
                with open(p) as f:
                    return json.load(f)
            rows = load_json(path)
            self.assertEqual(rows, [
                {"case": "keepalive-64B", "system": "millrace", "unit": "requests/s", "median": 1e6, "min": 9e5, "max": 1.1e6, "n": 3},
                {"case": "keepalive-64B", "system": "nginx", "unit": "requests/s", "median": 95_000, "min": 90_000, "max": 100_000, "n": 2},
                {"case": "keepalive-64B", "system": "envoy", "unit": "requests/s", "median": 20_000, "min": 20_000, "max": 20_000, "n": 1}])
            self.assertEqual(load_json(path + ".machine.json"), {"cpu": "c"})
            detail = load_json(path + ".details.json")
            self.assertEqual(detail["skipped"], [{"case": "keepalive-64B", "system": "haproxy", "why": "it is not there"}])
            self.assertEqual(len(detail["samples"]), 7)

    def test_table(self):
        text = "\n".join(report.block(cases.BY_NAME["keepalive-64B"], self.filled(), list(report.BY_NAME), False))
        for part in ("1,000,000", "10.5×", "50.0×", "! it is not there", "! generator busy 95 % (3 of 3)", "! errors: 5 status (1 of 2)"):
            self.assertIn(part, text)
        self.assertNotIn("99,999,999", text)

    def test_less_is_better_turns_the_ratio(self):
        case = cases.BY_NAME["route-change-10"]
        self.assertAlmostEqual(report.ratio(case, 5, 50), 10)
        self.assertAlmostEqual(report.ratio(cases.BY_NAME["keepalive-64B"], 50, 5), 10)


class CommandLine(unittest.TestCase):
    def test_named_cases_exist(self):
        names = set(cases.BY_NAME)
        for n in ("keepalive-64B", "keepalive-1KB", "keepalive-16KB", "keepalive-64B-log", "connections", "tls13-keepalive", "tls13-full-handshakes",
                  "tls13-resumed-handshakes", "bulk-1MB", "latency-half", "latency-common", "idle-memory-100000", "idle-memory-1000000", "raw-forward",
                  *(f"route-change-{n}" for n in (10, 1000, 100000)), *(f"routes-{n}" for n in (10, 1000, 10000, 100000)),
                  *(f"routes-regex-{n}" for n in (10, 1000, 10000, 100000))):
            self.assertIn(n, names)

    def test_choices(self):
        self.assertEqual([c.name for c in main.choose_cases("keepalive-*B", False)], ["keepalive-64B", "keepalive-1KB", "keepalive-16KB"])
        self.assertEqual(main.choose_systems("envoy, millrace", False, None), ["millrace", "envoy"])
        for bad in (lambda: main.choose_cases("no-such", False), lambda: main.choose_systems("apache", False, None)):
            with self.assertRaises(ValueError):
                bad()


class Memory(unittest.TestCase):
    def test_own_process(self):
        pages, huge, tables = memory.process_bytes(os.getpid())
        self.assertGreater(pages, 1 << 20)
        self.assertGreater(tables, 0)
        self.assertEqual(memory.process_bytes(0x7ffffff), (0, 0, 0))
        self.assertEqual(memory.difference({"a": 1, "b": 5}, {"a": 4, "b": 2}), {"a": 3, "b": -3})


if __name__ == "__main__":
    unittest.main()
