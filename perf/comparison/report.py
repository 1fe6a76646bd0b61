"""The table on the terminal: a block a case, a line a system; the spread beside the median, how many times Millrace's figure is that of the others, how
near the wire's limit, and every flag."""
import sys

from .systems import BY_NAME

BOLD, DIM, RED, GREEN, YELLOW, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m", "\033[0m"
BAR = 24


def paint(text, color, on):
    return f"{color}{text}{PLAIN}" if on and text else text


def number(v, unit=""):
    """Three digits that count, thousands apart."""
    if v is None:
        return "–"
    a = abs(v)
    if a >= 1000:
        return f"{v:,.0f}"
    if a >= 100 or a == 0:
        return f"{v:.0f}"
    if a >= 10:
        return f"{v:.1f}"
    return f"{v:.2f}" if a >= 0.1 else f"{v:.2g}"


def bar(share):
    eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
    cells = max(0.0, min(1.0, share)) * BAR
    full = int(cells)
    return "█" * full + eighths[int((cells - full) * 8)]


def ratio(case, mine, other):
    """How many times better Millrace is than this system; below 1: worse."""
    if not mine or not other or mine < 0 or other < 0:
        return None
    return mine / other if case.higher_is_better else other / mine


def unit_name(unit):
    return {"us": "µs", "B/connection": "B a connection"}.get(unit, unit)


def columns(case):
    """The figures of a case: (name in the JSON, heading)."""
    if case.kind == "latency":
        return [(f"{case.name}-{added}{p}", heading + q) for added, heading in (("", ""), ("added-", "added ")) for p, q in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))]
    if case.kind == "memory":
        return [(case.name, "for connections"), (case.name + "-total", "all there is")]
    if case.kind == "change":
        return [(case.name, "until live, ms"), (case.name + "-lost", "requests lost")]
    if case.kind == "limit":
        return [(case.name, "requests/s"), (case.name + "-frames", "frames/s")]
    return [(case.name, "median")]


def remarks(case, system, results):
    out = [results.skipped[(case.name, system)]] if (case.name, system) in results.skipped else []
    for name, _ in columns(case):
        figures = results.samples.get((name, system))
        if figures and not results.usable(name, system) and "no clean run" not in out:
            out.insert(0, "no clean run")
        out += [f for f in results.flags(name, system) if f not in out]
    return out


def block(case, results, systems, color, limits=None):
    """Lines of one case; empty when nothing was measured or skipped."""
    present = [s for s in systems if (case.name, s) in results.skipped or any((name, s) in results.samples for name, _ in columns(case))]
    if not present:
        return []
    rows = []
    medians = {name: {s: results.median(name, s) for s in present} for name, _ in columns(case)}
    for s in present:
        cells = [BY_NAME[s].title]
        for i, (name, _) in enumerate(columns(case)):
            values = results.usable(name, s)
            cells.append(number(medians[name][s]))
            if len(columns(case)) <= 2:
                cells.append(f"{number(min(values))} – {number(max(values))}" if len(values) > 1 else "")
        values = results.usable(columns(case)[0][0], s)
        cells.append(str(len(values)) if values else "")
        first = columns(case)[0][0] if case.kind != "latency" else f"{case.name}-added-p99"
        r = ratio(case, medians[first].get("millrace"), medians[first][s]) if s != "millrace" else None
        cells.append(f"{number(r)}×" if r and case.kind != "limit" else "")
        cells.append(of_limit(case, case.name, s, results, limits))
        largest = max((m for m in medians[first].values() if m), default=0)
        cells.append(bar(medians[first][s] / largest) if largest > 0 and (medians[first][s] or 0) > 0 else "")
        rows.append((s, cells))
    heads = [""]
    for _, heading in columns(case):
        heads += [heading] + (["min – max"] if len(columns(case)) <= 2 else [])
    heads += ["n", "Millrace is" + (" (added p99)" if case.kind == "latency" else ""), "of limit", ""]
    empty = [i for i in range(1, len(heads)) if not any(cells[i] for _, cells in rows)]
    unit = f", {unit_name(case.unit)}" if case.kind not in ("change", "limit") else ""
    lines = ["", f"{paint(case.name, BOLD, color)}  {case.title}{unit}" + ("" if case.higher_is_better else paint("  (less is better)", DIM, color))]
    widths = [max(len(heads[i]), *(len(cells[i]) for _, cells in rows)) for i in range(len(heads))]

    def line(cells, color_of_bar=None):
        out = "  " + f"{cells[0]:{widths[0]}}"
        for i in range(1, len(cells) - 1):
            if i not in empty:
                out += f"  {cells[i]:>{widths[i]}}"
        return (out + ("  " + paint(cells[-1], color_of_bar, color) if cells[-1] else "")).rstrip()
    lines.append(paint(line(heads), DIM, color))
    for s, cells in rows:
        lines.append(line(cells, GREEN if s.startswith("millrace") else DIM))
        lines += ["  " + " " * widths[0] + "  " + paint(f"! {f}", YELLOW, color) for f in remarks(case, s, results)]
    return lines


def of_limit(case, name, system, results, limits):
    """Frames of this run against the frames its port carries with no TCP in between, as a share."""
    if case.kind != "throughput" or not limits or not system.startswith("millrace"):
        return ""  # the kernel's sockets are another port than the forwarder's
    wire = "limit" if system == "millrace" else "limit-veth"
    top = limits.get(wire)
    frames = [sum(f.details["generator"]["frames_per_s"].values()) for f in results.samples.get((name, system), [])
              if f.usable and "frames_per_s" in f.details.get("generator", {})]
    if not top or not frames:
        return ""
    frames.sort()
    return f"{frames[len(frames) // 2] / top * 100:.0f} %"


def limits_of(results):
    return {s: results.median("raw-forward-frames", s) for s in ("limit", "limit-veth")}


def render(cases, results, systems, machine_lines, color):
    out = [paint("Millrace and its peers, one worker on one core each", BOLD, color), *machine_lines]
    limits = limits_of(results)
    for case in cases:
        out += block(case, results, [s for s in systems if s in case.systems], color, limits)
    out += ["", *cores_used(results, color)]
    return "\n".join(out) + "\n"


def cores_used(results, color):
    """What the kernel did on the generator's core in the first throughput case: how much of it was not the generator's own."""
    rows = []
    for (case, system), figures in results.samples.items():
        if case != "keepalive-64B" or not figures or "cores" not in figures[-1].details:
            continue
        d, g = figures[-1].details["cores"].get("dut"), figures[-1].details["cores"].get("generator")
        if d and g:
            def where(c):
                text = ", ".join(f"{c[k] * 100:3.0f} % {k.replace('system', 'kernel')}" for k in ("user", "system", "interrupts", "idle"))
                return text + (f", {c['stolen'] * 100:.0f} % stolen" if c["stolen"] > 0.005 else "")
            rows.append(f"  {BY_NAME[system].title:16}  gateway's: {where(d)}   generator's: {where(g)}")
    return [paint("Where both cores went in keepalive-64B", BOLD, color), *rows] if rows else []


class Progress:
    """What is being done, which repetition, and how long it will be: one line that is written over on a terminal, a line each elsewhere."""

    def __init__(self, stream=sys.stderr):
        self.stream, self.tty, self.last = stream, stream.isatty(), 0

    def show(self, text):
        if self.tty:
            text = text[:170]
            self.stream.write("\r" + text + " " * max(0, self.last - len(text)))
            self.last = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text):
        """A line that stays."""
        if self.tty:
            self.stream.write("\r" + " " * self.last + "\r")
            self.last = 0
        self.stream.write(text + "\n")
        self.stream.flush()
