"""perf/soak, seconds of what it does for minutes: everything that must hold holds, except how fast it went (this machine has other work)."""
import json
import os
import subprocess
import sys

import pytest

import conftest  # noqa: F401 - puts tests/support on the path
import lab
from test_load import generator


@pytest.fixture
def soak(tmp_path):
    generator()

    def run(*argv):
        out = tmp_path / "figures.json"
        p = subprocess.run([sys.executable, os.path.join(lab.ROOT, "perf", "soak"), *argv, "--json", str(out)], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=240)
        print(p.stdout.decode())
        with open(out) as f:
            return json.load(f)
    return run


def held(figures, *speeds):
    """Problems that are not of speed."""
    return [p for p in figures["problems"] if not any(s in p for s in speeds)]


def test_opened_and_closed(soak):
    r = soak("connections", "--rate", "2k", "--seconds", "4")
    assert held(r, "connections/s instead", "retransmissions") == []
    assert r["accepted"] > 1000


def test_flood(soak):
    r = soak("flood", "--rate", "50k", "--seconds", "3")
    assert held(r, "undisturbed rate", "the generator sent only") == []
    assert r["flooded"][0] > 0 and r["syns_per_s"][0] > 0


def test_idle_then_at_work(soak):
    r = soak("idle", "--connections", "20k", "--ramp", "5k", "--idle", "6", "--keepalive", "1", "--wake", "0.1", "--seconds", "2")
    assert held(r, "retransmissions") == []
    assert (r["open"] >= 20_000, r["woken"]) == (True, 2000)
    assert r["keepalives"] >= 20_000
