"""Large bodies for the kernel's peers: clients (wrk) and servers (nginx) of the kernel on the generator's core, over veth with segmentation and receive
offload on. A wire of real frames would be full at what one core can copy into rings; this way the peers move 64 KB at a time, as with a NIC that
segments and gathers for them."""
import os
import re

from .bench import run, until
from .load import Outcome, core_times, shares
from .wires import DUT

CONF = """daemon off; user root; pid {folder}/server.pid; error_log {folder}/server.err crit; worker_processes 1;
events {{ worker_connections 4096; multi_accept on; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 24h; open_file_cache max=10;
  client_body_temp_path {folder}/sb; proxy_temp_path {folder}/sp; fastcgi_temp_path {folder}/sf; uwsgi_temp_path {folder}/su; scgi_temp_path {folder}/ss;
  server {{ listen 0.0.0.0:80 reuseport backlog=65535; root {folder}/www; }} }}
"""


def start_server(system, body):
    """The server in the generator's place, once for the life of the system's wire."""
    folder = system.folder
    os.makedirs(os.path.join(folder, "www"), exist_ok=True)
    with open(os.path.join(folder, "www", "body"), "wb") as f:
        f.write(b"m" * body)
    conf = system.write("server.conf", CONF.format(folder=folder))
    p = system.bench.start("server", ["nginx", "-c", conf, "-p", folder, "-e", os.path.join(folder, "server.err")], system.bench.generator_core,
                           system.wire.generator, folder)
    until(lambda: os.path.exists(os.path.join(folder, "server.pid")), 10, "the kernel's server")
    return p


def wrk(system, connections, seconds):
    argv = ["taskset", "-c", str(system.bench.generator_core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://{DUT}:{system.service.port}/body"]
    return run(system.wire.generator.argv(argv), timeout=seconds + 60).stdout.decode()


def parse(text, body):
    """wrk's table as the generator's result: what the comparison reads of it."""
    requests = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", text)
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", text).group(1))
    errors = {"status": 0, "reset": 0, "timeout": 0}
    m = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors["status"] = int(m.group(1)) if m else 0
    m = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if m:
        errors["reset"] = sum(int(x) for x in m.groups()[:3])
        errors["timeout"] = int(m.group(4))
    return {"requests": int(requests.group(1)), "requests_per_s": rate, "response_gbit_per_s": rate * body * 8 / 1e9, "errors": errors, "program": "wrk"}


def measure(bench, system, work, boot_timeout):
    if not system.running_programs():
        system.boot(boot_timeout)
    server = start_server(system, work.response_body)
    try:
        wrk(system, work.connections, 1)
        cores = (bench.dut_core, bench.generator_core)
        before = [core_times(c) for c in cores]
        text = wrk(system, work.connections, max(1, round(work.duration)))
        after = [core_times(c) for c in cores]
        used = {name: shares(a, b) for name, a, b in zip(("dut", "generator"), before, after)}
        return Outcome(parse(text, work.response_body), used).judge()
    finally:
        bench.stop(server, timeout=1)
