"""The budget of instructions: its file, callgrind's dumps, and the comparison of one with the other."""
import collections
import glob
import json
import os
import re

TOLERANCE_PERCENT = 5.0

Row = collections.namedtuple("Row", "name allowed counted change verdict failed")


def load(path):
    if not os.path.exists(path):
        return {"build": {}, "cases": {}}
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def save(path, old, build, counts, libraries, whole, commands):
    """Writes the budget: `counts` over the old ones, or in the place of all of them (`whole`)."""
    cases = {} if whole else dict(old["cases"])
    for name, n in counts.items():
        cases[name] = round(n, 1)
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"unit": "instructions an item (worker/: a request), by callgrind", "build": build, "libraries": libraries,
                   "commands": commands, "cases": dict(sorted(cases.items()))}, f, indent=1)
        f.write("\n")


def show_build(build):
    if not build:
        return "no build yet"
    text = "%s, buildtype %s, march %s" % (build["compiler"], build["buildtype"], build["march"])
    return text + (", lto" if build.get("lto") == "true" else "")


def read_dumps(folder):
    """label -> (file, instructions) of the dumps that a program asked for."""
    found = {}
    for path in glob.glob(os.path.join(folder, "out.*")):
        with open(path, encoding="utf-8", errors="replace") as f:
            head = f.read(4096)
        label = re.search(r"^desc: Trigger: Client Request: (\S+)$", head, re.M)
        total = re.search(r"^(?:summary|totals): (\d+)", head, re.M)
        if label and total:
            found[label[1]] = (path, int(total[1]))
    return found


def compare(allowed, counted, whole=True):
    """One row a case. `whole`: every case of the budget should have been counted."""
    rows = []
    for name in sorted(set(allowed) | set(counted) if whole else counted):
        limit, n = allowed.get(name), counted.get(name)
        if n is None:
            rows.append(Row(name, limit, None, None, "is in the budget and was not counted", True))
            continue
        if limit is None:
            rows.append(Row(name, None, n, None, "is not in the budget: --update", True))
            continue
        change = 100.0 * (n - limit) / limit
        if change > TOLERANCE_PERCENT:
            rows.append(Row(name, limit, n, change, "takes %.1f %% more than its budget" % change, True))
        elif change < -TOLERANCE_PERCENT:
            rows.append(Row(name, limit, n, change, "improved, update with --update", False))
        else:
            rows.append(Row(name, limit, n, change, "", False))
    return rows


def table(rows):
    def number(n):
        return "-" if n is None else "{:,.0f}".format(n) if n >= 1000 else "{:,.1f}".format(n)
    width = max(len(r.name) for r in rows)
    lines = ["%-*s %14s %14s %8s" % (width, "instructions an item", "budget", "counted", "change")]
    for r in rows:
        change = "" if r.change is None else "%+.1f %%" % r.change
        lines.append(("%-*s %14s %14s %8s  %s" % (width, r.name, number(r.allowed), number(r.counted), change,
                                                ("FAILED: " if r.failed else "") + r.verdict)).rstrip())
    return "\n".join(lines)


def report_to_gtest(wish, rows):
    """Where GTEST_OUTPUT asks for a report, one case of the budget counts as one test."""
    if not wish.startswith("json:"):
        return
    with open(wish[len("json:"):], "w", encoding="utf-8") as f:
        json.dump({"tests": len(rows), "failures": sum(r.failed for r in rows), "errors": 0,
                   "testsuites": [{"testsuite": [{"name": r.name, "result": "COMPLETED"} for r in rows]}]}, f)
