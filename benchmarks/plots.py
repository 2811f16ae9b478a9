"""Draw the plots of the documentation, from the result files alone.

Whiskers go from the lowest to the highest round. Needs matplotlib.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from harness import HERE, RESULTS, text
from results import Row, load, rows

mpl.use("svg")
import matplotlib.pyplot as plt

IMAGES = HERE.parent / "docs" / "images"
# Okabe and Ito's palette: told apart by colour-blind readers, too.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999"]
STYLE = {
    "svg.hashsalt": "benchmarks",  # the same file for the same figures
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {COLOURS})",
    "figure.constrained_layout.use": True,
}


def draw(results: Path, images: Path) -> list[str]:
    """Draw everything for which there are results; return the names of the files."""
    drawn = []
    with mpl.rc_context(STYLE):
        for name, (script, plot) in PLOTS.items():
            document = load(results, script)
            if document is None:
                continue
            figure, axes = plt.subplots(figsize=(7.5, 4))
            if plot(axes, document):
                images.mkdir(parents=True, exist_ok=True)
                figure.savefig(images / f"{name}.svg", metadata={"Date": None})
                drawn.append(name)
            plt.close(figure)
    return drawn


def bars(axes: Any, found: list[Row], label: Callable[[Row], str], colour: str = "backend") -> bool:
    """Draw horizontal bars of medians, the first row at the top."""
    kinds = list(dict.fromkeys(row.get(colour, "") for row in found))
    for place, row in enumerate(found):
        low, high = min(row["rounds"]), max(row["rounds"])
        middle = row["median"]
        whisker = [[max(0, middle - low)], [max(0, high - middle)]]
        shade = COLOURS[kinds.index(row.get(colour, "")) % len(COLOURS)]
        axes.barh(place, middle, xerr=whisker, color=shade, height=0.7, ecolor="#444444")
        axes.annotate(f" {text(middle)}", (high, place), va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [label(row) for row in found])
    axes.invert_yaxis()
    return bool(found)


def lines(axes: Any, found: list[Row], x: str, of: str, y: str = "median") -> bool:
    """Draw one line for each value of the column `of`."""
    for name in dict.fromkeys(row[of] for row in found):
        chosen = [row for row in found if row[of] == name and y in row]
        axes.plot([row[x] for row in chosen], [row[y] for row in chosen], marker="o", label=name)
    axes.legend(frameon=False)
    return bool(found)


def throughput(axes: Any, document: dict[str, Any]) -> bool:
    """Draw no-ops per second by workers and enqueuing processes."""
    axes.set(title="No-op tasks per second", xlabel="tasks per second")
    found = rows(document, "no-op tasks", metric="tasks_per_s")
    found.sort(key=lambda row: row["backend"])
    return bars(
        axes, found, lambda r: f"{r['backend']}, {r['workers']} workers, {r['enqueuers']} enqueuing"
    )


def latency(axes: Any, document: dict[str, Any]) -> bool:
    """Draw the way of one task."""
    axes.set(title="One task on an idle backend, from the call of enqueue", xlabel="µs (median)")
    steps = ("enqueue_us", "start_us", "finish_us", "seen_us")
    table = rows(document, "one task at a time, idle")
    found = [row for row in table if row["metric"] in steps]
    return bars(axes, found, lambda r: f"{r['backend']}: {r['metric'].removesuffix('_us')}")


def get_result(axes: Any, document: dict[str, Any]) -> bool:
    """Draw reading processes side by side."""
    axes.set(title="get_result by several processes at once", xlabel="reading processes")
    axes.set_ylabel("reads per second, all together")
    found = rows(document, "several readers beside nothing", metric="reads_per_s")
    axes.set_xticks(sorted({row["readers"] for row in found}))
    drawn = lines(axes, found, "readers", "state")
    axes.set_ylim(bottom=0)
    return drawn


def payload(axes: Any, document: dict[str, Any]) -> bool:
    """Draw return values by size."""
    axes.set(title="Return values: from return to return_value", xscale="log", yscale="log")
    axes.set(xlabel="bytes", ylabel="MB/s")
    return lines(axes, rows(document, "return values", metric="mb_per_s"), "size", "how")


def kept(axes: Any, document: dict[str, Any]) -> bool:
    """Draw growth with the number of kept results."""
    axes.set(title="A full ring: cost relative to the smallest", xscale="log")
    axes.set(xlabel="results kept (MAX_RESULTS)", ylabel="times the smallest ring's")
    costs = ("enqueue_us", "round_trip_us", "read_newest_us", "read_older_us")
    found = [row for row in rows(document, "a full ring") if row["metric"] in costs]
    drawn = lines(axes, found, "kept", "metric", "ratio")
    axes.set_ylim(0, max([2.0, *(1.2 * row.get("ratio", 0) for row in found)]))
    return drawn


def memory(axes: Any, document: dict[str, Any]) -> bool:
    """Draw how much each role uses."""
    axes.set(title="Memory of a site of four web workers", xlabel="MiB (proportional set size)")
    cases: dict[str, float] = {}
    for colour, (metric, what) in enumerate(
        {"web_mib": "web workers", "pool_mib": "pool", "ring_mib": "ring"}.items()
    ):
        found = rows(document, "a site of", metric=metric)
        names = [f"MAX_WORKERS={r['max_workers']}, {r['kept']:,} results kept" for r in found]
        names = [n if r["max_workers"] else r["backend"] for n, r in zip(names, found, strict=True)]
        widths = [row["median"] for row in found]
        left = [cases.get(name, 0.0) for name in names]
        axes.barh(names, widths, left=left, label=what, color=COLOURS[colour], height=0.6)
        cases.update({n: a + b for n, a, b in zip(names, left, widths, strict=True)})
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return bool(cases)


def compared(title: str, table: str, metric: str, unit: str) -> Callable[[Any, Any], bool]:
    """Draw one workload for all contenders, on a logarithmic scale."""

    def plot(axes: Any, document: dict[str, Any]) -> bool:
        axes.set(title=title, xlabel=f"{unit} (logarithmic)", xscale="log")
        found = [r for r in rows(document, table, metric=metric) if r.get("data") != "text"]
        drawn = bars(axes, found, lambda r: str(r["backend"]), colour="")
        if found:
            axes.patches[0].set_color(COLOURS[2])
            axes.margins(x=0.2)
        return drawn

    return plot


BURST = compared("A burst of no-ops", "a burst of no-ops", "tasks_per_s", "tasks per second")
TRIP = compared("One no-op at a time", "one no-op at a time", "round_trip_us", "µs")
READ = compared("Reading it in another process", "reading it in", "read_us", "µs")

PLOTS: dict[str, tuple[str, Callable[[Any, dict[str, Any]], bool]]] = {
    "bench-throughput": ("throughput", throughput),
    "bench-latency": ("latency", latency),
    "bench-get-result": ("get_result", get_result),
    "bench-payload": ("payload", payload),
    "bench-scaling": ("scaling", kept),
    "bench-memory": ("memory", memory),
    "bench-compare-burst": ("compare", BURST),
    "bench-compare-trip": ("compare", TRIP),
    "bench-compare-read": ("compare", READ),
}


def main() -> None:
    """Draw all plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    args = parser.parse_args()
    for name in draw(args.results, args.images):
        print(args.images / f"{name}.svg")


if __name__ == "__main__":
    main()
