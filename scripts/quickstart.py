"""The second half of scripts/quickstart: the programs are built. Reserves hugepages, starts servers and gateway in namespaces of their own, sends
requests, changes routes under load, and checks each result; nothing is printed as done that was not checked. See scripts/quickstart --help."""
import argparse
import collections
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
import lab  # noqa: E402

MEMORY_MB = 512
HUGEPAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB"
ANSWERS = 2000          # sampled for each measured share; the standard deviation of 90 % is then 0.7 %
TOLERANCE = 5.0         # percent, more than four standard deviations of the worst case (50 %)
CONNECTIONS = 8         # that wrk keeps open while the tables change
SERVERS = ["stable-1", "stable-2", "canary-1"]
HOST = "shop.example"

TERMINAL = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, GREEN, CYAN, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[36m", "\033[0m") if TERMINAL else ("",) * 5


class Wrong(Exception):
    """A step did not do what it should; the text says which and how."""


def expect(ok, text):
    if not ok:
        raise Wrong(text)


def say(text=""):
    print(text, flush=True)


def step(number, name, text):
    say(f"{BOLD}[{number}/5]{PLAIN} {name:<13} {text}")


def command(text, result=None, width=58):
    line = f"  {CYAN}$ {text}{PLAIN}"
    say(line if result is None else line + " " * max(2, width - len(text)) + result)


def bar(share, width=40):
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def table(rows, right=()):
    """Lines of columns; those of `right` are aligned at their end; the first row is the heading."""
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(rows[0]))]
    for n, row in enumerate(rows):
        cells = [str(c).rjust(w) if i in right else str(c).ljust(w) for i, (c, w) in enumerate(zip(row, widths))]
        text = "  ".join(cells).rstrip()
        say("  " + (f"{DIM}{text}{PLAIN}" if n == 0 else text))


# --- hugepages: what was added here is given back at the end ------------------------------------------------------------------------
def pages(name):
    with open(f"{HUGEPAGES}/{name}") as f:
        return int(f.read())


