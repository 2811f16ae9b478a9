"""One alias's tasks, seen without a trace, wherever they are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.backends.thread import ThreadPoolBackend
from django_tasks_local.memory import MemoryStore
from django_tasks_local.naming import add_metadata, load_or_stand_in
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import Snapshot

from .records import Row

if TYPE_CHECKING:
    from django_tasks_local.backends.process import ProcessPoolBackend
    from django_tasks_local.ring import Look

_ALL = frozenset(TaskResultStatus)
_ENDED = frozenset({TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED})


class Numbers(NamedTuple):
    """How many tasks of an alias there are, by what they do; each is true for a recent moment."""

    running: int
    waiting: int
    deferred: int
    failed: int
    successful: int


class TaskLook(Protocol):
    """What a look can tell of one alias's tasks. It takes no lock for long, and uses no result."""

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Yield records, in the order of ``store.StoreClient.listed``."""

    def find(self, result_id: str) -> Snapshot:
        """Return a record as it is now.

        Raises:
            TaskResultDoesNotExist: The string is not the id of a record here.
            StoreUnavailable: The record is damaged.
        """

    def is_orphan(self, found: Snapshot) -> bool:
        """Return whether a task runs whose worker has died, which nobody has settled yet."""


class MemoryLook:
    """A look at what a ThreadPoolBackend of this process has in its memory.

    Args:
        store: The backend's.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.listed = store.listed

    def find(self, result_id: str) -> Snapshot:
        """Return a record as it is now; see `TaskLook`."""
        # Its `get` would make a finished result the most recently used one.
        for each in self._store.listed(_ALL, None):
            if each.result_id == result_id:
                return each
        raise TaskResultDoesNotExist(result_id)

    def is_orphan(self, found: Snapshot) -> bool:
        """Return False: threads do not die alone."""
        return False

    def numbers(self) -> Numbers:
        """Return how many tasks there are."""
        ended = [each.status for each in self._store.listed(_ENDED, None)]
        failed, deferred = ended.count(TaskResultStatus.FAILED), self._store.deferred
        waiting = max(0, self._store.waiting - deferred)
        return Numbers(self._store.running, waiting, deferred, failed, len(ended) - failed)


def look_into(backend: ProcessPoolBackend | ThreadPoolBackend) -> Look | MemoryLook | None:
    """Return a look at the tasks of a backend; ``None`` where nothing has used it yet.

    It starts nothing, makes nothing and attaches to nothing.

    Raises:
        StoreUnavailable: The ring cannot be used.
        ImproperlyConfigured: The options of the alias are wrong.
    """
    if isinstance(backend, ThreadPoolBackend):
        store = backend.opened_store()
        return None if store is None else MemoryLook(store)
    # Not at the top: threads are to be seen without posix_ipc, too.
    from django_tasks_local.ring import Look

    return Look.into(backend.spec().name, backend.alias)


def numbers_of(look: Look | MemoryLook) -> Numbers:
    """Return how many tasks a look sees."""
    if isinstance(look, MemoryLook):
        return look.numbers()
    counts, failed = look.counts(), look.failures()
    return Numbers(
        counts.running, counts.waiting, counts.deferred, failed, max(0, counts.kept - failed)
    )


def row_of(look: TaskLook, alias: str, result_id: str) -> Row:
    """Return the task whose result has this id.

    Raises:
        TaskResultDoesNotExist: That alias has none.
        StoreUnavailable: The record is damaged.
    """
    found = look.find(result_id)
    task = add_metadata(load_or_stand_in(found.meta, alias), found.metadata)
    return Row(LocalTaskResult.from_record(found, alias, task), look.is_orphan(found))
