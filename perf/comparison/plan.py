"""How often and how long: sizes of a full and of a quick run, and the governor that keeps each within its time."""
import dataclasses
import time


@dataclasses.dataclass
class Settings:
    systems: list
    warmup: float = 1.0
    duration: float = 2.0
    repetitions: int = 5
    search: tuple = (32, 128, 512)   # numbers of connections tried for the maximum
    budget: float = 42 * 60          # seconds for everything
    boot_timeout: float = 120        # a system that does not serve within it cannot do the case
    ramp: int = 20_000               # idle connections opened a second
    change_rate: float = 2_000       # requests/s while routes change: what all of them can do with one core half idle
    changes: int = 3
    change_timeout: float = 60
    real_time: bool = False         # latency: poll threads at real-time priority


def full(systems):
    return Settings(systems)


def quick(systems):
    return Settings(systems, warmup=0.3, duration=0.8, repetitions=3, search=(), budget=135, boot_timeout=20, change_rate=2_000, changes=2, change_timeout=20)


START_S = {"millrace": 2.2, "millrace-veth": 2.2, "limit": 2.0, "limit-veth": 2.0}  # from one run to the next, beside the run itself
GOAL_CASES = ("keepalive-64B", "connections", "tls13-keepalive", "bulk-1MB", "latency-half")  # always measured as often as asked


def repetition_s(case, system, settings):
    """About how long one repetition takes, for order and ETA; what was seen replaces it as the run goes on."""
    one = settings.warmup + settings.duration + START_S.get(system, 1.2)
    if case.kind == "latency":
        return 2 * one + 0.5
    if case.kind == "memory":
        return case.idle / settings.ramp + 12
    if case.kind == "change":
        n = case.service.table.count
        return 4 + settings.changes * (1 + n / 20_000)
    if case.service.table and case.service.table.count > 1000:
        return one + case.service.table.count / 50_000
    return one


def wanted_repetitions(case, settings):
    if case.kind == "memory":
        return 1
    if case.kind == "change":
        return max(1, settings.repetitions // 2)
    return settings.repetitions if case.name in GOAL_CASES else max(1, settings.repetitions - 2)


# Groups whose figures are read against each other: a machine that is slower for a minute must be so for all of them, so their cases take turns.
TAKE_TURNS = ("routes", "routes-regex")


def blocks(items, key):
    """Lists of items that are measured in turns, in order: neighbours of a group in TAKE_TURNS together, everything else alone."""
    out = []
    for item in items:
        if out and key(item) in TAKE_TURNS and key(out[-1][-1]) == key(item):
            out[-1].append(item)
        else:
            out.append([item])
    return out


class Governor:
    """Shares the time that is left among the cases that are left, by what each would like. The first repetition of a case is always made; a further one
    only while the case's share lasts."""

    def __init__(self, cases, settings, clock=time.monotonic):
        self.settings, self.clock = settings, clock
        self.end = clock() + settings.budget
        self.left = {}
        for c in cases:
            systems = [s for s in settings.systems if s in c.systems]
            self.left[c.name] = wanted_repetitions(c, settings) * sum(repetition_s(c, s, settings) for s in systems)
        self.share_end = self.end

    def begin(self, *cases):
        remaining = max(0.0, self.end - self.clock())
        total = sum(self.left.values())
        mine = sum(self.left.pop(case.name) for case in cases)
        self.share_end = self.clock() + remaining * mine / max(total, 1e-9)

    def another(self, case, seconds):
        """Whether there is time for one more repetition that takes about so long."""
        return self.clock() + seconds <= self.share_end + 0.25 * seconds

    def eta_s(self, case_left_s):
        return min(max(0.0, self.end - self.clock()), case_left_s + sum(self.left.values()))
