"""What the processes of `wait_and_list.py` do."""

from __future__ import annotations

import threading
import time
from typing import Any

from bench_tasks import nap, noop
from django_tasks_local import results, wait_finished
from readers import process_backend

LIMIT_S = 60.0
_fed = threading.Event()
_feeders: list[threading.Thread] = []


def late(alias: str, times: int) -> list[float]:
    """How long after the end of a no-op each wait returns, in microseconds."""
    job, found = noop.using(backend=alias), []
    for _ in range(times):
        result = wait_finished(job.enqueue(), LIMIT_S)
        now = time.time()
        assert result.finished_at is not None
        found.append((now - result.finished_at.timestamp()) * 1e6)
    return found


def core_share(alias: str, seconds: float) -> float:
    """The share of a core that this process uses while it waits, in percent."""
    result = nap.using(backend=alias).enqueue(seconds)
    begin, used = time.monotonic(), time.process_time()
    wait_finished(result, LIMIT_S)
    return 100 * (time.process_time() - used) / (time.monotonic() - begin)


def fill(alias: str, count: int) -> None:
    """Run no-ops until so many results are kept."""
    job, ring = noop.using(backend=alias), process_backend(alias).site().ring
    while (missing := count - ring.counts().kept) > 0:
        for _ in range(min(missing, 5000)):
            job.enqueue()
        while ring.upkeep.waiting():
            time.sleep(0.01)


def feed(alias: str) -> None:
    """Keep the workers busy from a thread, until `stop_feeding`."""
    _fed.clear()
    job, ring = noop.using(backend=alias), process_backend(alias).site().ring

    def go_on() -> None:
        while not _fed.is_set():
            for _ in range(100 if ring.upkeep.waiting() < 200 else 0):
                job.enqueue()
            time.sleep(0.001)

    _feeders.append(threading.Thread(target=go_on, daemon=True))
    _feeders[-1].start()


def stop_feeding() -> None:
    """End what `feed` has begun."""
    _fed.set()
    _feeders.pop().join()


def lists(alias: str, times: int, **asked: Any) -> dict[str, list[float]]:
    """How long lists take, and how much of that on the processor, in milliseconds."""
    list_ms, cpu_ms = [], []
    for _ in range(times):
        begin, used = time.perf_counter(), time.process_time()
        results(alias, **asked)
        list_ms.append((time.perf_counter() - begin) * 1000)
        cpu_ms.append((time.process_time() - used) * 1000)
    return {"list_ms": list_ms, "cpu_ms": cpu_ms}
