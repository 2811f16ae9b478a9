"""InlineBackend: tasks run inside ``enqueue``, in the thread that calls it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.backends.base import LocalBackend
from django_tasks_local.execution import run_here
from django_tasks_local.metadata import decode
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import Arguments, task_path

from .store import InlineStore, drop_stores, store_of

# Whether due tasks run inside `enqueue`. The last counts; `captured_tasks` adds one.
runs_at_once: Final = [True]


class InlineBackend(LocalBackend):
    """A backend for tests: a task runs inside ``enqueue``, which returns its finished result.

    It does what ``ProcessPoolBackend`` does, as far as that needs no second thread or process, and
    takes the ``OPTIONS`` of both backends of this package. A task with a ``run_after`` that has not
    come stays READY until `run_waiting`, or until a caller waits for its end.
    """

    kind = "inline"

    def enqueue(
        self, task: Any, args: Any = (), kwargs: dict[str, Any] | None = None, **prepared: Any
    ) -> Any:
        """Do what ``ProcessPoolBackend.enqueue`` does, run the task if it is due, and return."""
        result = super().enqueue(task, args, kwargs, **prepared)
        self._run_now(result)
        return result

    def enqueue_many(
        self, task: Any, calls: Sequence[Arguments], **prepared: Any
    ) -> list[LocalTaskResult]:
        """Store them all, run those that are due one after the other, and return."""
        results = super().enqueue_many(task, calls, **prepared)
        for result in results:
            self._run_now(result)
        return results

    def run_once(self, result: LocalTaskResult, due_ns: int | None = None) -> bool:
        """Run the task of ``result`` here if it waits, and show in ``result`` what came of it.

        Args:
            result: The task's, as of any moment.
            due_ns: Leave it alone if it is deferred beyond this moment, in Unix ns.

        Returns:
            Whether it waited.
        """
        store = self._store()
        claim = store.claim_this(result.id, _worker_id(self.alias), due_ns)
        if claim is None:
            return False
        run_here(store, claim, alias=self.alias, backend_class=type(self))
        now = store.look(claim)
        result.show(now)
        result.set_raw_metadata(decode(now.metadata))
        if now.status is TaskResultStatus.FAILED and now.outcome()[0] == _INTERRUPT:
            raise KeyboardInterrupt  # the person who runs the tests wants to end them
        return True

    def wait_for_change(self, result: LocalTaskResult, timeout_s: float) -> None:
        """Run the task of ``result`` if it waits, whenever it is due; for `waiting.wait_finished`.

        Raises:
            RuntimeError: The task runs in this very thread, and thus waits for its own end.
        """
        if timeout_s <= 0:
            return
        if self.run_once(result):  # it has ended, or waits for its next attempt
            self.run_followers(result.id)
            return
        try:
            now = self._store().get(result.id)
        except TaskResultDoesNotExist:
            return  # which the next look tells
        if now.status is TaskResultStatus.RUNNING and now.worker_id == _worker_id(self.alias):
            raise RuntimeError(
                f"Task {task_path(now.meta)}, id={result.id}, waits for what waits for it: it runs "
                "in this thread, further out, and InlineBackend has no other worker."
            )
        super().wait_for_change(result, timeout_s)

    async def await_change(self, result: LocalTaskResult, timeout_s: float) -> None:
        """Do what `wait_for_change` does, in a thread."""
        await sync_to_async(self.wait_for_change, thread_sensitive=True)(result, timeout_s)

    def cancel(self, result_id: object, *, running: bool = True) -> bool:
        """Do what the base does, and run what follows a task that was taken out."""
        cancelled = super().cancel(result_id, running=running)
        self.run_followers(str(result_id))
        return cancelled

    def _run_now(self, result: LocalTaskResult) -> None:
        # More than once where it failed, and is to be tried again at once.
        while runs_at_once[-1] and self.run_once(result, time.time_ns()):
            pass
        self.run_followers(result.id)

    def run_followers(self, result_id: str) -> None:
        """Run what follows a task that has ended, and what follows that, if it has not run yet."""
        store = self._store()
        while runs_at_once[-1] and (result_id := store.following(result_id)):
            follower = self.get_result(result_id)
            while self.run_once(follower, time.time_ns()):
                pass

    def close(self) -> None:
        """Forget all tasks and results of this alias."""
        drop_stores(self.alias)

    def _store(self) -> InlineStore:
        return store_of(self.alias, self.checked_options)


_INTERRUPT: Final = "builtins.KeyboardInterrupt"


def _worker_id(alias: str) -> str:
    return f"{alias}-{os.getpid()}-t{threading.get_ident()}"
