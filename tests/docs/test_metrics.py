"""The metrics that pages and the dashboard name are those of the collector."""

import json
import re

from django_tasks_local.contrib.prometheus import METRICS, OTHERS
from django_tasks_local.ring.format import layout, tally
from tests.docs.pages import DOCS, PAGES, read, rows

REFERENCE = DOCS / "reference" / "metrics.md"
DASHBOARD = DOCS / "grafana" / "tasks.json"


def test_the_reference_has_every_metric() -> None:
    """Name, type, labels and meaning, in the order of the code."""
    documented = [row for row in rows(read(REFERENCE)) if row[0].startswith("`django_tasks_")]
    assert documented == [
        [f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text]
        for name, (kind, labels, text) in METRICS.items()
    ]


def test_the_reference_has_the_buckets_and_bounds() -> None:
    """Upper bounds of the buckets, outcomes, and how many names there are room for."""
    text = read(REFERENCE)
    *most, last = map(str, tally.BOUNDS_S)
    assert f"end at {', '.join(most)} and {last} seconds" in text
    assert f"A ring tells {layout.TALLIES - tally.FIRST_NAMED} pairs" in text
    assert f"more than {tally.NAME_BYTES - 1} bytes" in text
    assert f"`{OTHERS}`" in text
    outcomes = [row[0].strip("`") for row in rows(text) if len(row) == 2]
    assert outcomes == [each for each in tally.OUTCOMES if each != "retried"]


def test_every_metric_that_is_named_exists() -> None:
    """In the queries of the dashboard, in alerts, and in any page."""
    dashboard = json.loads(read(DASHBOARD))
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    assert len(queries) >= len(dashboard["panels"]) > 10
    assert all("django_tasks_" in query for query in queries)
    texts = [read(DASHBOARD), *map(read, PAGES)]
    named = set(re.findall(r"\bdjango_tasks_(?!local)\w+", "\n".join(texts)))
    known = set(METRICS)
    for name, (kind, _, _) in METRICS.items():
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    assert named <= known
    assert len(named & known) >= len(METRICS)
