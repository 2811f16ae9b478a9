from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Concatenate, Literal, Self, overload

from django.tasks import Task as _Task
from django.tasks import TaskContext as _TaskContext
from django.tasks import TaskResult as _TaskResult

from django_tasks_local.exceptions import WorkerLost
from django_tasks_local.progress import Progress

__all__ = ["Task", "TaskContext", "TaskResult", "task"]

class TaskResult[**P, R](_TaskResult[P, R]):
    @property
    def progress(self) -> Progress | None: ...
    @property
    def loss(self) -> WorkerLost | None: ...
    @property
    def is_cancelled(self) -> bool: ...
    def cancel(self, *, running: bool = True) -> bool: ...
    async def acancel(self, *, running: bool = True) -> bool: ...
    def wait_finished(self, timeout: float | timedelta | None = None) -> Self: ...
    async def await_finished(self, timeout: float | timedelta | None = None) -> Self: ...
    @property
    def raw_metadata(self) -> dict[str, Any]: ...
    @property
    def metadata(self) -> dict[str, Any]: ...

class TaskContext[**P, R](_TaskContext[P, R]):
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def metadata_modified(self) -> bool: ...
    def save_metadata(self) -> None: ...
    async def asave_metadata(self) -> None: ...

class Task[**P, R](_Task[P, R]):
    @property
    def metadata(self) -> dict[str, Any]: ...
    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | timedelta | None = None,
        backend: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Task[P, R]: ...
    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[P, R]: ...
    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[P, R]: ...
    def get_result(self, result_id: str) -> TaskResult[P, R]: ...
    async def aget_result(self, result_id: str) -> TaskResult[P, R]: ...

@overload
def task[**P, R](
    function: Callable[Concatenate[TaskContext[Any, Any], P], R],
    *,
    priority: int | None = None,
    queue_name: str | None = None,
    backend: str | None = None,
    takes_context: Literal[True],
) -> Task[P, R]: ...
@overload
def task[**P, R](
    function: Callable[P, R],
    *,
    priority: int | None = None,
    queue_name: str | None = None,
    backend: str | None = None,
    takes_context: Literal[False] = False,
) -> Task[P, R]: ...
@overload
def task[**P, R](
    *,
    priority: int | None = None,
    queue_name: str | None = None,
    backend: str | None = None,
    takes_context: Literal[True],
) -> Callable[[Callable[Concatenate[TaskContext[Any, Any], P], R]], Task[P, R]]: ...
@overload
def task[**P, R](
    *,
    priority: int | None = None,
    queue_name: str | None = None,
    backend: str | None = None,
    takes_context: Literal[False] = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
