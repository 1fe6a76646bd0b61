"""One run of the generator against one system: who starts first, how long it may take, what it found, and what both cores did meanwhile."""
import dataclasses
import json
import os
import time

from .bench import LabError, lab, pin_all, run, until
from .wires import CLIENTS, DUT

PROGRAM = os.environ.get("MILLRACE_LOAD", os.path.join(lab.BUILD, "perf", "millrace-load"))
BUSY = 0.9                    # above this share of the generator's time the figure is the generator's, not the system's
IDLE = 0.08                   # above this share of idle time of its core the system was not at its maximum
LOST = ("status", "length", "body", "malformed", "reset", "server_reset", "closed_early", "connect_failed", "timeout", "unanswered", "tls", "unexpected")
# Repeated segments are the kernel's way on a wire that drops when it is full; a maximum may be measured with a few of them. Share of requests.
TOLERATED = ("retransmissions", "syn_retransmissions", "duplicates", "rx_out_of_order", "rx_lost", "tx_lost")
TOLERATED_SHARE = 0.001


class RunFailed(LabError):
    """The generator could not measure."""


@dataclasses.dataclass
class Work:
    """What the generator is asked to do; None leaves its default."""
    connections: int = 64
    rate: float = 0
    requests_per_connection: int = 0
    response_body: int = 64
    warmup: float = 1.0
    duration: float = 2.0
    tls: bool = False
    resume: bool = False
    targets_file: str | None = None
    idle: int = 0
    ramp: int = 50_000
    hold: float = 0
    host: str = "bench.example"
    direct: bool = False      # clients ask the servers themselves, through what only forwards

    def argv(self, port):
        out = ["--role", "both", "--clients", CLIENTS, "--target", "10.65.0.1:80" if self.direct else f"{DUT}:{port}",
               "--servers", "10.65.0.1-10.65.0.4:80", "--connections", str(self.connections), "--response-body", str(self.response_body),
               "--warmup", f"{self.warmup:g}", "--duration", f"{self.duration:g}"]
        if self.rate:
            out += ["--rate", f"{self.rate:.0f}"]
        if self.requests_per_connection:
            out += ["--requests-per-connection", str(self.requests_per_connection)]
        if self.tls and not self.direct:
            out += ["--tls-clients", "--sni", self.host]
        if self.resume:
            out += ["--tls-resume"]
        if self.targets_file:
            out += ["--targets", self.targets_file]
        else:
            out += ["--host", self.host]
        if self.idle:
            out += ["--idle", str(self.idle), "--hold", f"{self.hold:g}"]
        out += ["--ramp", str(self.ramp)]
        return out

    def seconds(self):
        return self.warmup + self.duration + self.hold + (self.connections + self.idle) / self.ramp


@dataclasses.dataclass
class Outcome:
    result: dict                      # the generator's JSON
    cores: dict                       # {"dut": {...}, "generator": {...}}: shares of the core's time in the measured interval
    flags: list = dataclasses.field(default_factory=list)  # what is to be said beside the figure
    usable: bool = True               # the figure may stand as a maximum

    @property
    def errors(self):
        return self.result.get("errors", {})

    def lost(self):
        """Requests of clients that had no good answer."""
        return sum(int(self.errors.get(k, 0)) for k in LOST if k != "server_reset")

    def judge(self, closed=True):
        """Sets flags and usable. `closed`: a closed loop, which should leave the system's core no idle time."""
        requests = max(1, int(self.result.get("requests", 0)))
        if any(self.errors.get(k, 0) for k in LOST):
            named = ", ".join(f"{v} {k}" for k, v in self.errors.items() if k in LOST and v)
            self.flags.append(f"errors: {named}")
            self.usable = False
        repeated = {k: int(self.errors.get(k, 0)) for k in TOLERATED if self.errors.get(k, 0)}
        if sum(repeated.values()) > TOLERATED_SHARE * requests:
            self.flags.append("losses: " + ", ".join(f"{v} {k}" for k, v in repeated.items()))
        if self.result.get("busy", 0) > BUSY:
            self.flags.append(f"generator busy {self.result['busy'] * 100:.0f} %")
        idle = self.cores.get("dut", {}).get("idle", 0)
        if closed and idle > IDLE:
            self.flags.append(f"gateway's core idle for {idle * 100:.0f} %")
        return self


def core_times(core):
    """Ticks of a core by what they went to."""
    for line in open("/proc/stat"):
        f = line.split()
        if f[0] == f"cpu{core}":
            v = [int(x) for x in f[1:9]]
            return {"user": v[0] + v[1], "system": v[2], "idle": v[3] + v[4], "interrupts": v[5] + v[6], "stolen": v[7]}
    raise LabError(f"there is no CPU {core}")


def shares(before, after):
    d = {k: after[k] - before[k] for k in before}
    total = max(1, sum(d.values()))
    return {k: round(v / total, 3) for k, v in d.items()}


def program_missing():
    if not os.access(PROGRAM, os.X_OK):
        return f"{os.path.relpath(PROGRAM, lab.ROOT)} is not built"
    if PROGRAM not in _seen:
        _seen[PROGRAM] = b"--start-on-signal" in run([PROGRAM, "--help"], check=False).stdout
    return None if _seen[PROGRAM] else f"{os.path.relpath(PROGRAM, lab.ROOT)} is of an older tree"


_seen = {}


