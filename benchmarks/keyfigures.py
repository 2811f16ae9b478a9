"""The few figures that the package is judged by, taken out of the result files."""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from directory import BUSY, DISK, HUEY, MEMORY, SYNCED
from harness import text
from results import rows
from rivals import OURS, OURS_UNLOGGED, POOL

THREADS = "ThreadPoolBackend"
UPSTREAM = "upstream 2.0 "

type Document = dict[str, Any]


def key_figures(documents: dict[str, Document | None]) -> Iterator[str]:
    """Return the section, empty where nothing has been run."""
    lines = []
    for what, goal, script, figure in FIGURES:
        document = documents.get(script)
        try:
            found = figure(document) if document else "not run"
        except (LookupError, ValueError):
            found = "not measured"
        lines.append(f"| {what} | {goal} | {found} |")
    yield "## In short\n"
    yield "The goals are for two cores and two workers.\n"
    yield "\n".join(["| what | goal | measured |", "|---|---|---|", *lines]) + "\n"


def value(document: Document, table: str, column: str = "median", **wanted: Any) -> float:
    """Return one number of one row.

    Raises:
        IndexError: There is none.
    """
    return float(rows(document, table, **wanted)[0][column])


def against(
    table: str, metric: str, ours: str, theirs: str, *, more: bool = False,
    among: str = "backend", **wanted: Any,
) -> Callable[[Document], str]:  # fmt: skip
    """Return ours and theirs, which differ in a column, and their ratio within the rounds."""

    def figure(document: Document) -> str:
        mine = rows(document, table, metric=metric, **{among: ours}, **wanted)[0]
        other = rows(document, table, metric=metric, **{among: theirs}, **wanted)[0]
        ratio = median(a / b for a, b in zip(mine["rounds"], other["rounds"], strict=False))
        times = f"{ratio:.1f} ×" if more else f"{ratio:.2f} ×"
        return f"{times} ({text(mine['median'])} to {text(other['median'])})"

    return figure


def read_older(document: Document) -> str:
    """Return the time in another process, and the same as a multiple of the floor."""
    read = {"metric": "read_us", "reader": "another process"}
    newest = {"backend": OURS, "state": "finished, newest"} | read
    spent = value(document, "one reader", **newest)
    ratio = value(document, "one reader", "ratio", **newest)
    older = value(document, "one reader", state="finished, older", **read)
    return f"{text(spent)} µs, {ratio:.1f} × (older ones {text(older)} µs)"


def growth(document: Document) -> str:
    """Return the worst ratio among the costs of the largest ring."""
    metrics = ("enqueue_us", "round_trip_us", "read_newest_us", "read_older_us")
    table = [row for row in rows(document, "a full ring") if row["metric"] in metrics]
    largest = max(row["kept"] for row in table)
    worst = max((row["ratio"], row["metric"]) for row in table if row["kept"] == largest)
    return f"{worst[0]:.2f} × at {largest:,} (`{worst[1]}`)"


def idle_cpu(document: Document) -> str:
    """Return the CPU of the whole site, and of the same site without this package."""
    metric = {"metric": "idle_cpu_percent"}
    bare = value(document, "a site of", backend="ImmediateBackend", **metric)
    ours = value(document, "a site of", backend=OURS, max_workers=4, kept=0, **metric)
    return f"{ours:.2f} % of a core; {bare:.2f} % of it are gunicorn's own"


def slowest_on_disk(document: Document) -> str:
    """Return what all but one of a hundred `enqueue` take while the kernel writes back."""
    spent_us = value(document, BUSY, "p99", where=DISK, metric="enqueue_us")
    return f"{text(spent_us / 1e3)} ms"


def milliseconds(table: str, column: str = "median", **wanted: Any) -> Callable[[Document], str]:
    """Return one number that is measured in milliseconds."""
    return lambda document: f"{text(value(document, table, column, **wanted))} ms"


