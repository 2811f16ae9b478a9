"""Waits for tasks of our backends, and what a task that waits is counted as."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.execution import current_result_id
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import BulkStore, task_path


class Waits(OwnBackend):
    """A part of `LocalBackend`."""

    alias: str

    @abstractmethod
    def _store(self) -> BulkStore:
        """Return the store of this process and alias."""

    def wait_for_change(self, result: LocalTaskResult, timeout_s: float) -> None:
        """Block until the task of ``result`` has ended, or for ``timeout_s``; may return early.

        For `waiting.wait_finished`, which looks again.
        """
        self._store().wait_for_change(result.snapshot, timeout_s)

    async def await_change(self, result: LocalTaskResult, timeout_s: float) -> None:
        """Let the event loop do other work for ``timeout_s``; for `waiting.await_finished`."""
        await asyncio.sleep(timeout_s)

    def begin_waiting(self, result: LocalTaskResult) -> str:
        """Note that the task that runs here waits for that of ``result``.

        A task that waits keeps its worker. As long as the task of one worker does not wait, that
        one brings the others on.

        Returns:
            What to call `end_waiting` with; ``""`` outside the tasks of this backend.

        Raises:
            RuntimeError: No worker would be left whose task does not wait, or a task waits for
                itself.
        """
        own_id = current_result_id.get("")
        if not own_id:
            return ""
        store = self._store()
        try:
            own = store.get(own_id)
        except TaskResultDoesNotExist:
            return ""  # it runs on another backend
        if own.status != TaskResultStatus.RUNNING:
            return ""  # a thread of that task, which has outlived it
        caller, path = f"Task {task_path(own.meta)}, id={own_id},", result.task.module_path
        if own_id == result.id:
            raise RuntimeError(f"{caller} cannot wait for its own end: that would never come.")
        if not store.begin_waiting(own_id):
            raise RuntimeError(
                f"{caller} cannot wait for task {path}, id={result.id}: no worker of task backend "
                f"{self.alias!r} would be left whose task does not wait, and with none to run what "
                "they wait for that is a deadlock. Make what follows a task of its own, run "
                f"{path} on another backend, or raise MAX_WORKERS."
            )
        return own_id

    def end_waiting(self, task_id: str) -> None:
        """Note that a task waits no longer.

        Args:
            task_id: As returned by `begin_waiting`.
        """
        if task_id:
            self._store().end_waiting(task_id)