class Run:
    """The generator under way; between its start and finish() others may look at the system."""

    def __init__(self, bench, system, work, boot_timeout=60, memory_mb=512, margin=45, after_boot=None):
        self.bench, self.system, self.work = bench, system, work
        wire = system.wire
        self.folder = bench.folder("load")
        self.json = os.path.join(self.folder, "result.json")
        self.limit = work.seconds() + margin
        argv = [PROGRAM, "--core", str(bench.generator_core), "--main-core", str(bench.dut_core), "--memory-mb", str(memory_mb),
                "--file-prefix", f"{bench.name}-load{next(bench.serial)}", *wire.generator_argv(), *work.argv(system.service.port),
                "--json", self.json, "--quiet", "--interval", "0"]
        self.argv, self.boot_timeout, self.after_boot, self.process, self.memory_mb = argv, boot_timeout, after_boot, None, memory_mb

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.abort()
            raise
        return self

    def __exit__(self, *exc):
        self.abort()

    def _begin(self):
        system, wire, argv, boot_timeout, after_boot = self.system, self.system.wire, self.argv, self.boot_timeout, self.after_boot
        lab.reserve_hugepages(self.memory_mb + 64)
        if wire.generator_first:
            argv.append("--start-on-signal")
            wire.before_generator()
            self._start(argv)
            until(lambda: os.path.exists(wire.socket) or not self.process.alive(), 20, "the generator's end of the wire")
            self._must_live()
            system.boot(boot_timeout)
            if after_boot:
                after_boot()
            self.process.wait_log("waiting for SIGUSR1", timeout=10)
            self.process.signal(10)
        else:
            if not system.running_programs():
                system.boot(boot_timeout)
            if after_boot:
                after_boot()
            self._start(argv)
        self.begun = time.monotonic()

    def _start(self, argv):
        self.process = self.bench.start("load", argv, None, self.system.wire.generator, self.folder)

    def _must_live(self):
        if not self.process.alive():
            raise RunFailed(f"the generator ended with {self.process.popen.returncode}:\n{self.process.tail()}")

    def pin(self):
        """Threads of the generator that do not poll were put on the other core by DPDK's rules: back, so that they cost the system nothing."""
        pin_all(self.process.pid, self.bench.generator_core)

    def measure_cores(self):
        """Cores' times over the middle of the measured interval; waits for it."""
        start = self.begun + 0.6 + self.work.warmup + self.work.connections / self.work.ramp  # 0.6: DPDK's start
        self.sleep_until(start)
        self.pin()
        a = [core_times(c) for c in (self.bench.dut_core, self.bench.generator_core)]
        self.sleep_until(max(start + 0.2, start + self.work.duration - 0.4))
        b = [core_times(c) for c in (self.bench.dut_core, self.bench.generator_core)]
        return {"dut": shares(a[0], b[0]), "generator": shares(a[1], b[1])}

    def sleep_until(self, moment):
        while time.monotonic() < moment and self.process.alive():
            time.sleep(min(0.1, max(0.001, moment - time.monotonic())))

    def finish(self, cores=None):
        """Waits for the end, within the watchdog's time, and reads the result."""
        end = self.begun + self.limit
        while self.process.alive():
            if time.monotonic() > end:
                tail = self.process.tail()
                self.bench.stop(self.process, timeout=1)
                raise RunFailed(f"no end within {self.limit:.0f} s; killed\n{tail}")
            time.sleep(0.01)
        code = self.process.popen.returncode
        tail = self.process.tail()
        self.bench.stop(self.process)
        if not os.path.exists(self.json):
            raise RunFailed(f"the generator ended with {code}:\n{tail}")
        with open(self.json) as f:
            result = json.load(f)
        if result.get("failure"):
            raise RunFailed(f"the generator: {result['failure']}")
        return Outcome(result, cores or {}).judge(closed=not self.work.rate and not self.work.idle)

    def abort(self):
        if self.process is not None:
            self.bench.stop(self.process, timeout=1)

    def end_now(self):
        """Ends the measurement as Ctrl-C would, and waits for the result."""
        self.process.signal(15)


class RealTime:
    """Poll threads at real-time priority while they are measured: what a core of its own gives them on a machine with enough cores. Ordinary threads
    are starved meanwhile, so it may not last: after a second the kernel gives them 50 ms (its bound on real-time work, or the server of fair tasks)."""

    LONGEST = 0.25  # s: the 50 ms come at any moment of a second

    def __init__(self, *pids):
        self.tasks = {t: 1 for pid in pids for t in busy_threads(pid)} | {pid: 2 for pid in pids[:1]}  # the generator's main thread ends the run
        self.tasks[os.getpid()] = 3

    def __enter__(self):
        for task, priority in self.tasks.items():
            os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(priority))
        return self

    def __exit__(self, *exc):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def busy_threads(pid, seconds=0.15):
    """Threads of a process that compute all the time."""
    def ticks():
        out = {}
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as f:
                v = f.read().rsplit(")", 1)[1].split()
            out[int(task)] = int(v[11]) + int(v[12])
        return out
    before = ticks()
    time.sleep(seconds)
    return [t for t, n in ticks().items() if n - before.get(t, n) >= seconds * 100 * 0.3]


def measure(bench, system, work, real_time=False, **options):
    """The whole of a run without anybody looking on."""
    with Run(bench, system, work, **options) as run:
        if not (real_time and system.polls):
            return run.finish(run.measure_cores())
        start = run.begun + 0.6 + work.warmup + work.connections / work.ramp  # 0.6: DPDK's start
        run.sleep_until(start - 0.3)
        run.pin()
        real_time = RealTime(run.process.pid, *(p.pid for p in system.processes if p.alive()))
        run.sleep_until(start - 0.05)
        with real_time:
            outcome = run.finish()
        outcome.flags.append("poll threads at real-time priority")
        return outcome
