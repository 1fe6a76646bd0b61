"""Builds and runs the tests of scripts/test; counts single cases over GoogleTest, the simulator and pytest; prints one closing line."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# name -> (meson options, the tests to build and run; None: all). Address and undefined behaviour over everything that workers run (control's part
# takes as long to build again as all the rest: scripts/dev build --asan has it); threads where threads meet.
SANITIZED = {
    "asan": (["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dbuildtype=debugoptimized", "-Dcontrol=false"], None),
    "tsan": (["-Db_sanitize=thread", "-Db_lundef=false", "-Dbuildtype=debugoptimized", "-Dcontrol=false"], {"unit_shm", "unit_stats"}),
}


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0
        self.failures = []

    def add(self, passed, failed, skipped):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def build(folder, options, tests=None):
    """Configures once and builds (all, or the programs of the named tests); exits when that fails, since nothing could be said about the tests."""
    path = os.path.join(ROOT, folder)
    env = dict(os.environ)
    if shutil.which("ccache"):
        env.setdefault("CC", "ccache gcc")
        env.setdefault("CXX", "ccache g++")
    begun = time.monotonic()
    if not os.path.exists(os.path.join(path, "build.ninja")):
        p = subprocess.run(["meson", "setup", path, ROOT] + options, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if p.returncode != 0:
            sys.exit(f"meson setup failed:\n{p.stdout}")
    targets = []
    if tests is not None:
        targets = [os.path.relpath(t["cmd"][0], path) for suite in ("unit", "sim") for t in meson_tests(path, suite) if t["name"] in tests]
    p = subprocess.run(["ninja", "-C", path] + targets, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode != 0:
        sys.exit("build failed:\n" + "\n".join(p.stdout.splitlines()[-60:]))
    say(f"built {folder} in {time.monotonic() - begun:.0f} s")
    return path


def meson_tests(path, suite):
    out = subprocess.run(["meson", "introspect", "--tests", path], stdout=subprocess.PIPE, check=True).stdout
    return [t for t in json.loads(out) if any(s.split(":")[-1] == suite for s in t["suite"])]


def run_meson_suite(path, suite, tally, label="", only=None, timeout_factor=1):
    with tempfile.TemporaryDirectory() as reports:
        for t in meson_tests(path, suite):
            if only is not None and t["name"] not in only:
                continue
            report = os.path.join(reports, t["name"] + ".json")
            env = dict(os.environ, **t["env"], GTEST_OUTPUT="json:" + report, GTEST_BRIEF="1")
            env.setdefault("ASAN_OPTIONS", "detect_leaks=1")
            env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
            env.setdefault("TSAN_OPTIONS", "halt_on_error=1")
            begun = time.monotonic()
            try:
                p = subprocess.run(t["cmd"], env=env, cwd=t["workdir"] or path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   timeout=t["timeout"] * timeout_factor if t["timeout"] else None, errors="replace", text=True)
                code, output = p.returncode, p.stdout
            except subprocess.TimeoutExpired as e:
                code, output = -1, f"no end within {e.timeout} s\n{(e.stdout or b'').decode(errors='replace')}"
            if os.path.exists(report):
                r = json.load(open(report))
                skipped = sum(1 for s in r["testsuites"] for c in s["testsuite"] if c.get("result") == "SKIPPED" or c.get("status") == "NOTRUN")
                failed = r["failures"] + r.get("errors", 0)
                if code != 0 and failed == 0:
                    failed = 1
                passed = r["tests"] - failed - skipped
            elif code == 77:
                passed, failed, skipped = 0, 0, 1
            else:
                passed, failed, skipped = (1, 0, 0) if code == 0 else (0, 1, 0)
            tally.add(passed, failed, skipped)
            say(f"{label}{t['name']}: {passed} passed, {failed} failed, {skipped} skipped in {time.monotonic() - begun:.1f} s")
            if failed or skipped:
                tally.failures += [f"{label}{t['name']} (exit {code})"] if failed else []
                print("\n".join(output.splitlines()[-80:]), flush=True)


def run_pytest(folder, tally, build_path, word):
    report = tempfile.NamedTemporaryFile(suffix=".xml")
    argv = ["/usr/bin/python3", "-m", "pytest", os.path.join(ROOT, folder), "-q", "-ra", "--tb=short", "--durations=8", "-p", "no:cacheprovider",
            "--junitxml", report.name]
    if word:
        argv += ["-k", word]
    env = dict(os.environ, MILLRACE_BUILD=build_path, PYTHONDONTWRITEBYTECODE="1")
    code = subprocess.run(argv, env=env, cwd=ROOT).returncode
    try:
        suites = ElementTree.parse(report.name).getroot().iter("testsuite")
        total = failed = skipped = 0
        for s in suites:
            total += int(s.get("tests", 0))
            failed += int(s.get("failures", 0)) + int(s.get("errors", 0))
            skipped += int(s.get("skipped", 0))
        tally.add(total - failed - skipped, failed, skipped)
    except ElementTree.ParseError:
        tally.add(0, 1, 0)
        failed = 1
    if code not in (0, 5) and failed == 0:
        tally.add(0, 1, 0)
        failed = 1
    if failed:
        tally.failures.append(folder)


def main():
    p = argparse.ArgumentParser()
    for part in ("unit", "sim", "e2e", "diff"):
        p.add_argument("--" + part, action="store_true")
    p.add_argument("--sanitize", action="store_true")
    p.add_argument("-k", dest="word", default="")
    a = p.parse_args()
    parts = {x for x in ("unit", "sim", "e2e", "diff") if getattr(a, x)} or {"unit", "sim", "e2e", "diff"}
    tally = Tally()
    path = build("build", ["-Dbuildtype=release"])
    if "unit" in parts:
        run_meson_suite(path, "lint", tally, only={"tidy"})
    for suite in ("unit", "sim"):
        if suite in parts:
            run_meson_suite(path, suite, tally)
    if "unit" in parts:
        run_meson_suite(path, "instructions", tally)
    if a.sanitize and parts & {"unit", "sim"}:
        for name, (options, only) in SANITIZED.items():
            sanitized = build("build-" + name, options, only)
            for suite in ("unit", "sim"):
                if suite in parts:
                    run_meson_suite(sanitized, suite, tally, label=name + " ", only=only, timeout_factor=6)
    if "e2e" in parts:
        run_pytest("tests/e2e", tally, path, a.word)
    if "diff" in parts:
        run_pytest("tests/diff", tally, path, a.word)
    for f in tally.failures:
        print("failed:", f)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)
    sys.exit(1 if tally.failed or tally.passed == 0 else 0)


main()
