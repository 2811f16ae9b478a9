"""Run one claimed task to its end, in a thread or in a worker process.

The steps, in this order: ``close_old_connections``; ``task_started``; the task, where any
BaseException makes it FAILED, or READY once more if it is to be tried again; encode and store the
return value, where a value that cannot be stored makes the task FAILED too; ``task_finished``,
inside the except block if there is one, because Django logs ``sys.exc_info()``; a rollback of
every transaction that is still open; ``close_old_connections``, which in a test run closes all of
them.

All of it happens in a copy of the thread's context, so that the next task sees no context variable
that this one sets.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import sys
import time
import traceback
from contextvars import ContextVar, copy_context
from functools import lru_cache
from inspect import iscoroutinefunction
from itertools import dropwhile
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import asgiref.sync
import django.tasks.base
from django.dispatch import Signal
from django.tasks import Task, TaskResultStatus
from django.tasks.signals import task_finished, task_started

from django_tasks_local import stopping, tracing
from django_tasks_local.announce import announce
from django_tasks_local.attempts import cut
from django_tasks_local.chains import running_result
from django_tasks_local.exceptions import PayloadTooLarge, TaskCancelled, TaskTimeout, describe
from django_tasks_local.groups import current_group
from django_tasks_local.harmless import harmless
from django_tasks_local.metadata import LocalTaskContext
from django_tasks_local.naming import add_metadata, load_task
from django_tasks_local.policies import retries_of
from django_tasks_local.progress import report_to
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.stopping import Attempt
from django_tasks_local.store import Claim, Ended, StopAsked, Store, task_path
from django_tasks_local.task_connections import close_old, end_transactions

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask

logger = logging.getLogger("django_tasks_local")

# The id of the result of the task that is running here; unset outside a task.
current_result_id: ContextVar[str] = ContextVar("django_tasks_local_current_result_id")

# Task.call as in Django 6.0 and 6.1. A tracing library that wraps it, or rewrites its code, before
# our import makes it use other names; afterwards, its code is another.
_DJANGOS_FILE = django.tasks.base.__file__
_CALL_NAMES = ("iscoroutinefunction", "func", "async_to_sync")


def _code_without_wrapper(call: object) -> CodeType | None:
    """Return the code of Django's Task.call if there is nothing around it: it may be skipped."""
    if type(call) is not FunctionType:  # a wrapper that passes for the function
        return None
    code = call.__code__
    return code if code.co_names == _CALL_NAMES and code.co_filename == _DJANGOS_FILE else None


_DJANGOS_CALL = _code_without_wrapper(Task.call)

# How many characters of an error are logged: its traceback is in the result.
_LOGGED = 1000

_is_async = lru_cache(1024)(iscoroutinefunction)  # arbitrary: a project has far fewer tasks

_PACKAGE = str(Path(__file__).parent) + os.sep
# Where the frames between `run` and the user's function come from.
_MACHINERY = (
    _PACKAGE,
    django.tasks.base.__file__,
    asgiref.sync.__file__,
    str(Path(asyncio.__file__).parent),
    str(Path(concurrent.futures.__file__).parent),
)


def run(
    store: Store, claim: Claim, *, alias: str, backend_class: type,
    attempt_class: type[Attempt] = Attempt,
) -> None:  # fmt: skip
    """Run the task of ``claim`` and store how it ended.

    Args:
        store: Where ``claim`` came from.
        claim: A task that is RUNNING, and that nobody else runs.
        alias: The backend's key in ``TASKS``.
        backend_class: The sender of the signals.
        attempt_class: How the task is stopped, if it is to stop.

    Raises:
        StoreUnavailable: The outcome could not be stored. Nothing that a task or a receiver
            raises ends up here.
    """
    held = close_old()
    try:
        run_here(
            store, claim, alias=alias, backend_class=backend_class, attempt_class=attempt_class
        )
    finally:
        end_transactions(claim, held)
        close_old()


def run_here(
    store: Store, claim: Claim, *, alias: str, backend_class: type,
    attempt_class: type[Attempt] = Attempt,
) -> None:  # fmt: skip
    """Do what `run` does, with the database connections of the caller, which stay as they are."""
    copy_context().run(_Run(store, claim, alias, backend_class, attempt_class).run)


