"""perf/compare: the command line, the order of things, and the end of it."""
import argparse
import os
import signal
import sys
import time
import traceback

from . import load, machine, plan, plots, report
from .bench import Bench, LabError, run
from .cases import BY_NAME as CASE_BY_NAME
from .cases import CASES, LIMITS
from .measure import Measure, Skipped
from .results import Results
from .systems import BY_NAME, NotLoaded

DESCRIPTION = """The same work through Millrace, nginx, HAProxy and Envoy, each one worker on one core, the generator on another.
Prints a table of medians, spreads and ratios; perf/README.md says what is measured and how. Needs root and two idle cores."""
DEFAULT_SYSTEMS = ("millrace", "millrace-veth", "nginx", "haproxy", "envoy")
QUICK_SYSTEMS = ("millrace", "nginx", "haproxy", "envoy")


def parse(argv):
    p = argparse.ArgumentParser(prog="perf/compare", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="the most telling cases in less than 3 minutes; the full run takes up to 45")
    p.add_argument("--cases", metavar="A,B", help="only these (see --list); a name with * stands for all that match")
    p.add_argument("--systems", metavar="A,B", help=f"only these: {', '.join(DEFAULT_SYSTEMS)}")
    p.add_argument("--repetitions", type=int, metavar="N", help="of each case on each system [5; quick: 3], fewer where time is short")
    p.add_argument("--duration", type=float, metavar="S", help="that is measured in each repetition [2; quick: 0.8]")
    p.add_argument("--budget", type=float, metavar="S", help="for everything; repetitions are left out to keep it [2520; quick: 135]")
    p.add_argument("--json", metavar="FILE", help="[{case, system, unit, median, min, max, n}]; beside it FILE.machine.json and FILE.details.json")
    p.add_argument("--plots", metavar="DIR", help="PNG and SVG")
    p.add_argument("--list", action="store_true", help="cases and systems, and what of them is there")
    p.add_argument("--dut-core", type=int, metavar="N", help="core of the system under test [the first]")
    p.add_argument("--generator-core", type=int, metavar="N", help="core of the generator [the second]")
    p.add_argument("--veth-driver", choices=("af_packet", "af_xdp"), default="af_xdp", help="DPDK's driver on veth, of the generator and of millrace-veth [af_xdp]")
    p.add_argument("--steering", choices=("none", "rps"), default="none", help="on veth: the kernel's work for received packets on the sender's core (the generator "
                   "then works for the gateway), or handed to the core of the program behind (rps) [none]")
    p.add_argument("--keep", action="store_true", help="leave configurations, logs and namespaces for a look")
    p.add_argument("--real-time", action="store_true", help="latency cases: threads that poll (Millrace, the generator, the raw limit) at real-time priority, "
                   "as a core of their own would have it; the kernel's peers need theirs as it is")
    p.add_argument("--no-color", action="store_true")
    a = p.parse_args(argv)
    if a.repetitions is not None and not 1 <= a.repetitions <= 100:
        p.error("--repetitions: 1 to 100")
    if a.duration is not None and not 0.2 <= a.duration <= 600:
        p.error("--duration: 0.2 to 600 seconds")
    try:
        a.case_list = choose_cases(a.cases, a.quick)
        a.system_list = choose_systems(a.systems, a.quick, a.cases)
    except ValueError as e:
        p.error(str(e))
    return a


def choose_cases(text, quick):
    if not text:
        return [c for c in CASES if c.quick or not quick]
    import fnmatch
    names = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        found = [c.name for c in CASES if fnmatch.fnmatchcase(c.name, word)]
        if not found:
            raise ValueError(f"--cases: there is no case {word!r}; --list shows them")
        names += found
    return [c for c in CASES if c.name in names]


def choose_systems(text, quick, cases_given):
    if not text:
        return list(QUICK_SYSTEMS if quick and not cases_given else DEFAULT_SYSTEMS)
    names = [w.strip() for w in text.split(",") if w.strip()]
    for n in names:
        if n not in BY_NAME:
            raise ValueError(f"--systems: there is no system {n!r}; there are {', '.join(DEFAULT_SYSTEMS)}")
    return [n for n in BY_NAME if n in names]


