"""Read what the benchmarks have written; plots and the report use nothing else."""

import json
from pathlib import Path
from typing import Any

type Row = dict[str, Any]

NOT_PARAMS = {"table", "metric", "error", "median", "p50", "p90", "p99", "min", "max"}
NOT_PARAMS |= {"calls", "rounds", "ratio"}


def load(folder: Path, script: str) -> dict[str, Any] | None:
    """Return head and rows of one script, None where it was not run."""
    path = folder / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else None


def rows(document: dict[str, Any], table: str, **wanted: Any) -> list[Row]:
    """Return the rows of a table whose columns have these values, without those that did not run.

    Args:
        document: As from `load`.
        table: The beginning of the table's name.
        wanted: Columns, `metric` among them.
    """
    return [
        row
        for row in document["rows"]
        if row["table"].startswith(table)
        and not row.get("error")
        and all(row.get(column) == value for column, value in wanted.items())
    ]


def tables(document: dict[str, Any]) -> dict[str, list[Row]]:
    """Return all rows by table, in the order of the run."""
    found: dict[str, list[Row]] = {}
    for row in document["rows"]:
        found.setdefault(row["table"], []).append(row)
    return found


def params(row: Row) -> dict[str, Any]:
    """Return what makes this row's case different from its neighbours."""
    return {key: value for key, value in row.items() if key not in NOT_PARAMS}