RUN = "a burst of no-ops"
PROCESS: dict[str, Any] = {"backend": "process"}
LARGE: dict[str, Any] = {"more": True, "data": "bytes"}
FIGURES: list[tuple[str, str, str, Callable[[Document], str]]] = [
    (
        "No-ops per second, to upstream's ProcessPoolBackend",
        "≥ 3.5 ×",
        "compare",
        against(RUN, "tasks_per_s", OURS, f"{UPSTREAM}{OURS}", more=True),
    ),
    (
        "the same, without Django's log records",
        "≥ 4.5 ×",
        "compare",
        against(RUN, "tasks_per_s", OURS_UNLOGGED, f"{UPSTREAM}{OURS}", more=True),
    ),
    (
        "CPU of a no-op, to `multiprocessing.Pool.imap_unordered`",
        "≤ 2.2 ×",
        "compare",
        against(RUN, "cpu_per_task_us", OURS, POOL, more=True),
    ),
    (
        "the same, without Django's log records",
        "≤ 1.8 ×",
        "compare",
        against(RUN, "cpu_per_task_us", OURS_UNLOGGED, POOL, more=True),
    ),
    (
        "`enqueue` in a burst, to ImmediateBackend running the no-op inline (median call)",
        "≤ 0.4 ×",
        "compare",
        against(RUN, "enqueue_us", OURS, "ImmediateBackend"),
    ),
    (
        "the same, the mean of all calls",
        "≤ 0.4 ×",
        "compare",
        against(RUN, "enqueue_mean_us", OURS, "ImmediateBackend"),
    ),
    (
        "the mean, to upstream's",
        "≤ 0.55 ×",
        "compare",
        against(RUN, "enqueue_mean_us", OURS, f"{UPSTREAM}{OURS}"),
    ),
    (
        "Round trip of one task when idle, to upstream's",
        "≤ 0.7 ×",
        "compare",
        against("one no-op", "round_trip_us", OURS, f"{UPSTREAM}{OURS}"),
    ),
    (
        "`get_result` in another process, to constructing Django's `TaskResult`",
        "≤ 10 µs and ≤ 1.3 ×",
        "get_result",
        read_older,
    ),
    (
        "the ring's own share of that",
        "≤ 3 µs",
        "get_result",
        lambda d: f"{text(value(d, 'one reader', backend='the ring alone'))} µs",
    ),
    (
        "16 MiB result of bytes, `return` to `return_value`: upstream's time to ours",
        "≥ 3 ×",
        "compare",
        against("a result of", "return_to_value_ms", f"{UPSTREAM}{OURS}", OURS, **LARGE),
    ),
    (
        "ThreadPoolBackend's no-ops per second, to upstream's",
        "≥ 1 ×",
        "compare",
        against(RUN, "tasks_per_s", THREADS, f"{UPSTREAM}{THREADS}", more=True),
    ),
    (
        "ThreadPoolBackend's `enqueue` (mean), to upstream's",
        "≤ 1 ×",
        "compare",
        against(RUN, "enqueue_mean_us", THREADS, f"{UPSTREAM}{THREADS}"),
    ),
    ("Growth of any cost from 1,000 to 1,000,000 kept results", "≤ 1.2 ×", "scaling", growth),
    (
        "First task on a cold host",
        "≤ 500 ms",
        "latency",
        milliseconds("first task", metric="seen_ms"),
    ),
    ("CPU of an idle site, four web workers and four pool workers", "< 0.1 %", "memory", idle_cpu),
    (
        "After a kill of the lock's holder, the next one is inside (99 %)",
        "≤ 50 ms",
        "recovery",
        milliseconds("lock holder", "p99", records=100),
    ),
    (
        "Rebuild of a ring with 10,000 records",
        "≤ 100 ms",
        "recovery",
        milliseconds("rebuild", records=10_000),
    ),
    (
        "Pool worker killed: the next task starts in a new one",
        "≤ 100 ms",
        "recovery",
        milliseconds("processes", killed="pool worker", metric="next_task_starts_ms"),
    ),
    (
        "Pool killed: a worker of a new pool answers",
        "≤ 2,000 ms",
        "recovery",
        milliseconds("processes", killed="pool", metric="new_worker_answers_ms"),
    ),
    (
        "`enqueue_many` of 10,000 tasks, to as many `enqueue` (each task)",
        "≤ 0.33 ×",
        "bulk",
        against("10,000 tasks", "enqueue_us", "enqueue_many", "enqueue", among="way", **PROCESS),
    ),
    (
        "`wait_finished` returns after the end of a no-op",
        "≤ 1 ms",
        "wait_and_list",
        lambda d: f"{text(value(d, 'waiting', metric='late_us', **PROCESS) / 1e3)} ms",
    ),
    (
        "CPU of a process that waits",
        "< 1 %",
        "wait_and_list",
        lambda d: f"{value(d, 'waiting', metric='core_percent', **PROCESS):.2f} % of a core",
    ),
    (
        "`results()`: the first 100 of 100,000 records, beside two busy workers",
        "≤ 50 ms",
        "wait_and_list",
        milliseconds("lists of", metric="list_ms", list="first 100", beside="2 busy workers"),
    ),
    (
        "No-ops per second with the ring in a directory, to `/dev/shm`",
        "≥ 0.7 ×",
        "directory",
        against(RUN, "tasks_per_s", DISK, MEMORY, among="where"),
    ),
    (
        "the same with `SYNC`, to huey on SQLite with its default durability",
        "≥ 3 ×",
        "directory",
        against(RUN, "tasks_per_s", SYNCED, HUEY, more=True, among="where"),
    ),
    (
        "`enqueue` in a directory while the kernel writes back (99 %)",
        "< 5 ms",
        "directory",
        slowest_on_disk,
    ),
]
