"""Plots of a run, PNG and SVG, by matplotlib. One picture a group of cases."""
import os
import textwrap

from .systems import BY_NAME

COLORS = {"millrace": "#c8553d", "millrace-veth": "#e9a28f", "nginx": "#588157", "haproxy": "#3d6b99", "envoy": "#8e6bad", "limit": "#444444", "limit-veth": "#999999"}
UNITS = {"us": "µs", "B/connection": "bytes a connection", "ms": "ms until live"}


def available():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "matplotlib is not installed (Debian: python3-matplotlib; scripts/setup --peers)"
    return None


def draw(cases, results, folder, note):
    """Returns the files written."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
                                "grid.color": "#dddddd", "svg.fonttype": "none", "figure.dpi": 110})
    os.makedirs(folder, exist_ok=True)
    files = []
    groups = {}
    for c in cases:
        groups.setdefault(c.group, []).append(c)
    done = set()
    for group, members in groups.items():
        if group in ("routes", "routes-regex"):
            if "routes" in done:
                continue
            done.add("routes")
            files += scaling([c for g in ("routes", "routes-regex") for c in groups.get(g, [])], results, folder, note)
        elif group.startswith("latency"):
            files += latency(members[0], results, folder, note)
        else:
            files += bars(group, members, results, folder, note)
    files += ratios(cases, results, folder, note)
    return files


def save(figure, folder, name, note):
    """Lays out, with the machine's description in small print below, and writes both files."""
    wide, high = figure.get_size_inches()
    lines = textwrap.wrap(note, max(40, int(wide * 21)))
    room = (0.11 * len(lines) + 0.12) / high
    figure.tight_layout(rect=(0, room, 1, 1))
    figure.text(0.01, 0.06 / high, "\n".join(lines), fontsize=6.3, color="#777777", va="bottom", linespacing=1.15)
    out = []
    for ending in ("png", "svg"):
        path = os.path.join(folder, f"{name}.{ending}")
        figure.savefig(path, facecolor="white")
        out.append(path)
    import matplotlib.pyplot as plt
    plt.close(figure)
    return out


def microseconds(v):
    return f"{short(v / 1000)} ms" if v >= 1000 else f"{short(v)}"


def systems_in(cases, results):
    """Systems with a figure in at least one of the cases, in the order of the table."""
    return [s for s in BY_NAME if any(results.median(c.name, s) is not None for c in cases)]


