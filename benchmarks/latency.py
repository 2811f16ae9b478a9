"""The way of one task: enqueue returns, the body starts, the record is finished, a poll sees it.

All times count from the call of `enqueue`. The poller sleeps 20 µs between two looks, which the
kernel turns into about 75 µs: half of that is in `seen_us`, for every backend alike.
ImmediateBackend runs the task inside `enqueue` and is the baseline of the first two tables.
The CPU is that of all processes, the poller's included, as the kernel's scheduler counts it.
"""

import itertools
from collections.abc import Callable
from typing import Any

from actor import Actor
from harness import Bench, Case, Measured, us
from procs import Cpu
from project import NAMESPACE, Project, destroy, environment, process_pool, thread_pool

ALIASES = {
    "ImmediateBackend": "default",
    "ThreadPoolBackend": "thread",
    "ProcessPoolBackend": "process",
}


def main() -> None:
    """Measure enqueue in a burst, single tasks when idle and under load, and the cold start."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--tasks", 3000, quick=300, help="no-ops in a burst")
    bench.option("--times", 200, quick=30, help="round trips in a round")
    bench.option("--rate", 400.0, quick=400.0, help="tasks per second of the load")
    bench.option("--cpu-ms", 1.0, quick=1.0, help="CPU time of each task of the load")
    args = bench.start()
    options = {"max_workers": 2, "max_results": 10_000}
    with Project({"thread": thread_pool(**options), "process": process_pool(**options)}) as project:
        site = project.actor()
        immediate = {"backend": "ImmediateBackend"}
        bench.run("enqueue in a burst", cases(bursts, site, args.tasks), baseline=immediate)
        idle = cases(trips, site, "workloads.round_trips", times=args.times)
        bench.run("one task at a time, idle", idle, baseline=immediate)
        load = {"times": args.times, "tasks_per_s": args.rate, "cpu_ms": args.cpu_ms}
        loaded = cases(trips, site, "workloads.round_trips_under_load", **load)[1:]
        title = f"one task at a time, beside {args.rate:g} tasks/s of {args.cpu_ms:g} ms CPU"
        bench.run(title, loaded)
    bench.run("first task on a cold host", [Case({"backend": "ProcessPoolBackend"}, cold_start)])


def cases(measure: Callable[..., Callable[[], Measured]], *args: Any, **kwargs: Any) -> list[Case]:
    """Return one case for each backend."""
    return [
        Case({"backend": name}, measure(alias, *args, **kwargs)) for name, alias in ALIASES.items()
    ]


def bursts(alias: str, site: Actor, tasks: int) -> Callable[[], Measured]:
    """Measure every call of enqueue in a burst, while the workers are already at work."""

    def run() -> Measured:
        cpu = Cpu(NAMESPACE)
        answer = site.call("workloads.burst", alias=alias, tasks=tasks)
        return {
            "enqueue_us": us(answer["enqueue_ns"]),
            "whole_burst_per_task_us": answer["enqueue_s"] / tasks * 1e6,
            "cpu_per_task_us": cpu.per_task_us(tasks),
        }

    return run


def trips(alias: str, site: Actor, call: str, **arguments: Any) -> Callable[[], Measured]:
    """Measure single tasks, each enqueued when the one before was seen to be finished."""

    def run() -> Measured:
        cpu = Cpu(NAMESPACE)
        answer = site.call(call, alias=alias, **arguments)
        steps: dict[str, Any] = {f"{step}_us": us(spans) for step, spans in answer.items()}
        return steps | {"cpu_per_task_us": cpu.per_task_us(arguments["times"])}

    return run


numbers = itertools.count()


def cold_start() -> Measured:
    """Measure from `enqueue` in a fresh process, without ring and pool, to the result."""
    alias = process_pool(namespace=f"{NAMESPACE}-cold-{next(numbers)}", max_workers=2)
    env = environment({"process": alias})
    try:
        with Actor(env) as site:
            trip = site.call("workloads.round_trips", alias="process", times=1)
    finally:
        destroy(env)
    return {"enqueue_ms": trip["enqueue"][0] / 1e6, "seen_ms": trip["seen"][0] / 1e6}


if __name__ == "__main__":
    main()
