"""All figures of a run; medians with their spread; the JSON of it."""
import json
import statistics


class Results:
    def __init__(self):
        self.samples = {}   # (case, system) -> [Figure]
        self.skipped = {}   # (case, system) -> why there is no figure
        self.order = []     # (case, system, unit) as they first came

    def add(self, system, figure):
        key = (figure.case, system)
        if key not in self.samples:
            self.samples[key] = []
            self.order.append((figure.case, system, figure.unit))
        self.samples[key].append(figure)

    def skip(self, case, system, why):
        self.skipped[(case, system)] = why

    def usable(self, case, system):
        return [f.value for f in self.samples.get((case, system), []) if f.usable]

    def median(self, case, system):
        values = self.usable(case, system)
        return statistics.median(values) if values else None

    def flags(self, case, system):
        """What is to be said of a figure: each remark once, with the number of repetitions it is about."""
        seen = {}
        figures = self.samples.get((case, system), [])
        for f in figures:
            for flag in f.flags:
                kind = flag.split(":")[0] if flag.startswith(("errors", "losses")) else flag.rstrip("0123456789 %.")
                seen.setdefault(kind, []).append(flag)
        return [f"{flags[-1]} ({len(flags)} of {len(figures)})" for flags in seen.values()]

    def rows(self):
        """The list of `--json`: one entry for each figure that has at least one good repetition."""
        out = []
        for case, system, unit in self.order:
            values = self.usable(case, system)
            if values:
                out.append({"case": case, "system": system, "unit": unit, "median": round6(statistics.median(values)), "min": round6(min(values)),
                            "max": round6(max(values)), "n": len(values)})
        return out

    def detail(self):
        """Every sample with what the generator said and what the cores did, and everything that has no figure."""
        return {"samples": [{"system": system, **{k: v for k, v in vars(f).items()}} for (_, system), figures in self.samples.items() for f in figures],
                "skipped": [{"case": c, "system": s, "why": why} for (c, s), why in self.skipped.items()]}

    def write(self, path, machine):
        with open(path, "w") as f:
            f.write("[\n" + ",\n".join("  " + json.dumps(r) for r in self.rows()) + "\n]\n")
        with open(path + ".machine.json", "w") as f:
            json.dump(machine, f, indent=1)
            f.write("\n")
        with open(path + ".details.json", "w") as f:
            json.dump(self.detail(), f, indent=1, default=str)
            f.write("\n")


def round6(v):
    """Six digits that count."""
    return float(f"{v:.6g}")