def short(v):
    if v >= 1e6:
        return f"{v / 1e6:.2f} M"
    if v >= 1e4:
        return f"{v / 1e3:.0f} k"
    if v >= 1e3:
        return f"{v / 1e3:.1f} k"
    return f"{v:.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def bars(group, cases, results, folder, note):
    import matplotlib.pyplot as plt
    systems = systems_in(cases, results)
    cases = [c for c in cases if any(results.median(c.name, s) is not None for s in systems)]
    if not systems or not cases:
        return []
    figure, axes = plt.subplots(1, len(cases), figsize=(max(4.6, 1.2 + 2.6 * len(cases)), 3.9), squeeze=False)
    for axis, case in zip(axes[0], cases):
        present = [s for s in systems if s in case.systems]
        values = [results.median(case.name, s) for s in present]
        for i, (s, v) in enumerate(zip(present, values)):
            if v is None:
                axis.text(i, 0.02, "none", transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=8, color="#777777", rotation=90)
                continue
            all_values = results.usable(case.name, s)
            axis.bar(i, v, color=COLORS[s], width=0.72, yerr=[[v - min(all_values)], [max(all_values) - v]], error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"})
            axis.annotate(short(v), (i, max(all_values)), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8)
        axis.set_xticks(range(len(present)), [BY_NAME[s].title.replace(" (", "\n(") for s in present], rotation=40, ha="right", fontsize=8)
        axis.set_title(case.title, fontsize=9.5)
        axis.grid(axis="x", visible=False)
        axis.margins(y=0.14)
        axis.set_xlim(-0.6, len(present) - 0.4)
        if case.kind == "change":
            axis.set_yscale("log")  # milliseconds beside seconds
        else:
            axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(lambda v, _: short(v) if v else "0")
        axis.set_ylabel(UNITS.get(case.unit, case.unit))
    return save(figure, folder, group, note)


def latency(case, results, folder, note):
    import matplotlib.pyplot as plt
    points = ("p50", "p99", "p999")
    systems = [s for s in BY_NAME if results.median(f"{case.name}-p50", s) is not None]
    if not systems:
        return []
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    for axis, prefix, title in ((axes[0], "", "as clients see it"), (axes[1], "added-", "added by the gateway")):
        for i, s in enumerate(systems):
            for j, p in enumerate(points):
                values = [v for v in results.usable(f"{case.name}-{prefix}{p}", s)]
                v = results.median(f"{case.name}-{prefix}{p}", s)
                if v is None or v <= 0:
                    continue
                x = i + (j - 1) * 0.26
                axis.bar(x, v, width=0.24, color=COLORS[s], alpha=(1, 0.72, 0.45)[j], yerr=[[v - max(min(values), v * 0.01)], [max(values) - v]],
                         error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"})
                axis.annotate(microseconds(v), (x, max(values)), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=6, rotation=90)
        axis.margins(y=0.2)
        axis.set_yscale("log")
        axis.set_xticks(range(len(systems)), [BY_NAME[s].title for s in systems], rotation=20, ha="right", fontsize=8)
        axis.set_title(f"{case.title}: {title}", fontsize=9.5)
        axis.yaxis.set_major_formatter(lambda v, _: microseconds(v) if v >= 1 else f"{v:g}")
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("latency in µs: p50, p99, p99.9")
    return save(figure, folder, case.name, note)


def scaling(cases, results, folder, note):
    import matplotlib.pyplot as plt
    systems = systems_in(cases, results)
    if not systems:
        return []
    kinds = [k for k in ("literal", "regex") if any(c.service.table.kind == k and any(results.median(c.name, s) is not None for s in systems) for c in cases)]
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.8), squeeze=False, sharey=True)
    for axis, kind in zip(axes[0], kinds):
        for s in systems:
            points = [(c.service.table.count, results.median(c.name, s), results.usable(c.name, s)) for c in cases if c.service.table.kind == kind]
            points = [p for p in points if p[1] is not None]
            if points:
                x, y, all_values = zip(*points)
                axis.plot(x, y, marker="o", color=COLORS[s], label=BY_NAME[s].title, linewidth=2)
                axis.fill_between(x, [min(v) for v in all_values], [max(v) for v in all_values], color=COLORS[s], alpha=0.15)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([10, 1000, 10000, 100000], ["10", "1,000", "10,000", "100,000"])
        axis.set_xlabel("routes, 1,000 a virtual host")
        axis.set_title({"literal": "prefixes", "regex": "regular expressions"}[kind], fontsize=10)
        axis.yaxis.set_major_formatter(lambda v, _: short(v))
    axes[0][0].set_ylabel("requests/s")
    axes[0][-1].legend(fontsize=8, frameon=False, loc="best")
    return save(figure, folder, "routes", note)


def ratios(cases, results, folder, note):
    """Millrace against each peer, all cases of throughput in one picture."""
    import matplotlib.pyplot as plt
    cases = [c for c in cases if c.kind == "throughput" and results.median(c.name, "millrace")]
    peers = [s for s in ("nginx", "haproxy", "envoy") if any(results.median(c.name, s) for c in cases)]
    if not cases or not peers:
        return []
    figure, axis = plt.subplots(figsize=(7.5, 1.5 + 0.44 * len(cases)))
    height, least = 0.8 / len(peers), 1.0
    for i, c in enumerate(cases):
        for j, s in enumerate(peers):
            other = results.median(c.name, s)
            if not other:
                continue
            r = results.median(c.name, "millrace") / other
            y = len(cases) - 1 - i + (len(peers) / 2 - j - 0.5) * height
            axis.barh(y, r, height=height * 0.92, color=COLORS[s], label=BY_NAME[s].title if i == 0 else None)
            least = min(least, r)
            axis.annotate(f"{r:.1f}×", (r, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.axvline(1, color="#333333", linewidth=1)
    axis.set_yticks(range(len(cases)), [c.name for c in reversed(cases)], fontsize=8)
    axis.set_xlabel("Millrace's figure as a multiple of the peer's, one core each")
    axis.grid(axis="y", visible=False)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.set_xlim(left=0.7 * least)
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:g}×")
    handles = {}
    for h, label in zip(*axis.get_legend_handles_labels()):
        handles.setdefault(label, h)
    axis.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(peers))
    return save(figure, folder, "ratios", note)
