"""What stands in the way: the parts of a task's cost that are not this package's to save.

What Django does for every task whatever its backend (the way to it and the signal of `enqueue`,
the two log records of the default logging), what the kernel takes to wake a process, and what it
costs to move 16 MiB. No backend that keeps Django's signals and stores results for other
processes can be faster than Django's and Python's lines together.
"""

from collections.abc import Callable

from actor import Actor
from harness import Bench, Case, Measured, us
from project import Project, process_pool


def main() -> None:
    """Measure each part alone, in a process that is set up as a web worker is."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--times", 2000, quick=200, help="calls in a round")
    bench.option("--mib", 16, quick=4, help="size of what is copied")
    args = bench.start()
    nothing = {"BACKEND": "floor_parts.StoresNothing"}
    with Project({"nothing": nothing, "process": process_pool()}) as project:
        site = project.actor()
        parts = {
            "Django": ("enqueue", "log_records"),
            "Python": ("pickle_small", "unpickle_small"),
            "our lock": ("empty_operation",),
            "the kernel": ("wake_up", "sleep_20_us"),
        }
        cases = [
            Case({"whose": whose, "part": part.replace("_", " ")}, calls(site, part, args.times))
            for whose, names in parts.items()
            for part in names
        ]
        bench.run("one call", cases)
        names = ("copy_to_present_pages", "copy_to_fresh_pages", "crc32", "pickle_bytes")
        cases = [Case({"part": n.replace("_", " ")}, moves(site, n, args.mib)) for n in names]
        bench.run(f"{args.mib} MiB", cases)


def calls(site: Actor, part: str, times: int) -> Callable[[], Measured]:
    """Measure one part, call by call."""
    return lambda: {"call_us": us(site.call(f"floor_parts.{part}", times=times))}


def moves(site: Actor, part: str, mib: int) -> Callable[[], Measured]:
    """Measure one way of moving a large payload."""
    return lambda: {"ms": [s / 1e6 for s in site.call(f"floor_parts.{part}", mib=mib)]}


if __name__ == "__main__":
    main()
