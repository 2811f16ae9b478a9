"""What all benchmarks share: interleaved rounds, percentiles, ratios, tables, result files.

A benchmark is a list of cases. Every round runs each case once, in an order that rotates, so that
a busy neighbour, a warm cache or a throttled core falls on all of them alike; a ratio is taken
within each round and its median over the rounds is reported. One round before the first is warm-up
and is thrown away. There are no averages: a single 20 ms pause would drown a thousand calls.
"""

import argparse
import csv
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import machine

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

type Measured = Mapping[str, float | Sequence[float]]


@dataclass
class Case:
    """One line of a table: what is measured, and the call that measures it.

    `run` returns metrics by name; the unit is the end of the name (`enqueue_us`, `tasks_per_s`).
    A metric is one number per round or a list with one entry per call.
    """

    params: Mapping[str, str | int | float]
    run: Callable[[], Measured]
    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    error: str = ""

    def measure(self, *, keep: bool) -> None:
        """Run once; a case that fails is named in the table and left out of later rounds."""
        try:
            measured = self.run()
        except Exception as error:  # whatever a competitor raises is its own result
            self.error = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
            return
        for metric, values in measured.items() if keep else ():
            one_round = [float(v) for v in values] if isinstance(values, Sequence) else [values]
            self.samples.setdefault(metric, []).append(one_round)


class Bench:
    """One benchmark script: its flags, its cases and where its rows go."""

    def __init__(self, script: str, description: str, *, rounds: int = 7) -> None:
        self.name = Path(script).stem
        self.rows: list[dict[str, Any]] = []
        self._quick: dict[str, Any] = {}
        self._parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
        self._parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
        self._parser.add_argument("--results", type=Path, help="directory of the result files")
        self.option("--rounds", rounds, quick=2, help="rounds that count, after one of warm-up")

    def option(self, flag: str, default: Any, *, quick: Any, help: str) -> None:
        """Add a flag. Lists take several values; `quick` is the default under --quick."""
        kind = type(default[0] if isinstance(default, list) else default)
        several: dict[str, Any] = {"nargs": "+"} if isinstance(default, list) else {}
        self._parser.add_argument(
            flag, type=kind, help=f"{help} (default: {default})", metavar="N", **several
        )
        self._quick[flag.strip("-").replace("-", "_")] = (default, quick)

    def start(self) -> argparse.Namespace:
        """Read the command line and print the head of the report."""
        # An exception ends the rings and processes of the run; a signal alone would not.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.args = self._parser.parse_args()
        for name, (default, quick) in self._quick.items():
            if getattr(self.args, name) is None:
                setattr(self.args, name, quick if self.args.quick else default)
        self.head = machine.describe() | {"command": " ".join(["python", *sys.argv])}
        print(f"# {self.name}")
        for key, value in self.head.items():
            print(f"{key + ':':12} {value}")
        return self.args

    def run(self, table: str, cases: Sequence[Case], *, baseline: Mapping[str, Any] = {}) -> None:
        """Measure all cases in interleaved rounds, print their table and keep its rows.

        Args:
            table: The heading, and the name by which plots find the rows.
            cases: What to measure.
            baseline: The parameters that make a case the one that its neighbours are divided by:
                the case with these values, and all other parameters alike, is 1.00.
        """
        rounds = self.args.rounds
        for number in range(rounds + 1):
            for place in range(len(cases)):
                case = cases[(place + number) % len(cases)]
                if not case.error:
                    what = " ".join(map(str, case.params.values()))
                    progress(f"{table}: round {number}/{rounds}, {what}")
                    case.measure(keep=number > 0)
        progress("")
        self.keep(table, cases, baseline)

    def keep(self, table: str, cases: Sequence[Case], baseline: Mapping[str, Any] = {}) -> None:
        """Turn the samples of `cases` into rows, print and store them."""
        rows = [row for case in cases for row in rows_of(table, case, cases, baseline)]
        self.rows += rows
        print_table(table, rows)
        self.write()

    def write(self) -> None:
        """Write all rows so far: an interrupted run keeps what it has measured."""
        folder = self.args.results or (RESULTS / "quick" if self.args.quick else RESULTS)
        folder.mkdir(parents=True, exist_ok=True)
        document = {"head": self.head | {"load at end": machine.load()}, "rows": self.rows}
        (folder / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with (folder / f"{self.name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def rows_of(
    table: str, case: Case, cases: Sequence[Case], baseline: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one row per metric of a case, or one row with the reason if it could not run."""
    if case.error:
        return [{"table": table, **case.params, "metric": "", "error": case.error}]
    wanted = {**case.params, **baseline}
    base = next((c for c in cases if baseline and c.params == wanted and not c.error), None)
    rows = []
    for metric, rounds in case.samples.items():
        of_rounds = [median(one) for one in rounds]
        calls = sorted(value for one in rounds for value in one)
        row: dict[str, Any] = {
            "table": table,
            **case.params,
            "metric": metric,
            "median": median(of_rounds),
        }
        row |= {f"p{q}": percentile(calls, q) for q in (50, 90, 99)}
        row |= {"min": calls[0], "max": calls[-1], "calls": len(calls), "rounds": of_rounds}
        if base is not None and (others := base.samples.get(metric)):
            theirs = (median(one) for one in others)
            pairs = [(a, b) for a, b in zip(of_rounds, theirs, strict=False) if b]
            if pairs:
                row["ratio"] = median(mine / other for mine, other in pairs)
        rows.append({key: rounded(value) for key, value in row.items()})
    return rows


def percentile(ordered: Sequence[float], q: int) -> float:
    """Return the smallest value that at least `q` percent of the sorted values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)]


def rounded(value: Any) -> Any:
    """Round to four significant digits: no run repeats a higher precision."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as aligned text, cases that could not run with their reason at the end."""
    hidden = {"table", "rounds", "min", "max", "error"}
    good = [row for row in rows if not row.get("error")]
    columns = [key for key in dict.fromkeys(k for row in good for k in row) if key not in hidden]
    lines = [columns] + [[text(row.get(column, "")) for column in columns] for row in good]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n## {title}")
    for line in lines if good else ():
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for row in rows:
        if row.get("error"):
            names = [str(v) for k, v in row.items() if k not in hidden | {"metric"}]
            print(f"could not run: {' '.join(names)}: {row['error']}")


def text(value: Any) -> str:
    """Return a cell: numbers short and without an exponent."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def progress(line: str) -> None:
    """Overwrite the progress line on a terminal; without one, say nothing."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def us(nanoseconds: Sequence[float]) -> list[float]:
    """Convert nanoseconds to microseconds."""
    return [value / 1e3 for value in nanoseconds]


def wait_until(reached: Callable[[], bool], what: str, limit_s: float = 30) -> None:
    """Look every millisecond until `reached()`.

    Raises:
        TimeoutError: It was not within `limit_s`.
    """
    give_up = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {limit_s} s")
        time.sleep(0.001)
