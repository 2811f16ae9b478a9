"""Real gunicorn under load, while everything that it consists of is killed at random."""

import http.client
import os
import random
import select
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.process.client import Client, environment, fresh_namespace, reading
from tests.support import LONG_TIMEOUT, Site, wait_for

WORK = "tests.crash.stack_tasks.work"
LOST = "django_tasks_local.exceptions.WorkerLost"
MAX_WORKERS = 4
OPTIONS = {"MAX_WORKERS": MAX_WORKERS, "MAX_RESULTS": 50_000, "MAX_PENDING": 50_000}
ARGS = ["--max-requests", "60", "--max-requests-jitter", "30", "--timeout", "3"]
CHAOS_S = float(os.environ.get("DTL_CHAOS_S", "20"))
SEED = int(os.environ.get("DTL_CHAOS_SEED", "1"))


class Load:
    """Clients that enqueue for as long as they may, and keep the ids that they were given."""

    def __init__(self, client: Client, log: Path, count: int) -> None:
        self._client = client
        self._log = log
        self._stop = threading.Event()
        self.ids: list[str] = []
        self.refused: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        while not self._stop.is_set():
            using: dict[str, object] = {"priority": rng.choice((-5, 0, 0, 5))}
            if rng.random() < 0.2:
                using["run_after_s"] = rng.uniform(0.05, 2.0)
            # A killed web worker answers nothing: the client was given no id.
            with suppress(OSError, http.client.HTTPException, AssertionError):
                status, body = self._client.site.post(
                    "/enqueue",
                    {"task": WORK, "args": [str(self._log), rng.uniform(0, 0.06)], "using": using},
                )
                if status == 200:
                    self.ids += body["ids"]
                else:
                    self.refused[str(body)] += 1
            self._stop.wait(0.02)


class Chaos:
    """Random signals to the processes of a site."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        self._site = client.site
        self._rng = random.Random(seed)
        self.done: Counter[str] = Counter()

    def run(self, for_s: float) -> None:
        """Goes on for so many seconds."""
        actions = {
            "kill a web worker": 25, "kill a pool worker": 40, "kill the pool": 8,
            "hand over": 6, "reload": 5, "terminate a web worker": 6, "time out": 4,
        }  # fmt: skip
        until = monotonic() + for_s
        while monotonic() < until:
            self._act(self._rng.choices(list(actions), list(actions.values()))[0])
            select.select([], [], [], self._rng.uniform(0.02, 0.5))

    def _act(self, what: str) -> None:
        match what:
            case "kill a web worker":
                self._signal(what, self._site.worker_pids(), signal.SIGKILL)
            case "kill a pool worker":
                self._signal(what, self._client.workers(), signal.SIGKILL)
            case "kill the pool":
                self._signal(what, self._client.supervisors(), signal.SIGKILL)
            case "hand over":
                self._signal(what, self._client.supervisors(), signal.SIGTERM)
            case "reload":
                self._signal(what, [self._site.pid], signal.SIGHUP)
            case "terminate a web worker":
                self._signal(what, self._site.worker_pids(), signal.SIGTERM)
            case "time out":
                # This view waits for two more requests to its own process: gunicorn's time-out
                # ends it by SIGABRT.
                threading.Thread(target=self._never_answered, daemon=True).start()
                self.done[what] += 1

    def _signal(self, what: str, pids: list[int], number: int) -> None:
        if pids:
            self._site.kill(self._rng.choice(pids), number)
            self.done[what] += 1

    def _never_answered(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            self._site.get("/handles", 10.0)


def runs_in(log: Path) -> tuple[Counter[str], int]:
    """How often each task started, and how many ran at the same time at most."""
    starts: Counter[str] = Counter()
    events: list[tuple[int, int]] = []
    began: dict[str, int] = {}
    for line in log.read_text().splitlines():
        what, result_id, _, at_ns = line.split()
        if what == "start":
            starts[result_id] += 1
            began[result_id] = int(at_ns)
        else:
            events += [(began[result_id], 1), (int(at_ns), -1)]
    now = most = 0
    for _, step in sorted(events):
        now += step
        most = max(most, now)
    return starts, most


@pytest.mark.time_limit(300 + 3 * CHAOS_S)
def test_everything_is_killed(tmp_path: Path) -> None:
    """Every id that a client was given ends: SUCCESSFUL after one run, or lost after at most one.

    What waits when the whole site is killed runs after the restart, and nobody enqueues it again.
    """
    log = tmp_path / "runs"
    with fresh_namespace() as namespace:
        settings: dict[str, Any] = {
            "settings": "tests.site.settings",
            "env": environment(namespace, **OPTIONS),
            "workers": 4,
            "args": ARGS,
        }
        with Site(**settings) as site:
            client = Client(site, namespace)
            with Load(client, log, 3) as load:
                chaos = Chaos(client, SEED)
                chaos.run(CHAOS_S)
            wait_for(lambda: _enqueue_more(client, load, log), LONG_TIMEOUT)
            site.kill_all()
        with Site(**settings, end_timeout_s=30.0), reading(namespace, **OPTIONS) as backend:
            left = set(load.ids)
            results = {}

            def all_finished() -> bool:
                found = {each: backend.get_result(each) for each in left}
                results.update(found)
                left.difference_update([each for each in left if found[each].is_finished])
                return not left

            wait_for(all_finished, LONG_TIMEOUT)
            starts, most = runs_in(log)
            assert backend.site().ring.upkeep.check() == []
    assert not load.refused
    assert set(starts.values()) <= {1}, "a task ran twice"
    assert most <= MAX_WORKERS
    lost = 0
    for result_id, result in results.items():
        if result.status == "SUCCESSFUL":
            assert starts[result_id] == 1
            assert result.return_value == result_id
        else:
            assert result.errors[0].exception_class_path == LOST
            lost += 1
    print(f"{len(load.ids)} tasks, {lost} lost with their workers, {most} at once: {chaos.done}")
    assert len(load.ids) > 5 * CHAOS_S
    assert sum(chaos.done.values()) > CHAOS_S


def _enqueue_more(client: Client, load: Load, log: Path) -> bool:
    """Leaves tasks behind that wait, and some that are deferred, for the next site to run."""
    with suppress(OSError, http.client.HTTPException, AssertionError):
        load.ids += client.enqueue_many(100, WORK, str(log), 0.05)
        load.ids += client.enqueue_many(5, WORK, str(log), 0.01, using={"run_after_s": 4})
        return True
    return False
