"""Endpoints that fail and come back: outlier detection with real servers, seen and acted on by two workers."""
import collections
import os
import re
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import lab as L  # noqa: E402

DETECTION = {"consecutive_5xx": 3, "interval": "0.2s", "base_ejection_time": "1s", "max_ejection_percent": 50}


def configuration(lab, flag):
    a, b = lab.upstream4(0), lab.upstream4(1)
    clusters = [{**L.cluster("sick", [(a, 8001), (b, 8001)]), "outlier_detection": DETECTION},
                {**L.cluster("dead", [(a, 8001), (b, 8009)]), "outlier_detection": DETECTION},
                {**L.cluster("few", [(a, 8001), (b, 8001)]), "outlier_detection": {**DETECTION, "max_ejection_percent": 49}}]
    routes = [{"match": {"prefix": "/" + c["name"]}, "route": {"cluster": c["name"]}} for c in clusters]
    return L.bootstrap([L.listener("http", 8080, L.hcm([{"name": "all", "domains": ["*"], "routes": routes}]))], clusters)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with L.Lab(memory_mb=512, workers=2) as lab:
        lab.flag = str(tmp_path_factory.mktemp("health") / "sick")
        os.chmod(os.path.dirname(lab.flag), 0o755)
        server = 'server {{ listen {0}:8001; location / {{ {2} return 200 "{1}\\n"; }} }}'
        lab.start_nginx("web", server.format(lab.upstream4(0), 0, "") +
                        server.format(lab.upstream4(1), 1, f"if (-f {lab.flag}) {{ return 500; }}"))
        lab.start_gateway(configuration(lab, lab.flag))
        yield lab
        assert [lab.control.stop(), lab.stop_gateway()] == [0, 0]


def get(lab, path):
    # A connection each, so that both workers see requests.
    p = lab.client.run(["curl", "-s", "-m", "10", "-w", "%{http_code}", f"http://{lab.INGRESS4}:8080{path}"])
    return p.stdout.decode()


def ask(lab, path, n):
    return collections.Counter(get(lab, path)[-3:] for _ in range(n))


def who(lab, path, n=12):
    return {get(lab, path).split("\n")[0] for _ in range(n)}


def ctl(lab, *words):
    return L.run([L.program("millctl"), "--run-dir", lab.run_dir, *words]).stdout.decode()


def until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what


def test_who_answers_500_is_left_out_and_comes_back(lab):
    assert who(lab, "/sick") == {"0", "1"}
    with open(lab.flag, "w"):
        pass
    failed = 0
    while "ejected for" not in ctl(lab, "list", "endpoints"):
        failed += ask(lab, "/sick", 2)["500"]
        assert failed < 30
    line = [x for x in ctl(lab, "list", "endpoints").splitlines() if x.startswith("sick") and "ejected" in x]
    assert len(line) == 1 and re.search(r"ejected for \d+ s: consecutive_5xx", line[0]) and lab.upstream4(1) in line[0], line
    os.unlink(lab.flag)
    until(lambda: who(lab, "/sick") == {"0", "1"}, "the endpoint does not come back")
    assert not [x for x in ctl(lab, "list", "endpoints").splitlines() if x.startswith("sick") and "ejected" in x]


def test_who_refuses_connections_is_left_out(lab):
    # Ejected again and again, for longer each time: in the end nearly nothing fails.
    until(lambda: ask(lab, "/dead", 10)["503"] == 0, "the endpoint that is not there is asked on")


def test_not_more_than_the_percentage(lab):
    with open(lab.flag, "w"):
        pass
    assert 16 <= ask(lab, "/few", 40)["500"] <= 24  # each worker in turn
    os.unlink(lab.flag)
