"""The same work by what one would pick instead: pools, queues on SQLite and Redis, bare stores.

All run side by side in one set of interleaved rounds, two workers each, and are idle while it is
another's turn. Ratios are to this package's ProcessPoolBackend: 10 in a column of microseconds is
ten times as slow, 0.1 in a column of tasks per second a tenth as fast. They are not the same thing:
only some of them keep results for other processes, survive a reboot, or run on several hosts. The
CPU is that of all processes of a rival but a Redis server's, as the kernel's scheduler counts it.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from actor import Actor
from contenders.stores import STORES
from harness import HERE, Bench, Case, Measured, us
from procs import Cpu
from project import NAMESPACE, destroy, environment, process_pool
from rivals import OURS, Redis, Rival, all_rivals
from venvs import OTHERS, Venv

MIB = 2**20


def main() -> None:
    """Measure tasks, then bare stores."""
    bench = Bench(__file__, __doc__, rounds=5)
    bench.option("--tasks", 4000, quick=200, help="no-ops in a burst")
    bench.option("--times", 200, quick=20, help="round trips in a round")
    bench.option("--reads", 2000, quick=100, help="get_result calls in a round")
    bench.option("--mib", 16, quick=16, help="size of the large result")
    bench.option("--only", [""], quick=[""], help="words in the names of those to run")
    args = bench.start()
    with tempfile.TemporaryDirectory() as name:
        redis = Redis(Path(name))
        rivals = all_rivals(Path(name), redis)
        for rival in rivals:
            if not rival.error and not any(word in rival.name for word in args.only):
                rival.error = "left out by --only"
        try:
            for rival in rivals:
                rival.start()
            tasks(bench, rivals, args)
        finally:
            for rival in rivals:
                rival.stop()
            redis.stop()
            for rival in rivals[:2]:
                destroy(rival.env)
        stores(bench, Path(name), args)


def tasks(bench: Bench, rivals: list[Rival], args: Any) -> None:
    """Measure tasks: one table for each kind of work."""

    def table(title: str, measure: Callable[..., Callable[[], Measured]], *more: Any) -> None:
        cases = [Case({"backend": r.name}, measure(r, *more), error=r.error) for r in rivals]
        bench.run(title, cases, baseline={"backend": OURS})

    table("a burst of no-ops", bursts, args.tasks)
    table("one no-op at a time", trips, args.times)
    table("reading a finished result where it was enqueued", reads, args.reads, False)
    table("reading it in another process", reads, args.reads, True)
    cases = [
        Case({"backend": r.name, "data": data}, large(r, args.mib, data), error=r.error)
        for r in rivals
        for data in ("bytes", "text")
        if r.takes_bytes or data == "text"
    ]
    bench.run(f"a result of {args.mib} MiB", cases, baseline={"backend": OURS})


def bursts(rival: Rival, count: int) -> Callable[[], Measured]:
    """Measure tasks per second, and the cost of enqueue meanwhile."""

    def run() -> Measured:
        tasks = max(10, int(count * rival.share))
        cpu = Cpu(rival.mark)
        answer = rival.ask("burst", tasks=tasks)
        rival.ask("finished")  # behind all others
        measured: dict[str, Any] = {
            "tasks_per_s": answer["tasks_per_s"],
            "cpu_per_task_us": cpu.per_task_us(tasks + 1),
        }
        if spans := answer["enqueue_ns"]:
            mean_us = sum(spans) / len(spans) / 1e3
            measured |= {"enqueue_us": us(spans), "enqueue_mean_us": mean_us}
        return measured

    return run


def trips(rival: Rival, times: int) -> Callable[[], Measured]:
    """Measure from enqueue to the value, on an idle pool."""

    def run() -> Measured:
        cpu = Cpu(rival.mark)
        spans = rival.ask("round_trips", times=times)
        return {"round_trip_us": us(spans), "cpu_per_task_us": cpu.per_task_us(len(spans))}

    return run


def reads(rival: Rival, times: int, elsewhere: bool) -> Callable[[], Measured]:
    """Measure reading one small result."""

    def run() -> Measured:
        key = rival.ask("finished")
        return {"read_us": us(rival.ask("reads", reader=elsewhere, key=key, times=times))}

    return run


def large(rival: Rival, mib: int, data: str) -> Callable[[], Measured]:
    """Measure a large return value."""

    def run() -> Measured:
        size = mib * MIB
        answer = rival.ask("returned", size_bytes=size, text=data == "text", times=7)
        return {
            "return_to_value_ms": [span / 1e6 for span in answer["transfer"]],
            "round_trip_ms": [span / 1e6 for span in answer["whole"]],
        }

    return run


def stores(bench: Bench, folder: Path, args: Any) -> None:
    """Measure bare stores with a small record and a large one."""
    others = Venv("others", OTHERS)
    # A ring of its own for each round, as the others get a file or a server of their own.
    namespaces = (f"{NAMESPACE}-store-{number}" for number in itertools.count())
    options = {"max_results": 100_000, "shm_size": 2**29}

    def stored(store: str, size: int, times: int) -> Measured:
        python, env = others.python, {"PYTHONPATH": str(HERE)}
        if store not in OTHERS:
            ring = process_pool(namespace=next(namespaces), **options)
            python, env = sys.executable, environment({"default": ring})
        call = {"store": store, "size_bytes": size, "times": times}
        with tempfile.TemporaryDirectory(dir=folder) as place, Actor(env, python) as actor:
            spans = actor.call("contenders.stores.exchange", folder=place, **call)
        return {"write_us": us(spans["write"]), "read_us": us(spans["read"])}

    for title, size, times in (
        ("the store alone, 300 bytes", 300, args.reads),
        (f"the store alone, {args.mib} MiB", args.mib * MIB, 3),
    ):
        cases = [
            Case(
                {"store": store},
                partial(stored, store, size, times),
                error=others.missing.get(store, ""),
            )
            for store in STORES
        ]
        bench.run(title, cases, baseline={"store": "ring"})


if __name__ == "__main__":
    main()
