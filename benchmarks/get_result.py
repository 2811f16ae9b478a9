"""`get_result`: from the process that enqueued and from another, alone and beside a writer.

The floor is Django's own `TaskResult`: constructing one from ready-made fields is the baseline of
the first table. Reading the newest finished result, or one that is READY or RUNNING, takes no
lock; reading an older finished one makes it the most recently used, which does.
"""

import tempfile
from collections.abc import Callable, Sequence

from actor import Actor
from harness import Bench, Case, Measured, us
from project import Project, process_pool, thread_pool


def main() -> None:
    """Measure single reads, then readers beside a writer."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--times", 3000, quick=300, help="calls in a round")
    bench.option("--readers", [1, 2, 4], quick=[1, 2], help="numbers of reading processes")
    bench.option("--seconds", 0.5, quick=0.1, help="length of a measurement beside a writer")
    args = bench.start()
    options = {"max_workers": 3, "max_results": 100_000}  # one of them is kept RUNNING
    aliases = {"thread": thread_pool(**options), "process": process_pool(**options)}
    with Project(aliases) as project, tempfile.NamedTemporaryFile() as gate:
        site = project.actor()
        others = [project.actor() for _ in range(max(args.readers))]
        older = site.call("readers.finished", alias="process", count=100)
        states = {
            "READY": site.call("readers.waiting", alias="process"),
            "RUNNING": site.call("readers.running", alias="process", gate=gate.name),
            "finished, newest": site.call("readers.finished", alias="process", count=1),
            "finished, older": older,
        }
        bench.run("one reader", single(site, others[0], states, args.times), baseline=FLOOR)
        writer = project.actor()
        for beside, writing in {"nothing": None, "a writer": writer}.items():
            cases = [
                Case(
                    {"state": state, "readers": readers},
                    crowd(others[:readers], states[state], args.seconds, writing),
                )
                for state in states
                for readers in args.readers
            ]
            first = {"readers": args.readers[0]}
            bench.run(f"several readers beside {beside}", cases, baseline=first)


FLOOR = {"backend": "TaskResult(...) alone", "state": "", "reader": ""}
RING = {"backend": "the ring alone", "state": "finished, newest", "reader": "another process"}


def single(site: Actor, other: Actor, states: dict[str, list[str]], times: int) -> list[Case]:
    """Measure the floor, ThreadPoolBackend, and each state of ProcessPoolBackend twice."""

    def reading(reader: Actor, alias: str, ids: list[str]) -> Callable[[], Measured]:
        return lambda: {
            "read_us": us(reader.call("readers.read", alias=alias, ids=ids, times=times))
        }

    cases = [
        Case(dict(FLOOR), lambda: {"read_us": us(site.call("readers.construct", times=times))})
    ]
    in_threads = site.call("readers.finished", alias="thread", count=100)
    for state, ids in {"finished, newest": in_threads[-1:], "finished, older": in_threads}.items():
        params = {"backend": "ThreadPoolBackend", "state": state, "reader": "enqueued it"}
        cases.append(Case(params, reading(site, "thread", ids)))
    for state, ids in states.items():
        for name, reader in {"enqueued it": site, "another process": other}.items():
            params = {"backend": "ProcessPoolBackend", "state": state, "reader": name}
            cases.append(Case(params, reading(reader, "process", ids)))
    newest = states["finished, newest"]
    ring = {"alias": "process", "ids": newest, "times": times}
    cases.append(Case(dict(RING), lambda: {"read_us": us(other.call("readers.read_ring", **ring))}))
    return cases


def crowd(
    readers: Sequence[Actor], ids: list[str], seconds: float, writer: Actor | None
) -> Callable[[], Measured]:
    """Let all `readers` read at once, each as fast as it can, beside a writer or nothing."""

    def run() -> Measured:
        if writer is not None:
            writer.ask("readers.write_for", alias="process", seconds=seconds * 1.5)
        for reader in readers:
            reader.ask("readers.read_for", alias="process", ids=ids, seconds=seconds)
        answers = [reader.answer() for reader in readers]
        spans = [span for answer in answers for span in answer["spans"]]
        measured: dict[str, float | list[float]] = {
            "reads_per_s": sum(answer["reads_per_s"] for answer in answers),
            "read_us": us(spans),
        }
        if writer is not None:
            measured["written_per_s"] = writer.answer()
        return measured

    return run


if __name__ == "__main__":
    main()