class _Run:
    def __init__(
        self, store: Store, claim: Claim, alias: str, backend_class: type,
        attempt_class: type[Attempt],
    ) -> None:  # fmt: skip
        self.store = store
        self.claim = claim
        self.alias = alias
        self.backend_class = backend_class
        self.attempt_class = attempt_class
        self.cancelled = False
        self.returned = False

    def run(self) -> None:
        current_result_id.set(self.claim.result_id)
        if current_group.get():  # of a caller in whose thread it runs
            current_group.set("")
        meta = None
        try:
            meta, metadata = self.claim.meta, self.claim.metadata
            if metadata and tracing.IS_INSTALLED:
                tracing.attach(metadata)
            task = add_metadata(load_task(meta), metadata)
        except BaseException as error:
            # No signals: they carry a task result, and without a task there is none.
            self._finish_failed(error)
            path = "(unreadable)" if meta is None else task_path(meta)  # a damaged record
            logger.exception("Task id=%s path=%s cannot be imported", self.claim.result_id, path)
        else:
            self._run_task(task)

    def _run_task(self, task: AnyTask) -> None:
        result = LocalTaskResult.from_record(self.claim, self.alias, task)
        running_result.set(result)
        self._send(task_started, result)
        try:
            value = self._call(task, result)
        except BaseException as error:
            if self.returned:
                self._fail(result, error)  # metadata: not tried again, its work is done
            else:
                self._end_attempt(result, error)
            return
        try:
            encoded = self._encode(value)
        except BaseException as error:
            self._fail(result, error)  # likewise
            return
        try:
            # Not in the block above: an error of the store is no failure of the task.
            finished_at_ns = self.store.finish(self.claim, successful=True, outcome=encoded)
        except (PayloadTooLarge, StopAsked) as error:
            self._fail(result, error)
            return
        self._show(result, TaskResultStatus.SUCCESSFUL, finished_at_ns, value)
        self._send(task_finished, result)

    def _call(self, task: AnyTask, result: LocalTaskResult) -> Any:
        attempt = self.attempt_class(self.claim)
        report_to(self.claim.report, attempt.check)
        call: Any = type(task).call
        if type(call) is FunctionType and call.__code__ is _DJANGOS_CALL:
            # Task.call checks each time whether the function is async, for 1.5 µs.
            call = attempt.in_loop(task.func) if _is_async(task.func) else task.func
        else:
            call = task.call
        pid = os.getpid()
        try:
            args, kwargs = result._load_arguments()
            if task.takes_context:
                context = LocalTaskContext(task_result=result)
                try:
                    value = attempt.call(call, [context, *args], kwargs)
                    self.returned = True
                    return value
                finally:
                    # As Django does: also after a failure. Not in a copy of the worker, see below.
                    if os.getpid() == pid:
                        _save_metadata(context)
            return attempt.call(call, args, kwargs)
        finally:
            if os.getpid() != pid:
                # The task forked, and this is the child, which returned from the task: a copy of
                # the worker that must neither store an outcome nor go on to claim tasks.
                logger.error("Task id=%s forked, and the child did not exit", result.id)
                os._exit(1)

    def _encode(self, value: object) -> Any:
        try:
            return self.store.encode(value)
        except Exception as error:
            value_type = f"{type(value).__module__}.{type(value).__qualname__}"
            raise ValueError(
                f"The return value of task {task_path(self.claim.meta)}, of type {value_type}, "
                f"cannot be pickled: {describe(error)}."
            ) from error

    def _end_attempt(self, result: LocalTaskResult, error: BaseException) -> None:
        """Have the task tried again, or FAILED. Called inside the except block of ``error``."""
        path, attempts, due_ns = result.task.module_path, 0, None
        try:
            if (retries := retries_of(self.alias, result.task.func)) is not None:
                attempts = result.attempts
                due_ns = retries.due_ns(path, error, result)
        except BaseException as failure:
            self._fail(result, failure)  # whose context is the error
            return
        if due_ns is None or not self._retried(error, due_ns):
            self._fail(result, error)
            return
        logger.info(
            "Task id=%s path=%s failed in attempt %d with %s, and is tried again",
            result.id, path, attempts, describe(error),
        )  # fmt: skip

    def _retried(self, error: BaseException, due_ns: int) -> bool:
        try:
            return self.store.retry(self.claim, error=_named(error), due_ns=due_ns)
        except StopAsked:
            return False  # as `finish` will say, too

    def _fail(self, result: LocalTaskResult, error: BaseException) -> None:
        """Store ``error`` and announce it. Called inside the except block of ``error``."""
        finished_at_ns, outcome = self._finish_failed(error)
        # Django's own line goes nowhere with DEBUG=False and its default logging.
        logger.log(
            logging.INFO if self.cancelled else logging.WARNING,
            "alias=%s Task id=%s path=%s %s: %s",
            self.alias, result.id, result.task.module_path,
            "was ended" if self.cancelled else "failed", harmless(describe(error), _LOGGED),
        )  # fmt: skip
        self._show(result, TaskResultStatus.FAILED, finished_at_ns, outcome)
        self._send(task_finished, result)

    def _finish_failed(self, error: BaseException) -> tuple[int, tuple[str, str]]:
        if not isinstance(error, StopAsked):
            try:
                return self._store_error(error)
            except StopAsked:
                pass
        if not isinstance(error, TaskCancelled):
            # It was asked to stop, however it then ended.
            cancelled = TaskCancelled(max(0, time.time_ns() - self.claim.started_at_ns) / 1e9)
            cancelled.__context__ = None if isinstance(error, StopAsked) else error
            error = cancelled
        self.cancelled = True
        return self._store_error(error, cancelled=True)

    def _store_error(
        self, error: BaseException, *, cancelled: bool = False
    ) -> tuple[int, tuple[str, str]]:
        # Text only: the exception itself may be local to a function, or refuse to be pickled.
        path, text = _named(error)
        limit = len(text)
        while True:
            outcome = (path, cut(text, limit))
            encoded = self.store.encode(outcome)
            try:
                ended = self.store.finish(
                    self.claim, successful=False, outcome=encoded, cancelled=cancelled,
                    timed_out=isinstance(error, TaskTimeout),
                )  # fmt: skip
                return ended, outcome
            except PayloadTooLarge:
                if not limit:
                    raise
                limit //= 2

    def _show(
        self, result: LocalTaskResult, status: TaskResultStatus, finished_at_ns: int, outcome: Any
    ) -> None:
        # In the object that task_started and the task's context have, as in Django's own backend.
        result.show(Ended(self.claim, status, finished_at_ns, outcome, cancelled=self.cancelled))

    def _send(self, signal: Signal, result: LocalTaskResult) -> None:
        try:
            announce(signal, self.backend_class, result)
        except BaseException:
            # `announce` catches only Exception; a receiver must not end the worker.
            logger.exception("Task id=%s: a signal receiver raised", result.id)


