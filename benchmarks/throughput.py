"""Tasks per second: no-ops and CPU work, by workers, enqueuing processes and backend.

Every enqueuing process sends its share as fast as it can; the clock stops when the last of them
has seen its last task finished. Threads share one interpreter lock, so ThreadPoolBackend is not
expected to gain from workers here; and it has a pool per process, ProcessPoolBackend one per host.
The CPU is that of all processes, the site's and the pool's, as the kernel's scheduler counts it.
"""

from collections.abc import Callable, Sequence

from actor import Actor, together
from harness import Bench, Case, Measured
from procs import Cpu
from project import NAMESPACE, Project, process_pool, thread_pool


def main() -> None:
    """Measure every combination of backend, workers, enqueuers and work."""
    bench = Bench(__file__, __doc__, rounds=5)
    bench.option("--tasks", 4000, quick=400, help="no-ops in a burst; CPU tasks in proportion")
    bench.option("--workers", [1, 2, 4], quick=[2], help="numbers of workers")
    bench.option("--enqueuers", [1, 2, 4], quick=[1, 2], help="numbers of enqueuing processes")
    bench.option("--cpu-ms", [0.0, 1.0, 10.0], quick=[0.0, 1.0], help="CPU time of a task")
    args = bench.start()
    aliases = {}
    for workers in args.workers:
        options = {"max_workers": workers, "max_results": 10_000, "max_pending": 100_000}
        aliases[f"ThreadPool {workers}"] = thread_pool(**options)
        aliases[f"ProcessPool {workers}"] = process_pool(**options)
    with Project(aliases) as project:
        actors = [project.actor() for _ in range(max(args.enqueuers))]
        for cpu_ms in args.cpu_ms:
            # About as long as the no-ops take, so that no table needs minutes.
            tasks = int(args.tasks / (1 + 10 * cpu_ms))
            cases = [
                Case(
                    {"backend": alias.split()[0], "workers": workers, "enqueuers": enqueuers},
                    bursts(actors[:enqueuers], alias, tasks, cpu_ms),
                )
                for workers in args.workers
                for enqueuers in args.enqueuers
                for alias in (f"ThreadPool {workers}", f"ProcessPool {workers}")
            ]
            title = f"tasks of {cpu_ms:g} ms CPU" if cpu_ms else "no-op tasks"
            first = {"workers": args.workers[0], "enqueuers": args.enqueuers[0]}
            bench.run(title, cases, baseline=first)


def bursts(
    actors: Sequence[Actor], alias: str, tasks: int, cpu_ms: float
) -> Callable[[], Measured]:
    """Run a burst shared out among `actors`."""

    def run() -> Measured:
        share = max(1, tasks // len(actors))
        cpu = Cpu(NAMESPACE)
        answers = together(actors, "workloads.burst", alias=alias, tasks=share, cpu_ms=cpu_ms)
        tasks_run = share * len(actors)
        return {
            "tasks_per_s": tasks_run / max(answer["seconds"] for answer in answers),
            "cpu_per_task_us": cpu.per_task_us(tasks_run),
        }

    return run


if __name__ == "__main__":
    main()