def show_list():
    print("cases (* also with --quick)")
    for c in CASES:
        print(f"  {c.name:26}{'*' if c.quick else ' '} {c.unit:14} {c.title}")
    print("\nsystems")
    for name, cls in BY_NAME.items():
        s = cls(None, None)
        why = s.missing()
        print(f"  {name:14} {cls.title:18} {'NOT THERE: ' + why if why else s.version()}")
    return 0


class Material:
    """Certificate and key that all systems use: ECDSA P-256."""

    def __init__(self, bench):
        folder = bench.folder("material")
        self.certificate, self.key, self.combined = (os.path.join(folder, n) for n in ("bench.crt", "bench.key", "bench.pem"))
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-keyout", self.key,
             "-out", self.certificate, "-subj", "/CN=bench.example", "-addext", "subjectAltName=DNS:bench.example"])
        with open(self.combined, "w") as f:
            f.write(open(self.certificate).read() + open(self.key).read())


class Runner:
    def __init__(self, bench, cases, settings, progress):
        self.bench, self.cases, self.settings, self.progress = bench, cases, settings, progress
        self.results = Results()
        self.measure = Measure(bench, Material(bench), settings, progress.say)
        self.governor = plan.Governor(cases, settings)
        self.seen = {}  # (case, system) -> seconds a repetition took
        self.broken = {}

    def systems_of(self, case):
        wanted = [s for s in self.settings.systems if s in case.systems]
        if case.kind == "limit":  # of every wire in use
            wires = {"limit" if s == "millrace" else "limit-veth" for s in self.settings.systems if s not in LIMITS}
            wanted = [s for s in LIMITS if s in wires or s in self.settings.systems]
        return wanted

    def run(self):
        numbered = list(enumerate(self.cases, 1))
        blocks = plan.blocks(numbered, key=lambda x: x[1].group)
        for i, block in enumerate(blocks):
            self.governor.begin(*[case for _, case in block])
            self.one_block(block)
            self.measure.stop(keep_service=blocks[i + 1][0][1].service if i + 1 < len(blocks) else None)
        self.measure.stop()
        return self.results

    def one_block(self, block):
        """Cases in turns, each on its systems in turns."""
        wanted = {case.name: plan.wanted_repetitions(case, self.settings) for _, case in block}
        for repetition in range(1, max(wanted.values()) + 1):
            for number, case in block:
                if repetition <= wanted[case.name]:
                    self.one_turn(number, case, repetition, wanted[case.name])
        for number, case in block:  # an accident in the only repetition
            for s in self.systems_of(case):
                if self.broken.get((case.name, s)) == 1 and not any(x == s and c.startswith(case.name) for c, x in self.results.samples):
                    self.progress.show(f"[{number}/{len(self.cases)}] {case.name}  {s}  once more")
                    self.one_repetition(case, s)

    def one_turn(self, number, case, repetition, wanted):
        systems = self.systems_of(case)
        # The order turns, so that nobody always comes after the same one.
        turn = (repetition - 1) % max(1, len(systems))
        for s in systems[turn:] + systems[:turn]:
            if (case.name, s) in self.results.skipped:
                continue
            expected = self.seen.get((case.name, s), plan.repetition_s(case, s, self.settings))
            if repetition > 1 and not self.governor.another(case, expected):
                continue
            left = (wanted - repetition) * sum(self.seen.get((case.name, x), plan.repetition_s(case, x, self.settings)) for x in systems)
            eta = self.governor.eta_s(left)
            self.progress.show(f"[{number}/{len(self.cases)}] {case.name}  {s}  repetition {repetition} of {wanted}   "
                               f"{eta // 60:.0f}:{eta % 60:02.0f} left")
            self.one_repetition(case, s)

    def one_repetition(self, case, s):
        begun = time.monotonic()
        try:
            for figure in self.measure.repetition(case, s):
                figure.flags += self.measure.complaints(s)
                self.results.add(s, figure)
        except (Skipped, NotLoaded) as e:
            self.give_up(case, s, str(e))
        except Exception as e:  # noqa: BLE001: whatever it is, what was measured until now is kept, and the other systems are measured
            # Once is an accident and is repeated by the next repetition; twice is the finding.
            text = str(e) if isinstance(e, (LabError, OSError)) else traceback.format_exc()
            self.progress.say(f"compare: {case.name} on {s}: {text}")
            self.broken[(case.name, s)] = self.broken.get((case.name, s), 0) + 1
            system = self.measure.systems.get(s)
            if system is not None:
                system.stop()
            if self.broken[(case.name, s)] >= 2:
                self.give_up(case, s, text.strip().splitlines()[-1] if text.startswith("Traceback") else text.splitlines()[0])
        self.seen[(case.name, s)] = time.monotonic() - begun

    def give_up(self, case, s, why):
        self.results.skip(case.name, s, why)
        self.progress.say(f"compare: {case.name} on {s} is left out: {why}")


