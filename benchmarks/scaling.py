"""Does anything grow? The same operations with more kept results, and with more waiting tasks.

First table: the ring holds MAX_RESULTS finished results, so every new task evicts one. Second
table: so many tasks are waiting, with every worker busy; `drained_per_s` is the rate at which the
next thousand of them run. The ratio is to the smallest size.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actor import Actor
from harness import Bench, Case, Measured, progress, us
from project import Project, process_pool

MOST_PENDING = 1_000_000  # that MAX_PENDING may be
SMALLEST_SLOT = 256  # a million slots of the default 1 KiB would be 1 GiB of memory


def main() -> None:
    """Measure by MAX_RESULTS, then by the length of the queue."""
    bench = Bench(__file__, __doc__, rounds=5)
    sizes = [1000, 10_000, 100_000, 1_000_000]
    bench.option("--sizes", sizes, quick=[1000, 5000], help="results kept")
    queues = [10, 1000, 10_000, 100_000, MOST_PENDING - 10_000]
    bench.option("--queues", queues, quick=[10, 2000], help="tasks waiting")
    bench.option("--tasks", 1000, quick=200, help="tasks in a round")
    args = bench.start()
    full_rings(bench, args.sizes, args.tasks)
    long_queues(bench, args.queues, args.tasks)


def full_rings(bench: Bench, sizes: list[int], tasks: int) -> None:
    """Measure full rings of different sizes side by side."""
    aliases = {
        str(size): process_pool(max_workers=2, max_results=size, slot_size=SMALLEST_SLOT)
        for size in sizes
    }
    with Project(aliases) as project:
        site = project.actor()
        for size in sizes:
            progress(f"filling a ring with {size} results")
            site.call("growth.fill", alias=str(size), size=size)
        cases = [
            Case({"kept": size}, one_round(site, "growth.full_ring", alias=str(size), tasks=tasks))
            for size in sizes
        ]
        bench.run("a full ring", cases, baseline={"kept": sizes[0]})


def long_queues(bench: Bench, sizes: list[int], tasks: int) -> None:
    """Measure queues of different lengths side by side, while their only worker is held."""
    options = {"max_workers": 1, "max_pending": MOST_PENDING, "slot_size": SMALLEST_SLOT}
    # What is left of the queue when all is measured need not be drained.
    aliases = {str(size): process_pool(drain_timeout=1, **options) for size in sizes}
    with Project(aliases) as project, tempfile.TemporaryDirectory() as folder:
        site = project.actor()
        cases = []
        for size in sizes:
            progress(f"filling a queue with {size} tasks")
            queue: dict[str, Any] = {
                "alias": str(size),
                "gate": str(Path(folder) / str(size)),
                "length": size,
            }
            site.call("growth.lengthen", **queue)
            cases.append(
                Case({"waiting": size}, one_round(site, "growth.long_queue", tasks=tasks, **queue))
            )
        bench.run("a long queue", cases, baseline={"waiting": sizes[0]})


def one_round(site: Actor, call: str, **arguments: str | int) -> Callable[[], Measured]:
    """Convert spans to microseconds; leave rates as they are."""

    def run() -> Measured:
        return {
            name: us(values) if isinstance(values, list) else values
            for name, values in site.call(call, **arguments).items()
        }

    return run


if __name__ == "__main__":
    main()
