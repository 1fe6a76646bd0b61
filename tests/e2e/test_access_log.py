"""Access logs as an operator has them: rotated under load without a lost line, and what only our TCP knows."""
import os
import re
import signal
import threading

from conftest import until

URL = "http://10.77.1.1"


def test_rotation_loses_no_line(gateway):
    """logrotate's way, five times while requests come: rename, SIGUSR1. Every request has its line in exactly one of the files."""
    log = os.path.join(gateway.lab.dir, "access.log")
    tag, asked, stop = gateway.tag(), [], threading.Event()

    def ask():
        with gateway.connect() as c:
            while not stop.is_set():
                c.request(f"/who?n={len(asked)}", headers=[("user-agent", tag)]).response("GET")
                asked.append(1)
    client = threading.Thread(target=ask)
    client.start()
    rotated = []
    try:
        for i in range(5):
            until(lambda: len(asked) > 20 * (i + 1), 20, "requests")
            rotated.append(f"{log}.{i}")
            os.rename(log, rotated[-1])
            os.kill(gateway.lab.control.popen.pid, signal.SIGUSR1)
            until(lambda: os.path.exists(log), 10, "a file in the old one's place")
    finally:
        stop.set()
        client.join()

    def numbers(path):
        with open(path) as f:
            return [int(re.search(r"n=(\d+) ", line)[1]) for line in f if f'"{tag}"' in line]
    until(lambda: sum(len(numbers(p)) for p in [*rotated, log]) >= len(asked), 15, "all lines")
    found = [n for p in [*rotated, log] for n in numbers(p)]
    assert found == list(range(len(asked))), "each once, in order, over the files"
    assert sum(1 for p in rotated if numbers(p)) >= 4, "the files were really changed in between"
