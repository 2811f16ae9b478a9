"""`wait_finished` and `results()`: how late a waiter wakes, what a wait and a list cost.

`late_us` runs from the end of the task, as its record has it, to the return of `wait_finished` in
the process that waits. The lists are the first hundred of 100,000 records, with all workers idle
and while two workers go on; `cpu_ms` is what the reading process spends on one.
"""

from collections.abc import Callable

from actor import Actor
from harness import Bench, Case, Measured
from project import Project, process_pool, thread_pool


def main() -> None:
    """Measure waits, then lists."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--times", 200, quick=30, help="waits in a round")
    bench.option("--seconds", 2.0, quick=0.5, help="length of the wait whose cost is measured")
    bench.option("--records", 100_000, quick=5000, help="records in the ring")
    args = bench.start()
    options = {"max_workers": 2, "max_results": args.records}
    aliases = {"thread": thread_pool(**options), "process": process_pool(**options)}
    with Project(aliases) as project:
        site, writer = project.actor(), project.actor()
        waits = [
            Case({"backend": alias}, waiting(site, alias, args.times, args.seconds))
            for alias in aliases
        ]
        bench.run("waiting for a no-op, and for a long task", waits)
        site.call("waiters.fill", alias="process", count=args.records)
        cases = [
            Case({"list": name, "beside": beside}, listing(site, asked, busy))
            for beside, busy in {"nothing": None, "2 busy workers": writer}.items()
            for name, asked in LISTS.items()
        ]
        bench.run(f"lists of {args.records:,} records", cases)


LISTS: dict[str, dict[str, str]] = {
    "first 100": {},
    "first 100 finished": {"status": "SUCCESSFUL"},
    "all, none of that task": {"task": "no.such.task"},
}


def waiting(site: Actor, alias: str, times: int, seconds: float) -> Callable[[], Measured]:
    """How late no-ops are seen, and the share of a core that a wait takes."""

    def run() -> Measured:
        late_us: list[float] = site.call("waiters.late", alias=alias, times=times)
        share: float = site.call("waiters.core_share", alias=alias, seconds=seconds)
        return {"late_us": late_us, "core_percent": share}

    return run


def listing(site: Actor, asked: dict[str, str], writer: Actor | None) -> Callable[[], Measured]:
    """A list, alone or while a writer keeps two workers busy."""

    def run() -> Measured:
        if writer is not None:
            writer.call("waiters.feed", alias="process")
        try:
            measured: Measured = site.call("waiters.lists", alias="process", times=10, **asked)
        finally:
            if writer is not None:
                writer.call("waiters.stop_feeding")
        return measured

    return run


if __name__ == "__main__":
    main()
