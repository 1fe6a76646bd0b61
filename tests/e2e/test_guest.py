"""Hardware RSS: a virtio NIC that QEMU emulates spreads flows over two and four queues by the key and table that the data plane gave it, and the data
plane predicts where each flow arrives. Shown by what is not there: no frame of TCP is handed from one worker to another, neither of clients nor of
endpoints, whose replies come back to the worker that asked because it chose its local port so."""
import json
import os
import sys
import threading

import pytest

import conftest
import guest as vm
import lab
from test_workers import per_worker

GATEWAY4, GATEWAY6, HOST4, HOST6 = "10.77.1.1", "fd77:1::1", "10.77.1.2", "fd77:1::2"
SLOW = 240  # seconds that an emulated machine may take to boot, or a program in it to start



class GuestLab:
    def __init__(self, folder, workers):
        self.namespace = lab.Namespace(f"mr{os.getpid()}guest{workers}")
        self.guest = self.upstream = None
        try:
            self._start(folder, workers)
        except BaseException:
            self.close()
            raise

    def _start(self, folder, workers):
        ns = self.namespace
        ns.ip("tuntap", "add", "tap0", "mode", "tap", "multi_queue")
        ns.run(["ethtool", "-K", "tap0", "tx", "off", "gso", "off", "tso", "off", "gro", "off"], check=False)
        ns.ip("link", "set", "tap0", "up")
        ns.ip("addr", "add", HOST4 + "/24", "dev", "tap0")
        ns.ip("addr", "add", HOST6 + "/64", "dev", "tap0", "nodad")
        self.upstream = lab.Process("upstream", ns.argv([sys.executable, os.path.join(lab.ROOT, "tests/support/upstream_server.py"),
                                                         f"0.0.0.0:{conftest.PY}", f"[::]:{conftest.PY}"]), os.path.join(folder, "upstream.log"))
        self.upstream.wait_log("listening")
        http = lambda name, to: lab.hcm([{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {
            "cluster": to, "timeout": "60s"}}]}], stat_prefix=name, route_name=name)
        patient = {"connect_timeout": "60s"}
        config = dict(lab.bootstrap(
            [lab.listener("four", 80, http("four", "py4")), lab.listener("six", 80, http("six", "py6"), address="::")],
            [lab.cluster("py4", [(HOST4, conftest.PY)], **patient), lab.cluster("py6", [(HOST6, conftest.PY)], **patient)]),
            dataplane={"cores": [i % 2 for i in range(workers)], "main_core": 0, "share_cores": True, "memory_mb": 384,
                       "ports": [{"name": "nic", "device": vm.DEVICE, "dad": 0, "addresses": [GATEWAY4 + "/24", GATEWAY6 + "/64"]}],
                       "limits": {"payload_packets": 8192, "header_packets": 4096, "connections": 4096}})
        self.guest = vm.Guest(folder, ns, "tap0", workers, {"gateway.json": json.dumps(config)})
        self.guest.wait("guest is up", SLOW)
        self.run("millrace-dataplane --config /gateway.json > /tmp/dataplane.log 2>&1 &")
        self.run("n=0; until grep -q 'waiting for tables' /tmp/dataplane.log || [ $n -gt 100 ]; do sleep 1; n=$((n+1)); done", SLOW)
        self.run("millrace-control --config /gateway.json > /tmp/control.log 2>&1 &")
        self.run("n=0; until [ -S /run/millrace/control.sock ] || [ $n -gt 60 ]; do sleep 1; n=$((n+1)); done", SLOW)
        self.run("millctl status --wait 120", SLOW)

    def run(self, command, timeout=60):
        code, said = self.guest.run(command, timeout)
        assert code == 0, f"{command}: {code}\n{said}\n{self.guest.run('cat /tmp/dataplane.log /tmp/control.log')[1]}"
        return said

    def json(self, command):
        said = self.run(command, SLOW)
        return json.loads(said[said.index("{"):])

    def close(self):
        if self.guest is not None:
            self.guest.stop()
        if self.upstream is not None:
            self.upstream.stop()
        self.namespace.delete()


@pytest.mark.parametrize("workers", [2, 4])
def test_flows_arrive_where_they_are_expected(tmp_path, workers):
    if vm.missing():
        pytest.skip(vm.missing())
    g = GuestLab(str(tmp_path), workers)
    try:
        log = g.run("cat /tmp/dataplane.log")
        print(log)
        line = next(x for x in log.splitlines() if "net_virtio" in x).split()
        assert str(workers) in line and "rss" in line, log
        failures, want = [], 24 * workers

        def ask(i, address):
            try:
                p = g.namespace.run(["curl", "-sS", "-g", "--max-time", "100", "-w", " %{http_code}", "-d", f"body {i}",
                                     f"http://{address}/echo?whole=1"], timeout=120)
                if p.stdout.decode() != f"body {i} 200":
                    failures.append((i, p.stdout))
            except Exception as e:  # noqa: BLE001 - reported below
                failures.append((i, e))
        for first in range(0, want, 8):
            threads = [threading.Thread(target=ask, args=(i, GATEWAY4 if i % 2 == 0 else f"[{GATEWAY6}]")) for i in range(first, first + 8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        assert not failures, failures
        stats = g.json("millctl stats --per-worker -o json")
        accepted, requests = per_worker(stats, "tcp", "connections_accepted"), per_worker(stats, "http_total", "downstream_rq_total")
        opened = per_worker(stats, "tcp", "connections_opened")
        print(accepted, requests, opened, per_worker(stats, "worker", "handover_out"))
        assert sum(requests.values()) >= want and len([w for w in requests.values() if w]) == workers, requests
        # Copies of ARP and ND answers go to the other workers; nothing else may have been handed over.
        news = sum(per_worker(stats, "worker", "handover_out").values())
        assert news <= 16 * workers, stats
        drops = {d["name"] for d in g.json("millctl drops -o json").get("drops", [])}
        assert not drops & {"wrong_core", "tcp_no_connection", "tcp_checksum"}, drops
    finally:
        g.close()
