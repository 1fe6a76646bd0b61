#!/usr/bin/python3
"""Tests of the budget's arithmetic and of how callgrind's files are read."""
import json
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import budget  # noqa: E402


class Compare(unittest.TestCase):
    def verdicts(self, allowed, counted, **how):
        return {r.name: (r.failed, r.verdict) for r in budget.compare(allowed, counted, **how)}

    def test_rows(self):
        allowed = {"same": 1000.0, "edge": 1000.0, "more": 1000.0, "less": 1000.0, "gone": 5.0}
        counted = {"same": 1001.0, "edge": 1050.0, "more": 1050.2, "less": 940.0, "new": 7.0}
        self.assertEqual(self.verdicts(allowed, counted), {
            "same": (False, ""),
            "edge": (False, ""),                                   # exactly 5 % is within
            "more": (True, "takes 5.0 % more than its budget"),
            "less": (False, "improved, update with --update"),
            "gone": (True, "is in the budget and was not counted"),
            "new": (True, "is not in the budget: --update"),
        })

    def test_part(self):
        self.assertEqual(self.verdicts({"a": 10.0, "b": 10.0}, {"a": 10.0}, whole=False), {"a": (False, "")})

    def test_table_names_the_case(self):
        text = budget.table(budget.compare({"worker/keepalive": 10000.0}, {"worker/keepalive": 12000.0}))
        self.assertIn("worker/keepalive", text)
        self.assertIn("FAILED: takes 20.0 % more", text)


class Files(unittest.TestCase):
    def test_save_and_load(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "budget.json")
            self.assertEqual(budget.load(path)["cases"], {})
            build = {"compiler": "gcc 12.2.0", "buildtype": "release", "march": "x86-64-v3", "sanitize": "none", "lto": False}
            budget.save(path, {"cases": {"old": 1.0}}, build, {"new": 2.04}, {"libc6": "2.36"}, whole=False, commands={})
            self.assertEqual(budget.load(path)["cases"], {"new": 2.0, "old": 1.0})
            self.assertEqual(budget.load(path)["build"], build)
            budget.save(path, budget.load(path), build, {"new": 3.0}, {}, whole=True, commands={})
            self.assertEqual(budget.load(path)["cases"], {"new": 3.0})

    def test_dumps(self):
        with tempfile.TemporaryDirectory() as d:
            for name, text in {
                    "out": "desc: Trigger: Program termination\nsummary: 99\n",
                    "out.1": "version: 1\ndesc: Trigger: Client Request: keepalive\nevents: Ir\nsummary: 8969984\n",
                    "out.2": "desc: Trigger: Client Request: tls\nevents: Ir\nsummary: 12\n"}.items():
                with open(os.path.join(d, name), "w", encoding="utf-8") as f:
                    f.write(text)
            self.assertEqual({k: v[1] for k, v in budget.read_dumps(d).items()}, {"keepalive": 8969984, "tls": 12})

    def test_report(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "r.json")
            budget.report_to_gtest("json:" + path, budget.compare({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}))
            with open(path, encoding="utf-8") as f:
                r = json.load(f)
            self.assertEqual((r["tests"], r["failures"], len(r["testsuites"][0]["testsuite"])), (2, 1, 2))


unittest.main()
