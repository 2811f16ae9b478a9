"""The bench on which every backend is put: the same tests for each of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.tasks import Task, TaskResult, task_backends
from django.test import override_settings

from tests.leaks import remove_objects
from tests.support import MARK, SHORT_TIMEOUT, command_of, end, marked_pids, wait_for
from tests.tasks import hold

OPTIONS_VARIABLE = "DTL_TESTS_OPTIONS"  # read by tests/settings.py, in pools too
POOL = "django_tasks_local.pool"  # in the command line of a pool and its workers

# Ours. The tests that take `bench` run on all of them.
BACKENDS = ["thread", "process"]
# And the one for tests of projects, where no task waits for a worker and none runs meanwhile.
OURS = [*BACKENDS, "inline"]
INLINE_TOO = pytest.mark.parametrize("bench", OURS, indirect=True)


class Bench:
    """One backend, and what a test wants of it."""

    def __init__(self, alias: str, gates: Path) -> None:
        self.alias = alias
        self.gates = gates
        self._overridden: list[override_settings] = []
        self._namespaces: list[str] = []
        if alias in OURS:
            self.configure(MAX_WORKERS=2)

    @property
    def backend(self) -> Any:
        """The backend object that Django would use here."""
        return task_backends[self.alias]

    def configure(self, **options: Any) -> None:
        """Set options, and forget those set before and all that was done with them."""
        self.close()
        if self.alias == "process":
            self._namespaces.append(f"test-{uuid4().hex}")
            options["NAMESPACE"] = self._namespaces[-1]
            os.environ[OPTIONS_VARIABLE] = json.dumps(options)
        self._overridden.append(self.settings(OPTIONS=options))
        self._overridden[-1].enable()

    def settings(self, **params: Any) -> override_settings:
        """Return the settings with other values in this alias's entry of TASKS."""
        return override_settings(
            TASKS=settings.TASKS | {self.alias: settings.TASKS[self.alias] | params}
        )

    def close(self) -> None:
        """End the pool and put the settings back."""
        if self.alias in OURS:
            self.backend.close()
        while self._overridden:
            self._overridden.pop().disable()
        # First, and every one: a pool that is only starting would make its ring anew.
        end([pid for pid in marked_pids(os.environ[MARK]) if POOL in command_of(pid)])
        while self._namespaces:
            remove_objects(self._namespaces.pop())
        os.environ.pop(OPTIONS_VARIABLE, None)

    def on(self, task: Task[..., Any], **changes: Any) -> Any:
        """Return the task for this backend."""
        return task.using(backend=self.alias, **changes)

    def enqueue(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Enqueues it here."""
        return self.on(task).enqueue(*args, **kwargs)

    def run(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Enqueues it here and returns its result when it has finished."""
        return finished(self.enqueue(task, *args, **kwargs))

    def value(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what it returns."""
        result = self.run(task, *args, **kwargs)
        assert not result.errors, result.errors[0].traceback
        return result.return_value

    def occupy(self, workers: int = 1) -> Callable[[], None]:
        """Lets so many workers hold still; returns what lets them go."""
        gates = [str(self.gates / uuid4().hex) for _ in range(workers)]
        for gate in gates:
            self.enqueue(hold, gate)
        for gate in gates:
            wait_for(Path(f"{gate}.running").exists, message=f"the task that holds {gate}")

        def release() -> None:
            for gate in gates:
                Path(gate).touch()

        return release


def finished(result: TaskResult[..., Any], timeout_s: float = SHORT_TIMEOUT) -> Any:
    """Wait until the result has finished, and return it."""

    def look() -> bool:
        if not result.is_finished:
            result.refresh()
        return result.is_finished

    wait_for(look, timeout_s, message=f"the end of {result!r}")
    return result


def _bench(alias: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(alias, tmp_path)
    yield bench
    bench.close()


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One of our backends."""
    yield from _bench(request.param, tmp_path)


@pytest.fixture(params=[*OURS, "immediate"])
def any_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One of ours, or Django's ImmediateBackend, with which ours must agree."""
    yield from _bench(request.param, tmp_path)
