"""Many tasks by `enqueue_many`, and by as many calls of `enqueue`: the time of each task.

No-ops, while two workers run them; the clock stops when all are enqueued, and the next round
begins when all are done.
"""

from collections.abc import Callable

from actor import Actor
from harness import Bench, Case, Measured
from project import Project, process_pool, thread_pool


def main() -> None:
    """Measure both ways on both backends."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--tasks", 10_000, quick=1000, help="tasks in a round")
    args = bench.start()
    options = {"max_workers": 2, "max_pending": 4 * args.tasks}
    aliases = {"thread": thread_pool(**options), "process": process_pool(**options)}
    with Project(aliases) as project:
        site = project.actor()
        cases = [
            Case({"backend": alias, "way": way}, enqueuing(site, alias, way, args.tasks))
            for alias in aliases
            for way in ("enqueue", "enqueue_many")
        ]
        bench.run(f"{args.tasks:,} tasks", cases, baseline={"way": "enqueue"})


def enqueuing(site: Actor, alias: str, way: str, tasks: int) -> Callable[[], Measured]:
    """Enqueue so many, and wait until they are done."""

    def run() -> Measured:
        took_us: float = site.call("bulks.enqueue", alias=alias, way=way, tasks=tasks)
        site.call("bulks.drain", alias=alias)
        return {"enqueue_us": took_us}

    return run


if __name__ == "__main__":
    main()
