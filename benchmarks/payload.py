"""Large arguments and return values: bytes from one process to another, MB/s.

`pickle` is the cost that no store can avoid: `dumps` on one side and `loads` on the other, in one
process, protocol 5, no sharing. An argument is timed from the call of enqueue until the body has
it; a return value from `return` in the worker until `return_value` in the reader. Small sizes
therefore show the latency of a task and large ones the copying.
"""

import pickle
import time
from collections.abc import Callable

from actor import Actor
from harness import Bench, Case, Measured, us
from project import Project, process_pool, thread_pool

POOLS = {"ThreadPoolBackend": "thread", "ProcessPoolBackend": "process"}
KIB, MIB = 2**10, 2**20


def main() -> None:
    """Measure both directions by size."""
    bench = Bench(__file__, __doc__, rounds=5)
    sizes = [100, KIB, 16 * KIB, 256 * KIB, 4 * MIB, 16 * MIB, 64 * MIB]
    bench.option("--sizes", sizes, quick=[100, 16 * KIB, 16 * MIB], help="bytes")
    bench.option("--shm-mib", 1024, quick=256, help="SHM_SIZE in MiB")
    args = bench.start()
    options = {"max_workers": 2, "shm_size": args.shm_mib * MIB}
    with Project(
        {"thread": thread_pool(max_workers=2), "process": process_pool(**options)}
    ) as project:
        site = project.actor()
        for name, call in {
            "arguments": "workloads.passed",
            "return values": "workloads.returned",
        }.items():
            cases = []
            for size in args.sizes:
                cases.append(Case({"size": size, "how": "pickle alone"}, pickled(size)))
                for pool, alias in POOLS.items():
                    cases.append(
                        Case({"size": size, "how": pool}, through(site, call, alias, size))
                    )
            bench.run(name, cases, baseline={"how": "pickle alone"})


def repeats(size: int) -> int:
    """Return the calls in a round: many for small payloads, two for the largest."""
    return max(2, min(50, 32 * MIB // size))


def through(site: Actor, call: str, alias: str, size: int) -> Callable[[], Measured]:
    """Send the payload through a pool."""

    def run() -> Measured:
        answer = site.call(call, alias=alias, size_bytes=size, times=repeats(size))
        return rates(size, answer["transfer"])

    return run


def pickled(size: int) -> Callable[[], Measured]:
    """Send the payload through `pickle`, there and back."""
    data = b"x" * size

    def run() -> Measured:
        spans = []
        for _ in range(repeats(size)):
            begin = time.perf_counter_ns()
            pickle.loads(pickle.dumps(data, protocol=5))
            spans.append(time.perf_counter_ns() - begin)
        return rates(size, spans)

    return run


def rates(size: int, spans: list[int]) -> Measured:
    """Return the same spans as times and as megabytes (10^6) per second."""
    return {"transfer_us": us(spans), "mb_per_s": [size * 1e3 / span for span in spans]}


if __name__ == "__main__":
    main()
