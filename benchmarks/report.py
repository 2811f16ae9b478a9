"""Write the documentation's page on benchmarks from the result files alone.

The prose of each section is the docstring of its script, so it says what that script does; what
stands before and after the key figures is in `introduction.md` and `conclusions.md`.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import HERE, RESULTS, text
from keyfigures import key_figures
from results import NOT_PARAMS, Row, load, params, tables

IMAGES = HERE.parent / "docs" / "images"
PAGE = HERE.parent / "docs" / "explanation" / "benchmarks.md"
SCRIPTS = {
    "throughput": ("Tasks per second", ["bench-throughput"]),
    "latency": ("The way of one task", ["bench-latency"]),
    "get_result": ("Reading results", ["bench-get-result"]),
    "wait_and_list": ("Waiting and lists", []),
    "bulk": ("Many tasks at once", []),
    "payload": ("Large payloads", ["bench-payload"]),
    "scaling": ("Growth", ["bench-scaling"]),
    "memory": ("Memory, and an idle site", ["bench-memory"]),
    "floors": ("What stands in the way", []),
    "directory": ("A ring on a disk", []),
    "recovery": ("After a kill", []),
    "gunicorn_site": ("A site under gunicorn", []),
    "compare": (
        "What one would pick instead",
        ["bench-compare-burst", "bench-compare-trip", "bench-compare-read"],
    ),
}


def page(results: Path) -> str:
    """Return the whole page."""
    documents = {script: load(results, script) for script in SCRIPTS}
    introduction, conclusions = (
        (HERE / f"{name}.md").read_text() for name in ("introduction", "conclusions")
    )
    parts = [introduction, *key_figures(documents), conclusions]
    for script, (title, plots) in SCRIPTS.items():
        document = documents[script]
        parts.append(f"## {title}\n")
        parts.append(f"{docstring(script)}\n")
        if document is None:
            parts.append(f"Not run yet: `python benchmarks/{script}.py`.\n")
            continue
        parts.append("\n".join(head(document)) + "\n")
        parts += [
            f"![{title}, drawn from the tables below](../images/{plot}.svg)\n"
            for plot in plots
            if (IMAGES / f"{plot}.svg").exists()
        ]
        for table, found in tables(document).items():
            parts.append(f"### {table[0].upper()}{table[1:]}\n")
            parts.append("\n".join(as_markdown(found)) + "\n")
    return "\n".join(parts)


def docstring(script: str) -> str:
    """Return what the script says of itself."""
    return ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text())) or ""


def head(document: dict[str, Any]) -> Iterator[str]:
    """Return on what, with what, and how to do it again."""
    facts = document["head"]
    command = facts["command"].replace("benchmarks/", "")  # whatever it was run from
    yield f"`{command.replace('python ', 'python benchmarks/', 1)}`"
    yield f"at {facts['commit']}, {facts['date']}, on {facts['machine']},"
    yield f"{facts['system']}, with {facts['versions']}."
    yield f"Load {facts['load'].split()[0]} before, {facts['load at end'].split()[0]} after."


def as_markdown(found: list[Row]) -> Iterator[str]:
    """Return a table: parameters, then each metric; what could not run below it."""
    good = [row for row in found if not row.get("error")]
    if good:
        names = list(params(good[0]))
        columns = [*names, "metric", "median", "50 / 90 / 99 %", "ratio"]
        if not any("ratio" in row for row in good):
            columns.pop()
        yield f"| {' | '.join(columns)} |"
        yield f"|{'---|' * (len(names) + 1)}{'--:|' * (len(columns) - len(names) - 1)}"
        for row in good:
            cells = [str(row[name]) for name in names] + [f"`{row['metric']}`", text(row["median"])]
            # One call in a round has no percentiles worth the name.
            several = row["calls"] > len(row["rounds"])
            spread = " / ".join(text(row[q]) for q in ("p50", "p90", "p99")) if several else ""
            cells += [spread, text(row.get("ratio", ""))][: len(columns) - len(cells)]
            yield f"| {' | '.join(cells)} |"
    for row in found:
        if row.get("error"):
            name = " ".join(str(v) for k, v in row.items() if k not in NOT_PARAMS)
            yield f"\nCould not run: {name}: {row['error']}."


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(page(args.results))
    print(args.page)


if __name__ == "__main__":
    main()
