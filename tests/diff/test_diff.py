"""The same bootstrap in a real Envoy and in Millrace, the same bytes to both, the same answers. See README.md."""
import glob
import importlib.util
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "support")]
import compare  # noqa: E402
import differences  # noqa: E402
import gateways  # noqa: E402

CONFIGS = sorted(os.path.basename(p)[:-5] for p in glob.glob(os.path.join(HERE, "configs", "*.yaml")))


def load_requests(name):
    spec = importlib.util.spec_from_file_location("requests_" + name, os.path.join(HERE, "requests", name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen = set()
    for case in module.CASES:
        assert case.name not in seen, f"{name}: two cases {case.name}"
        seen.add(case.name)
    return module


REQUESTS = {name: load_requests(name) for name in CONFIGS}
CASE = {(name, case.name): case for name in CONFIGS for case in REQUESTS[name].CASES}
needs_http2 = lambda name: getattr(REQUESTS[name], "NEEDS_HTTP2", False)
PARAMETERS = [(name, case.name) for name in CONFIGS for case in REQUESTS[name].CASES]


@pytest.fixture(scope="session")
def pair(request):
    """Both gateways with the configurations of the selected tests, started once."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    if not os.path.exists(gateways.ENVOY):
        pytest.skip(f"NO ENVOY at {gateways.ENVOY}: nothing is compared; run scripts/setup --peers")
    names = sorted({item.callspec.params["config"] for item in request.session.items if hasattr(item, "callspec") and "config" in item.callspec.params})
    both = gateways.Gateways(names)
    both.results = {}
    yield both
    both.close()


def results_of(pair, config):
    """All cases of a configuration, played once: {case: (envoy, millrace)}."""
    if config not in pair.results:
        module = REQUESTS[config]
        pair.results[config] = {case.name: (a, b) for case, a, b in pair.compare(module.CASES, module.PORT)}
    return pair.results[config]


@pytest.mark.parametrize("config,case", PARAMETERS, ids=[f"{c}-{n}" for c, n in PARAMETERS])
def test_same_answer(pair, config, case):
    if needs_http2(config) and not gateways.HAS_HTTP2:
        pytest.skip("no python3-h2 (Debian package); scripts/setup installs it")
    envoy, millrace = results_of(pair, config)[case]
    found = compare.shares(envoy, millrace) if CASE[config, case].shares else compare.differences(envoy, millrace)
    wrong = [text for aspect, text in found if not differences.excused(config, case, aspect)]
    different = {aspect for aspect, _ in found}
    stale = differences.stale(config, case, different)
    assert not stale, f"differences.py: {config} / {case} no longer differs in {stale}"
    if wrong:
        pytest.fail(f"{config} / {case}\n" + "\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("config", CONFIGS)
def test_same_log(pair, config):
    if needs_http2(config) and not gateways.HAS_HTTP2:
        pytest.skip("no python3-h2 (Debian package); scripts/setup installs it")
    results_of(pair, config)
    wrong = []
    for log in REQUESTS[config].LOGS:
        a, b = ([compare.normal_log(line) for line in lines] for lines in pair.logs(log))
        assert a, f"Envoy wrote nothing to {log}"
        a, b = ([differences.normal_line(config, line) for line in lines] for lines in (a, b))
        a, b = ([line for line in lines if line] for lines in (a, b))
        if a != b:
            wrong.append(compare.diff("\n".join(a), "\n".join(b), f"access log {log}"))
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_gateways_live(pair):
    """Runs last: both survived everything, and Millrace ends with every packet back in its pool."""
    assert pair.millrace.lab.dataplane.alive() and pair.millrace.lab.control.alive()
    assert pair.millrace.lab.stop_gateway() == 0, pair.millrace.lab.dataplane.log()[-3000:]
