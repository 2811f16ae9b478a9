"""The bench on which every backend is put: the same tests for each of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.tasks import Task, TaskResult, task_backends
from django.test import override_settings

from tests.contract.shared_ring import OPTIONS_VARIABLE, SharedRing, end_pools
from tests.leaks import remove_objects
from tests.support import SHORT_TIMEOUT, wait_for
from tests.tasks import hold

# Ours. The tests that take `bench` run on all of them.
BACKENDS = ["thread", "process"]
# And the one for tests of projects, where no task waits for a worker and none runs meanwhile.
OURS = [*BACKENDS, "inline"]
INLINE_TOO = pytest.mark.parametrize("bench", OURS, indirect=True)


class Bench:
    """One backend, and what a test wants of it.

    Args:
        alias: That of the backend.
        gates: A directory for the files for which tasks wait.
        shared: Rings that tests share, by MAX_WORKERS; without them each test has its own.
    """

    def __init__(
        self, alias: str, gates: Path, shared: Mapping[int, SharedRing] | None = None
    ) -> None:
        self.alias = alias
        self.gates = gates
        self._shared = shared or {}
        self._in_use: SharedRing | None = None
        self._overridden: list[override_settings] = []
        self._namespaces: list[str] = []
        if alias in OURS:
            self.set_workers(2)

    @property
    def backend(self) -> Any:
        """The backend object that Django would use here."""
        return task_backends[self.alias]

    def set_workers(self, number: int) -> None:
        """Set MAX_WORKERS alone. There may be results of other tests, which have all finished."""
        if self.alias != "process" or number not in self._shared:
            self.configure(MAX_WORKERS=number)
            return
        self.close()
        self._in_use = self._shared[number]
        self._override(self._in_use.options())

    def configure(self, **options: Any) -> None:
        """Set options, and forget those set before and all that was done with them."""
        self.close()
        if self.alias == "process":
            self._namespaces.append(f"test-{uuid4().hex}")
            options["NAMESPACE"] = self._namespaces[-1]
        self._override(options)

    def _override(self, options: dict[str, Any]) -> None:
        if self.alias == "process":
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
        if self._in_use is not None:
            self._in_use.give_back()
            self._in_use = None
        elif self._namespaces:
            self.backend.site().close()  # and not those of the shared rings
        elif self.alias in ("thread", "inline"):
            self.backend.close()
        while self._overridden:
            self._overridden.pop().disable()
        if self._namespaces:
            end_pools()
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


@pytest.fixture(scope="session")
def shared_rings() -> Iterator[dict[int, SharedRing]]:
    """Provide rings, with their pools, for tests that do with what others have left there."""
    shared = {number: SharedRing(number) for number in (1, 2)}
    yield shared
    for each in shared.values():
        each.remove()


def _bench(alias: str, tmp_path: Path, shared: dict[int, SharedRing]) -> Iterator[Bench]:
    bench = Bench(alias, tmp_path, shared)
    yield bench
    bench.close()


@pytest.fixture(params=BACKENDS)
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, shared_rings: dict[int, SharedRing]
) -> Iterator[Bench]:
    """One of our backends."""
    yield from _bench(request.param, tmp_path, shared_rings)


@pytest.fixture(params=[*OURS, "immediate"])
def any_bench(
    request: pytest.FixtureRequest, tmp_path: Path, shared_rings: dict[int, SharedRing]
) -> Iterator[Bench]:
    """One of ours, or Django's ImmediateBackend, with which ours must agree."""
    yield from _bench(request.param, tmp_path, shared_rings)
