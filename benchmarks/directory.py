"""A ring in a directory on a disk: what it costs, also with SYNC, beside queues on SQLite.

All run side by side in one set of interleaved rounds, two workers each, on the same disk. Both
queues run as their documentation advises: huey by its defaults, with which SQLite waits for the
disk at each commit; django-tasks-db with a write-ahead log that does so now and then. In the second
table the kernel is made to write everything back all the time, which by itself it does every five
seconds.
"""

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare import bursts
from harness import HERE, Bench, Case, Measured
from project import NAMESPACE, destroy, process_pool
from rivals import WORKERS, Rival, django, on_database, on_huey
from venvs import Venv

MEMORY = "/dev/shm"
DISK = "a directory"
SYNCED = "a directory, SYNC"
HUEY = "huey on SQLite"
BUSY = "the same while the kernel writes back"
PAUSE_S = 0.05  # between two ends of writing back


def main() -> None:
    """Measure bursts, with the disk at rest and busy."""
    bench = Bench(__file__, __doc__, rounds=7)
    bench.option("--tasks", 4000, quick=400, help="no-ops in a burst")
    bench.option("--where", str(HERE), quick=str(HERE), help="a directory on the disk")
    args = bench.start()
    with tempfile.TemporaryDirectory(dir=args.where) as name:
        ours, others = our_rivals(Path(name)), other_rivals(Path(name))
        try:
            for rival in (*ours, *others):
                rival.start()
            cases = [
                Case({"where": each.name}, bursts(each, args.tasks), error=each.error)
                for each in (*ours, *others)
            ]
            bench.run("a burst of no-ops", cases, baseline={"where": MEMORY})
            cases = [
                Case({"where": each.name}, busily(each, args.tasks, name), error=each.error)
                for each in ours
            ]
            bench.run(BUSY, cases, baseline={"where": MEMORY})
        finally:
            for rival in (*ours, *others):
                rival.stop()
            for rival in ours:
                destroy(rival.env)


def our_rivals(folder: Path) -> list[Rival]:
    """Return this package in memory, in a directory, and waiting for the disk."""
    options = {"max_workers": WORKERS, "max_results": 10_000}
    places: dict[str, dict[str, Any]] = {
        MEMORY: {},
        DISK: {"directory": str(folder)},
        SYNCED: {"directory": str(folder), "sync": True},
    }
    return [
        django(name, process_pool(namespace=f"{NAMESPACE}-{number}", **options, **more))
        for number, (name, more) in enumerate(places.items())
    ]


def other_rivals(folder: Path) -> list[Rival]:
    """Return the queues on SQLite; those that cannot run carry the reason."""
    venv = Venv("others", ["django-tasks-db", "huey"])
    found = [on_database(folder, venv), on_huey(HUEY, str(folder / "huey.db"), venv)]
    for rival in found:
        rival.error = venv.missing.get(rival.needs, "")
    return found


def busily(rival: Rival, tasks: int, folder: str) -> Callable[[], Measured]:
    """Measure a burst while all that is written goes to the disk at once."""
    measure = bursts(rival, tasks)

    def run() -> Measured:
        ended = threading.Event()

        def write_back() -> None:
            while not ended.wait(PAUSE_S):
                for entry in os.scandir(folder):
                    if entry.name.startswith("dtl-"):
                        fd = os.open(entry.path, os.O_RDONLY)
                        os.fsync(fd)
                        os.close(fd)

        writer = threading.Thread(target=write_back)
        writer.start()
        try:
            return measure()
        finally:
            ended.set()
            writer.join()

    return run


if __name__ == "__main__":
    main()
