#!/usr/bin/python3
"""The table of RFC 9293 in lib/tcp/README.md: every label has a row, and every test or script that a row names is there."""
import os
import re
import unittest

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
LABELS = ["MUST-%d" % n for n in range(1, 70)] + ["SHLD-%d" % n for n in range(1, 32)] + ["MAY-%d" % n for n in range(1, 19)]
# What a row may say instead of naming a test.
REASONS = re.compile(r"deviation: \S+|n/a: \S+|n/a for \S+|not done|not sent", re.ASCII)


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as f:
        return f.read()


def table(text):
    """label -> (clause, what shows it), and labels that stand there twice."""
    rows, twice = {}, []
    for line in text.split("\n"):
        m = re.fullmatch(r"\| ((?:MUST|SHLD|MAY)-\d+) \| (.*?) \| (.*) \|", line)
        if not m:
            continue
        if m.group(1) in rows:
            twice.append(m.group(1))
        rows[m.group(1)] = (m.group(2), m.group(3))
    return rows, twice


def unit_tests():
    names = set()
    for folder, _, files in os.walk(os.path.join(ROOT, "tests", "unit")):
        for f in files:
            if f.endswith(".cc"):
                names.update(".".join(m) for m in re.findall(r"^TEST(?:_P|_F)?\((\w+), (\w+)\)", read(folder, f), re.MULTILINE))
    return names


def problems(rows, scripts, tests):
    found = []
    for label, (_, shown) in rows.items():
        named = 0
        for name in re.findall(r"`([^`]+)`", shown):
            if re.fullmatch(r"[a-z_0-9]+/[a-z_0-9]+", name):
                named += 1
                if name not in scripts:
                    found.append("%s: no script %s" % (label, name))
            elif re.fullmatch(r"[A-Z]\w+\.[A-Z]\w+", name):
                named += 1
                if name not in tests:
                    found.append("%s: no test %s" % (label, name))
            elif name.startswith("tests/"):
                named += 1
                if not os.path.exists(os.path.join(ROOT, name)):
                    found.append("%s: no file %s" % (label, name))
        if named == 0 and not REASONS.search(shown):
            found.append("%s: neither a test nor a reason" % label)
    return found


class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rows, cls.twice = table(read("lib", "tcp", "README.md"))
        packet = os.path.join(ROOT, "tests", "packet")
        cls.scripts = {os.path.relpath(os.path.join(d, f), packet)[:-4] for d, _, files in os.walk(packet) for f in files if f.endswith(".pkt")}
        cls.tests = unit_tests()

    def test_every_label_has_one_row(self):
        self.assertEqual([label for label in LABELS if label not in self.rows], [])
        self.assertEqual([label for label in self.rows if label not in LABELS], [])
        self.assertEqual(self.twice, [])

    def test_what_rows_name_is_there(self):
        self.assertEqual(problems(self.rows, self.scripts, self.tests), [])

    def test_labels_in_scripts_are_of_the_rfc(self):
        for script in sorted(self.scripts):
            for label in re.findall(r"\b(?:MUST|SHLD|MAY)-\d+", read("tests", "packet", script + ".pkt")):
                self.assertIn(label, LABELS, script)

    def test_this_check_can_fail(self):
        rows, twice = table("| MUST-1 | 1 x | `a/b` |\n| MUST-1 | 1 x | trust us |\n| MUST-2 | 1 x | `No.Test`, `Is.There` |\n| MAY-1 | x | n/a: y |")
        self.assertEqual(twice, ["MUST-1"])
        self.assertEqual(problems(rows, {"a/c"}, {"Is.There"}), ["MUST-1: neither a test nor a reason", "MUST-2: no test No.Test"])
        self.assertEqual(problems({"MUST-3": ("", "`a/b`")}, {"a/c"}, set()), ["MUST-3: no script a/b"])


if __name__ == "__main__":
    unittest.main()