@contextlib.contextmanager
def hugepage_lock():
    """Between looking for free pages and using them, no other quickstart looks."""
    fd = os.open(HUGEPAGES, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def reserve_hugepages():
    """Returns how many pages had to be added."""
    before = pages("nr_hugepages")
    try:
        lab.reserve_hugepages(MEMORY_MB + 64)
    except (OSError, lab.LabError):
        free = pages("free_hugepages")
        give_back(pages("nr_hugepages") - before)
        raise Wrong(f"the kernel gives {free} of the {(MEMORY_MB + 64) // 2} free hugepages of 2 MB that are needed; "
                    "free some memory, or use --no-hugepages") from None
    return pages("nr_hugepages") - before


def give_back(added):
    if added > 0 and pages("free_hugepages") >= added:
        with contextlib.suppress(OSError), open(HUGEPAGES + "/nr_hugepages", "w") as f:
            f.write(str(pages("nr_hugepages") - added))


# --- the gateway ------------------------------------------------------------------------------------------------------------------
class Quickstart:
    def __init__(self, hugepages):
        self.hugepages, self.added, self.lab = hugepages, 0, None
        self.known = 0          # requests sent so far

    def close(self):
        if self.lab is not None:
            self.lab.close()
            for path in self.outside():
                shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir("/etc/netns")      # only when nothing of others is in it
        give_back(self.added)
        self.added = 0

    def outside(self):
        """What lies outside the lab's own directory."""
        return [f"/etc/netns/{self.lab.client.name}", f"/run/dpdk/{self.lab.name}"]

    def configuration(self):
        """scripts/quickstart.yaml with the CPUs of this machine and a name of its own for DPDK's files."""
        with open(os.path.join(ROOT, "scripts", "quickstart.yaml")) as f:
            text = f.read()
        own = {"cores": f"[{self.lab.worker_core}]", "main_core": str(self.lab.main_core), "memory_mb": str(MEMORY_MB)}
        for key, value in own.items():
            text, n = re.subn(rf"(?m)^  {key}: \S+", f"  {key}: {value}", text)
            expect(n == 1, f"scripts/quickstart.yaml has no `{key}` in its dataplane section")
        more = f"  file_prefix: {self.lab.name}\n" + ("" if self.hugepages else "  hugepages: false\n")
        return text.replace("dataplane:\n", "dataplane:\n" + more, 1)

    def start(self):
        with hugepage_lock() if self.hugepages else contextlib.nullcontext():
            if self.hugepages:
                self.added = reserve_hugepages()
                step(3, "hugepages", f"{(MEMORY_MB + 64) // 2} of 2 MB are free" + (f" ({self.added} of them added)" if self.added else ""))
            else:
                step(3, "hugepages", "none, as asked: ordinary pages, slower")
            if TERMINAL:
                print(f"{BOLD}[4/5]{PLAIN} {'starting':<13} namespaces, nginx, data plane, control …", end="\r", flush=True)
            self.lab = lab.Lab(hugepages=self.hugepages, memory_mb=MEMORY_MB, upstreams=len(SERVERS))
            names = f"/etc/netns/{self.lab.client.name}"
            os.makedirs(names)
            with open(names + "/hosts", "w") as f:
                f.write(f"127.0.0.1 localhost\n{self.lab.INGRESS4} {HOST}\n")
            self.lab.make_certificate("shop", [HOST])
            self.lab.start_nginx("nginx", "".join(
                f"server {{ listen {self.lab.upstream4(i)}:80; location / {{ return 200 'hello from {name}\\n'; }} }}\n" for i, name in enumerate(SERVERS)))
            config = self.lab.write("quickstart.yaml", self.configuration())
            began = time.monotonic()
            self.lab.start_dataplane(config)
        self.start_control(config)
        if TERMINAL:
            print("\033[K", end="")
        step(4, "starting", f"3 nginx and the gateway, serving after {time.monotonic() - began:.1f} s; the worker polls on CPU {self.lab.worker_core}")
        last = lambda i: "." + self.lab.upstream4(i).rsplit(".", 1)[1]  # noqa: E731
        say()
        say("         client                      gateway                       servers (nginx)")
        say("      curl, wrk               ingress       egress                 stable-1  10.77.2" + last(0))
        say("      10.77.1.2  ──────────▶  10.77.1.1     10.77.2.1  ──────────▶ stable-2  10.77.2" + last(1))
        say("      fd77:1::2               fd77:1::1     fd77:2::1              canary-1  10.77.2" + last(2))
        say()

    def start_control(self, config):
        control = self.lab.start_control(config, wait=False)
        end = time.monotonic() + 60
        while self.lab.millctl("status", "--wait", "5", check=False).returncode != 0:
            expect(control.alive(), f"millrace-control ended with {control.popen.poll()}: {control.log().strip()}")
            expect(time.monotonic() < end, f"the tables are not in force after a minute; {control.log_path} ends with: {control.log()[-500:].strip()}")
            time.sleep(0.1)

    # --- requests -------------------------------------------------------------------------------------------------------------
    def ask(self, *arguments):
        """curl in the client's namespace, where /etc/hosts knows the gateway; a proxy of this host has no part in it."""
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return self.lab.client.run(["curl", "-sS", "--max-time", "60", *arguments], check=False, timeout=70, cwd=self.lab.dir, env=env)

    def curl(self, arguments, status, result):
        """One request as the user would type it; `result` is a pattern that the body, or the location, must match."""
        p = self.ask(*shlex.split(arguments), "-w", r"\n%{http_code} %{redirect_url}")
        expect(p.returncode == 0, f"curl {arguments}: {p.stderr.decode().strip()}")
        self.known += 1
        body, _, line = p.stdout.decode().rpartition("\n")
        code, location = line.split(" ")
        got = body.strip() or location
        expect(int(code) == status, f"curl {arguments}: status {code} instead of {status}: {got}")
        expect(re.fullmatch(result, got), f"curl {arguments}: {got!r} instead of {result!r}")
        command(f"curl {arguments}", f"{GREEN}{code}{PLAIN}  {got}")

    def shares(self, wanted):
        """Asks many times over one connection, counts who answered, and draws it."""
        p = self.ask(f"http://{HOST}/?[1-{ANSWERS}]")
        self.known += ANSWERS
        answers = [a for a in p.stdout.decode().split("\n") if a]
        expect(p.returncode == 0 and len(answers) == ANSWERS, f"{len(answers)} of {ANSWERS} answers; {p.stderr.decode().strip()}")
        count = collections.Counter(re.sub(r"hello from (\w+)-\d", r"\1", a) for a in answers)
        expect(set(count) <= {"stable", "canary"}, f"unknown answers: {sorted(set(count) - {'stable', 'canary'})}")
        for name in ("stable", "canary"):
            share = 100 * count[name] / ANSWERS
            expect(share == wanted[name] if wanted[name] in (0, 100) else abs(share - wanted[name]) < TOLERANCE,
                   f"{share:.1f} % of the answers came from {name} instead of {wanted[name]} %")
            say(f"      {name}  {GREEN}{bar(share / 100):<40}{PLAIN}  {share:5.1f} %   {count[name]:>5,} of {ANSWERS:,} answers")

    def millctl(self, *arguments):
        p = self.lab.millctl(*arguments, check=False)
        expect(p.returncode == 0, f"millctl {shlex.join(arguments)}: {(p.stdout + p.stderr).decode().strip()}")
        return p.stdout.decode()

    def change(self, arguments, wanted):
        """A change of the routes under load, and the shares that are measured afterwards."""
        before = self.lab.status()["epoch_in_force"]
        out = self.millctl(*shlex.split(arguments))
        after = self.lab.status()["epoch_in_force"]
        expect(int(after) == int(before) + 1, f"millctl {arguments}: epoch {after} is in force, after {before}")
        command(f"millctl {arguments}")
        say(f"      {out.strip().splitlines()[-1]}")
        self.shares(wanted)

    def load(self):
        wrk = self.lab.start("wrk", ["wrk", "-t1", f"-c{CONNECTIONS}", "-d3600", f"http://{HOST}/"], self.lab.client)
        time.sleep(0.5)
        expect(wrk.alive(), f"wrk did not start: {wrk.log().strip()}")
        return wrk

    def end_load(self, wrk):
        expect(wrk.alive(), f"wrk ended early: {wrk.log().strip()}")
        wrk.kill(signal.SIGINT)
        wrk.popen.wait(10)
        text = wrk.log()
        total = re.search(r"(\d+) requests in ([\d.]+)s", text)
        expect(total and int(total.group(1)) > 0, f"wrk: no requests got through: {text.strip()}")
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        failed = int(failed.group(1)) if failed else 0
        errors = sum(int(n) for n in errors.groups()) if errors else 0
        expect(failed == 0 and errors == 0, f"wrk: {failed} failed requests, {errors} lost connections or timeouts while the routes changed")
        self.known += int(total.group(1))
        say(f"  {BOLD}{int(total.group(1)):,} requests of wrk meanwhile, in {float(total.group(2)):.0f} s; 0 failed, 0 connections lost{PLAIN}")

    # --- what the gateway says itself -----------------------------------------------------------------------------------------------
    def counters(self):
        out = {}
        for c in json.loads(self.millctl("stats", "--all", "-o", "json"))["counters"]:
            out[(c["scope"], c["name"], c["counter"])] = int(c["value"])
        return out

    def access_log(self):
        form = re.compile(r'\[.*T(\S+)Z\] "(.+) HTTP/1.1" (\d+) (\S+) \d+ \d+ (\d+) \S+ "[^"]*" "([^"]*)" "[^"]*" "([^"]*)" "([^"]*)"')
        end = time.monotonic() + 10
        while True:
            lines = self.lab.access_log()
            total = self.counters().get(("http", "shop", "downstream_rq_total"), 0)
            if len(lines) >= total >= self.known or time.monotonic() > end:
                break
            time.sleep(0.1)
        expect(len(lines) >= self.known, f"the access log has {len(lines)} lines after {self.known} requests")
        parsed = [form.match(line) for line in lines]
        expect(all(parsed), f"not in Envoy's format: {[l for l, p in zip(lines, parsed) if not p][:1]}")
        rows = [m.groups() for m in parsed]
        of_wrk = [r for r in rows if not r[5].startswith("curl/")]
        canary = [r for r in rows if r[7].startswith(self.lab.upstream4(2))]
        expect(of_wrk and canary, "the access log misses the requests of wrk, or those to the canary")
        command(f"less access.log                          (six of its {len(lines):,} lines, in columns)")
        table([("time", "request", "status", "ms", "client", "server")] +
              [(r[0], r[1], r[2], r[4], r[5] if r[5] != "-" else "wrk", r[7] if r[7] != "-" else "the gateway itself")
               for r in rows[:4] + of_wrk[:1] + canary[:1]], right=(3,))

    def stats(self):
        c = self.counters()
        rows = [("cluster", "endpoint", "requests", "2xx", "5xx", "connections", "failed")]
        for i, name in enumerate(SERVERS):
            endpoint = f"{self.lab.upstream4(i)}:80"
            value = lambda counter: c.get(("endpoint", endpoint, counter), 0)  # noqa: B023,E731
            rows.append((name.split("-")[0], endpoint, f"{value('upstream_rq_total'):,}", f"{value('upstream_rq_2xx'):,}",
                         value("upstream_rq_5xx"), value("upstream_cx_total"), value("upstream_cx_connect_fail")))
            expect(value("upstream_rq_total") > 0, f"endpoint {endpoint} was never used")
            expect(value("upstream_rq_5xx") == 0 and value("upstream_cx_connect_fail") == 0, f"endpoint {endpoint} failed")
        command("millctl stats                      (the part about endpoints)")
        table(rows, right=(2, 3, 4, 5, 6))
        total = c.get(("http", "shop", "downstream_rq_total"), 0)
        expect(total >= self.known, f"the gateway counted {total} requests of {self.known}")
        expect(c.get(("http", "shop", "downstream_rq_5xx"), 0) == 0, "the gateway answered with 5xx")
        times = {h["name"]: h for h in json.loads(self.millctl("stats", "-o", "json"))["histograms"]}["downstream_rq_time"]
        say(f"  {total:,} requests in all; half of them took less than {times['p50_us'] / 1000:.2f} ms, 99 % less than {times['p99_us'] / 1000:.1f} ms")

    def run(self):
        step(5, "requests", "each line is what you would type")
        say()
        self.curl(f"http://{HOST}/", 200, "hello from stable-[12]")
        self.curl(f"-g -H host:{HOST} http://[{self.lab.INGRESS6}]/", 200, "hello from stable-[12]")
        self.curl(f"--cacert shop.crt https://{HOST}/", 200, "hello from stable-[12]")
        self.curl(f"http://{HOST}/old/cart", 301, f"http://{HOST}/cart")
        say()
        say(f"  {BOLD}Routes change while {CONNECTIONS} connections of wrk ask without pause{PLAIN}")
        wrk = self.load()
        self.change("route add --route-config shop --name split --prefix / --weighted stable=90,canary=10 --first", {"stable": 90, "canary": 10})
        self.change("route weight --route-config shop split stable=50,canary=50", {"stable": 50, "canary": 50})
        explained = self.millctl("explain", f"http://{HOST}/cart").rstrip()
        expect("weight 50 of 100" in explained and "→ cluster stable, canary" in explained, "millctl explain does not see the new route:\n" + explained)
        self.change("route remove --route-config shop split", {"stable": 100, "canary": 0})
        self.end_load(wrk)
        say()
        command(f"millctl explain http://{HOST}/cart          (when it was 50 to 50)")
        say("\n".join("  " + line for line in explained.splitlines() if line))
        say()
        self.access_log()
        say()
        self.stats()
        say()

    # --- the end -----------------------------------------------------------------------------------------------------------------------
    def stop(self):
        """An orderly end is part of the demonstration: the data plane's exit code says whether every packet came back to its pool."""
        code = self.lab.stop_gateway()
        expect(code == 0, f"the data plane ended with {code}:\n{self.lab.dataplane.log()[-2000:]}")

    def keep(self):
        path = os.path.join(self.lab.dir, "stop")
        pages_back = "" if self.added <= 0 else f"""free=$(cat {HUGEPAGES}/free_hugepages) all=$(cat {HUGEPAGES}/nr_hugepages)
[ "$free" -ge {self.added} ] && echo $((all - {self.added})) > {HUGEPAGES}/nr_hugepages
"""
        pids = [p.popen.pid for p in self.lab.processes if p.alive()]
        with open(path, "w") as f:
            f.write(f"""#!/bin/bash
# Ends what `scripts/quickstart --keep` left running, and removes all of it.
directory={self.lab.dir}
for pid in {" ".join(map(str, reversed(pids)))}; do
  grep -qa "$directory" /proc/$pid/cmdline 2> /dev/null || continue     # ended already
  kill $pid
  for _ in $(seq 100); do [ -d /proc/$pid ] && sleep 0.1; done
  [ -d /proc/$pid ] && kill -9 $pid
done
for namespace in {" ".join(n.name for n in self.lab.namespaces)}; do ip netns delete $namespace; done
rm -rf {" ".join(self.outside())} "$directory"
rmdir /etc/netns 2> /dev/null
{pages_back}echo stopped
""")
        os.chmod(path, 0o755)
        self.lab.keep, self.added = True, 0
        millctl = lab.program("millctl")
        say(f"{BOLD}All right, and left running{PLAIN} in {self.lab.dir}: quickstart.yaml, access.log, shop.crt, the programs' logs. To go on:")
        say()
        for what, line in (
                ("name the gateway", f"export MILLRACE_RUN_DIR={self.lab.run_dir}"),
                ("ask it", f"{millctl} status"),
                ("change it", f"{millctl} route --help"),
                ("be its client", f"ip netns exec {self.lab.client.name} curl http://{HOST}/"),
                ("end, remove all", path)):
            say(f"  {what:<16}  {CYAN}{line}{PLAIN}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--no-hugepages", action="store_true")
    options = parser.parse_args()
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(143))
    began = time.monotonic()
    q = Quickstart(not options.no_hugepages)
    try:
        q.start()
        q.run()
        if options.keep:
            q.keep()
            return 0
        q.stop()
        q.close()
        say(f"{BOLD}All right{PLAIN}, in {time.monotonic() - began:.0f} s. Nothing is left behind; scripts/quickstart --keep leaves it running.")
        return 0
    except KeyboardInterrupt:
        print("\nquickstart: interrupted; cleaning up", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Wrong, lab.LabError, OSError, subprocess.TimeoutExpired) as e:
        print(f"{chr(10) if TERMINAL else ''}quickstart: {e}", file=sys.stderr)
        return 1
    finally:
        if not q.lab or not q.lab.keep:
            signal.signal(signal.SIGINT, signal.SIG_IGN)    # a second ^C must not interrupt the cleaning up
            q.close()


if __name__ == "__main__":
    sys.exit(main())