def main(argv=None):
    a = parse(argv)
    if a.list:
        return show_list()
    if os.geteuid() != 0:
        print("compare: needs root (namespaces, hugepages)", file=sys.stderr)
        return 3
    cores = sorted(os.sched_getaffinity(0))
    dut = a.dut_core if a.dut_core is not None else cores[0]
    generator = a.generator_core if a.generator_core is not None else next((c for c in cores if c != dut), dut)
    if dut == generator or not {dut, generator} <= set(cores):
        print(f"compare: needs two cores of {cores}: one for the system under test, one for the generator", file=sys.stderr)
        return 3
    progress = report.Progress()
    why = load.program_missing()
    if why:
        print(f"compare: {why}; run scripts/dev build", file=sys.stderr)
        return 3
    for s in list(a.system_list):
        why = BY_NAME[s](None, None).missing()
        if why:
            progress.say(f"compare: *** {s} is left out: {why} ***")
            a.system_list.remove(s)
    if not a.system_list:
        print("compare: no system is there", file=sys.stderr)
        return 3

    settings = (plan.quick if a.quick else plan.full)(a.system_list)
    settings.real_time = a.real_time
    for name in ("repetitions", "duration", "budget"):
        if getattr(a, name) is not None:
            setattr(settings, name, getattr(a, name))

    def stop(number, frame):
        raise KeyboardInterrupt
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, stop)

    begun = time.monotonic()
    interrupted = False
    with Bench(dut, generator, a.keep, a.veth_driver, a.steering) as bench:
        bench.settle_machine()
        described = machine.describe({s: BY_NAME[s](bench, None) for s in a.system_list}, settings, bench)
        runner = Runner(bench, a.case_list, settings, progress)
        try:
            runner.run()
        except KeyboardInterrupt:
            interrupted = True
            progress.say("compare: interrupted; what was measured until now:")
        results = runner.results
        described["seconds"] = round(time.monotonic() - begun, 1)
        color = sys.stdout.isatty() and not a.no_color and "NO_COLOR" not in os.environ
        progress.say("")
        shown = list(BY_NAME)
        sys.stdout.write(report.render(a.case_list, results, shown, machine.lines(described), color))
        print(f"\n{described['seconds']:.0f} s")
        if a.json:
            results.write(a.json, described)
        if a.plots:
            why = plots.available()
            if why:
                progress.say(f"compare: no plots: {why}")
            else:
                for path in plots.draw(a.case_list, results, a.plots, " · ".join(machine.lines(described))[:230]):
                    print(path)
    # A figure that has not one good repetition and no reason is a failure of the comparison itself.
    failed = [f"{c} on {s}" for (c, s), figures in results.samples.items() if not any(f.usable for f in figures)]
    failed += [f"{c} on {s}" for (c, s) in results.skipped if runner.broken.get((c, s))]
    if failed:
        progress.say("compare: without a good figure: " + ", ".join(failed))
    return 130 if interrupted else 1 if failed else 0