def _save_metadata(context: LocalTaskContext) -> None:
    """Save what the task has changed. What cannot be saved fails it, but a stop stays a stop."""
    ended_with = sys.exception()
    try:
        if context.metadata_modified:
            context.save_metadata()
    except Exception as error:
        if not isinstance(ended_with, TaskTimeout | TaskCancelled):
            raise
        ended_with.add_note(f"Its changes of metadata could not be saved: {describe(error)}")


def _named(error: BaseException) -> tuple[str, str]:
    return f"{type(error).__module__}.{type(error).__qualname__}", _format(error)


def _format(error: BaseException) -> str:
    try:
        whole = traceback.TracebackException.from_exception(error)
        parts = [whole]
        while parts:
            # The traceback begins in the user's own code. It ends there where we stop the task,
            # which may be in the middle of ours.
            part = parts.pop()
            part.stack[:] = dropwhile(_is_machinery, part.stack)
            if part.stack and part.stack[-1].filename == stopping.__file__:
                while part.stack and part.stack[-1].filename.startswith(_PACKAGE):
                    part.stack.pop()
            parts.extend(filter(None, (part.__cause__, part.__context__, *(part.exceptions or ()))))
        return "".join(whole.format())
    except Exception as failure:
        return f"{describe(error)}\n(its traceback cannot be formatted: {describe(failure)})\n"


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_MACHINERY)
