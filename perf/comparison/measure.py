"""What each kind of case does: one repetition on one system, as named figures."""
import dataclasses
import json
import os
import statistics
import sys
import time

from . import kernel_load, load, memory, routes
from .bench import LabError, until
from .systems import BY_NAME
from .wires import PROBE

HALF, COMMON = 0.5, 0.5           # latency: share of each one's own maximum; share of the slowest one's maximum
CHANGES = 3                       # route changes in one repetition
PROBE_EVERY_S = 0.001
FLOOR_CONNECTIONS = 512           # what a system is sized for where it is to hold none
# Of a connection, until it has been measured: no machine is to run out of memory by a guess.
ASSUMED_BYTES = {"nginx": 13_000, "haproxy": 14_000, "envoy": 24_000}
LIVE_AFTER = 20                   # so many good answers in a row: the change is live everywhere


class Skipped(LabError):
    """This system cannot do this case here; the sentence says why."""


class Figure:
    """One value of one repetition."""

    def __init__(self, case, unit, value, flags=(), details=None, usable=True):
        self.case, self.unit, self.value, self.flags, self.details, self.usable = case, unit, value, list(flags), details or {}, usable


class Measure:
    def __init__(self, bench, material, settings, say=lambda text: None):
        self.bench, self.material, self.settings, self.say = bench, material, settings, say
        self.systems = {}
        self.maxima = {}          # system -> [requests/s] of keepalive-64B
        self.connections = {}     # (system, tls) -> what the search found best
        self.idle_bytes = {}      # system -> bytes a connection, of the smaller memory case

    # --- systems ---
    def system(self, name, service):
        """The system, configured for the service, its programs down. Each run starts them afresh: connections towards servers that an earlier run of the
        generator knew would be reset by the next one, and repetitions are to know nothing of each other."""
        s = self.systems.get(name)
        if s is None:
            s = self.systems[name] = BY_NAME[name](self.bench, self.material)
        if s.service != service:
            s.stop()
            s.prepare(service)
        else:
            s.halt()
        return s

    def stop(self, keep_service=None):
        for s in self.systems.values():
            if s.service is not None and (keep_service is None or s.service != keep_service):
                s.stop()

    def complaints(self, name):
        s = self.systems.get(name)
        out, s.complaints = (s.complaints, []) if s else ([], None)
        return out

    def run(self, system, work, **options):
        try:
            return load.measure(self.bench, system, work, boot_timeout=self.settings.boot_timeout, **options)
        finally:
            system.halt()

    # --- a repetition of a case on a system ---
    def repetition(self, case, name):
        return {"throughput": self.throughput, "latency": self.latency, "memory": self.memory, "change": self.change, "limit": self.limit}[case.kind](case, name)

    def work(self, case, name, **more):
        s = self.settings
        values = dict(connections=case.connections, requests_per_connection=case.per_connection, response_body=case.body, tls=case.service.tls,
                      resume=case.resume, warmup=s.warmup, duration=s.duration)
        values.update(more)
        return load.Work(**values)

    def targets(self, table):
        path = os.path.join(self.bench.dir, f"targets-{table.kind}-{table.count}")
        if not os.path.exists(path):
            with open(path, "w") as f:
                f.write("\n".join(table.target_lines()) + "\n")
        return path

    def throughput(self, case, name):
        system = self.system(name, case.service)
        more = {}
        if case.service.table:
            more["targets_file"] = self.targets(case.service.table)
        if case.per_connection == 0 and case.body <= 65536:
            more["connections"] = self.best_connections(case, name, system)
        if case.service.kernel_load and system.kernel:
            try:
                o = kernel_load.measure(self.bench, system, self.work(case, name), self.settings.boot_timeout)
            finally:
                system.halt()
        else:
            o = self.run(system, self.work(case, name, **more))
        if o.usable and case.name == "keepalive-64B":
            self.maxima.setdefault(name, []).append(o.result["requests_per_s"])
        return [Figure(case.name, case.unit, o.result[case.key], o.flags, details(o, more), o.usable)]

    def best_connections(self, case, name, system):
        """As many connections as give this system its best figure: a short search, once for plain and once for TLS."""
        key = (name, case.service.tls)
        if not self.settings.search:
            return case.connections
        if key not in self.connections:
            best, best_rate = case.connections, 0
            for n in self.settings.search:
                o = self.run(system, self.work(case, name, connections=n, warmup=0.4, duration=0.6, targets_file=None, response_body=64)
                             if case.service.table is None else self.work(case, name, connections=n, warmup=0.4, duration=0.6, targets_file=self.targets(case.service.table)))
                self.say(f"{name}: {n} connections: {o.result['requests_per_s']:,.0f} requests/s")
                if not o.usable:
                    continue
                if o.result["requests_per_s"] < best_rate * 1.02:
                    break
                best, best_rate = n, o.result["requests_per_s"]
            self.connections[key] = best
        return self.connections[key]

    # --- latency ---
    def maximum(self, name):
        if not self.maxima.get(name):
            system = self.system(name, case_named("keepalive-64B").service)
            o = self.run(system, load.Work(warmup=0.5, duration=min(1.0, self.settings.duration)))
            if not o.usable:
                raise Skipped(f"no clean maximum to take a share of ({'; '.join(o.flags)})")
            self.maxima.setdefault(name, []).append(o.result["requests_per_s"])
        return statistics.median(self.maxima[name])

    def rate(self, case, name):
        if case.rate_of == "half":
            return HALF * self.maximum(name)
        lowest = min(self.maximum(n) for n in self.settings.systems if n in case.systems)
        return round(COMMON * lowest, -3) or COMMON * lowest

    def latency(self, case, name):
        rate = self.rate(case, name)
        system = self.system(name, case.service)
        real_time = self.settings.real_time and system.polls
        duration = min(self.settings.duration, load.RealTime.LONGEST) if real_time else self.settings.duration
        o = self.run(system, self.work(case, name, rate=rate, duration=duration), real_time=real_time)
        limit = "limit" if system.wire.name == "vhost" else "limit-veth"
        base = self.run(self.system(limit, case.service), self.work(case, name, rate=rate, duration=duration, direct=True),
                        real_time=real_time)
        flags = o.flags + [f"baseline: {f}" for f in base.flags]
        got = o.result["requests_per_s"]
        if got < 0.97 * rate:
            flags.append(f"only {got / rate * 100:.0f} % of the rate was served")
        out = []
        for p in ("p50", "p99", "p999"):
            with_proxy, without = o.result["latency_us"][p], base.result["latency_us"][p]
            out.append(Figure(f"{case.name}-{p}", "us", with_proxy, flags, details(o, {"rate": rate}), o.usable))
            out.append(Figure(f"{case.name}-added-{p}", "us", with_proxy - without, flags, {"rate": rate, "without_us": without, "with_us": with_proxy}, o.usable))
        return out

    # --- memory ---
    def memory(self, case, name):
        n = case.idle
        known = self.idle_bytes.get(name, ASSUMED_BYTES.get(name, 2_000))
        if known * n > 0.75 * memory.available():
            raise Skipped(f"{n:,} connections would take {known * n / 1e9:.0f} GB ({known:,.0f} B each); {memory.available() / 1e9:.0f} GB are free")
        # The floor: the same system with as many processes, sized for next to nothing, with no connection. What a system sets aside for connections
        # when it starts is counted as theirs.
        system = self.system(name, case.service)
        workers = system.workers
        floor = self.at_rest(name, dataclasses.replace(case.service, connections=FLOOR_CONNECTIONS, processes=workers))
        system = self.system(name, case.service)
        before = {}
        work = self.work(case, name, connections=0, idle=n, ramp=self.settings.ramp, hold=120, warmup=0.1, duration=0.1)
        result, flags = {}, []
        try:
            with load.Run(self.bench, system, work, boot_timeout=self.settings.boot_timeout, memory_mb=512 if n <= 200_000 else 1024,
                          after_boot=lambda: before.update(memory.measure(system))) as run:
                def reached():
                    if not run.process.alive():
                        run.finish()
                        raise load.RunFailed("the generator ended before the connections were measured")
                    return system.connections_open() >= n
                until(reached, n / self.settings.ramp + 60, f"{n:,} connections", step=0.5)
                time.sleep(1.5)  # what was needed only for opening is given back
                after = memory.measure(system)
                run.end_now()  # tears down as fast as it can; what is lost then is of no interest
                try:
                    result = run.finish().result
                except load.RunFailed:
                    pass
        finally:
            system.halt()
        open_now = result.get("idle_connections", n)
        if workers > 1:
            flags.append(f"{workers} processes, because one may open {self.bench.open_files:,} files")
        info = {"floor": floor, "before": before, "after": after, "workers": workers, "generator": result}
        grown = sum(memory.difference(floor, after).values()) / n
        self.idle_bytes[name] = max(1.0, sum(after.values()) / n)
        if open_now < 0.999 * n and not result.get("interrupted"):
            flags.append(f"only {open_now:,} were open")
        return [Figure(case.name, case.unit, grown, flags, info), Figure(case.name + "-total", case.unit, sum(after.values()) / n, flags, info)]

    def at_rest(self, name, service):
        """The memory of a system that serves nobody."""
        system = self.system(name, service)
        taken = {}

        def take():
            time.sleep(0.5)
            taken.update(memory.measure(system))
        try:
            if system.wire.generator_first:  # its end of the wire is needed for the start
                with load.Run(self.bench, system, load.Work(connections=1, warmup=0, duration=0.1), boot_timeout=self.settings.boot_timeout, after_boot=take):
                    pass
            else:
                system.boot(self.settings.boot_timeout)
                take()
        finally:
            system.halt()
        return taken

    # --- route changes ---
    def change(self, case, name):
        system = self.system(name, case.service)
        table = case.service.table
        rate = self.settings.change_rate
        # The load goes on until all changes are live; ended by hand.
        work = self.work(case, name, rate=rate, targets_file=self.targets(table), warmup=0.3, duration=600)
        times = []
        try:
            with load.Run(self.bench, system, work, boot_timeout=self.settings.boot_timeout) as run:
                run.sleep_until(run.begun + 1.5)
                run.pin()
                for k in range(self.settings.changes):
                    times.append(self.one_change(system, k, run))
                run.sleep_until(time.monotonic() + 0.5)
                run.end_now()
                o = run.finish()
        finally:
            system.halt()
        retired = o.result.get("notes_counted", {}).get("retired_early", 0)
        info = details(o, {"times_ms": times, "rate": rate, "retired_early": retired})
        flags = [f for f in o.flags if not f.startswith("errors")]
        return [Figure(case.name, "ms", statistics.median(times), flags, info), Figure(case.name + "-lost", "requests", o.lost() / len(times), flags, info)]

    def one_change(self, system, k, run):
        """Milliseconds from sending the change on its way to the first answer by the new table after which no old one came."""
        system.prepare_change(k)
        log = os.path.join(system.folder, f"prober-{k}.txt")
        with open(log, "wb") as out:
            pass
        prober = self.bench.start("prober", ["chrt", "-f", "1", sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "prober.py"), PROBE,
                                             str(system.service.port), routes.CHANGE_HOST, routes.change_path(k) + "x", str(PROBE_EVERY_S)],
                                  self.bench.generator_core, system.wire.prober)
        try:
            until(lambda: len(read_probes(prober)) >= 10, 10, "answers on the second wire")
            last = [s for _, _, s in read_probes(prober)][-5:]
            if any(s != 404 for s in last):
                raise LabError(f"{system.name} answers {last} before the route is there, not 404")
            begun = time.monotonic_ns()
            system.change(k)
            def live():
                return [s for _, _, s in read_probes(prober)][-LIVE_AFTER:] == [200] * LIVE_AFTER
            until(live, self.settings.change_timeout, "the change in force", step=0.01)
            return live_after_ms(read_probes(prober), begun)
        finally:
            self.bench.stop(prober, timeout=1)

    # --- the limit of the wire ---
    def limit(self, case, name):
        system = self.system(name, case.service)
        o = self.run(system, self.work(case, name, direct=True, connections=256))
        frames = o.result["frames_per_s"]
        return [Figure(case.name, case.unit, o.result["requests_per_s"], o.flags, details(o, {}), o.usable),
                Figure(case.name + "-frames", "frames/s", frames["rx"] + frames["tx"], o.flags, details(o, {}), o.usable)]


def case_named(name):
    from .cases import BY_NAME as CASES
    return CASES[name]


def details(outcome, more):
    return {"generator": outcome.result, "cores": outcome.cores, **more}


def read_probes(prober):
    out = []
    for line in prober.log().splitlines(keepends=True):
        f = line.split()
        if line.endswith("\n") and len(f) == 3 and f[0].isdigit():
            out.append((int(f[0]), int(f[1]), int(f[2])))
    return out


def live_after_ms(probes, begun_ns):
    """From `begun_ns` to the end of the first good answer that no other followed. Probes: (asked, answered, status)."""
    first = None
    for asked, answered, status in probes:
        if status != 200:
            first = None
        elif first is None:
            first = answered
    if first is None:
        raise LabError("no answer by the new table")
    return max(0.0, (first - begun_ns) / 1e6)


def dump(figure):
    return json.loads(json.dumps(vars(figure), default=str))
