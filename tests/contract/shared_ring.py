"""A ring whose pool serves one test after the other: a pool takes longer to start than most run."""

import json
import os
from collections.abc import Iterable
from typing import Any, Final
from uuid import uuid4

from django.conf import settings
from django.tasks import task_backends
from django.test import override_settings

from django_tasks_local import results
from django_tasks_local.ring import Look, Role, ring_name
from tests.leaks import lasting_objects, objects_of, our_pids, remove_objects
from tests.support import HELD, MARK, all_pids, command_of, describe, end, marked_pids, wait_for
from tests.tasks import nothing

OPTIONS_VARIABLE: Final = "DTL_TESTS_OPTIONS"  # read by tests/settings.py, in pools too
POOL: Final = "django_tasks_local.pool"  # in the command line of a pool and its workers
# For how long tasks that a test has let go may take to end.
REST_S: Final = 1.0


class SharedRing:
    """A ring of the alias "process" for tests that do with what others have left in it.

    A test that leaves a task which cannot be taken out, or another pool than it found, costs the
    next one a new ring. Its processes have a mark of their own, so that no test has left them.

    Args:
        workers: MAX_WORKERS.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._namespace = ""
        self._mark = ""
        self._pools: list[int] = []

    def options(self) -> dict[str, Any]:
        """Return the options with which tests use it; start its pool where none runs."""
        if not self._namespace:
            self._start()
        return {"MAX_WORKERS": self._workers, "NAMESPACE": self._namespace}

    def give_back(self) -> None:
        """End a test's use: keep the ring if it is as the test has found it."""
        for waiting in results("process", status="READY", limit=None):
            waiting.cancel()
        try:
            wait_for(self._rests, REST_S)
        except AssertionError:
            strays = describe(self._strays())
            self.remove()
            assert not strays, f"this test left behind:\n{strays}"

    def remove(self) -> None:
        """End its processes and remove it."""
        if self._namespace:
            with self._settings():
                backend: Any = task_backends["process"]
                backend.site().close()
            HELD.remove(self._held)
            end_pools()
            remove_objects(self._namespace)
            lasting_objects.difference_update(objects_of("process", self._namespace))
            self._namespace = ""

    def _start(self) -> None:
        self._namespace = f"test-{uuid4().hex}"
        lasting_objects.update(objects_of("process", self._namespace))
        run = os.environ[MARK]
        self._mark = os.environ[MARK] = f"{run}.{uuid4().hex[:8]}"
        HELD.append(self._held)
        os.environ[OPTIONS_VARIABLE] = json.dumps(self.options())
        try:
            with self._settings():
                result = nothing.using(backend="process").enqueue()
                wait_for(lambda: task_backends["process"].get_result(result.id).is_finished)
        finally:
            os.environ[MARK] = run
        self._pools = self._found_pools()

    def _held(self, among: Iterable[int]) -> list[int]:
        return marked_pids(self._mark, among)

    def _settings(self) -> override_settings:
        process = settings.TASKS["process"] | {"OPTIONS": self.options()}
        return override_settings(TASKS=settings.TASKS | {"process": process})

    def _look(self) -> Look | None:
        return Look.into(ring_name("process", self._namespace), "process")

    def _found_pools(self) -> list[int]:
        look = self._look()
        return [entry.pid for entry in look.attached() if entry.role is Role.POOL] if look else []

    def _rests(self) -> bool:
        look = self._look()
        if look is None or self._found_pools() != self._pools:
            return False
        counts = look.counts()
        return counts.waiting == counts.deferred == counts.running == 0 and not self._strays()

    def _strays(self) -> list[int]:
        """Return the processes of this ring's mark that are neither its pool nor its workers."""
        look = self._look()
        attached = {entry.pid for entry in look.attached()} if look else set()
        return [pid for pid in marked_pids(self._mark) if pid not in attached]


def end_pools() -> None:
    """End all pools of this test run, those included that only start, but for the shared one.

    One that only starts would make its ring anew.
    """
    end([pid for pid in our_pids(all_pids()) if POOL in command_of(pid)])
