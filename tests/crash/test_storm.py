"""Thousands of tasks are cancelled at any moment of their lives, while workers and pools die."""

from __future__ import annotations

import json
import random
import select
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Final

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local import ProcessPoolBackend
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.ring import Role, Share
from tests.crash.test_stack import LOST, runs_in
from tests.process.client import fresh_namespace, reading
from tests.process.programs import running
from tests.support import LONG_TIMEOUT, kill, wait_for

PROCESSES: Final = 4
TASKS: Final = 10_000
MAX_WORKERS: Final = 4
OPTIONS: Final = {
    "MAX_WORKERS": MAX_WORKERS, "MAX_RESULTS": 2 * TASKS, "MAX_PENDING": 2 * TASKS,
    "TIMEOUT_GRACE": 0.2,
}  # fmt: skip
OURS: Final = Share(0, 0)
CANCELLED: Final = "django_tasks_local.exceptions.TaskCancelled"


@contextmanager
def cancelling(namespace: str, folder: Path) -> Iterator[list[Popen[str]]]:
    """Run the processes that enqueue and cancel."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running(
                    namespace,
                    ["-m", "tests.crash.storm", str(n), str(TASKS // PROCESSES), str(folder)],
                    DTL_OPTIONS=json.dumps(OPTIONS),
                )
            )
            for n in range(PROCESSES)
        ]


class Killer:
    """Kills workers, and now and then their pool."""

    def __init__(self, backend: ProcessPoolBackend) -> None:
        self._backend = backend
        self._rng = random.Random(1)
        self.done: Counter[Role] = Counter()

    def kill_one(self) -> None:
        """Kill a process of the pool; none where none is attached."""
        role = self._rng.choices((Role.WORKER, Role.POOL), (6, 1))[0]
        entries = self._backend.site().ring.registry.attachments()
        pids = [entry.pid for entry in entries if entry.role is role and entry.alive]
        if pids:
            kill(self._rng.choice(pids))
            self.done[role] += 1

    def pause(self) -> None:
        """Let the others work for a moment."""
        select.select([], [], [], self._rng.uniform(0.02, 0.2))


def outputs(processes: list[Popen[str]], killer: Killer) -> list[str]:
    """Return what each process prints; something is killed all the while."""
    with ThreadPoolExecutor(len(processes)) as executor:
        lines = [executor.submit(first_line, process) for process in processes]
        while not all(line.done() for line in lines):
            killer.kill_one()
            killer.pause()
    return [line.result() for line in lines]


def first_line(process: Popen[str]) -> str:
    """Return what a process prints."""
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line


def end_of(result: LocalTaskResult) -> str:
    """Return the path of a task's error, "" for success."""
    return result.errors[0].exception_class_path if result.errors else ""


def started_and_ended(log: Path) -> tuple[set[str], set[str]]:
    """The ids of the tasks that have started, each once, and of those that came to their end."""
    starts, _ = runs_in(log)
    assert set(starts.values()) == {1}, "a task ran twice"
    ended = {line.split()[1] for line in log.read_text().splitlines() if "end" in line}
    return set(starts), ended


def announced(log: Path) -> set[str]:
    """The ids of the tasks whose ends were announced, each once."""
    told = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert set(told.values()) == {1}, "an end was announced twice"
    return set(told)


@pytest.mark.time_limit(400)
def test_cancelled_at_any_moment(tmp_path: Path) -> None:
    """Each task ends once, as what was asked for says, and none is hit in place of another."""
    answers: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with (
        fresh_namespace() as namespace,
        cancelling(namespace, tmp_path) as processes,
        reading(namespace, **OPTIONS) as backend,
    ):
        killer, upkeep = Killer(backend), backend.site().ring.upkeep
        for output in outputs(processes, killer):
            for result_id, each in json.loads(output).items():
                answers[result_id] += sum(each)
                refused[result_id] += len(each) - sum(each)
        left = set((tmp_path / "ids").read_text().split())
        results: dict[str, LocalTaskResult] = {}

        def all_ended() -> bool:
            results.update({each: backend.get_result(each) for each in left})
            left.difference_update([each for each in left if results[each].is_finished])
            return not left

        wait_for(all_ended, 2 * LONG_TIMEOUT)
        for process in processes:
            assert process.stdin
            process.stdin.close()
        for process in processes:
            assert process.wait(LONG_TIMEOUT) == 0
        wait_for(lambda: not upkeep.losses.may_be_there(OURS), LONG_TIMEOUT)
        assert upkeep.check() == []
    assert len(results) == TASKS
    starts, ended = started_and_ended(tmp_path / "runs")
    # Only a worker that is killed in that very moment takes an announcement with it.
    assert len(results.keys() - announced(tmp_path / "runs.told")) <= killer.done.total()
    ends: Counter[str] = Counter()
    for result_id, result in results.items():
        if answers[result_id]:
            kind = "cancelled, " + ("running" if result.started_at else "waiting")
            assert end_of(result) == CANCELLED, f"{result_id}: {result}"
            assert result.is_cancelled
            assert result.started_at or result_id not in starts, (
                f"{result_id} was taken out, and ran"
            )
        elif result.status == TaskResultStatus.SUCCESSFUL:
            kind = "asked in vain" if refused[result_id] else "left alone"
            assert result.return_value == result_id
            assert result_id in ended
        else:
            kind = "lost"
            assert end_of(result) == LOST, f"{result_id}: nobody asked it to stop: {result}"
        ends[kind] += 1
    print(f"{dict(ends)}, {dict(killer.done)}")
    assert ends["lost"] <= killer.done[Role.WORKER] + MAX_WORKERS * killer.done[Role.POOL]
    assert set(ends) == {
        "cancelled, running", "cancelled, waiting", "asked in vain", "left alone", "lost"
    }  # fmt: skip
    assert killer.done[Role.POOL]
