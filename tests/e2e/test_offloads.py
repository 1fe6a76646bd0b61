"""Every combination of a port's offloads (dataplane.ports[].offloads) carries the same traffic: 1 MB up and down, and small requests on kept
connections. The wire is net_virtio_user against the generator's net_vhost, the pair that has them all; the generator compares every byte of what comes back,
and its servers every length. A segment larger than the MTU is only sent to a gateway whose configuration takes it."""
import itertools
import re

import pytest

import conftest  # noqa: F401 - puts tests/support on the path
import test_load

NAMES = ("checksum", "tso", "lro", "scatter")
COMBINATIONS = [tuple(n for n, on in zip(NAMES, bits) if on) for bits in itertools.product((True, False), repeat=len(NAMES))]
BULK = ("--connections", "4", "--method", "POST", "--request-body", "1M", "--response-body", "1M", "--duration", "0.4")
SMALL = ("--connections", "16", "--response-body", "64", "--duration", "0.3")
REPEATED = ("retransmissions", "syn_retransmissions", "duplicates")


class Bench(test_load.Bench):
    def __init__(self, offloads):
        super().__init__()
        self.offloads = offloads

    def port(self):
        return dict(super().port(), offloads=list(self.offloads) or "off")


def columns(log):
    """What the data plane says of its port at start: {heading: cell}."""
    heading = next(line for line in log.splitlines() if line.startswith("port ") and "tx checksum" in line)
    names = re.split(r"\s{2,}", heading.strip())
    row = log.splitlines()[log.splitlines().index(heading) + 1]
    return dict(zip(names, re.split(r"\s{2,}", row.strip())))


@pytest.mark.parametrize("traffic", [BULK, SMALL], ids=["1MB", "small"])
@pytest.mark.parametrize("offloads", COMBINATIONS, ids=["+".join(c) or "none" for c in COMBINATIONS])
def test_same_traffic(offloads, traffic):
    b = Bench(offloads)
    try:
        lro = {"checksum", "lro", "scatter"} <= set(offloads)
        r = b.run(*traffic, "--offloads", "auto" if lro else "cut")
        # A program that did not get its core for a quarter of a second repeats segments; nothing else may ever happen.
        wrong = {k: v for k, v in r["errors"].items() if v and k not in REPEATED}
        assert not wrong and r["requests"] >= 4, r["text"]
        # What was switched off is off, and what was not is on: else this test would compare one thing with itself.
        said = columns(b.lab.dataplane.log())
        assert (said["lro"] == "yes") == lro, said
        assert (said["tso"] == "yes") == ({"checksum", "tso", "scatter"} <= set(offloads)), said
        assert (said["chains"] != "copied") == ("scatter" in offloads), said
        assert ("tcp" in said["tx checksum"]) == ("tcp" in said["rx checksum"]) == ("checksum" in offloads), said
        # Frames show it too: large ones are few.
        if traffic is BULK:
            large = 3 * 2**20 / 1460
            assert (r["frames_per_s"]["tx"] < r["requests_per_s"] * large / 4) == lro, r["text"]
    finally:
        b.close()
